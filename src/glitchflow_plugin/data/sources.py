"""From the entries of datasets.yaml to a list of events, each of which can be read alone and in any process.

An entry names one data set: event files, continuous files to cut at trigger times, or a service to ask. Several are
merged on the event id: a channel may come from any of them.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from glitchflow_plugin.data.apart import apart, each, require_regular, shown
from glitchflow_plugin.data.channels import ChannelSelection, matching, read_channel_list, select_channels
from glitchflow_plugin.data.event_files import (
    TRUTH_FILE_NAME,
    Channel,
    RawEvent,
    is_event_file,
    list_event_files,
    read_event_axes,
    read_event_header,
    read_usable,
)
from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.groups import one_label_each, read_groups
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
from glitchflow_plugin.data.readers.triggers import (
    RANGE,
    Trigger,
    TriggerReport,
    TriggerSettings,
    TriggerTable,
    event_id_at,
    read_table,
)
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, FormatError, NoEventsError, nearest
from glitchflow_plugin.settings import Finite, Located, Positive, built, section

logger = logging.getLogger(__name__)

Format = Literal["auto", "events", "gwosc", "gwf", "hdf5", "open_data", "nds2", "datafind"]
FORMATS = ("auto", "events", "gwosc", "gwf", "hdf5", "open_data", "nds2", "datafind")

_SHOWN_FILES = 3
"""Files whose reasons are told where none can be read; the log has all."""

_VOTES = 5
"""Files that decide on the format of all: the first may be the odd one."""
_SAMPLED_FILES = 64
"""Files looked into for sample rates and units; the names are taken from all."""


@section
class EventRange:
    """Which events to take: indices into the list sorted by id (event files) or time (triggers)."""

    min: int | None = None
    max: int | None = None


@section
class ProcessingSettings:
    """How the channels of a data set are conditioned; conf/datasets.yaml explains the keys.

    Attributes:
        crop_jitter: None: half a second, and for inference what the model's events had.
    """

    minf: Positive = 8.0
    maxf: Finite = 400.0
    sr: Finite = 1024.0
    len: Finite = 6.0
    batch: int = 16
    whiten: bool = True
    crop_jitter: Finite | None = None
    crop_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a band that the common rate cannot hold."""
        if not self.minf < self.maxf:
            raise ConfigurationError(f"the band must fulfil 0 < minf < maxf, got {self.minf:g}-{self.maxf:g} Hz")
        if self.maxf > self.sr / 2:
            raise ConfigurationError(
                f"maxf ({self.maxf:g} Hz) is above half of sr ({self.sr:g} Hz), where a series sampled at sr holds "
                f"nothing. Raise sr to {2 * self.maxf:g} Hz or more, or lower maxf to {self.sr / 2:g} Hz or less"
            )


