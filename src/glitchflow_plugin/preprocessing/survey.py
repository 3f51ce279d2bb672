"""A look at somebody's files and triggers: channels, rates, units, GPS ranges, length of the data about a trigger.

Metadata alone are read, of a bounded number of files, by the readers that Data-processor uses.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glitchflow_plugin.data.apart import shown
from glitchflow_plugin.data.event_files import TRUTH_FILE_NAME, StoredSpan, read_event_spans
from glitchflow_plugin.data.listing import describe_files, file_format, middles
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.data.readers.continuous import StoredFile, description_in_name, list_files, span_in_name
from glitchflow_plugin.data.readers.trigger_files import trigger_files
from glitchflow_plugin.data.readers.triggers import TriggerSettings, read_columns, read_table
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.types.intervals import union

SUFFIXES = (*frames.SUFFIXES, *hdf5.SUFFIXES)
_MOST_FILES = 500
"""Files of a data set that are opened; of more, these are spread evenly."""
_ALIKE = 8
"""HDF5 files of a folder that decide on the layout of all, where they agree."""
_AXES_AT_ONCE = 500
"""Channels of a frame file whose rates are read in one go."""
_AXES_FILES = 5
"""Frame files opened in search of the rates of channels."""
_TOUCHING = 1e-6
"""Files that are this close (s) touch: GPS times in float64 are good to 2.4e-7 s."""
_UNIX_EPOCH = 315964800.0
"""Unix time of GPS 0, s."""
_LEAP_SECONDS = 20.0
"""More than there have been since GPS 0, s."""


@dataclass(frozen=True, eq=False)
class SeenChannel:
    """What was seen of a channel in one data set.

    Attributes:
        sample_rate: What most files say, Hz; None if none does.
        unit: What most files say; empty if none does.
        lengths: For each of the survey's events, the length (s) of the data about its trigger: twice the shorter side.
            0 where the trigger lies outside, or the channel is not there.
        other_rates: Number of files with another rate.
        alias: Another name that the file gives it.
        problem: Why it cannot be read, where it cannot.
    """

    sample_rate: float | None
    unit: str
    lengths: np.ndarray
    other_rates: int = 0
    alias: str | None = None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class SeenData:
    """One data set, which makes one entry of datasets.yaml.

    Attributes:
        path: File, folder or pattern that names its files; None where only a list does.
        format: `events`, `gwosc`, `gwf` or `hdf5`.
        files: All of them.
        channels: By name.
        stretches: GPS intervals [start, stop) that the files cover, s; of event files none.
        events: GPS time (s) of the events of event files, by id.
        looked: Number of files that were opened, or known by their names.
        unreadable: By name of the file why it cannot be read.
    """

    path: str | None
    format: str
    files: tuple[Path, ...]
    channels: Mapping[str, SeenChannel]
    stretches: tuple[tuple[float, float], ...] = ()
    events: Mapping[str, float] = field(default_factory=dict)
    looked: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Survey:
    """All that was found.

    Attributes:
        data: The data sets.
        cuts: GPS time (s) at which continuous data are to be cut, by id: the triggers, or the events of event files, or
            the middles of stretches.
        triggers: The table of triggers that was given.
        ignored: By name, files that hold no data that can be read, and why.
    """

    data: tuple[SeenData, ...]
    cuts: Mapping[str, float] = field(default_factory=dict)
    triggers: str | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def events(self) -> dict[str, float]:
        """GPS time (s) of all events that were looked at, by id, in the order of the ids."""
        own = {event_id: gps for seen in self.data for event_id, gps in seen.events.items()}
        return dict(sorted((own | dict(self.cuts)).items()))


def look(paths: Sequence[Path | str], triggers: Path | str | None = None, *, progress: bool = True) -> Survey:
    """Look at files and triggers.

    Args:
        paths: Files, folders (with all below them), glob patterns or cache files.
        triggers: A table of GPS times, or many, as `triggers.path` in datasets.yaml.
        progress: Whether to show bars.

    Raises:
        ConfigurationError: A path names no file, or the triggers are no GPS times; the message says what they may be.
        FormatError: The table of triggers cannot be read, or two folders have different events of one id.
        NoEventsError: No file holds data, or no trigger lies in them.
    """
    table = None if triggers is None else Path(triggers).absolute()
    given: dict[str, float] | None = None
    wrong: ConfigurationError | None = None
    times = np.zeros(0)
    spoilt: Mapping[str, str] = {}
    if table is not None:
        settings = TriggerSettings(path=str(table))
        try:
            read = read_table(settings, progress=progress)
            spoilt = read.report.unreadable
            given = {one.event_id: one.gps_time for one in read.triggers()}
            times = np.array(list(given.values()))
        except ConfigurationError as error:
            wrong, times = error, read_columns(settings)[0]  # told together with what the times may be
        if not len(times):
            raise NoEventsError(f"{table} holds no trigger. Give another table, or leave --triggers out.")
    found, ignored = _gathered([Path(path) for path in paths], table, progress)
    if not found:
        reasons = "".join(f" {reason}" for reason in list(ignored.values())[:3])
        raise NoEventsError(
            f"{', '.join(shown(path) for path in paths)}: none of {len(ignored)} file(s) holds data that can be read. "
            f"Expected event files, GWOSC files, GWF frames, or HDF5 as gwpy writes it.{reasons}"
        )
    # event files that tell when to cut other files must tell it all
    most = _MOST_FILES if table is not None or all(one.kind == "events" for one in found) else None
    single = _joined_folders([_seen_events(one, most, progress=progress) for one in found if one.kind == "events"])
    stored = [_described(one, progress=progress) for one in found if one.kind != "events"]
    own = _own_events(single)
    stretches = _joined((file.start, file.stop) for one in stored for file in one.stored)
    if table is not None and (wrong or stretches):
        _refuse_astray(table, times, stretches, wrong)
    cuts = given if given is not None else own or dict(middles([file for one in stored for file in one.stored]))
    data = [*single, *(_seen_files(one, np.array(list(cuts.values()))) for one in stored)]
    unread = {**spoilt, **ignored} | {name: why for seen in data for name, why in seen.unreadable.items()}
    data = sorted((seen for seen in data if seen.channels), key=lambda seen: str(seen.path or seen.files[0]))
    if not data:
        raise NoEventsError(f"No file holds data that can be read. {' '.join(list(unread.values())[:3])}")
    survey = Survey(tuple(data), cuts if stretches else {}, str(table) if table else None, unread)
    places = {event_id: place for place, event_id in enumerate(survey.events)}
    return replace(survey, data=tuple(_aligned(seen, list(seen.events or cuts), places) for seen in data))


def _own_events(single: Sequence[SeenData]) -> dict[str, float]:
    """Events of event files; the same id in two folders is the same event."""
    own: dict[str, float] = {}
    for seen in single:
        for event_id, gps in seen.events.items():
            if abs(own.setdefault(event_id, gps) - gps) > 1:
                raise FormatError(
                    f"The event {event_id} is in two folders, at GPS {own[event_id]:.3f} and {gps:.3f} (there: "
                    f"{shown(seen.path or seen.files[0].parent)}). Data sets are merged on the event id: give every "
                    "event its own, or look at one folder at a time."
                )
    return own


def _aligned(seen: SeenData, ids: Sequence[str], places: Mapping[str, int]) -> SeenData:
    """The data set with the lengths of its channels in the order of all events."""
    rows = [places[event_id] for event_id in ids]
    aligned: dict[int, np.ndarray] = {}  # channels of the same files share theirs
    channels = {}
    for name, channel in seen.channels.items():
        if id(channel.lengths) not in aligned:
            lengths = np.zeros(len(places))
            lengths[rows] = channel.lengths
            aligned[id(channel.lengths)] = lengths
        channels[name] = replace(channel, lengths=aligned[id(channel.lengths)])
    return replace(seen, channels=channels)


# ------------------------------------------------------------------------------------------------------- which files


@dataclass(frozen=True)
class _Group:
    """Files of one format that one path gave; of event files, those of one folder."""

    origin: Path
    path: str | None
    kind: str
    files: tuple[Path, ...]


def _gathered(paths: Sequence[Path], table: Path | None, progress: bool) -> tuple[list[_Group], dict[str, str]]:
    """The data sets; and what holds no data, with the reason."""
    ignored: dict[Path, str] = {}
    found: list[_Group] = []
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
            name = _naming(path, members, set(files), {*ignored, *(file for file in files if file not in fresh)})
            found.append(_Group(path, name, kind, tuple(members)))
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
        if len(members) > _MOST_FILES:
            kinds = {_format(file)[0] for file in _spread(members, _ALIKE)}
            if len(kinds) == 1 and "" not in kinds:
                found += [(file, next(iter(kinds))) for file in members]
                continue
        for file in _bar(members, "formats", progress):
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


def _naming(path: Path, members: Sequence[Path], beside: set[Path], spoiled: set[Path]) -> str | None:
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


def _spread(files: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the files, spread evenly."""
    if len(files) <= most:
        return list(files)
    return [files[round(place)] for place in np.linspace(0, len(files) - 1, most)]


