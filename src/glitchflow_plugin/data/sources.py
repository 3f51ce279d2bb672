"""Several data sets merged on the event id: a channel may come from any of them."""

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from glitchflow_plugin.data.channels import ChannelSelection, matching, read_channel_list, select_channels
from glitchflow_plugin.data.datasets import DatasetSettings, ProcessingSettings
from glitchflow_plugin.data.event_source import EventSource
from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.groups import one_label_each, read_groups
from glitchflow_plugin.data.listing import Choice, ListedDataset, as_read, list_dataset
from glitchflow_plugin.data.readers import remote
from glitchflow_plugin.data.readers.continuous import StoredChannel
from glitchflow_plugin.data.readers.trigger_table import TriggerReport
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, FormatError, NoEventsError, nearest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChannelOrigin:
    """Where a channel comes from: how to condition it, and the rate (Hz) and unit it usually has there if known.

    Attributes:
        slow: Whether its motion below the band is asked for.
    """

    processing: ProcessingSettings
    sample_rate: float | None = None
    unit: str | None = None
    slow: bool = False


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


def open_datasets(
    datasets: Sequence["Mapping[str, object] | DatasetSettings"],
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
        _with_aliases(_with_groups(list_dataset(one, choose), one), names)
        for one, names in zip(settings, asked, strict=True)
    ]
    if all(found.misplaced for found in listed):
        raise NoEventsError(" ".join(found.misplaced for found in listed))
    parts = [_chosen(one, found, target, needed) for one, found in zip(settings, listed, strict=True)]
    offered, absent = [names for names, _ in parts], [names for _, names in parts]
    origins = _origins(settings, listed, offered)
    unreadable = {name: reason for found in listed for name, reason in found.unreadable.items()}
    closed = sum(len(found.unreadable) for found in listed)
    unknown = f" {closed} file(s) cannot be read, so what these hold is not known." if closed else ""
    wanted = needed or ()
    _require_channels(wanted if require_target else [name for name in wanted if name != target], origins, unknown)
    if require_target and target not in origins:
        held = sorted({name for found in listed for name in found.channels})
        raise ConfigurationError(
            f"the target {target} is in none of the data sets; they hold {held[:20]}.{nearest(target, held)}{unknown}"
        )
    if needed is None:
        at_hand = {*origins, *(name for found in listed for name in found.channels)}
        lacking = [name for one, names in zip(settings, absent, strict=True) if not one.allow_missing for name in names]
        _refuse([f"{name}.{nearest(name, at_hand)}" for name in dict.fromkeys(lacking) if name not in origins], unknown)
        _refuse(_idle_patterns([one.channels for one in settings if not one.allow_missing], at_hand), unknown)
    order = needed if needed is not None else [target, *(name for names in offered for name in names)]
    events = _merged(listed, offered)
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
        missing=tuple(dict.fromkeys(name for names in (*absent, [target]) for name in names if name not in origins)),
        processing=processing,
        fingerprint=_fingerprint(settings, listed),
        segment=max(
            (one.segment for one, names in zip(listed, offered, strict=True) if target in names), default=math.inf
        ),
        triggers=tuple((one.report, tuple(one.events)) for one in listed if one.report is not None),
    )


def _origins(
    settings: Sequence[DatasetSettings], listed: Sequence[ListedDataset], offered: Sequence[tuple[str, ...]]
) -> dict[str, ChannelOrigin]:
    """Where each channel comes from: the first data set that offers it."""
    origins: dict[str, ChannelOrigin] = {}
    for one, found, names in zip(settings, listed, offered, strict=True):
        for name in names:
            known = found.channels.get(name, StoredChannel())
            slow = bool(matching([name], one.channels.slow))
            origins.setdefault(name, ChannelOrigin(one.processing, known.sample_rate, known.unit, slow))
    return origins


def _require_channels(needed: Sequence[str], origins: Mapping[str, ChannelOrigin], unknown: str) -> None:
    lacking = [name for name in needed if name not in origins]
    if lacking:
        raise ChannelMismatchError(
            f"{len(lacking)} channel(s) that are needed are in none of the data sets: {lacking}. "
            f"They hold {sorted(origins)[:20]}.{nearest(lacking[0], origins)}{unknown} "
            "Add a data set that has them, or choose another model."
        )


def _refuse(lacking: Sequence[str], unknown: str) -> None:
    """Refuse channels and patterns, told with what is near them, that are asked for and are nowhere."""
    if lacking:
        raise ConfigurationError(
            f"{len(lacking)} of what ch_list, channels.include and channels.slow ask for is in none of the data sets: "
            f"{' '.join(lacking)}{unknown} Correct the names in datasets.yaml, or set "
            "allow_missing: true there to go on without."
        )


def _idle_patterns(selections: Sequence[ChannelSelection], names: Collection[str]) -> list[str]:
    """Patterns of `include` and `slow` that match no channel, each with the nearest names; one of `exclude` warns."""
    idle = []
    for selection in selections:
        for pattern in (*selection.include, *selection.slow, *selection.exclude):
            if matching(names, [pattern]):
                continue
            near = nearest(pattern.replace("*", ""), names)
            if pattern in (*selection.include, *selection.slow):
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
    settings: DatasetSettings, found: ListedDataset, target: str, needed: Sequence[str] | None
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


def _merged(listed: Sequence[ListedDataset], offered: Sequence[tuple[str, ...]]) -> tuple[EventSource, ...]:
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


def _refuse_other_times(listed: Sequence[ListedDataset]) -> None:
    """Refuse ids for which data sets are cut about times so far apart that the cuts have nothing in common."""
    first: dict[str, tuple[float, float]] = {}
    conflicting: dict[str, tuple[float, float]] = {}
    for found in listed:
        for event_id, (gps_event, _) in found.events.items():
            known, segment = first.setdefault(event_id, (gps_event, found.segment))
            if abs(known - gps_event) >= (segment + found.segment) / 2:
                conflicting[event_id] = known, gps_event
    if conflicting:
        event_id, (one, other) = next(iter(conflicting.items()))
        raise FormatError(
            f"{len(conflicting)} event id(s) stand for other times in other data sets: {event_id} is at GPS "
            f"{one:.3f} and {other:.3f}. Data sets are merged on the id: give what was recorded at one time "
            "one id, and nothing else that id, or leave out the ids of triggers: they are then made of the times."
        )


def _with_groups(found: ListedDataset, settings: DatasetSettings) -> ListedDataset:
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


def _with_aliases(found: ListedDataset, wanted: Collection[str]) -> ListedDataset:
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


def _fingerprint(settings: Sequence[DatasetSettings], listed: Sequence[ListedDataset]) -> str:
    """Names, sizes and change times of the input files, what services are asked, and the events' ids, times, groups."""
    files = [
        [str(file), file.stat().st_size, file.stat().st_mtime_ns] if file.exists() else [str(file), 0, 0]
        for found in listed
        for file in found.files
    ]
    asked = [[one.format, one.remote.decisive()] for one in settings if one.format in remote.FORMATS]
    cuts = [
        [one.segment, sorted([event_id, gps] for event_id, (gps, _) in found.events.items())]
        for one, found in zip(settings, listed, strict=True)
    ]
    more = [sorted(one.items()) for found in listed for one in (found.groups, found.bounds) if one]
    return content_hash([files, asked, cuts, *more])
