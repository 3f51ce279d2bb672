"""Science segments: the GPS times in which data may be used, as lists of them and flags are kept (through gwpy)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glitchflow_plugin.data.apart import apart, shown
from glitchflow_plugin.data.files import expanded, read_text
from glitchflow_plugin.data.readers.tables import LATEST
from glitchflow_plugin.errors import ConfigurationError, FormatError, nearest
from glitchflow_plugin.types.intervals import union

_ROUNDED = 1e-2
"""A duration that is written beside start and end agrees within this, s."""

_EXPECTED = "Expected a file that gwpy reads (segwizard text, LIGO_LW XML, HDF5, JSON), several, or [[start, end], ...]"


def read_segments(given: str | Path | Sequence[object], flag: str | None = None, *, vetoes: bool = False) -> np.ndarray:
    """Segments of one or several files, or as they are given, joined where they touch or overlap.

    Args:
        given: A file, a list of files, or a list of pairs of GPS times, s.
        flag: Name of the flag in files that hold several.
        vetoes: Whether times are meant that must not be used: there may be none, and a flag may be active where the
            detector is bad.

    Returns:
        Start and end, GPS s, rising, shape (segment, 2).

    Raises:
        ConfigurationError: Nothing is given, or a pair is none.
        FormatError: A file cannot be read or holds no active segment, or its active times are bad ones.
    """
    kept = as_given(given, vetoes=vetoes)
    files = [one for one in kept if isinstance(one, str)]
    key = _key(vetoes)
    pairs = [one for one in kept if not isinstance(one, str)]
    for file in files:
        if not Path(file).is_file():
            raise FormatError(f"{file}: no such file of segments. {_EXPECTED}; correct `{key}`.")
        found = _read(Path(file), flag, vetoes)
        if not found and not vetoes:
            raise FormatError(f"{file} holds no active segment: nothing could be taken. Correct `segments`.")
        pairs += [_checked(pair, file) for pair in found]
    return union(pairs)


def as_given(given: object, *, vetoes: bool = False) -> tuple[str, ...] | tuple[tuple[float, float], ...]:
    """What `segments` or `vetoes` in the configuration means: paths, or pairs of GPS times (s).

    Raises:
        ConfigurationError: It is neither, or there are no segments.
    """
    if isinstance(given, str | Path):
        return (expanded(given),)
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{_key(vetoes)}: {_EXPECTED}, got {given!r}.")
    entries = list(given)
    if not entries and not vetoes:
        raise ConfigurationError(
            "segments is empty: nothing could be taken. Give the times that may be used, or null for all."
        )
    if all(isinstance(one, str | Path) for one in entries):
        return tuple(expanded(one) for one in entries)
    return tuple(_checked(one, _key(vetoes)) for one in entries)


def _key(vetoes: bool) -> str:
    """Key of the configuration that is meant."""
    return "vetoes" if vetoes else "segments"


def _checked(pair: Any, where: str) -> tuple[float, float]:
    try:
        start, end = (float(one) for one in pair if not isinstance(one, bool | str))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: expected pairs of GPS times [start, end], got {pair!r}.") from error
    if not 0 <= start < end < LATEST:
        kind = ConfigurationError if where in (_key(vetoes=False), _key(vetoes=True)) else FormatError
        raise kind(
            f"{where}: a segment must be [start, end] in GPS seconds, start before end, got [{start:.12g}, {end:.12g}]."
        )
    return start, end


@apart
def _read(path: Path, flag: str | None, vetoes: bool) -> list[tuple[float, float]]:
    """Active segments of one file, GPS s, in its order."""
    from gwpy.segments import DataQualityDict, DataQualityFlag, SegmentList  # seconds that others need not spend

    ending = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    with path.open("rb") as file:
        hdf5 = file.read(8).startswith(b"\x89HDF")
    if ending == ".json":
        one = DataQualityFlag.read(str(path), format="json")
        return _active({str(one.name): one}, path, flag, vetoes)
    if ending in (".xml", ".ligolw"):
        return _active(DataQualityDict.read(str(path), format="ligolw"), path, flag, vetoes)
    if hdf5:
        try:
            return _active(DataQualityDict.read(str(path), format="hdf5"), path, flag, vetoes)
        except ValueError:  # no flags in it: a plain list
            return [(float(start), float(end)) for start, end in SegmentList.read(str(path), format="hdf5", path=flag)]
    return _text(path)


def _active(flags: Mapping[str, object], path: Path, flag: str | None, vetoes: bool) -> list[tuple[float, float]]:
    """Active segments of the flag that is asked for, or of the only one."""
    names = list(flags)
    if flag is None and len(names) != 1:
        raise FormatError(f"{shown(path)} holds {len(names)} flags: {names[:10]}. Name one in `segments_flag`.")
    if flag is not None and flag not in flags:
        raise FormatError(
            f"{shown(path)} has no flag {flag!r}; it holds {names[:10]}.{nearest(flag, names)} Correct `segments_flag`."
        )
    found = flags[flag or names[0]]
    if found.isgood is False and not vetoes:
        raise FormatError(
            f"{shown(path)}: the flag {found.name} is active where the detector is bad. Give a flag of good times."
        )
    return [(float(start), float(end)) for start, end in found.active]


_COLUMNS = {2: (0, 1), 3: (0, 1), 4: (1, 2)}
"""Where start and end stand in text, by the number of columns: `start end`, with duration, with number and duration."""


def _text(path: Path) -> list[tuple[float, float]]:
    """Segments in text as segwizard and GWOSC write them, and `start,end` with or without a header."""
    found: list[tuple[float, float]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        values = re.split(r"[,;\s]+", line.strip().strip(",;"))
        if not line.strip() or line.lstrip().startswith(("#", ";", "%")):
            continue
        try:
            numbers = [float(value) for value in values]
            start, end = (numbers[place] for place in _COLUMNS[len(numbers)])
        except (ValueError, KeyError):
            if not found and not any(value[:1].isdigit() for value in values):
                continue  # a header
            raise FormatError(
                f"{shown(path)}, line {number}: expected `start end`, `start end duration` or `number start end "
                f"duration`, got {line.strip()!r}."
            ) from None
        if len(numbers) > 2 and abs(end - start - numbers[-1]) > _ROUNDED:
            raise FormatError(f"{shown(path)}, line {number}: {end:g} - {start:g} is not the duration {numbers[-1]:g}.")
        found.append((start, end))
    return found
