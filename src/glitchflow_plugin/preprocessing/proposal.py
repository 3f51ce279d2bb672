"""Settings that fit somebody's data: decisions alone, on what `survey` has found; nothing is read or written here.

What a channel needs is asked of the functions that ingestion itself uses, so that what is proposed is accepted there.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.datasets import DatasetSettings, ProcessingSettings
from glitchflow_plugin.data.readers.triggers import NEAR
from glitchflow_plugin.data.splits import SplitSettings
from glitchflow_plugin.errors import ConfigurationError, NoEventsError
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.preprocessing.survey import SeenChannel, SeenData, Survey, together
from glitchflow_plugin.signal.conditioning import (
    USUAL_JITTER,
    ChannelRejectedError,
    ConditioningSettings,
    needed_length,
    usable_band,
)
from glitchflow_plugin.signal.qtransform import highest_frequency, lowest_frequency
from glitchflow_plugin.signal.trigger_clusters import crowded
from glitchflow_plugin.signal.whitening import WhiteningSettings

_TARGETS = (
    re.compile(r"Hrec_hoft|CALIB_STRAIN|GWOSC-.*STRAIN|LOSC-STRAIN|CAL-CS_PROC_.*STRAIN|DAC-STRAIN"),
    re.compile(r"(?<![a-z])(strain|hoft|h_of_t|h_t|h\(t\))(?![a-z])", re.IGNORECASE),
)
"""Names of the strain channel: those of LIGO, Virgo, KAGRA and GWOSC, then what else it may be called."""

_SEES_STRAIN = re.compile(r"LSC-DARM|CAL-DARM|CAL-DELTAL|OMC-DCPD|DARM_ERR|DARM_CTRL")
"""Channels of the loop that the strain is made from: whatever is in the strain is in them, signals too."""

_FEWEST_KEPT = 0.1
"""The settings fit all but this share of the events."""

_CROWDED = 0.1
"""From this share of triggers that follow another closely, the user is told."""

_BLOCKS = 20
"""Groups of events that make a split into training, validation, gate and test a good one."""

_WITHOUT_SLIDES = {"num_slides": 0, "threshold_corr": 0.17, "threshold_iou": 0.08}
"""What selects witnesses where there are too few events to compare with chance: the coincidences alone."""

_SHARD_BYTES = 128 * 1024**2
"""Series of a shard in memory, at most about."""

_LENGTHS = (6.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0)
_FILTERS = (2.0, 1.5, 1.0, 0.5)
_EXCLUDED = (4.0, 3.0, 2.0, 1.5, 1.0)
_FFTS = (1.0, 0.5)
_LOWEST = (8.0, 10.0, 12.0, 16.0, 20.0, 30.0)
"""What is tried for len, filter_length, exclude_length, fft_length (s) and minf (Hz): the usual first."""

_COSTS = (0.12, 0.04, 0.04, 0.06, 0.1)
"""Share of what the witnesses deliver that a factor of 2 in each of these is worth, in the same order."""


@dataclass(frozen=True)
class Reach:
    """What there is of a channel.

    Attributes:
        name: Name of the channel.
        sample_rate: Hz.
        length: Length of the data about a trigger, s: twice the shorter side.
    """

    name: str
    sample_rate: float
    length: float


@dataclass(frozen=True)
class Fit:
    """Settings that fit, and what they mean for each channel.

    Attributes:
        settings: How the channels are to be conditioned: for datasets.yaml and whiten.yaml.
        frange: Range of the Q-transform within the band, Hz, for maps.yaml.
        needed: Length of data about a trigger that each channel in use needs, s.
        bands: Band that each channel in use delivers, Hz, target included.
        left_out: By channel, why it cannot be used.
    """

    settings: ConditioningSettings
    frange: tuple[float, float]
    needed: Mapping[str, float]
    bands: Mapping[str, tuple[float, float]]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class ProposedData:
    """One entry of datasets.yaml.

    Attributes:
        path: Value of `path`; None where a list of `files` must be written.
        format: Value of `format`.
        files: The files, where no path names exactly these.
        channels: Channels in use that come from here, the target first.
        left_out: By channel of these data, why it is not used.
        continuous: Whether the data are cut at triggers.
    """

    path: str | None
    format: str
    files: tuple[Path, ...]
    channels: tuple[str, ...]
    left_out: Mapping[str, str]
    continuous: bool


@dataclass(frozen=True, eq=False)
class Proposal:
    """A run folder for somebody's data, as decided.

    Attributes:
        target: The strain channel.
        channels: All that were seen, by name.
        reaches: What there is of those that have data about a trigger.
        data: Entries of datasets.yaml.
        fit: Settings.
        segment: Cut about a trigger out of continuous data, s.
        triggers: Table of triggers that is there.
        cuts: Triggers to be written as a table, by id, GPS s: where event files tell when to cut continuous data.
        unsafe: Channels for `scan.unsafe`.
        few: Whether there are too few events for the scan to tell coincidence from chance.
        block_length: Value for split.yaml, s.
        batch: Events in memory and in a shard.
        remarks: What the user should know.
    """

    target: str
    channels: Mapping[str, SeenChannel]
    reaches: Mapping[str, Reach]
    data: tuple[ProposedData, ...]
    fit: Fit
    segment: float
    triggers: str | None = None
    cuts: Mapping[str, float] = field(default_factory=dict)
    unsafe: tuple[str, ...] = ()
    few: bool = False
    block_length: float = SplitSettings.block_length
    batch: int = ProcessingSettings.batch
    remarks: tuple[str, ...] = ()

    @property
    def processing(self) -> ProcessingSettings:
        """For datasets.yaml."""
        settings = self.fit.settings
        return ProcessingSettings(
            settings.low,
            settings.high,
            settings.sample_rate,
            settings.duration,
            self.batch,
            settings.whiten,
            crop_jitter=min(USUAL_JITTER, settings.duration / 4),
        )

    @cached_property
    def changes(self) -> Mapping[str, Mapping[str, object]]:
        """Keys that differ from the files of conf/ as they come, by file."""
        usual = WhiteningSettings()
        whiten = {
            key: value for key, value in asdict(self.fit.settings.whitening).items() if value != getattr(usual, key)
        }
        maps: dict[str, object] = {}
        if self.fit.frange != tuple(ScanSettings.frange):
            maps["frange"] = list(self.fit.frange)
        split = {} if self.block_length == SplitSettings.block_length else {"block_length": self.block_length}
        scan = ({"unsafe": list(self.unsafe)} if self.unsafe else {}) | (_WITHOUT_SLIDES if self.few else {})
        return {
            name: keys for name, keys in (("whiten", whiten), ("maps", maps), ("scan", scan), ("split", split)) if keys
        }


def propose(survey: Survey, target: str | None = None) -> Proposal:
    """Decide on all settings.

    Args:
        survey: What was found.
        target: The strain channel; told by its name if None.

    Raises:
        ConfigurationError: There is no strain channel, or there are several candidates; the message lists them.
        NoEventsError: The data about a trigger are too short for any setting, or no witness can be used.
    """
    data = [_with_alias(seen, target) for seen in survey.data]
    channels = _merged(data)
    target = find_target(channels, target)
    reaches, left_out = _reaches(channels)
    if target not in reaches:
        raise NoEventsError(
            f"the target {target} cannot be used: {left_out[target]}. Bring data that hold it, or name another channel "
            "by --target."
        )
    witnesses = [reach for name, reach in reaches.items() if name != target]
    fit = find_fit(reaches[target], witnesses)
    left_out |= fit.left_out
    if len(fit.bands) < 2:
        reasons = "".join(f" {name}: {why}." for name, why in list(left_out.items())[:5])
        raise NoEventsError(
            f"There is no witness that can be used beside the target {target}, so there is nothing to scan.{reasons} "
            "Give the witnesses' files by --data as well, or longer events."
        )
    entries = _entries(data, channels, target, fit, left_out)
    continuous = [entry for entry in entries if entry.continuous]
    segment = _segment(fit, reaches)
    cuts = {}
    if continuous and survey.triggers is None and len(entries) > 1:
        cuts = survey.cuts
    batch = int(np.clip(_SHARD_BYTES / (4 * len(fit.bands) * fit.settings.num_samples), 1, ProcessingSettings.batch))
    kept = int(np.count_nonzero(channels[target].lengths >= fit.needed[target]))
    wanted = _events_for_a_test(len(fit.bands) - 1, fit.settings.duration)
    block_length, blocks = _block_length(list(survey.events.values()))
    return Proposal(
        target=target,
        channels=channels,
        reaches=reaches,
        data=tuple(entries),
        fit=replace(fit, left_out=left_out),
        segment=segment,
        triggers=survey.triggers if continuous else None,
        cuts=cuts,
        unsafe=_unsafe(target, fit.bands),
        few=kept < wanted,
        block_length=block_length,
        batch=batch,
        remarks=(
            *_trigger_remarks(survey, data, continuous=bool(continuous)),
            *_length_remarks(target, channels[target].lengths, fit.needed[target]),
            *_file_remarks(survey, data, fit),
            *_test_remarks(kept, wanted),
            *_block_remarks(len(survey.events), blocks, block_length),
        ),
    )


def _merged(data: Sequence[SeenData]) -> dict[str, SeenChannel]:
    """Channels of all data sets."""
    channels: dict[str, SeenChannel] = {}
    for seen in data:
        for name, channel in seen.channels.items():
            channels[name] = together(channels[name], channel) if name in channels else channel
    return channels


# ---------------------------------------------------------------------------------------------------------- the target


def find_target(channels: Mapping[str, SeenChannel], target: str | None = None) -> str:
    """The strain channel: as asked for, or the only one that is called like it.

    Raises:
        ConfigurationError: There is none, or there are several; the message lists them.
    """
    held = sorted(channels)
    if target is not None:
        if target in channels:
            return target
        near = get_close_matches(target, held, n=5, cutoff=0.4) or held[:10]
        raise ConfigurationError(f"--target {target} is in none of the files; they hold for instance {near}.")
    for found in _candidates(channels):
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(f"{name} ({_rate(channels[name])})" for name in found[:20])
            raise ConfigurationError(
                f"{len(found)} channels may be the strain: {listed}. Choose one: --target {found[0]}"
            )
    listed = ", ".join(held[:20]) + (f" and {len(held) - 20} more" if len(held) > 20 else "")
    raise ConfigurationError(f"No channel is called like a strain channel: {listed}. Name it: --target CHANNEL")


def _candidates(channels: Mapping[str, SeenChannel]) -> Iterator[list[str]]:
    for pattern in _TARGETS:
        yield sorted(name for name in channels if pattern.search(name))
    yield sorted(name for name, channel in channels.items() if channel.unit == "strain")


def _with_alias(seen: SeenData, target: str | None) -> SeenData:
    """The data set with the strain under its alias, where only that tells that it is the strain."""

    def wanted(alias: str) -> bool:
        return alias == target if target is not None else bool(_TARGETS[0].search(alias))

    aliases = [channel.alias for channel in seen.channels.values() if channel.alias]
    names = {
        name: channel.alias
        for name, channel in seen.channels.items()
        if channel.alias
        and channel.alias not in seen.channels
        and aliases.count(channel.alias) == 1
        and wanted(channel.alias)
        and not _TARGETS[0].search(name)
    }
    if not names:
        return seen
    return replace(seen, channels={names.get(name, name): channel for name, channel in seen.channels.items()})


def _unsafe(target: str, used: Mapping[str, object]) -> tuple[str, ...]:
    """Channels of the target's detector that hold the strain itself."""
    detector = target.partition(":")[0] if ":" in target else ""
    return tuple(
        sorted(
            name
            for name in used
            if name != target and name.startswith(detector) and (_TARGETS[0].search(name) or _SEES_STRAIN.search(name))
        )
    )