@section
class DatasetSettings:
    """One entry of datasets.yaml.

    Attributes:
        path: Folder of event files; file, folder, glob pattern or cache file of continuous data.
        format: Told by what the path holds if `auto`; `open_data`, `nds2` and `datafind` need no path.
        target: Strain channel. One of the data sets must name it.
        ch_list: Channels wanted, or a text file with one a line; all by default.
        allow_missing: Whether channels of `ch_list`, and patterns, may be in none of the data sets.
        channels: Patterns and index range.
        events: Index range.
        triggers: When to cut continuous data; the middle of each stretch of files by default.
        groups: A table with the columns event_id and group: events of one group are no independent cases.
        segment: Length cut about a trigger, s: the crop, the filters' ends, and noise for the spectrum.
        remote: Server and what to ask it.
        processing: Conditioning of the channels that come from here.
    """

    path: Located | None = None
    format: Format = "auto"
    target: str | None = None
    ch_list: Located | tuple[str, ...] | None = None
    allow_missing: bool = False
    channels: ChannelSelection = field(default_factory=ChannelSelection)
    events: EventRange = field(default_factory=EventRange)
    triggers: TriggerSettings | None = None
    groups: Located | None = None
    segment: float = 16.0
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    processing: ProcessingSettings = field(default_factory=ProcessingSettings)

    def __post_init__(self) -> None:
        """Refuse a missing path, and events without room."""
        if self.path is None and self.format not in remote.FORMATS:
            raise ConfigurationError(f"a data set of format {self.format} needs a `path`")
        if self.segment <= self.processing.len:
            raise ConfigurationError(
                f"segment ({self.segment:g} s) must be longer than processing.len ({self.processing.len:g} s): "
                "filters need room at both ends and the spectrum needs noise beside the event"
            )

    @classmethod
    def listed(cls, entries: "Sequence[Mapping[str, Any] | DatasetSettings]") -> "list[DatasetSettings]":
        """Settings from the list of entries.

        Raises:
            ConfigurationError: It is no list, or an entry is wrong.
        """
        if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
            raise ConfigurationError(
                f"datasets: expected a list with an entry for each data set (`- path: /data/events`), got {entries!r}."
            )
        return [cls.from_mapping(entry, position) for position, entry in enumerate(entries)]

    @classmethod
    def from_mapping(cls, entry: "Mapping[str, Any] | DatasetSettings", position: int = 0) -> "DatasetSettings":
        """Settings from an entry as YAML gives it.

        Raises:
            ConfigurationError: A key is unknown or a value is wrong; the message names the entry.
        """
        if isinstance(entry, DatasetSettings):
            return entry
        where = f"datasets[{position}]"
        if not isinstance(entry, Mapping):
            raise ConfigurationError(f"{where}: expected a mapping with `path`, `target` and so on, got {entry!r}")
        values = {key: value for key, value in entry.items() if value is not None}
        triggers = values.get("triggers")
        if isinstance(triggers, Mapping):
            values["triggers"] = {key: value for key, value in triggers.items() if value is not None}
        elif triggers is not None and not isinstance(triggers, TriggerSettings):
            values["triggers"] = {"path" if isinstance(triggers, str) else "times": triggers}
        return built(cls, values, where)


@dataclass(frozen=True, eq=False)
class LoadedEvent:
    """What was read of an event, and by channel what went wrong: a reason to count by, `: ` and details."""

    event: RawEvent
    problems: dict[str, str] = field(default_factory=dict)


class Loader(Protocol):
    """Reads some channels of one event; small enough to be sent to another process."""

    def __call__(self, channels: Sequence[str]) -> tuple[dict[str, Channel], dict[str, str]]:
        """Channels found by name, and reasons by name; a channel may have both."""
        ...


@dataclass(frozen=True)
class EventSource:
    """One event, to be read from wherever its channels are.

    Attributes:
        event_id: Its name in all data sets.
        gps_event: Trigger time, GPS s, of the first data set that has the event.
        loaders: By data set, with the channels to take from there.
        group: Label that it shares with the events that it is not independent of; empty if unknown.
    """

    event_id: str
    gps_event: float
    loaders: tuple[tuple[Loader, tuple[str, ...]], ...]
    group: str = ""

    def copies(self, channels: Sequence[str], done: Collection[str]) -> Iterator[LoadedEvent]:
        """Read the event from one data set after the other.

        Args:
            channels: Names wanted.
            done: Names that no further data set is asked for; the caller adds to it what it can use.
        """
        asked = set(channels)
        for loader, offered in self.loaders:
            wanted = [name for name in offered if name in asked and name not in done]
            if wanted:
                read, reasons = loader(wanted)
                yield LoadedEvent(RawEvent(self.event_id, self.gps_event, read, self.group), reasons)

    def load(self, channels: Sequence[str] | None = None) -> LoadedEvent:
        """Read the event; a channel that several data sets have comes from the first that has no problem with it."""
        found: dict[str, Channel] = {}
        problems: dict[str, str] = {}
        offered = [name for _, names in self.loaders for name in names]
        done: set[str] = set()
        for loaded in self.copies(offered if channels is None else channels, done):
            for name in {*loaded.event.channels, *loaded.problems}:
                if name not in loaded.problems:
                    done.add(name)
                    problems.pop(name, None)
                    found[name] = loaded.event.channels[name]
                else:
                    problems.setdefault(name, loaded.problems[name])
                    if name in loaded.event.channels:
                        found.setdefault(name, loaded.event.channels[name])
        return LoadedEvent(RawEvent(self.event_id, self.gps_event, found, self.group), problems)