def _bar(files: Iterable[Path], what: str, progress: bool) -> Iterable[Path]:
    return tqdm(files, desc=what, unit="file", disable=None if progress else True, leave=False)


# ---------------------------------------------------------------------------------------------------------- event files


def _joined_folders(single: Sequence[tuple[_Group, SeenData]]) -> list[SeenData]:
    """Folders of event files below one path, made one data set where no event is in two of them."""
    found: list[SeenData] = []
    for origin in dict.fromkeys(group.origin for group, _ in single):
        parts = [seen for group, seen in single if group.origin == origin]
        ids = [event_id for seen in parts for event_id in seen.events]
        if len(parts) == 1 or len(ids) > len(set(ids)):
            found += parts
            continue
        files = tuple(file for seen in parts for file in seen.files)
        unreadable = {name: why for seen in parts for name, why in seen.unreadable.items()}
        events = {event_id: gps for seen in parts for event_id, gps in seen.events.items()}
        places = {event_id: place for place, event_id in enumerate(events)}
        channels: dict[str, SeenChannel] = {}
        for seen in parts:
            for name, channel in _aligned(seen, list(seen.events), places).channels.items():
                channels[name] = channel if name not in channels else together(channels[name], channel)
        path = _naming(origin, files, set(), set())
        looked = sum(seen.looked for seen in parts)
        found.append(SeenData(path, "events", files, channels, (), events, looked, unreadable))
    return found


