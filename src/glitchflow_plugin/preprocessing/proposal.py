"""Settings that fit somebody's data: decisions alone, on what `survey` has found; nothing is read or written here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.datasets import ProcessingSettings
from glitchflow_plugin.data.splits import SplitSettings
from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.preprocessing.fit import Fit, Reach, find_fit, reaches_of, segment_length
from glitchflow_plugin.preprocessing.inspection import SeenChannel, SeenData, together
from glitchflow_plugin.preprocessing.remarks import (
    ENOUGH_BLOCKS,
    block_remarks,
    chance_remarks,
    file_remarks,
    length_remarks,
    trigger_remarks,
)
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.preprocessing.survey import Survey
from glitchflow_plugin.preprocessing.target import find_target, unsafe_channels, with_alias
from glitchflow_plugin.signal.conditioning import USUAL_JITTER
from glitchflow_plugin.signal.whitening import WhiteningSettings

_WITHOUT_SLIDES = {"num_slides": 0, "threshold_corr": 0.17, "threshold_iou": 0.08}
"""What selects witnesses where there are too few events to compare with chance: the coincidences alone."""

_SHARD_BYTES = 128 * 1024**2
"""Series of a shard in memory, at most about."""


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
    data = [with_alias(seen, target) for seen in survey.data]
    channels = _merged(data)
    target = find_target(channels, target)
    reaches, left_out = reaches_of(channels)
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
    cuts = survey.cuts if continuous and survey.triggers is None and len(entries) > 1 else {}
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
        segment=segment_length(fit, reaches),
        triggers=survey.triggers if continuous else None,
        cuts=cuts,
        unsafe=unsafe_channels(target, fit.bands),
        few=kept < wanted,
        block_length=block_length,
        batch=batch,
        remarks=(
            *trigger_remarks(survey, data, continuous=bool(continuous)),
            *length_remarks(target, channels[target].lengths, fit.needed[target]),
            *file_remarks(survey, data, fit),
            *chance_remarks(kept, wanted),
            *block_remarks(len(survey.events), blocks, block_length),
        ),
    )


def _merged(data: Sequence[SeenData]) -> dict[str, SeenChannel]:
    """Channels of all data sets."""
    channels: dict[str, SeenChannel] = {}
    for seen in data:
        for name, channel in seen.channels.items():
            channels[name] = together(channels[name], channel) if name in channels else channel
    return channels


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
    enough = next((one for one in found if one[1] >= ENOUGH_BLOCKS), None)
    if enough:
        return enough
    most = max(count for _, count in found)
    return next(one for one in found if one[1] == most)


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
        refused = {name: left_out[name] for name in mine if name in left_out}
        files = () if seen.path else seen.files
        entries.append(ProposedData(seen.path, seen.format, files, used, refused, seen.format != "events"))
    return entries
