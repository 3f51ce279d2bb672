"""What a data set holds, found without reading its samples: its events, each with a reader, and its channels."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.data.apart import apart, each, require_regular, shown
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import (
    TRUTH_FILE_NAME,
    Channel,
    is_event_file,
    list_event_files,
    read_event_axes,
    read_event_header,
    read_usable,
)
from glitchflow_plugin.data.event_source import Loader
from glitchflow_plugin.data.readers import frames, gwosc, hdf5, remote
from glitchflow_plugin.data.readers.continuous import (
    OUTSIDE,
    UNREADABLE,
    StoredChannel,
    StoredFile,
    cut,
    description_in_name,
    list_files,
    span_in_name,
)
from glitchflow_plugin.data.readers.remote import RemoteSettings
from glitchflow_plugin.data.readers.trigger_table import RANGE, Trigger, TriggerReport, TriggerTable, event_id_at
from glitchflow_plugin.data.readers.triggers import read_table
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.types.intervals import union

logger = logging.getLogger(__name__)

_SHOWN_FILES = 3
"""Files whose reasons are told where none can be read; the log has all."""

_VOTES = 5
"""Files that decide on the format of all: the first may be the odd one."""
_SAMPLED_FILES = 64
"""Files looked into for sample rates and units; the names are taken from all."""


@dataclass(frozen=True)
class ListedDataset:
    """One data set, listed.

    Attributes:
        events: Trigger time (GPS s) and reader by event id.
        channels: By name.
        unreadable: Reason by file.
        files: Looked at.
        misplaced: Why, if none of its triggers lies in its files.
        segment: Longest stretch that is read of an event, s.
        groups: Label by event id, of those that have one.
        bounds: Science segment (GPS s) by event id, of those that must lie within one.
        report: What became of the triggers.
    """

    events: Mapping[str, tuple[float, Loader]]
    channels: Mapping[str, StoredChannel]
    unreadable: Mapping[str, str]
    files: tuple[Path, ...] = ()
    misplaced: str = ""
    segment: float = math.inf
    groups: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    report: TriggerReport | None = None


Choice = Callable[[DatasetSettings], TriggerTable]
"""Which triggers of a data set are taken."""


def as_read(settings: DatasetSettings) -> TriggerTable:
    """All triggers of a data set that pass its selection.

    Raises:
        ConfigurationError: There are none, or it asks for more than a selection.
    """
    if settings.triggers is None or settings.triggers.cluster or settings.triggers.segments:
        raise ConfigurationError("triggers with `cluster` or `segments` are chosen by preprocessing.triggers.chosen.")
    return read_table(settings.triggers)


def list_dataset(settings: DatasetSettings, choose: Choice) -> ListedDataset:
    """List a data set of any format, whose triggers are chosen by `choose`."""
    kind = settings.format if settings.format != "auto" else _recognised(str(settings.path))
    if kind in remote.FORMATS:
        return _list_remote(settings, kind, choose)
    if kind == "events":
        return _list_event_files(settings)
    return _list_continuous(settings, kind, choose)


def _recognised(path: str) -> str:
    """Format of what a path holds, by the ending and layout of most of the first files."""
    folder = Path(path)
    if folder.is_dir() and not any(folder.iterdir()):
        raise ConfigurationError(f"{path} is empty. Correct `path` in datasets.yaml, or make the data first.")
    files = list_files(path, (*frames.SUFFIXES, *hdf5.SUFFIXES))
    votes: Counter[str] = Counter()
    for file in files:
        if file.name == TRUTH_FILE_NAME:
            continue
        with suppress(FormatError):  # truncated, perhaps: the next file tells
            votes[file_format(file)] += 1
        if votes.total() == _VOTES:
            break
    if votes:
        return votes.most_common(1)[0][0]
    raise ConfigurationError(
        f"{path}: none of {len(files)} file(s) is in a layout that is known. Set `format`. {_reasons(files, _layout)}"
    )


def _none_readable(path: Path | str | None, files: Sequence[Path], opened: Callable[[Path], object]) -> str:
    return (
        f"{path}: none of {len(files)} file(s) can be read. {_reasons(files, opened)} "
        "Fetch them again, or correct `path` or `format` in datasets.yaml."
    )


def _reasons(files: Sequence[Path], opened: Callable[[Path], object]) -> str:
    """What is wrong with the first of files that cannot be read."""
    found: list[str] = []
    for file in files[:_SHOWN_FILES]:
        try:
            opened(file)
        except FormatError as error:
            found.append(str(error))
    return f"The first: {' '.join(found)}" if found else ""


def file_format(path: Path) -> str:
    """Format of one file: `events`, `gwosc`, `gwf` or `hdf5`.

    Raises:
        FormatError: It is HDF5 in another layout, or none.
    """
    return "gwf" if path.suffix in frames.SUFFIXES else _layout(path)


@apart
def _layout(path: Path) -> str:
    """Layout of an HDF5 file."""
    if gwosc.is_gwosc(path):
        return "gwosc"
    if is_event_file(path):
        return "events"
    hdf5.describe(path)
    return "hdf5"


# Event files


def _list_event_files(settings: DatasetSettings) -> ListedDataset:
    path = Path(str(settings.path))
    files = list_event_files(path) if path.is_dir() else list_files(path, hdf5.SUFFIXES)
    files = files[settings.events.min : settings.events.max]
    events: dict[str, tuple[float, Loader]] = {}
    unreadable: dict[str, str] = {}
    names: set[str] = set()
    groups: dict[str, str] = {}
    for file, header in zip(files, each(read_event_header, files), strict=True):
        try:
            if isinstance(header, FormatError):
                raise header
            if header.event_id in events:
                raise FormatError(f"{shown(file)}: the event {header.event_id} is in another file too, which is taken.")
        except FormatError as error:
            logger.warning("%s", error)
            unreadable[shown(file.stem)] = str(error)
            continue
        events[header.event_id] = (header.gps_event, partial(_load_event_file, file))
        names.update(header.channels)
        groups |= {header.event_id: header.group} if header.group else {}
    if files and not events:
        raise NoEventsError(_none_readable(path, files, read_event_header))
    usual = _usual(files)
    channels = {name: usual.get(name, StoredChannel()) for name in sorted(names)}
    return ListedDataset(events, channels, unreadable, tuple(files), groups=groups)


def _load_event_file(path: Path, channels: Sequence[str]) -> tuple[dict[str, Channel], dict[str, str]]:
    try:
        event, problems = read_usable(path, channels)
    except FormatError as error:  # it was listed: damaged samples end the reading process, or the file has changed
        return {}, dict.fromkeys(channels, f"{UNREADABLE}: {error}")
    return event.channels, {name: f"{UNREADABLE}: {why}" for name, why in problems.items()}


def _usual(files: Sequence[Path]) -> dict[str, StoredChannel]:
    """Sample rate and unit that most of the files give a channel: what differs from these is an error in that file."""
    rates: dict[str, Counter[float]] = {}
    units: dict[str, Counter[str]] = {}
    step = max(len(files) // _SAMPLED_FILES, 1)
    for axes in each(read_event_axes, files[::step]):
        if isinstance(axes, FormatError):
            continue
        for name, (rate, unit) in axes.items():
            rates.setdefault(name, Counter())[rate] += 1
            if unit:
                units.setdefault(name, Counter())[unit] += 1
    return {
        name: StoredChannel(count.most_common(1)[0][0], units[name].most_common(1)[0][0] if name in units else None)
        for name, count in rates.items()
    }


# Continuous files

_READERS = {"gwosc": gwosc, "gwf": frames, "hdf5": hdf5}


def describe_files(kind: str, files: Iterable[Path]) -> tuple[list[StoredFile], dict[str, str]]:
    """Span and channels of continuous files.

    Args:
        kind: Their format: `gwosc`, `gwf` or `hdf5`.
        files: In the order in which they are to be named.

    Returns:
        The files that can be read, and by name why the others cannot. A key that has another alias in another file is
        called by its alias.
    """
    stored: list[StoredFile] = []
    described: dict[str, Mapping[str, StoredChannel]] = {}
    unreadable: dict[str, str] = {}
    for file in files:
        span, description = span_in_name(file), description_in_name(file)
        try:
            require_regular(file)
        except FormatError as error:
            unreadable[shown(file.name)] = str(error)
            continue
        if kind == "gwf" and span is not None and description in described:
            # Opening thousands of frame files takes minutes; those of one type (V-HREC, V-raw) hold the same channels.
            stored.append(StoredFile(file, *span, described[description]))
            continue
        try:
            stored.append(_READERS[kind].describe(file))
        except FormatError as error:
            unreadable[shown(file.name)] = str(error)
            continue
        if description is not None:
            described[description] = stored[-1].channels
    return _by_unique_name(stored), unreadable


def _list_continuous(settings: DatasetSettings, kind: str, choose: Choice) -> ListedDataset:
    files = list_files(str(settings.path), _READERS[kind].SUFFIXES)
    stored, unreadable = describe_files(kind, files)
    for reason in unreadable.values():
        logger.warning("%s", reason)
    if files and not stored:
        raise NoEventsError(_none_readable(settings.path, files, _READERS[kind].describe))
    channels: dict[str, StoredChannel] = {}
    for file in stored:
        for name, known in file.channels.items():
            if name not in channels or channels[name].sample_rate is None:
                channels[name] = known
    chosen, report = _triggers(settings, choose)
    if chosen is None:
        chosen = [Trigger(*one) for one in middles(stored)[settings.events.min : settings.events.max]]
    events: dict[str, tuple[float, Loader]] = {}
    outside = 0
    for trigger, (start, stop) in zip(chosen, _stretches(chosen, settings.segment), strict=True):
        parts = tuple(file for file in stored if file.stop > start and file.start < stop)
        outside += not parts
        events[trigger.event_id] = (trigger.gps_time, partial(_load_cut, kind, parts, start=start, stop=stop))
    misplaced = _misplaced(str(settings.path), [one.gps_time for one in chosen], stored, outside)
    channels = dict(sorted(channels.items()))
    listed = ListedDataset(events, channels, unreadable, tuple(files), misplaced, settings.segment, report=report)
    return _with_labels(listed, chosen)


def coverage(settings: DatasetSettings, channel: str) -> Float[np.ndarray, "interval 2"]:
    """GPS intervals (s) for which files of continuous data say that they hold a channel, rising.

    Raises:
        ConfigurationError: The data set is a service, which cannot be asked, or holds events.
        NoEventsError: None of its files can be read.
    """
    kind = settings.format if settings.format != "auto" else _recognised(str(settings.path))
    if kind not in _READERS:
        what = "event files, which are no continuous data" if kind == "events" else f"the service {kind}"
        raise ConfigurationError(
            f"{settings.path or kind}: expected files of continuous data (gwf, hdf5, gwosc), got {what}. "
            + ("Give `segments`: when to ask it." if kind in remote.FORMATS else "Correct `path` or `format`.")
        )
    files = list_files(str(settings.path), _READERS[kind].SUFFIXES)
    stored, _ = describe_files(kind, files)
    if not stored:
        raise NoEventsError(_none_readable(settings.path, files, _READERS[kind].describe))
    aliases = ({*file.channels, *(one.alias for one in file.channels.values())} for file in stored)
    return union((file.start, file.stop) for file, names in zip(stored, aliases, strict=True) if channel in names)


def _triggers(settings: DatasetSettings, choose: Choice) -> tuple[list[Trigger] | None, TriggerReport | None]:
    """The triggers of a data set in its index range, and what became of the others; None if it names none."""
    if settings.triggers is None:
        return None, None
    table = choose(settings)
    rows = np.arange(len(table))[settings.events.min : settings.events.max]
    table = table.take(rows, RANGE)
    return table.triggers(), table.report


def _with_labels(found: ListedDataset, triggers: Sequence[Trigger]) -> ListedDataset:
    """The data set with what the triggers say of its events."""
    groups = {one.event_id: one.group for one in triggers if one.group}
    bounds = {one.event_id: one.within for one in triggers if math.isfinite(one.within[0])}
    return replace(found, groups=groups, bounds=bounds)


def _stretches(triggers: Sequence[Trigger], segment: float) -> list[tuple[float, float]]:
    """What to read of each event, GPS s: nothing outside its science segment."""
    half = segment / 2
    return [(max(one.gps_time - half, one.within[0]), min(one.gps_time + half, one.within[1])) for one in triggers]


def _misplaced(path: str, times: Sequence[float], files: Sequence[StoredFile], outside: int) -> str:
    """What to tell of triggers (GPS s, sorted) about which the files hold nothing, if all are so; warns of some."""
    if not outside or not files:
        return ""
    message = (
        f"{path}: {outside} of {len(times)} triggers lie outside the data. The triggers reach from GPS {times[0]:.3f} "
        f"to {times[-1]:.3f}, the data from {min(file.start for file in files):.3f} to "
        f"{max(file.stop for file in files):.3f}. Correct `triggers` or `path` in datasets.yaml, or bring more data."
    )
    if outside == len(times):
        return message
    logger.warning("%s", message)
    return ""


def _by_unique_name(files: Sequence[StoredFile]) -> list[StoredFile]:
    """The files, where a key that has another alias in another file stands for neither: the alias is the channel."""
    aliases: dict[str, set[str]] = {}
    for file in files:
        for name, channel in file.channels.items():
            if channel.alias:
                aliases.setdefault(name, set()).add(channel.alias)
    several = {name for name, found in aliases.items() if len(found) > 1}
    for name in sorted(several):
        logger.warning("%s is another channel in each of the files: %s. Ask for these.", name, sorted(aliases[name]))
    return [
        replace(
            file,
            channels={
                channel.alias if name in several and channel.alias else name: channel
                for name, channel in file.channels.items()
            },
        )
        for file in files
    ]


def middles(files: Sequence[StoredFile]) -> list[tuple[str, float]]:
    """A trigger in the middle of each stretch that one or several detectors' files cover."""
    spans = sorted({(file.start, file.stop) for file in files})
    times = [(start + stop) / 2 for start, stop in spans]
    return [(event_id_at(gps), gps) for gps in times]