def together(first: SeenChannel, second: SeenChannel) -> SeenChannel:
    """A channel that two data sets have: where both have an event, the first's is taken."""
    if first.sample_rate is None or second.sample_rate is None:
        return second if first.sample_rate is None else first
    there = int(np.count_nonzero(second.lengths))
    if first.sample_rate != second.sample_rate:
        return replace(first, other_rates=first.other_rates + second.other_rates + there)
    lengths = np.where(first.lengths > 0, first.lengths, second.lengths)
    return replace(first, lengths=lengths, other_rates=first.other_rates + second.other_rates)


def _seen_events(group: _Group, most: int | None, *, progress: bool) -> tuple[_Group, SeenData]:
    files = group.files
    looked = _spread(files, most or len(files))
    spans: dict[str, dict[str, StoredSpan]] = {}
    problems: dict[str, str] = {}
    events: dict[str, float] = {}
    unreadable: dict[str, str] = {}
    for file in _bar(looked, "event files", progress):
        try:
            header, held, refused = read_event_spans(file)
        except FormatError as error:
            unreadable[shown(file.name)] = str(error)
            continue
        if header.event_id in events:
            unreadable[shown(file.name)] = f"{shown(file)}: the event {header.event_id} is in another file too."
            continue
        events[header.event_id] = header.gps_event
        for name, why in refused.items():
            problems.setdefault(name, f"{why} (in {shown(file.name)})")
        for name, span in held.items():
            spans.setdefault(name, {})[header.event_id] = span
    channels = {}
    for name in sorted({*spans, *problems}):
        held = spans.get(name, {})
        rates = Counter(span.sample_rate for span in held.values())
        units = Counter(span.unit for span in held.values() if span.unit)
        rate = rates.most_common(1)[0][0] if rates else None
        lengths = np.zeros(len(events))
        for place, (event_id, gps) in enumerate(events.items()):
            span = held.get(event_id)
            if span is not None and span.sample_rate == rate:  # another rate is masked as an error
                lengths[place] = max(2 * min(gps - span.start, span.stop - gps), 0)
        unit = units.most_common(1)[0][0] if units else ""
        others = rates.total() - rates[rate] if rate else 0
        channels[name] = SeenChannel(rate, unit, lengths, others, problem=problems.get(name, ""))
    return group, SeenData(group.path, "events", files, channels, (), events, len(looked), unreadable)


