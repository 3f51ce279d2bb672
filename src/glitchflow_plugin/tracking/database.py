"""MLflow's SQLite database: made whole or not at all, and by one process.

MLflow makes it in place, in some hundred steps that take seconds. A process that is killed meanwhile, or a second one
that makes it too, leaves a database that MLflow refuses ever after (`table ... already exists`).
"""

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from alembic.script import ScriptDirectory
from mlflow.store.db.base_sql_model import Base
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.lock import take
from glitchflow_plugin.errors import RegistryError

logger = logging.getLogger(__name__)

#: Seconds that others are given to make the database.
_PATIENCE = 180.0
#: Seconds without a change after which nobody is making it any more.
_STILL = 30.0
_PAUSE = 0.2
#: Rows that MLflow itself puts into a new database.
_OWN_ROWS = {"alembic_version": 1, "experiments": 1, "workspaces": 1}

_whole: set[Path] = set()


def ensure_database(path: Path) -> None:
    """Make the database where there is none; put one aside that was never finished and holds nothing.

    Args:
        path: The file.

    Raises:
        RegistryError: It is no database, or was never finished and holds something.
        BusyError: Another process does not get done with making it.
        DataError: The folder cannot be written.
    """
    path = path.absolute()
    # nothing that is finished becomes unfinished
    if path in _whole and path.exists():
        return
    if not _is_whole(path):
        with closing(take(path.with_name(f".{path.name}.lock"), f"making {path.name}", patience=_PATIENCE)):
            for left in path.parent.glob(f".{path.stem}-*.tmp{path.suffix}*"):
                left.unlink(missing_ok=True)
            if not _becomes_whole(path):
                _put_aside(path)
                _make(path)
    _whole.add(path)


def _make(path: Path) -> None:
    with atomic_path(path) as temporary:
        uri = f"sqlite:///{temporary}"
        store = SqlAlchemyStore(uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
        store.engine.dispose()
        SqlAlchemyStore._engine_map.pop(uri, None)  # the file gets another name


def _becomes_whole(path: Path) -> bool:
    """Whether the database is finished, perhaps by somebody who is making it now without our lock."""
    while not _is_whole(path):
        if not path.exists() or time.time() - path.stat().st_mtime > _STILL or not path.stat().st_size:
            return False
        time.sleep(_PAUSE)
    return True


def _is_whole(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    rows, revision = _content(path)
    return revision == _get_latest_schema_revision() and set(Base.metadata.tables) <= set(rows)


def _put_aside(path: Path) -> None:
    """Take an unfinished database out of the way; nothing is deleted.

    Raises:
        RegistryError: It holds something.
    """
    if not path.exists():
        return
    rows, revision = _content(path)
    held = [f"{count} {table}" for table, count in sorted(rows.items()) if count > _OWN_ROWS.get(table, 0)]
    if held or not _is_ours(revision):
        raise RegistryError(
            f"{path} was not finished when it was made or upgraded, or is of another version of MLflow (revision "
            f"{revision}, expected {_get_latest_schema_revision()}). It is left as it is, with "
            f"{', '.join(held[:5]) or 'no rows'}. Copy it, then try: mlflow db upgrade sqlite:///{path}. If that "
            "fails, move it away: a new one is made."
        )
    aside = path.with_name(f"{path.name}.unfinished-{time.strftime('%Y%m%dT%H%M%S')}")
    logger.warning("%s was never finished (its process was killed?) and holds nothing: moved to %s.", path, aside)
    path.rename(aside)
    for end in ("-journal", "-wal", "-shm"):
        beside = path.with_name(path.name + end)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + end))


def _is_ours(revision: str | None) -> bool:
    """Whether this version of MLflow may have made tables of this revision; a newer one's are not unfinished."""
    script = ScriptDirectory.from_config(_get_alembic_config(""))
    return revision is None or revision in {known.revision for known in script.walk_revisions()}


def _content(path: Path) -> tuple[dict[str, int], str | None]:
    """Rows by table, and the revision of the tables.

    Raises:
        RegistryError: It is no database.
    """
    try:
        try:
            return _read(f"file:{quote(str(path))}?mode=ro")
        except sqlite3.OperationalError:  # what a killed process left must be rolled back first
            return _read(f"file:{quote(str(path))}?mode=rw")
    except sqlite3.DatabaseError as error:
        raise RegistryError(
            f"{path} cannot be read as a database of MLflow ({error}). Move it away, or correct tracking_uri."
        ) from error


def _read(address: str) -> tuple[dict[str, int], str | None]:
    with closing(sqlite3.connect(address, uri=True, timeout=20)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        # what a table holds beyond a few rows does not matter, and counting all would take long
        rows = {
            name: database.execute(f'SELECT COUNT(*) FROM (SELECT 1 FROM "{name}" LIMIT 10)').fetchone()[0]  # noqa: S608
            for name in tables
        }
        found = (
            database.execute("SELECT version_num FROM alembic_version").fetchone()
            if rows.get("alembic_version")
            else None
        )
    return rows, found[0] if found else None