@dataclass(frozen=True)
class ChannelOrigin:
    """Where a channel comes from: how to condition it, and the rate (Hz) and unit it usually has there if known."""

    processing: ProcessingSettings
    sample_rate: float | None = None
    unit: str | None = None


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All events of several data sets, merged.

    Attributes:
        target: The strain channel.
        channels: By name, target first.
        events: In order of the event id.
        unreadable: By event id (or file name) why a file cannot even be listed; another may have the event.
        missing: Channels that a list asks for and no data set has.
        processing: Common rate, length, batch and whitening; the band is each channel's own.
        fingerprint: Changes when an input file does.
        segment: Longest stretch (s) in which the target is read; infinite where event files tell.
        triggers: For each data set that is cut at triggers, what became of them, and the ids of its events.
    """

    target: str
    channels: Mapping[str, ChannelOrigin]
    events: tuple[EventSource, ...]
    unreadable: Mapping[str, str]
    missing: tuple[str, ...]
    processing: ProcessingSettings
    fingerprint: str
    segment: float = math.inf
    triggers: tuple[tuple[TriggerReport, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class _Listed:
    """One data set, listed.

    Attributes:
        events: Trigger time (GPS s) and reader by event id.
        channels: By name.
        unreadable: Reason by file.
        files: Looked at.
        astray: Why, if none of its triggers lies in its files.
        segment: Longest stretch that is read of an event, s.
        groups: Label by event id, of those that have one.
        bounds: Science segment (GPS s) by event id, of those that must lie within one.
        report: What became of the triggers.
    """

    events: Mapping[str, tuple[float, Loader]]
    channels: Mapping[str, StoredChannel]
    unreadable: Mapping[str, str]
    files: tuple[Path, ...] = ()
    astray: str = ""
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


def open_datasets(
    datasets: Sequence["Mapping[str, Any] | DatasetSettings"],
    *,
    target: str | None = None,
    needed: Sequence[str] | None = None,
    require_target: bool = True,
    choose: Choice = as_read,
) -> Catalogue:
    """List the events of the data sets and merge them on the event id.

    Args:
        datasets: Entries of datasets.yaml.
        target: Strain channel, if not the data sets' own.
        needed: Exactly these channels in this order (those of a model), out of those that the data sets offer.
        require_target: Whether the target must be there; else it is listed as missing and masked in every event.
        choose: Which of a data set's triggers are taken.

    Raises:
        ConfigurationError: An entry is wrong, asks for channels that are nowhere, or contradicts another.
        ChannelMismatchError: No data set has some of the `needed` channels; the message lists them.
        NoEventsError: There is no event.
    """
    settings = DatasetSettings.listed(datasets)
    if not settings:
        raise ConfigurationError("`datasets` is empty. Give at least one data set with `path` and `target`.")
    processing = _agreed_processing(settings, target is not None)
    target = target or _agreed_target(settings)
    asked = [{target, *(needed or ()), *(read_channel_list(one.ch_list) or ())} for one in settings]
    listed = [
        _called(_labelled(_list_dataset(one, choose), one), names) for one, names in zip(settings, asked, strict=True)
    ]
    if all(found.astray for found in listed):
        raise NoEventsError(" ".join(found.astray for found in listed))
    origins: dict[str, ChannelOrigin] = {}
    offered: list[tuple[str, ...]] = []
    missing: list[str] = []
    vain: list[str] = []
    for one, found in zip(settings, listed, strict=True):
        names, absent = _chosen(one, found, target, needed)
        offered.append(names)
        missing += absent
        if not one.allow_missing:
            vain += absent
        for name in names:
            known = found.channels.get(name, StoredChannel())
            origins.setdefault(name, ChannelOrigin(one.processing, known.sample_rate, known.unit))
    if not require_target and target not in origins:
        missing.append(target)
    closed = sum(len(found.unreadable) for found in listed)
    unknown = f" {closed} file(s) cannot be read, so what these hold is not known." if closed else ""
    lacking = [name for name in needed or () if name not in origins and (require_target or name != target)]
    if lacking:
        raise ChannelMismatchError(
            f"{len(lacking)} channel(s) that are needed are in none of the data sets: {lacking}. "
            f"They hold {sorted(origins)[:20]}.{nearest(lacking[0], origins)}{unknown} "
            "Add a data set that has them, or choose another model."
        )
    if require_target and target not in origins:
        held = sorted({name for found in listed for name in found.channels})
        raise ConfigurationError(
            f"the target {target} is in none of the data sets; they hold {held[:20]}.{nearest(target, held)}{unknown}"
        )
    if needed is None:
        at_hand = {*origins, *(name for found in listed for name in found.channels)}
        _refuse([f"{name}.{nearest(name, at_hand)}" for name in dict.fromkeys(vain) if name not in origins], unknown)
        _refuse(_idle_patterns([one.channels for one in settings if not one.allow_missing], at_hand), unknown)
    order = needed if needed is not None else [target, *(name for names in offered for name in names)]
    events = _merged(listed, offered)
    unreadable = {name: reason for found in listed for name, reason in found.unreadable.items()}
    if not events:
        raise NoEventsError(
            f"The data sets hold no event{f' ({len(unreadable)} file(s) cannot be read)' if unreadable else ''}. "
            "Check `path`, `events` and `triggers` in datasets.yaml."
        )
    return Catalogue(
        target=target,
        channels={name: origins.get(name, ChannelOrigin(processing)) for name in dict.fromkeys(order)},
        events=events,
        unreadable=unreadable,
        missing=tuple(dict.fromkeys(name for name in missing if name not in origins)),
        processing=processing,
        fingerprint=_fingerprint(settings, listed),
        segment=max(
            (one.segment for one, names in zip(listed, offered, strict=True) if target in names), default=math.inf
        ),
        triggers=tuple((one.report, tuple(one.events)) for one in listed if one.report is not None),
    )


def _refuse(vain: Sequence[str], unknown: str) -> None:
    """Refuse channels and patterns, told with what is near them, that are asked for and are nowhere."""
    if vain:
        raise ConfigurationError(
            f"{len(vain)} of what ch_list and channels.include ask for is in none of the data sets: {' '.join(vain)}"
            f"{unknown} Correct the names in datasets.yaml, or set allow_missing: true there to go on without."
        )


def _idle_patterns(selections: Sequence[ChannelSelection], names: Collection[str]) -> list[str]:
    """Patterns of `include` that match no channel, each with the nearest names; one of `exclude` gets a warning."""
    idle = []
    for selection in selections:
        for pattern in (*selection.include, *selection.exclude):
            if matching(names, [pattern]):
                continue
            near = nearest(pattern.replace("*", ""), names)
            if pattern in selection.include:
                idle.append(f"{pattern}.{near}")
            else:
                logger.warning("channels.exclude: %s matches no channel.%s", pattern, near)
    return list(dict.fromkeys(idle))


def _agreed_processing(settings: Sequence[DatasetSettings], lenient: bool) -> ProcessingSettings:
    first = settings[0].processing
    common = {"crop_jitter": "jitter of the crop"}
    if not lenient:
        common |= {
            "sr": "sample rate",
            "len": "length",
            "whiten": "choice of whitening",
            "crop_seed": "seed of that jitter",
        }
    for key, meaning in common.items():
        found = {getattr(one.processing, key) for one in settings}
        if len(found) > 1:
            shown = " and ".join(sorted("null" if value is None else str(value) for value in found))
            raise ConfigurationError(
                f"data sets that are merged must agree on the {meaning}: processing.{key} is {shown}"
            )
    batch = min(one.processing.batch for one in settings)
    return replace(first, batch=batch)


def _agreed_target(settings: Sequence[DatasetSettings]) -> str:
    found = sorted({one.target for one in settings if one.target})
    if len(found) != 1:
        raise ConfigurationError(
            f"the data sets must name one `target` (the strain channel), got {found or 'none'} in datasets.yaml"
        )
    return found[0]


def _chosen(
    settings: DatasetSettings, found: _Listed, target: str, needed: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """Channels taken from a data set, and those its list asks for in vain."""
    ch_list = read_channel_list(settings.ch_list)
    known = bool(found.channels)
    if needed is not None:
        allowed = select_channels(found.channels if known else ch_list or needed, target, ch_list, settings.channels)
        return tuple(name for name in needed if name in allowed and (not known or name in found.channels)), []
    available = list(found.channels) if known else list(ch_list or ())
    if not known and not available:
        raise ConfigurationError(f"a data set of format {settings.format} needs `ch_list`: its channels are not listed")
    names = select_channels(available, target, ch_list, settings.channels)
    if not known:
        if target == settings.target and target not in names:
            names = (target, *names)
        return names, []
    return tuple(name for name in names if name in found.channels), [n for n in names if n not in found.channels]


def _merged(listed: Sequence[_Listed], offered: Sequence[tuple[str, ...]]) -> tuple[EventSource, ...]:
    _refuse_other_times(listed)
    ids = sorted({event_id for found in listed for event_id in found.events})
    groups = one_label_each([pair for found in listed for pair in found.groups.items()], "the data sets")
    events = []
    for event_id in ids:
        pairs = zip(listed, offered, strict=True)
        held = [(*found.events[event_id], names) for found, names in pairs if event_id in found.events]
        events.append(
            EventSource(
                event_id, held[0][0], tuple((loader, names) for _, loader, names in held), groups.get(event_id, "")
            )
        )
    return tuple(events)


def _refuse_other_times(listed: Sequence[_Listed]) -> None:
    """Refuse ids for which data sets are cut about times so far apart that the cuts have nothing in common."""
    first: dict[str, tuple[float, float]] = {}
    torn: dict[str, tuple[float, float]] = {}
    for found in listed:
        for event_id, (gps_event, _) in found.events.items():
            known, segment = first.setdefault(event_id, (gps_event, found.segment))
            if abs(known - gps_event) >= (segment + found.segment) / 2:
                torn[event_id] = known, gps_event
    if torn:
        event_id, (one, other) = next(iter(torn.items()))
        raise FormatError(
            f"{len(torn)} event id(s) stand for other times in other data sets: {event_id} is at GPS "
            f"{one:.3f} and {other:.3f}. Data sets are merged on the id: give what was recorded at one time "
            "one id, and nothing else that id, or leave out the ids of triggers: they are then made of the times."
        )


def _labelled(found: _Listed, settings: DatasetSettings) -> _Listed:
    """The data set with the labels of its table of groups, beside those that its files give."""
    if settings.groups is None:
        return found
    given = read_groups(settings.groups)
    unknown = sorted(given.keys() - found.events.keys())
    without = sorted(found.events.keys() - given.keys() - found.groups.keys())
    for ids, what in ((unknown, "id(s) of which the data set has no event"), (without, "event(s) that get no label")):
        if ids:
            logger.warning("%s: %d %s, for instance %s.", settings.groups, len(ids), what, ", ".join(ids[:3]))
    known = {event_id: label for event_id, label in given.items() if event_id in found.events}
    both = [*found.groups.items(), *known.items()]
    return replace(found, groups=one_label_each(both, f"{settings.groups} and {settings.path or settings.format}"))


def _called(found: _Listed, wanted: Collection[str]) -> _Listed:
    """The data set with those channels under their alias that are asked for by it, and by nothing else."""
    aliases = Counter(channel.alias for channel in found.channels.values())
    names = {
        name: channel.alias
        for name, channel in found.channels.items()
        if channel.alias in wanted and channel.alias not in found.channels and aliases[channel.alias] == 1
    }
    channels = {names.get(name, name): channel for name, channel in found.channels.items()}
    channels |= {name: found.channels[name] for name in names if name in wanted}
    return replace(found, channels=channels)


def _list_dataset(settings: DatasetSettings, choose: Choice) -> _Listed:
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


def _list_event_files(settings: DatasetSettings) -> _Listed:
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
    return _Listed(events, channels, unreadable, tuple(files), groups=groups)


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
    return _told_apart(stored), unreadable


def _list_continuous(settings: DatasetSettings, kind: str, choose: Choice) -> _Listed:
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
        events[trigger.event_id] = (trigger.gps_time, partial(_load_cut, kind, parts, start, stop))
    astray = _astray(str(settings.path), [one.gps_time for one in chosen], stored, outside)
    channels = dict(sorted(channels.items()))
    listed = _Listed(events, channels, unreadable, tuple(files), astray, settings.segment, report=report)
    return _of_triggers(listed, chosen)


def _triggers(settings: DatasetSettings, choose: Choice) -> tuple[list[Trigger] | None, TriggerReport | None]:
    """The triggers of a data set in its index range, and what became of the others; None if it names none."""
    if settings.triggers is None:
        return None, None
    table = choose(settings)
    rows = np.arange(len(table))[settings.events.min : settings.events.max]
    table = table.take(rows, RANGE)
    return table.triggers(), table.report


def _of_triggers(found: _Listed, triggers: Sequence[Trigger]) -> _Listed:
    """The data set with what the triggers say of its events."""
    groups = {one.event_id: one.group for one in triggers if one.group}
    bounds = {one.event_id: one.within for one in triggers if math.isfinite(one.within[0])}
    return replace(found, groups=groups, bounds=bounds)


def _stretches(triggers: Sequence[Trigger], segment: float) -> list[tuple[float, float]]:
    """What to read of each event, GPS s: nothing outside its science segment."""
    half = segment / 2
    return [(max(one.gps_time - half, one.within[0]), min(one.gps_time + half, one.within[1])) for one in triggers]


def _astray(path: str, times: Sequence[float], files: Sequence[StoredFile], outside: int) -> str:
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


def _told_apart(files: Sequence[StoredFile]) -> list[StoredFile]:
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
    kind: str, files: tuple[StoredFile, ...], start: float, stop: float, channels: Sequence[str]
) -> tuple[dict[str, Channel], dict[str, str]]:
    if not files:
        return {}, dict.fromkeys(channels, OUTSIDE)
    return cut(files, _READERS[kind].read, channels, start, stop)


# Services


def _list_remote(settings: DatasetSettings, kind: str, choose: Choice) -> _Listed:
    if settings.triggers is None:
        raise ConfigurationError(f"a data set of format {kind} needs `triggers`: when to ask for data")
    offered = remote.channels_offered(kind, settings.remote)
    chosen, report = _triggers(settings, choose)
    events: dict[str, tuple[float, Loader]] = {
        one.event_id: (one.gps_time, partial(_load_remote, kind, settings.remote, start, stop))
        for one, (start, stop) in zip(chosen or (), _stretches(chosen or (), settings.segment), strict=True)
    }
    channels = {name: StoredChannel() for name in offered}
    return _of_triggers(_Listed(events, channels, {}, segment=settings.segment, report=report), chosen or ())


def _load_remote(
    kind: str, settings: RemoteSettings, start: float, stop: float, channels: Sequence[str]
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
        read, reasons = _load_remote(kind, settings, start, stop, part)
        found |= read
        problems |= reasons
    return found, problems


def _fingerprint(settings: Sequence[DatasetSettings], listed: Sequence[_Listed]) -> str:
    """Names, sizes and change times of the input files, what services are asked, and the events' ids, times, groups."""
    files = [
        [str(file), file.stat().st_size, file.stat().st_mtime_ns] if file.exists() else [str(file), 0, 0]
        for found in listed
        for file in found.files
    ]
    asked = [[one.format, vars(one.remote)] for one in settings if one.format in remote.FORMATS]
    cuts = [
        [one.segment, sorted([event_id, gps] for event_id, (gps, _) in found.events.items())]
        for one, found in zip(settings, listed, strict=True)
    ]
    more = [sorted(one.items()) for found in listed for one in (found.groups, found.bounds) if one]
    return content_hash([files, asked, cuts, *more])
