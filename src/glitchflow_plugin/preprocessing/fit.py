"""Settings of conditioning that fit what there is of the channels.

What a channel needs is asked of the functions that ingestion itself uses, so that what is found is accepted there.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.preprocessing.inspection import SeenChannel
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.signal.conditioning import (
    USUAL_JITTER,
    ChannelRejectedError,
    ConditioningSettings,
    needed_length,
    usable_band,
)
from glitchflow_plugin.signal.qtransform import highest_frequency, lowest_frequency
from glitchflow_plugin.signal.whitening import WhiteningSettings

_FEWEST_KEPT = 0.1
"""The settings fit all but this share of the events."""

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


def reaches_of(channels: Mapping[str, SeenChannel]) -> tuple[dict[str, Reach], dict[str, str]]:
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


def segment_length(fit: Fit, reaches: Mapping[str, Reach]) -> float:
    """What to cut about a trigger, s: enough for every channel in use; more only as far as the data reach."""
    needed, reach = max(fit.needed.values()), max(reaches[name].length for name in fit.bands)
    enough = max(DatasetSettings.segment, math.ceil(needed + 2 * USUAL_JITTER))
    return float(min(enough, max(math.floor(reach * 100) / 100, math.ceil(needed * 100) / 100)))