# -------------------------------------------------------------------------------------------------------- the settings


def _reaches(channels: Mapping[str, SeenChannel]) -> tuple[dict[str, Reach], dict[str, str]]:
    """What there is of each channel in nearly all events that have it; and by channel why there is nothing."""
    reaches, left_out = {}, {}
    for name, channel in channels.items():
        if channel.sample_rate is None:
            left_out[name] = channel.problem or "its sample rate is not known"
            continue
        about = channel.lengths[channel.lengths > 0]
        if not len(about):
            left_out[name] = channel.problem or "no data of it lie about any trigger"
            continue
        length = float(np.quantile(about, _FEWEST_KEPT, method="lower"))
        reaches[name] = Reach(name, channel.sample_rate, length)
    return reaches, left_out


def find_fit(target: Reach, witnesses: Sequence[Reach]) -> Fit:
    """The settings that fit the target and get the most out of the witnesses.

    The usual settings are taken where they fit. Else each departure costs (`_COSTS`), and a witness counts by the part
    of the band, in octaves, that it delivers: a slow channel that would shorten the crop for all is left out.

    Raises:
        NoEventsError: Nothing fits the target.
    """
    rate = min(target.sample_rate, ConditioningSettings.sample_rate)
    groups: dict[float, np.ndarray] = {}
    for speed in {one.sample_rate for one in witnesses}:
        groups[speed] = np.array([one.length for one in witnesses if one.sample_rate == speed])
    best: tuple[float, ConditioningSettings] | None = None
    shortest, refused = (math.inf, ""), ""
    for cost, settings in _trials(rate):
        if best is not None and 1 - cost <= best[0]:
            break  # costs rise
        try:
            needed = needed_length(settings, target.sample_rate, aligned=False)
        except ChannelRejectedError as error:
            refused = error.detail
            continue
        shortest = min(shortest, (needed, _described(settings)))
        if needed > target.length:
            continue
        score = _delivered(groups, settings, len(witnesses)) - cost
        if best is None or score > best[0]:
            best = score, settings
    if best is None:
        raise NoEventsError(_refusal(target, *shortest, refused))
    return _fitted(target, witnesses, best[1])


