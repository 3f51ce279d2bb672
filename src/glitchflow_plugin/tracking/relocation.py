"""Registries whose files are elsewhere than their database says: MLflow writes the full path of each run and model.

A database that was moved or copied with its files would go on with those of the old place, or with none. Here that is
noticed, by the files that lie beside the database in the same order, and put right.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlRun
from sqlalchemy import create_engine, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute

from glitchflow_plugin.errors import RegistryError
from glitchflow_plugin.tracking.connection import DEFAULT_TRACKING_URI, is_server

logger = logging.getLogger(__name__)

#: Columns that hold a place, and what of its path belongs to the row: the rest is the folder of the artifacts.
_OWN_PARTS = (
    (SqlLoggedModel.__table__.c.artifact_location, SqlLoggedModel.__table__.c.model_id, 3),
    (SqlRun.__table__.c.artifact_uri, SqlRun.__table__.c.run_uuid, 2),
)
_PLACES = (
    SqlExperiment.__table__.c.artifact_location,
    SqlRun.__table__.c.artifact_uri,
    SqlLoggedModel.__table__.c.artifact_location,
    SqlModelVersion.__table__.c.storage_location,
    SqlModelVersion.__table__.c.source,
)


@dataclass(frozen=True)
class Move:
    """Folder of artifacts that has moved.

    Attributes:
        old: Place that the database names.
        new: Where the files are.
    """

    old: Path
    new: Path


def moved(database: Path) -> list[Move]:
    """Folders of artifacts that lie beside a database though it names others, as after it was moved or copied whole.

    Args:
        database: File of SQLite.
    """
    with _open(f"sqlite:///{database}") as connection:
        return _beside(_folders(connection), database.resolve().parent)


def relocate(tracking_uri: str, artifacts: Path | None = None) -> list[Move]:
    """Let the database say where the files are now.

    Args:
        tracking_uri: Address of the database.
        artifacts: Folder of the artifacts; None: looked for beside the database.

    Returns:
        What was changed; nothing if all is in its place.

    Raises:
        RegistryError: It is no database, or the files are not found.
    """
    if is_server(tracking_uri):
        raise RegistryError(
            f"expected the database in which places are written, such as {DEFAULT_TRACKING_URI}, got the server "
            f"{tracking_uri}. Run this where the server's database is, with its address as --tracking-uri."
        )
    database = _file(tracking_uri)
    if database is not None and not database.is_file():
        raise RegistryError(f"no registry at {tracking_uri}: {database} does not exist. Correct --tracking-uri.")
    with _open(tracking_uri) as connection:
        known = _folders(connection)
        if not known:
            raise RegistryError(
                f"{tracking_uri} names no folder of this machine: its files are those of a server, which finds them in "
                "any place. Start it with: mlflow server --artifacts-destination FOLDER"
            )
        if artifacts is not None:
            new = artifacts.resolve()
            moves = [
                Move(old, new)
                for old, parts in known.items()
                if old != new and (_any_there(new, parts) or not (parts or old.exists()))
            ]
            if not moves and new not in known and all(_any_there(old, parts) for old, parts in known.items() if parts):
                raise RegistryError(
                    f"{artifacts} holds no files of {tracking_uri}: they are where they are expected, in "
                    f"{', '.join(map(str, known))}. Nothing is changed; leave --artifacts out, or give the folder that "
                    "holds copies of them."
                )
        else:
            moves = _beside(known, database.resolve().parent) if database else []
        staying = {move.old for move in moves}
        lost = [old for old, parts in known.items() if parts and old not in staying and not _any_there(old, parts)]
        if lost and not moves:
            where = artifacts or (database.resolve().parent if database else "the database's machine")
            example = next(iter(known[lost[0]]))
            raise RegistryError(
                f"the files of {tracking_uri} are expected in {lost[0]}, and are neither there nor in {where} (for "
                f"instance {example}). Give the folder that holds them: glitchflow models relocate --artifacts FOLDER"
            )
        for column in _PLACES:
            _rewrite(connection, column, moves)
    for move in moves:
        logger.info("the files of %s: %s, formerly %s", tracking_uri, move.new, move.old)
    return moves


def _beside(known: Mapping[Path, Iterable[PurePosixPath]], root: Path) -> list[Move]:
    """Folders of which the end of the path exists below a root, with files of theirs in it; the empty ones go along."""
    moves = []
    for old, parts in known.items():
        ends = [root.joinpath(*old.parts[start:]) for start in range(1, len(old.parts))]
        new = next((place for place in ends if _same(place, old) or _any_there(place, parts)), old)
        if _same(new, old):  # by another name, as through a link
            new = old
        if new == old and not parts and not old.parent.exists():
            new = root / old.name
        if new != old:
            moves.append(Move(old, new))
    return moves


def _any_there(folder: Path, parts: Iterable[PurePosixPath]) -> bool:
    return folder.is_dir() and any((folder / part).is_dir() for part in parts)


def _same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))


def _folders(connection: Connection) -> dict[Path, list[PurePosixPath]]:
    """Folders of artifacts, and what of models and runs may be in each."""
    found: dict[Path, list[PurePosixPath]] = {}
    for place, identity, depth in _OWN_PARTS:
        for text, name in connection.execute(select(place, identity)):
            path = _local(text)
            if path is not None and name in path.parts[-depth:]:
                found.setdefault(Path(*path.parts[:-depth]), []).append(PurePosixPath(*path.parts[-depth:]))
    # what nothing was written to yet; MLflow's own experiment is not used
    own = select(SqlExperiment.artifact_location).where(SqlExperiment.name != "Default")
    for path in map(_local, connection.execute(own).scalars()):
        if path is not None:
            found.setdefault(path, [])
    return found


def _rewrite(connection: Connection, column: InstrumentedAttribute[str], moves: Iterable[Move]) -> None:
    for (text,) in connection.execute(select(column).distinct()).all():
        path = _local(text)
        for move in moves:
            if path is not None and (path == move.old or move.old in path.parents):
                new = move.new / path.relative_to(move.old)
                place = new.as_uri() if str(text).startswith("file:") else str(new)
                connection.execute(update(column.table).where(column == text).values({column.name: place}))
                break


def _local(text: object) -> Path | None:
    """The folder that a place of MLflow names on this machine; None if it is served, or a model."""
    address = urlparse(str(text or ""))
    if address.scheme == "file":
        return Path(unquote(address.path))
    return Path(str(text)) if text and not address.scheme else None


def _file(tracking_uri: str) -> Path | None:
    name = tracking_uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(name) if tracking_uri.startswith("sqlite:///") else None


@contextmanager
def _open(tracking_uri: str) -> Iterator[Connection]:
    """One transaction: all is changed or nothing.

    Raises:
        RegistryError: It is no database of MLflow, or cannot be used now.
    """
    try:
        engine = create_engine(tracking_uri)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        place = _file(tracking_uri) or "what the address names"  # which may hold a password
        reason = getattr(error, "orig", None) or error
        raise RegistryError(
            f"{place} cannot be used as the database of an MLflow registry ({type(reason).__name__}: {reason}). "
            f"Correct --tracking-uri (expected for instance {DEFAULT_TRACKING_URI}), or try again if it is in use."
        ) from error
