"""Which files there are, of which format, and which of them make one data set."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glitchflow_plugin.data.apart import shown
from glitchflow_plugin.data.event_files import TRUTH_FILE_NAME
from glitchflow_plugin.data.listing import file_format
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.data.readers.continuous import list_files
from glitchflow_plugin.data.readers.trigger_files import trigger_files
from glitchflow_plugin.errors import ConfigurationError, FormatError

SUFFIXES = (*frames.SUFFIXES, *hdf5.SUFFIXES)
MOST_FILES = 500
"""Files of a data set that are opened; of more, these are spread evenly."""
_ALIKE = 8
"""HDF5 files of a folder that decide on the layout of all, where they agree."""


@dataclass(frozen=True)
class FileGroup:
    """Files of one format that one path gave; of event files, those of one folder."""

    origin: Path
    path: str | None
    kind: str
    files: tuple[Path, ...]


def find_files(paths: Sequence[Path], table: Path | None, progress: bool) -> tuple[list[FileGroup], dict[str, str]]:
    """The data sets; and what holds no data, with the reason."""
    ignored: dict[Path, str] = {}
    found: list[FileGroup] = []
    taken: set[Path] = set(trigger_files(str(table))) if table else set()
    for path in map(Path.absolute, paths):
        try:
            files = _files_below(path, ignored) if path.is_dir() else list_files(path, SUFFIXES)
        except ConfigurationError:
            files = []
        if not files:
            raise ConfigurationError(
                f"--data {shown(path)} {ignored.get(path) or 'names no file'}. Expected files that end in "
                f"{', '.join(SUFFIXES)}, a folder with such files in it or below, a pattern in quotes such as "
                "'/data/*.gwf', or a cache file (.lcf, .cache, .ffl)."
            )
        fresh = [file for file in files if file not in taken and file.name != TRUTH_FILE_NAME]
        taken.update(fresh)
        groups: dict[tuple[str, Path | None], list[Path]] = {}
        for file, kind in _formats(fresh, ignored, progress):
            groups.setdefault((kind, file.parent if kind == "events" else None), []).append(file)
        for (kind, _), members in groups.items():
            name = naming(path, members, set(files), {*ignored, *(file for file in files if file not in fresh)})
            found.append(FileGroup(path, name, kind, tuple(members)))
    return found, {shown(file.name): why for file, why in ignored.items()}


def _files_below(folder: Path, closed: dict[Path, str]) -> list[Path]:
    """Files below a folder; of folders that cannot be listed, `closed` gets the reason."""

    def note(error: OSError) -> None:
        closed[Path(error.filename)] = f"cannot be listed: {error.strerror}"

    found = []
    for place, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(place, name) for name in sorted(names) if Path(name).suffix in SUFFIXES and not name.startswith(".")
        ]
    return found


def _formats(files: Sequence[Path], ignored: dict[Path, str], progress: bool) -> list[tuple[Path, str]]:
    """Each file with its format; the reasons for those that have none go into `ignored`."""
    by_folder: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        by_folder.setdefault((file.parent, file.suffix), []).append(file)
    found: list[tuple[Path, str]] = []
    for (_, suffix), members in by_folder.items():
        if suffix in frames.SUFFIXES:
            found += [(file, "gwf") for file in members]
            continue
        if len(members) > MOST_FILES:
            kinds = {_format(file)[0] for file in spread(members, _ALIKE)}
            if len(kinds) == 1 and "" not in kinds:
                found += [(file, next(iter(kinds))) for file in members]
                continue
        for file in progress_bar(members, "formats", progress):
            kind, reason = _format(file)
            if kind:
                found.append((file, kind))
            else:
                ignored[file] = reason
    return found


def _format(file: Path) -> tuple[str, str]:
    """Format of a file, or why it has none."""
    try:
        return file_format(file), ""
    except FormatError as error:
        return "", str(error)


def naming(path: Path, members: Sequence[Path], beside: set[Path], spoiled: set[Path]) -> str | None:
    """What names these files, and no others but those that hold no data, if anything short does."""
    if not path.is_dir() and set(members) == beside - spoiled:
        return str(path)
    endings, folders = {file.suffix for file in members}, {file.parent for file in members}
    suffixes = frames.SUFFIXES if endings <= set(frames.SUFFIXES) else hdf5.SUFFIXES
    trials = [str(folder) for folder in folders] if len(folders) == 1 else []
    if path.is_dir() and len(endings) == 1:
        trials += [f"{folder}/*{ending}" for folder in (*folders, f"{path}/**") for ending in endings]
    for trial in trials:
        try:
            named = set(list_files(trial, suffixes))
        except ConfigurationError:
            continue
        if named - spoiled == set(members):
            return trial
    return None


def spread(files: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the files, spread evenly."""
    if len(files) <= most:
        return list(files)
    return [files[round(place)] for place in np.linspace(0, len(files) - 1, most)]


def progress_bar(files: Iterable[Path], what: str, progress: bool) -> Iterable[Path]:
    """The files, with a bar where progress is wanted and there is a terminal."""
    return tqdm(files, desc=what, unit="file", disable=None if progress else True, leave=False)