def _trials(rate: float) -> Iterator[tuple[float, ConditioningSettings]]:
    """Settings by rising cost; those that contradict themselves at this rate (Hz) are left out."""
    usual = _LENGTHS[0], _FILTERS[0], _EXCLUDED[0], _FFTS[0], _LOWEST[0]
    trials = []
    for values in product(_LENGTHS, _FILTERS, _EXCLUDED, _FFTS, _LOWEST):
        octaves = (abs(math.log2(value / first)) for value, first in zip(values, usual, strict=True))
        trials.append((sum(cost * factor for cost, factor in zip(_COSTS, octaves, strict=True)), values))
    for cost, (duration, filter_length, excluded, fft_length, low) in sorted(trials):
        high = min(ConditioningSettings.high, math.floor(_highest(duration, rate)))
        if high <= 2 * low or _lowest(duration, rate) > low:
            continue  # next to nothing would be left, or the lowest rows would have too few tiles
        whitening = WhiteningSettings(
            fft_length=fft_length,
            overlap=WhiteningSettings.overlap * fft_length,
            exclude_length=excluded,
            filter_length=filter_length,
        )
        # the band is that of the longest crop, so that a shorter one does not narrow it by a few bins
        high = min(ConditioningSettings.high, math.floor(_highest(_LENGTHS[0], rate)))
        yield cost, ConditioningSettings(low, high, rate, duration, whitening=whitening)