# ----------------------------------------------------------------------------------------------------- continuous files


@dataclass(frozen=True)
class _Stored:
    """Continuous files of one data set, and by name why others cannot be read."""

    group: _Group
    stored: Sequence[StoredFile]
    unreadable: Mapping[str, str]


def _described(group: _Group, *, progress: bool) -> _Stored:
    """Span and channels of the files; of very many, some are known by their names alone."""
    kind, files = group.kind, group.files
    opened = files
    if kind != "gwf" and len(files) > _MOST_FILES:
        chosen = set(_spread([file for file in files if span_in_name(file)], _MOST_FILES))
        opened = tuple(file for file in files if file in chosen or not span_in_name(file))
    stored, unreadable = describe_files(kind, _bar(opened, f"{kind} files", progress))
    held = {description_in_name(file.path): file.channels for file in stored}
    tried = set(opened)
    for file in files:
        span, description = span_in_name(file), description_in_name(file)
        if file not in tried and span and description in held:
            stored.append(StoredFile(file, *span, held[description]))
    if kind == "gwf":
        stored = _with_axes(stored, progress)
    return _Stored(group, stored, unreadable)


def _with_axes(stored: Sequence[StoredFile], progress: bool) -> list[StoredFile]:
    """Frame files, with the rates and units of their channels: a table of contents does not tell them."""
    known: dict[str, object] = {}
    tries: Counter[str] = Counter()
    for file in stored:
        names = [name for name in file.channels if name not in known and tries[name] < _AXES_FILES]
        tries.update(names)
        parts = [names[first : first + _AXES_AT_ONCE] for first in range(0, len(names), _AXES_AT_ONCE)]
        for part in tqdm(parts, desc="rates", disable=None if progress and len(parts) > 1 else True, leave=False):
            try:
                read = frames.read_axes(file.path, part)
            except FormatError:
                continue
            known |= {name: channel for name, channel in read.items() if channel.sample_rate}
    return [
        StoredFile(
            file.path,
            file.start,
            file.stop,
            {name: known.get(name, channel) for name, channel in file.channels.items()},  # pyright: ignore
        )
        for file in stored
    ]


