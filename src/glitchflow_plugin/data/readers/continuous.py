"""Continuous data in files: what a file holds, and cuts that run over the seams between files."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import read_text
from glitchflow_plugin.data.units import same_unit
from glitchflow_plugin.errors import ConfigurationError, FormatError

logger = logging.getLogger(__name__)

GAP, SAMPLE_RATE, UNIT, UNREADABLE, COPIES = "gap", "sample rate", "unit", "unreadable", "copies differ"
OUTSIDE = "outside the data"
"""Reasons noted while cutting; `: ` and what was found may follow."""

# LIGO-T010150: X-TAG-START-DURATION.ext
_SPAN_IN_NAME = re.compile(r"-(\d{9,10}(?:\.\d+)?)-(\d+(?:\.\d+)?)\.[A-Za-z0-9.]+$")
_TOLERANCE = 1e-6  # s: GPS times in float64 are good to 2.4e-7 s


@dataclass(frozen=True)
class StoredChannel:
    """What is known of a channel without its samples.

    Attributes:
        sample_rate: Hz; None where it takes reading.
        unit: None where it takes reading.
        alias: Another name that the file gives it, and nothing else.
    """

    sample_rate: float | None = None
    unit: str | None = None
    alias: str | None = None


@dataclass(frozen=True)
class StoredFile:
    """A file of continuous data: GPS span [start, stop) in s, and its channels by name."""

    path: Path
    start: float
    stop: float
    channels: Mapping[str, StoredChannel]


Reader = Callable[[Path, Sequence[str], float, float], Mapping[str, Channel | Sequence[Channel]]]
"""Reads some channels of one file between two GPS times, in pieces where the file has holes.