def _highest(duration: float, rate: float) -> float:
    return highest_frequency(round(duration * rate), rate, float(ScanSettings.q))  # pyright: ignore


def _lowest(duration: float, rate: float) -> float:
    return lowest_frequency(round(duration * rate), rate, float(ScanSettings.q))  # pyright: ignore


def _delivered(groups: Mapping[float, np.ndarray], settings: ConditioningSettings, count: int) -> float:
    """Part of the band (in octaves) that the witnesses deliver, on average."""
    total = 0.0
    for rate, lengths in groups.items():
        try:
            needed = needed_length(settings, rate, aligned=False)
            low, high = usable_band(settings, rate)
        except ChannelRejectedError:
            continue
        total += np.count_nonzero(lengths >= needed) * math.log(high / low) / math.log(settings.high / _LOWEST[0])
    return total / max(count, 1)


def _fitted(target: Reach, witnesses: Sequence[Reach], settings: ConditioningSettings) -> Fit:
    bands: dict[str, tuple[float, float]] = {}
    needs: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for one in (target, *witnesses):
        try:
            needed = needed_length(settings, one.sample_rate, aligned=False)
        except ChannelRejectedError as error:
            left_out[one.name] = error.detail
            continue
        if needed > one.length:
            left_out[one.name] = (
                f"at {one.sample_rate:g} Hz it needs {(needed - settings.duration) / 2:.2f} s at each side of a crop "
                f"of {settings.duration:g} s, {needed:.2f} s in all; there are {one.length:.2f} s about the trigger"
            )
            continue
        bands[one.name], needs[one.name] = usable_band(settings, one.sample_rate), needed
    top = min(settings.high, math.floor(_highest(settings.duration, settings.sample_rate)))
    return Fit(settings, (settings.low, float(top)), needs, bands, left_out)