def _seen_files(found: _Stored, times: np.ndarray) -> SeenData:
    spans: dict[str, list[tuple[float, float]]] = {}
    rates: dict[str, Counter[float]] = {}
    units: dict[str, Counter[str]] = {}
    aliases: dict[str, str | None] = {}
    for file in found.stored:
        for name, channel in file.channels.items():
            spans.setdefault(name, []).append((file.start, file.stop))
            aliases.setdefault(name, channel.alias)
            rates.setdefault(name, Counter()).update([channel.sample_rate] if channel.sample_rate else [])
            units.setdefault(name, Counter()).update([channel.unit] if channel.unit else [])
    lengths: dict[tuple[tuple[float, float], ...], np.ndarray] = {}
    channels = {}
    for name in sorted(spans):
        stretches = _joined(spans[name])
        if stretches not in lengths:
            lengths[stretches] = lengths_about(stretches, times)
        rate = rates[name].most_common(1)[0][0] if rates[name] else None
        unit = units[name].most_common(1)[0][0] if units[name] else ""
        others = rates[name].total() - rates[name][rate] if rate else 0
        problem = "" if rate else "its sample rate cannot be read"
        channels[name] = SeenChannel(rate, unit, lengths[stretches], others, aliases[name], problem)
    covered = _joined((file.start, file.stop) for file in found.stored)
    looked = len(found.stored) + len(found.unreadable)
    group = found.group
    return SeenData(group.path, group.kind, group.files, channels, covered, {}, looked, found.unreadable)


def _joined(spans: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Intervals that touch or overlap, made one; as tuples, to look them up by."""
    return tuple((start, stop) for start, stop in union(spans, _TOUCHING).tolist())


def lengths_about(stretches: Sequence[tuple[float, float]], times: np.ndarray) -> np.ndarray:
    """Length (s) of the data about each time: twice the shorter side within its stretch, 0 outside all.

    Args:
        stretches: Disjoint intervals [start, stop), rising, s.
        times: GPS s.

    >>> lengths_about([(0.0, 10.0), (20.0, 30.0)], np.array([3.0, 15.0, 29.0]))
    array([6., 0., 2.])
    """
    if not len(stretches):
        return np.zeros(len(times))
    starts, stops = (np.array(ends) for ends in zip(*stretches, strict=True))
    place = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, len(starts) - 1)
    return 2 * np.maximum(np.minimum(times - starts[place], stops[place] - times), 0)


# ------------------------------------------------------------------------------------------------------------- triggers


def _refuse_astray(
    table: Path, times: np.ndarray, stretches: Sequence[tuple[float, float]], wrong: ConfigurationError | None
) -> None:
    """Refuse triggers none of which lies in the data, and say what the times may be."""
    inside = int(np.count_nonzero(lengths_about(stretches, times)))
    if inside and wrong is None:
        return
    guess = guess_unit(times, stretches)
    if wrong is not None and guess is None:
        raise wrong
    reach = f"from {times.min():.3f} to {times.max():.3f}, the data from GPS {stretches[0][0]:.3f} to "
    advice = guess or "Correct --triggers or --data, or bring the data of these times."
    raise NoEventsError(
        f"{table}: {len(times) - inside} of {len(times)} triggers lie outside the data: the triggers reach {reach}"
        f"{stretches[-1][1]:.3f}. {advice}"
    )


def guess_unit(times: np.ndarray, stretches: Sequence[tuple[float, float]]) -> str | None:
    """What times that lie outside the data may be instead of GPS seconds; None if nothing makes them fit.

    Args:
        times: The numbers in the table.
        stretches: Disjoint intervals of the data [start, stop), rising, GPS s.
    """
    wider = _joined((start - _LEAP_SECONDS, stop) for start, stop in stretches)
    for unit, length in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        for epoch, offset, within in (("GPS", 0.0, stretches), ("Unix", _UNIX_EPOCH, wider)):
            count = int(np.count_nonzero(lengths_about(within, times * length - offset)))
            if not count or (unit, epoch) == ("s", "GPS"):
                continue
            scaled = "t" if unit == "s" else f"t * {length:g}"
            how = scaled if epoch == "GPS" else f"gwpy.time.to_gps(datetime.fromtimestamp({scaled}, UTC))"
            return (
                f"Read as {epoch} time in {unit}, {count} of {len(times)} would lie inside: convert the column to GPS "
                f"seconds, {how}."
            )
    return None