Channels that the file lacks are left out.
"""


def span_in_name(path: Path | str) -> tuple[float, float] | None:
    """GPS span in a name such as `V-V1_TAG-1264625000-100.gwf`; None if it says none."""
    match = _SPAN_IN_NAME.search(Path(path).name)
    # a duration of 0 says nothing of what is in the file
    return None if match is None or not float(match[2]) else (float(match[1]), float(match[1]) + float(match[2]))


def description_in_name(path: Path | str) -> str | None:
    """What stands before the GPS span in a name, `V-V1_TAG` in the example above; None if the name holds no span."""
    match = _SPAN_IN_NAME.search(Path(path).name)
    return None if match is None else Path(path).name[: match.start()]


def list_files(path: Path | str, suffixes: tuple[str, ...]) -> list[Path]:
    """Files that a path names, sorted and each once.

    Args:
        path: A file, a folder, a glob pattern, or a cache file (`.lcf`, `.cache`, `.ffl`: paths one a line, as LAL,
            gwpy or Virgo's frame lists write them).
        suffixes: Endings to look for in a folder.

    Raises:
        ConfigurationError: Nothing is found.
    """
    path = Path(path)
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix in suffixes and not file.name.startswith(".")]
    elif path.suffix in (".lcf", ".cache", ".ffl") and path.is_file():
        found = read_cache(path)
    elif path.is_file():
        found = [path]
    elif any(character in str(path) for character in "*?["):
        found = matches(path)
    else:
        found = []
    if not found:
        raise ConfigurationError(
            f"{path} names no file. Expected a file, a folder with {' or '.join(suffixes)} files, a glob pattern, "
            "or a cache file (.lcf, .cache, .ffl). Correct `path` in datasets.yaml."
        ).lacking(path)
    return sorted(set(found))


def matches(pattern: Path) -> list[Path]:
    """Files that a pattern matches; `[1]` in the name of a folder that exists is no pattern but a name."""
    folder = next(parent for parent in pattern.parents if parent.is_dir())
    rest = str(pattern.relative_to(folder))
    return list(folder.glob(rest)) or list(folder.glob(rest.replace("[", "[[]")))


_LAL_LINE = re.compile(r"[^/.\s]\S*\s+\S+\s+(?:[\d.]+|-)\s+(?:[\d.]+|-)\s+(?P<path>\S.*)")
_VIRGO_LINE = re.compile(r"(?P<path>\S.*?)(?:\s+[-+.\deE]+){2,}")


def read_cache(path: Path | str) -> list[Path]:
    """Paths in a cache file: LAL's `X TAG START DURATION URL`, Virgo's `path start duration ...`, or a path a line."""
    found = []
    for line in map(str.strip, read_text(path).splitlines()):
        if not line or line.startswith("#"):
            continue
        columns = (None if line.startswith("file:") else _LAL_LINE.fullmatch(line)) or _VIRGO_LINE.fullmatch(line)
        entry = columns["path"] if columns else line
        file = Path(re.sub(r"^file://(localhost)?", "", entry))
        if entry.startswith("file:") and not file.exists():  # as a URL it may write a blank as %20
            file = Path(unquote(str(file)))
        found.append(file if file.is_absolute() else Path(path).parent / file)
    return found


def slice_bounds(t0: float, sample_rate: float, size: int, start: float, stop: float) -> tuple[int, int]:
    """First and one past the last sample of a series of `size` samples that lie in [start, stop) GPS s."""
    first, last = (_index(t0, sample_rate, gps) for gps in (start, stop))
    return min(max(first, 0), size), min(max(last, 0), size)


def _index(t0: float, sample_rate: float, gps: float) -> int:
    """Index of the first sample at a GPS time or after it, whether or not there is one."""
    return int(np.ceil((gps - t0) * sample_rate - _TOLERANCE * sample_rate))


def cut(
    files: Iterable[StoredFile], reader: Reader, channels: Sequence[str], start: float, stop: float
) -> tuple[dict[str, Channel], dict[str, str]]:
    """Cut [start, stop) GPS s out of files, joining what touches.

    Args:
        files: Those that may hold a part of it.
        reader: Reads a file of their format.
        channels: Names to read.
        start: GPS s.
        stop: GPS s.

    Returns:
        The channels found, NaN between pieces that do not touch and shorter where a hole or the end of the data is at
        the edge; and by channel the reason (`gap`, `sample rate`, `unit`, `unreadable`, `copies differ`) for what is
        wrong with it.
    """
    pieces: dict[str, list[Channel]] = {}
    problems: dict[str, str] = {}
    for file in sorted(files, key=lambda file: file.start):
        if file.stop <= start or file.start >= stop:
            continue
        read, spoilt = _read(reader, file.path, channels, max(start, file.start), min(stop, file.stop))
        held = {*file.channels, *(channel.alias for channel in file.channels.values())}
        problems |= {name: f"{UNREADABLE}: {why}" for name, why in spoilt.items() if name in held or not file.channels}
        for name, found in read.items():
            parts = [found] if isinstance(found, Channel) else found
            pieces.setdefault(name, []).extend(part for part in parts if len(part.series))
    joined = {}
    for name, parts in pieces.items():
        problem: str | None = GAP  # files have the channel, but nothing of it in this stretch
        if parts:
            joined[name], problem = join(parts)
            problem = problem or _lacking(joined[name], start, stop)
        if problem is None and name in problems and np.isfinite(joined[name].series).all():
            logger.warning("%s: %s. Another file has the same stretch, which is taken.", name, problems.pop(name))
        if problem:
            problems.setdefault(name, problem)
    return joined, problems


def _read(
    reader: Reader, path: Path, channels: Sequence[str], start: float, stop: float
) -> tuple[Mapping[str, Channel | Sequence[Channel]], dict[str, str]]:
    """What can be read of a file, and why the rest cannot: a spoilt channel must not take the others with it."""
    try:
        return reader(path, channels, start, stop), {}
    except FormatError as error:
        if len(channels) <= 1:
            logger.warning("%s", error)
            return {}, dict.fromkeys(channels, str(error).rstrip("."))
    middle = len(channels) // 2
    found, spoilt = _read(reader, path, channels[:middle], start, stop)
    more_found, more_spoilt = _read(reader, path, channels[middle:], start, stop)
    return {**found, **more_found}, spoilt | more_spoilt


def _lacking(channel: Channel, start: float, stop: float) -> str | None:
    """The gap where a channel begins after the stretch [start, stop) GPS s, or ends before it does."""
    first, last = (_index(channel.t0, channel.sample_rate, gps) for gps in (start, stop))
    if first >= 0 and last <= len(channel.series):
        return None
    end = channel.t0 + channel.duration
    return f"{GAP}: of GPS {start:.3f} to {stop:.3f} the files hold {channel.t0:.3f} to {end:.3f}"


def join(pieces: Sequence[Channel]) -> tuple[Channel, str | None]:
    """Join pieces of one channel.

    Returns:
        One channel, float64 with NaN in the gaps if there are any, and a reason: `gap`, or `sample rate`, `unit` or
        `copies differ` where the pieces disagree (then only the first piece is returned). A piece without a unit has
        that of the others; of pieces that overlap, the one that has a sample gives it.
    """
    pieces = sorted(pieces, key=lambda piece: piece.t0)
    first = pieces[0]
    if len(pieces) == 1:
        return first, None
    rates = sorted({piece.sample_rate for piece in pieces})
    if len(rates) > 1:
        return first, f"{SAMPLE_RATE}: the files give it at {' and '.join(f'{rate:g}' for rate in rates)} Hz"
    units = sorted({piece.unit for piece in pieces if piece.unit})
    if not all(same_unit(units[0], unit) for unit in units):
        return first, f"{UNIT}: the files give it in {' and '.join(units)}"
    unit = next((piece.unit for piece in pieces if piece.unit), "")
    starts = [round((piece.t0 - first.t0) * first.sample_rate) for piece in pieces]
    stops = [begin + len(piece.series) for begin, piece in zip(starts, pieces, strict=True)]
    seamless = all(begin == end for begin, end in zip(starts[1:], stops[:-1], strict=True))
    if seamless:
        series = np.concatenate([piece.series for piece in pieces])
        return Channel(first.name, series, first.t0, first.sample_rate, unit), None
    series = np.full(max(stops), np.nan)
    covered = np.zeros(max(stops), dtype=bool)
    for begin, end, piece in zip(starts, stops, pieces, strict=True):
        there, here = series[begin:end], np.asarray(piece.series, dtype=np.float64)
        both = np.isfinite(there) & np.isfinite(here)
        # copies in single and double precision are the same
        if not np.allclose(there[both], here[both], rtol=1e-5, atol=1e-5 * np.abs(here[both]).max(initial=0)):
            return first, f"{COPIES}: files that overlap from GPS {piece.t0:.3f} have different samples"
        np.copyto(there, here, where=np.isnan(there))
        covered[begin:end] = True
    return Channel(first.name, series, first.t0, first.sample_rate, unit), None if covered.all() else GAP
