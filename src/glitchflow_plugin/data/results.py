"""Where results lie: side by side, named by what they are of, none in the place of another unless that is asked for.

A folder of results holds `what.json`, which says what it is of. The same work with the same settings on the same data
finds its folder again; other work gets another one.
"""

import json
import logging
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from glitchflow_plugin.data.files import content_hash, read_json, write_json
from glitchflow_plugin.data.lock import LOCK_NAME
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.errors import ConfigurationError, FormatError

logger = logging.getLogger(__name__)

RECORD_NAME = "what.json"
#: Folder below that of a step's results in which former ones are kept.
FORMER = "former"
_LONGEST = 60


def gps_range(starts: Sequence[float], duration: float) -> str:
    """Name of a stretch of time: its first and last whole GPS second.

    Args:
        starts: GPS times at which the events begin, s.
        duration: Length of an event, s.

    >>> gps_range([1400000000.25, 1400000064.25], 6.0)
    '1400000000-1400000071'
    """
    return f"{math.floor(min(starts))}-{math.ceil(max(starts) + duration)}"


def name_of_path(path: str) -> str:
    """A short name for files: the last part of their path that is no pattern.

    >>> name_of_path("/data/2024-01-02/*.gwf"), name_of_path("data/day one.hdf5")
    ('2024-01-02', 'day one')
    """
    plain = [part for part in Path(path).parts if not re.search(r"[*?\[]", part)]
    stem = re.sub(r"\.(gwf|hdf5|h5|csv|txt|cache|lcf|ffl)$", "", plain[-1]) if plain else ""
    return re.sub(r"[^A-Za-z0-9 ._-]", "_", stem)[:_LONGEST].strip(" .-") or "data"


def place(root: Path | str, name: str, what: Mapping[str, object], *, chosen: str | None = None) -> Path:
    """The folder for a result.

    Args:
        root: Below which it lies.
        name: Short and readable; where another result has it already, a piece of a checksum is added.
        what: What decides about the result, JSON-like.
        chosen: Name that the user has given in place of `name`.

    Raises:
        ConfigurationError: `chosen` would lead elsewhere.
    """
    if chosen is not None:
        return Path(root) / check_name(str(chosen), "inference.yaml: result")
    plain = Path(root) / name
    if not _visible(plain) or _found(plain) == _comparable(what):
        return plain
    return Path(root) / f"{name}-{content_hash(_comparable(what))[:6]}"


def claim(folder: Path, what: Mapping[str, object], *, replace: bool = False, section: str = "inference") -> None:
    """Write down what a folder's results are of, before they are made. Whoever calls holds the folder.

    Args:
        folder: From `place`.
        what: As there.
        replace: Whether another result that is there may go.
        section: Part of the configuration whose `result` and `replace` are meant.

    Raises:
        ConfigurationError: There is another one.
    """
    # in this order: who shares the folder writes the record first
    there = _visible(folder)
    found, wanted = _found(folder), _comparable(what)
    if found == wanted:
        return
    if there and found is None:
        raise ConfigurationError(
            f"{folder} holds {there[0].name} and does not say what it is of. Choose another {section}.result, or move "
            "it away."
        )
    if there and found is not None and not replace:
        known = [key for key in wanted if key in found and found[key] != wanted[key]]
        other = "; ".join(f"{key} {found[key]}, here {wanted[key]}" for key in known) or "of another kind of step"
        raise ConfigurationError(
            f"{folder} holds another result ({other[:400]}). Choose another {section}.result (null: a name is made "
            f"from data, model and settings), or replace it: {section}.replace=true."
        )
    for path in there:
        if path.name != RECORD_NAME:  # that goes last, so that a half-emptied folder is known for what it was
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_json(folder / RECORD_NAME, wanted)


def keep_former(folder: Path, what: Mapping[str, object], *, stay: Sequence[str] = ()) -> Path | None:
    """Move the results of other settings or other data out of the way, for a step whose results others look for here.

    Args:
        folder: Results of the step, which holds it.
        what: What decides about its results, JSON-like.
        stay: Names of files and folders that know by themselves what they are of. Folders in which others hold a lock,
            as where all of a run is below one folder, stay as well.

    Returns:
        Where the former results are; None if there were none, or they are of the same.
    """
    wanted, kept = _comparable(what), None
    results = [path for path in _visible(folder) if path.name not in (FORMER, *stay) and not any(path.rglob(LOCK_NAME))]
    found = _found(folder)
    if results and found != wanted:
        stamp = max(path.stat().st_mtime for path in results if path.name != RECORD_NAME or len(results) == 1)
        kept = _free(folder / FORMER, stamp)
        for path in results:
            with suppress(FileNotFoundError):  # another task of a job array has just moved it
                path.rename(kept / path.name)
        logger.info("The results of other settings or data that were in %s are in %s now.", folder, kept)
    write_json(folder / RECORD_NAME, wanted)
    return kept


def _visible(folder: Path) -> list[Path]:
    """What is in a folder but for locks and half-written files, which do not make it anybody's."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


def _free(root: Path, stamp: float) -> Path:
    """A new folder, named by a time."""
    name = datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d-%H%M%S")
    number = 1
    while True:
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _found(folder: Path) -> dict[str, object] | None:
    """What the results in a folder are of; None where it is not said."""
    try:
        return read_json(folder / RECORD_NAME)
    except (FormatError, OSError):
        return None


def _comparable(what: Mapping[str, object]) -> dict[str, object]:
    """As JSON gives it back."""
    return json.loads(json.dumps(what, default=str, sort_keys=True))
