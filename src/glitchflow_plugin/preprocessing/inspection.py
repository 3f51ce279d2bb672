"""What is seen of channels in the files of a data set: metadata alone, by the readers that Data-processor uses."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from glitchflow_plugin.data.apart import shown
from glitchflow_plugin.data.event_files import StoredSpan, read_event_spans
from glitchflow_plugin.data.listing import describe_files
from glitchflow_plugin.data.readers import frames
from glitchflow_plugin.data.readers.continuous import StoredChannel, StoredFile, description_in_name, span_in_name
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.preprocessing.found_files import MOST_FILES, FileGroup, naming, progress_bar, spread
from glitchflow_plugin.types.intervals import union

Value = TypeVar("Value")

_AXES_AT_ONCE = 500
"""Channels of a frame file whose rates are read in one go."""
_AXES_FILES = 5
"""Frame files opened in search of the rates of channels."""
_TOUCHING = 1e-6
"""Files that are this close (s) touch: GPS times in float64 are good to 2.4e-7 s."""


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

    @property
    def rate(self) -> str:
        """The sample rate in words."""
        return "rate unknown" if self.sample_rate is None else f"{self.sample_rate:g} Hz"


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


def together(first: SeenChannel, second: SeenChannel) -> SeenChannel:
    """A channel that two data sets have: where both have an event, the first's is taken."""
    if first.sample_rate is None or second.sample_rate is None:
        return second if first.sample_rate is None else first
    there = int(np.count_nonzero(second.lengths))
    if first.sample_rate != second.sample_rate:
        return replace(first, other_rates=first.other_rates + second.other_rates + there)
    lengths = np.where(first.lengths > 0, first.lengths, second.lengths)
    return replace(first, lengths=lengths, other_rates=first.other_rates + second.other_rates)


def aligned_with(seen: SeenData, ids: Sequence[str], places: Mapping[str, int]) -> SeenData:
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


def joined(spans: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
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


def _most(counted: Counter[Value]) -> tuple[Value | None, int]:
    """The most frequent value, None of none, and how many are others."""
    if not counted:
        return None, 0
    value, number = counted.most_common(1)[0]
    return value, counted.total() - number


# ---------------------------------------------------------------------------------------------------------- event files


def joined_folders(single: Sequence[tuple[FileGroup, SeenData]]) -> list[SeenData]:
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
            for name, channel in aligned_with(seen, list(seen.events), places).channels.items():
                channels[name] = channel if name not in channels else together(channels[name], channel)
        path = naming(origin, files, set(), set())
        looked = sum(seen.looked for seen in parts)
        found.append(SeenData(path, "events", files, channels, (), events, looked, unreadable))
    return found


def seen_events(group: FileGroup, most: int | None, *, progress: bool) -> tuple[FileGroup, SeenData]:
    """What a folder of event files holds; at most so many are opened."""
    files = group.files
    looked = spread(files, most or len(files))
    spans: dict[str, dict[str, StoredSpan]] = {}
    problems: dict[str, str] = {}
    events: dict[str, float] = {}
    unreadable: dict[str, str] = {}
    for file in progress_bar(looked, "event files", progress):
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
        rate, others = _most(rates)
        lengths = np.zeros(len(events))
        for place, (event_id, gps) in enumerate(events.items()):
            span = held.get(event_id)
            if span is not None and span.sample_rate == rate:  # another rate is masked as an error
                lengths[place] = max(2 * min(gps - span.start, span.stop - gps), 0)
        unit, _ = _most(units)
        channels[name] = SeenChannel(rate, unit or "", lengths, others, problem=problems.get(name, ""))
    return group, SeenData(group.path, "events", files, channels, (), events, len(looked), unreadable)


# ----------------------------------------------------------------------------------------------------- continuous files


@dataclass(frozen=True)
class StoredGroup:
    """Continuous files of one data set, and by name why others cannot be read."""

    group: FileGroup
    stored: Sequence[StoredFile]
    unreadable: Mapping[str, str]


def describe_group(group: FileGroup, *, progress: bool) -> StoredGroup:
    """Span and channels of the files; of very many, some are known by their names alone."""
    kind, files = group.kind, group.files
    opened = files
    if kind != "gwf" and len(files) > MOST_FILES:
        chosen = set(spread([file for file in files if span_in_name(file)], MOST_FILES))
        opened = tuple(file for file in files if file in chosen or not span_in_name(file))
    stored, unreadable = describe_files(kind, progress_bar(opened, f"{kind} files", progress))
    held = {description_in_name(file.path): file.channels for file in stored}
    tried = set(opened)
    for file in files:
        span, description = span_in_name(file), description_in_name(file)
        if file not in tried and span and description in held:
            stored.append(StoredFile(file, *span, held[description]))
    if kind == "gwf":
        stored = _with_axes(stored, progress)
    return StoredGroup(group, stored, unreadable)


def _with_axes(stored: Sequence[StoredFile], progress: bool) -> list[StoredFile]:
    """Frame files, with the rates and units of their channels: a table of contents does not tell them."""
    known: dict[str, StoredChannel] = {}
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
        replace(file, channels={name: known.get(name, channel) for name, channel in file.channels.items()})
        for file in stored
    ]


def seen_files(found: StoredGroup, times: np.ndarray) -> SeenData:
    """What continuous files hold about each time (GPS s)."""
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
        stretches = joined(spans[name])
        if stretches not in lengths:
            lengths[stretches] = lengths_about(stretches, times)
        rate, others = _most(rates[name])
        unit, _ = _most(units[name])
        problem = "" if rate else "its sample rate cannot be read"
        channels[name] = SeenChannel(rate, unit or "", lengths[stretches], others, aliases[name], problem)
    covered = joined((file.start, file.stop) for file in found.stored)
    looked = len(found.stored) + len(found.unreadable)
    group = found.group
    return SeenData(group.path, group.kind, group.files, channels, covered, {}, looked, found.unreadable)