def _load_cut(
    kind: str, files: tuple[StoredFile, ...], channels: Sequence[str], *, start: float, stop: float
) -> tuple[dict[str, Channel], dict[str, str]]:
    if not files:
        return {}, dict.fromkeys(channels, OUTSIDE)
    return cut(files, _READERS[kind].read, channels, start, stop)


# Services


def _list_remote(settings: DatasetSettings, kind: str, choose: Choice) -> ListedDataset:
    if settings.triggers is None:
        raise ConfigurationError(f"a data set of format {kind} needs `triggers`: when to ask for data")
    offered = remote.channels_offered(kind, settings.remote)
    chosen, report = _triggers(settings, choose)
    events: dict[str, tuple[float, Loader]] = {
        one.event_id: (one.gps_time, partial(_load_remote, kind, settings.remote, start=start, stop=stop))
        for one, (start, stop) in zip(chosen or (), _stretches(chosen or (), settings.segment), strict=True)
    }
    channels = {name: StoredChannel() for name in offered}
    return _with_labels(ListedDataset(events, channels, {}, segment=settings.segment, report=report), chosen or ())


def _load_remote(
    kind: str, settings: RemoteSettings, channels: Sequence[str], *, start: float, stop: float
) -> tuple[dict[str, Channel], dict[str, str]]:
    try:
        return remote.fetch(kind, settings, channels, start, stop), {}
    except FormatError as error:  # the server answers but has no such data: the next event may be there
        if len(channels) == 1:
            logger.warning("%s: %s", channels[0], error)
            return {}, {channels[0]: f"{UNREADABLE}: {error}"}
    # Services refuse a request for the sake of one channel. Halves find it in few requests.
    found, problems = {}, {}
    middle = len(channels) // 2
    for part in (channels[:middle], channels[middle:]):
        read, reasons = _load_remote(kind, settings, part, start=start, stop=stop)
        found |= read
        problems |= reasons
    return found, problems