def _described(settings: ConditioningSettings) -> str:
    whitening = settings.whitening
    return f"len {settings.duration:g} s, filter_length {whitening.filter_length:g} s, minf {settings.low:g} Hz"


def _refusal(target: Reach, needed: float, settings: str, refused: str) -> str:
    if math.isinf(needed):
        why = refused or f"a band above {_LOWEST[0]:g} Hz leaves nothing at {target.sample_rate:g} Hz"
        return f"the target {target.name} cannot be used: {why}. Name another strain channel by --target, or bring one."
    return (
        f"the data are too short: there are {target.length:.2f} s of {target.name} about a trigger (twice the shorter "
        f"side, in nine of ten events), and the least that anything fits into is {needed:.2f} s ({settings}). Bring "
        "longer events, with the trigger in their middle."
    )


def _segment(fit: Fit, reaches: Mapping[str, Reach]) -> float:
    """What to cut about a trigger, s: enough for every channel in use; more only as far as the data reach."""
    needed, reach = max(fit.needed.values()), max(reaches[name].length for name in fit.bands)
    enough = max(DatasetSettings.segment, math.ceil(needed + 2 * USUAL_JITTER))
    return float(min(enough, max(math.floor(reach * 100) / 100, math.ceil(needed * 100) / 100)))


def _events_for_a_test(witnesses: int, duration: float) -> int:
    """Events that a perfect witness needs for its coincidences to be no accident, at the scan's false-discovery rate.

    In an event of this length (s) with one spike in each channel, the two coincide by accident with the probability
    that the tolerance to either side, and about as much for the length of the spikes, is of it. The best of so many
    witnesses must be less likely than the rate allows.
    """
    usual = ScanSettings()
    accident = min(4 * usual.tolerance.time / duration, 0.5)
    return math.ceil(math.log(usual.fdr / witnesses) / math.log(accident))


def _block_length(times: Sequence[float]) -> tuple[float, int]:
    """Length of the blocks in which events stay together (s), and how many there are."""
    usual = SplitSettings.block_length
    found = [
        (length, len({math.floor(time / length) for time in times}))
        for length in (usual, usual / 2, usual / 4, usual / 8)
    ]
    enough = next((one for one in found if one[1] >= _BLOCKS), None)
    if enough:
        return enough
    most = max(count for _, count in found)
    return next(one for one in found if one[1] == most)


# --------------------------------------------------------------------------------------------------- entries, remarks


def _entries(
    data: Sequence[SeenData],
    channels: Mapping[str, SeenChannel],
    target: str,
    fit: Fit,
    left_out: Mapping[str, str],
) -> list[ProposedData]:
    entries = []
    for seen in data:
        mine = sorted(seen.channels, key=lambda name: (name != target, name))
        used = tuple(
            name for name in mine if name in fit.bands and seen.channels[name].sample_rate == channels[name].sample_rate
        )
        if not used:
            continue
        path = seen.path
        refused = {name: left_out[name] for name in mine if name in left_out}
        files = () if path else seen.files
        entries.append(ProposedData(path, seen.format, files, used, refused, seen.format != "events"))
    return entries


def _rate(channel: SeenChannel) -> str:
    return "rate unknown" if channel.sample_rate is None else f"{channel.sample_rate:g} Hz"


def _trigger_remarks(survey: Survey, data: Sequence[SeenData], *, continuous: bool) -> Iterator[str]:
    own = {event_id for seen in data for event_id in seen.events}
    if survey.triggers and not continuous:
        yield "The triggers are not used: event files bring their own times."
    elif survey.triggers and own and not own & set(survey.cuts):
        yield (
            "No trigger has the id of an event file, so the two kinds of data do not merge: give the table a column "
            "event_id."
        )
    elif continuous and not survey.triggers and not own:
        yield (
            f"No triggers were given: each stretch of files makes one event, in its middle ({len(survey.cuts)} in "
            "all). Give the times of glitches by --triggers."
        )
    near, groups = crowded(list(survey.events.values()), NEAR)
    if near > _CROWDED * len(survey.events):
        yield (
            f"{near} of {len(survey.events)} triggers follow another within {NEAR:g} s, in {groups} group(s): one "
            "glitch would be several events. Set `cluster` of `triggers` in conf/datasets.yaml (0.1 to 0.5 s): of each "
            "group, the loudest stays."
        )


def _length_remarks(target: str, lengths: np.ndarray, needed: float) -> Iterator[str]:
    outside = int(np.count_nonzero(lengths <= 0))
    short = int(np.count_nonzero((lengths > 0) & (lengths < needed)))
    if outside:
        yield f"{outside} of {len(lengths)} triggers lie outside the data of {target}, and will be rejected."
    if short:
        yield (
            f"{short} of {len(lengths)} events have less of {target} about the trigger than the {needed:.2f} s that "
            "the settings need; most of them will be rejected as too short."
        )


def _file_remarks(survey: Survey, data: Sequence[SeenData], fit: Fit) -> Iterator[str]:
    for seen in data:
        for name, channel in seen.channels.items():
            if channel.other_rates and name in fit.bands:
                yield f"{name} is masked in {channel.other_rates} file(s), which do not have it at {_rate(channel)}."
        if seen.looked < len(seen.files):
            yield f"{seen.looked} of {len(seen.files)} files of {seen.path or seen.files[0].parent} were looked into."
    if survey.ignored:
        name, why = next(iter(survey.ignored.items()))
        yield f"{len(survey.ignored)} file(s) cannot be read and are left out; the first, {name}: {why}"


def _test_remarks(kept: int, wanted: int) -> Iterator[str]:
    if kept < wanted:
        yield (
            f"{kept} event(s) cannot tell coincidence from chance ({wanted} could at best): the scan selects by shared "
            "spikes alone, without time slides. Give more events before you trust what it selects."
        )


def _block_remarks(events: int, blocks: int, block_length: float) -> Iterator[str]:
    if blocks < _BLOCKS:
        yield (
            f"{events} event(s) in {blocks} block(s) of {block_length:g} s: training wants {_BLOCKS} or more, to "
            "divide them into training, validation, gate and test (conf/split.yaml)."
        )
