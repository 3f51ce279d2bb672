"""A registered model on data that run on: windows of the length it was trained on, overlapping, and their sum.

The twin sees whitened windows as in training. What it predicts is believed where it stands out of the noise, brought
back by the inverse of each window's own whitening, and added up; windows lie on a grid of GPS times, so that the result
does not depend on how the data are cut into blocks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.folder import SeenGain
from glitchflow_plugin.signal import filters
from glitchflow_plugin.signal.whitening import unwhitened
from glitchflow_plugin.streaming.belief import Stretch, ask, belief, kept, kept_beside, of_octaves, snr_in_time
from glitchflow_plugin.streaming.loop import seen_gains
from glitchflow_plugin.streaming.ranks import MARGIN, ColumnsOf, predicted_energy, window_columns
from glitchflow_plugin.streaming.windows import (
    StreamModel,
    StreamSettings,
    Window,
    beyond,
    look,
    predict_windows,
    prepare,
)
from glitchflow_plugin.types.arrays import Series


@dataclass(frozen=True, eq=False)
class Subtraction:
    """What a model says of a stretch of strain.

    Attributes:
        glitch: Predicted glitches at the strain's own rate, in its type and unit, exactly zero where nothing is
            believed, shape (time,).
        analysed: Where there is strain and a prediction, (time,) at the common rate.
        complete: Where no witness was missing or stopped, likewise.
        familiar: Where the model tells that the like was seen in training, likewise.
        accounted: Where nothing loud is left of the strain, likewise.
        quiet: Where nothing loud is in the strain itself, whatever is taken from it, likewise.
        agreed: Where the strain holds all that is believed, likewise.
        stretches: In which a prediction is believed, those whose energy is centred in the block.
        gains: What the strain says of each witness about these, for the closed loop; empty where there is none, and of
            what is made after a stop.
        energy: Predicted energy by which it is ranked and vetoed, from `predicted_energy`.
        band: Lowest and highest frequency of it, Hz, likewise.
        missing: By witness the time for which it was missing, s.
    """

    glitch: Series
    analysed: Bool[np.ndarray, " sample"]
    complete: Bool[np.ndarray, " sample"]
    familiar: Bool[np.ndarray, " sample"]
    accounted: Bool[np.ndarray, " sample"]
    quiet: Bool[np.ndarray, " sample"]
    agreed: Bool[np.ndarray, " sample"]
    stretches: tuple[Stretch, ...]
    gains: tuple[SeenGain, ...]
    energy: Series
    band: Float[np.ndarray, "edge sample"]
    missing: Mapping[str, float]


def subtract(
    channels: Mapping[str, Channel],
    model: StreamModel,
    block: tuple[float, float],
    segment: tuple[float, float],
    settings: StreamSettings,
    *,
    stopped: Mapping[str, float] | None = None,
) -> Subtraction:
    """Predict the glitches in a block of strain.

    Args:
        channels: As recorded, by name, from `reach` before the block to as much after it; NaN where there are no data,
            nothing outside the segment. The strain covers the block; witnesses may be missing.
        model: Twin and recipes.
        block: Start and end, GPS s, a part of the segment.
        segment: Start and end of the science segment, GPS s.
        settings: Stride, spectra and belief.
        stopped: By witness the GPS time, s, from which on the closed loop leaves it out.

    Raises:
        ConfigurationError: Windows are shorter than what each is used for.
    """
    if 1.5 * settings.stride > model.duration:
        raise ConfigurationError(
            f"stream.settings.stride must be at most two thirds of the model's windows ({model.duration:g} s), got "
            f"{settings.stride:g} s."
        )
    strain, rate = channels[model.target.name], model.rate
    margin = beyond(model.target.settings.whitening.filter_length)
    outer = (round((block[0] - margin) * rate), round((block[1] + margin) * rate))
    centres = settings.stride * np.arange(
        math.floor((block[0] - margin) / settings.stride), math.ceil((block[1] + margin) / settings.stride) + 1
    )
    prepared = prepare(channels, model, block, segment, settings)
    target = prepared[0]
    assert target is not None  # noqa: S101  # the caller has refused strain of no use
    seen_at = partial(look, prepared, model)
    windows = predict_windows(seen_at, model, centres, settings, stopped or {})
    band = target[0].band
    summed, stretches = summed_glitch(windows, outer, model, settings, band)
    inner = round(block[0] * rate) - target[0].first, round((block[1] - block[0]) * rate)
    usable = _cut(target[0].usable.astype(float), *inner) > 0
    glitch = at_own_rate(summed, outer[0], strain, block, rate=rate, high=band[1])
    found = told(windows, stretches, model, settings, outer=outer, block=block, usable=usable, glitch=glitch)
    return found if stopped else replace(found, gains=seen_gains(seen_at, model, found.stretches, settings))


def summed_glitch(
    windows: Sequence[Window],
    outer: tuple[int, int],
    model: StreamModel,
    settings: StreamSettings,
    band: tuple[float, float],
    *,
    read: tuple[int, int] | None = None,
) -> tuple[Series, list[Stretch]]:
    """What is taken from the strain, (time,) at the common rate, and the stretches in which a prediction is believed.

    Args:
        windows: From `predict_windows`.
        outer: First and one past the last sample, from GPS 0.
        model: Twin and recipes.
        settings: Stride and belief.
        band: What the strain delivers, Hz.
        read: First and one past the last sample that somebody looks at, as `outer`, where these are not all. Where
            nothing is believed so near that it could be taken away there, nobody is asked about the rest: the sum is
            zero, and there are no stretches.
    """
    rate = model.rate
    weight = window_weight(round(model.duration * rate), rate, settings.stride)
    said = _joined(windows, outer, weight, "strain")
    trusted = belief(snr_in_time(said, rate), rate, settings.believed_snr)
    if read is not None:
        beside = kept_beside(rate)
        near = trusted[max(read[0] - beside - outer[0], 0) : max(read[1] + beside - outer[0], 0)]
        if not near.any():
            return np.zeros(outer[1] - outer[0]), []
    stretches = ask(said, _joined(windows, outer, weight, "measured"), trusted, outer[0], rate)
    if not settings.agreement:
        stretches = [replace(one, octaves=np.ones_like(one.octaves), share=1.0) for one in stretches]
    return _unwhitened(windows, stretches, weight, outer, band=band, rate=rate), stretches


def told(
    windows: Sequence[Window],
    stretches: Sequence[Stretch],
    model: StreamModel,
    settings: StreamSettings,
    *,
    outer: tuple[int, int],
    block: tuple[float, float],
    usable: Bool[np.ndarray, " sample"],
    glitch: Series,
    columns_of: ColumnsOf = window_columns,
) -> Subtraction:
    """What is known of a block, beside what is taken from it.

    Args:
        windows: From `predict_windows`, one a stride without a gap.
        stretches: From `summed_glitch`.
        model: Twin and recipes.
        settings: Stride.
        outer: First and one past the last sample of what that was made for.
        block: Start and end, GPS s.
        usable: Where there is strain in the block, at the common rate.
        glitch: What is taken from it, from `at_own_rate`.
        columns_of: What gives the columns of the windows' maps.
    """
    rate = model.rate
    inner = slice(round(block[0] * rate) - outer[0], round(block[1] * rate) - outer[0])
    of_windows = {
        name: _joined_flags(windows, outer, rate, settings.stride, name)[inner]
        for name in ("predicted", "complete", "familiar", "accounted", "quiet")
    }
    asked = [one for one in windows if one.predicted and _within(one.centre, block)]
    missing = {
        one.name: settings.stride * sum(window.lacking[place] for window in asked)
        for place, one in enumerate(model.witnesses)
    }
    around = MARGIN + settings.stride / 2
    near = [one for one in windows if block[0] - around <= one.centre <= block[1] + around]
    energy, band = predicted_energy(near, model, block, settings.stride, columns_of)
    return Subtraction(
        glitch,
        analysed=of_windows["predicted"] & usable,
        complete=of_windows["complete"],
        familiar=of_windows["familiar"],
        accounted=of_windows["accounted"],
        quiet=of_windows["quiet"],
        agreed=_agreed(stretches, outer)[inner],
        stretches=tuple(one for one in stretches if _within(one.peak, block)),
        gains=(),
        energy=energy,
        band=band,
        missing={name: time for name, time in missing.items() if time},
    )


def window_weight(size: int, rate: float, stride: float) -> Series:
    """Weight of a window in the sum, (time,): one in the middle, and with its neighbours one everywhere.

    Args:
        size: Samples of the window.
        rate: Sample rate, Hz.
        stride: Time from one window to the next, s; half of it is the time in which one gives way to the next.
    """
    away = np.abs(np.arange(size) - size // 2) / rate
    edge = stride / 2
    share = np.clip((away - (stride - edge) / 2) / edge, 0.0, 1.0)
    return np.cos(0.5 * np.pi * share) ** 2


def _joined(windows: Sequence[Window], outer: tuple[int, int], weight: Series, name: str) -> Series:
    """The whitened prediction (`strain`), or what was measured where there is one, of all windows, (time,)."""
    summed = np.zeros(outer[1] - outer[0])
    for window in windows:
        if window.strain is not None:
            _add(summed, getattr(window, name) * weight, window.start - outer[0])
    return summed


def _unwhitened(
    windows: Sequence[Window],
    stretches: Sequence[Stretch],
    weight: Series,
    outer: tuple[int, int],
    *,
    band: tuple[float, float],
    rate: float,
) -> Series:
    """What is taken away, each window's part brought back by its own filter, (time,) at the common rate."""
    size = outer[1] - outer[0]
    summed = np.zeros(size)
    asked = (window for window in windows if window.strain is not None)
    for _, group in groupby(asked, key=lambda window: window.target_taps.tobytes()):
        alike = list(group)
        first, taps = alike[0].start, alike[0].target_taps
        tail = len(taps) + 1
        part = np.zeros(alike[-1].start - first + len(weight) + 2 * tail)
        for window in alike:
            for one in stretches:
                share = _cut(one.weight, window.start - one.first, len(weight))
                if share.any() and one.octaves.any():
                    taken = of_octaves(np.pad(window.strain * weight * share, tail), one.octaves)
                    _add(part, taken, window.start - first)
        if part.any():
            _add(summed, unwhitened(part, taps, rate, band), first - tail - outer[0])
    return summed * kept(stretches, outer[0], size, rate)


def _agreed(stretches: Sequence[Stretch], outer: tuple[int, int]) -> Bool[np.ndarray, " time"]:
    """Where nothing that is believed was kept from being taken away, (time,)."""
    held = np.ones(outer[1] - outer[0], dtype=np.bool_)
    for one in stretches:
        if not one.whole:
            held[one.first - outer[0] :][: len(one.weight)] = False
    return held


def _joined_flags(
    windows: Sequence[Window], outer: tuple[int, int], rate: float, stride: float, name: str
) -> Bool[np.ndarray, " time"]:
    """Where all windows that have a share in the sum agree on something, (time,)."""
    held = np.ones(outer[1] - outer[0], dtype=np.bool_)
    half = round(0.75 * stride * rate)
    for window in windows:
        if not getattr(window, name):
            middle = round(window.centre * rate) - outer[0]
            held[max(middle - half, 0) : max(middle + half, 0)] = False
    return held


def _within(gps: float, block: tuple[float, float]) -> bool:
    return block[0] <= gps < block[1]


def _cut(series: Series, first: int, size: int) -> Series:
    """Samples of a series from `first` on, zero beyond its ends."""
    found = np.zeros(size)
    low, high = max(first, 0), min(first + size, len(series))
    if low < high:
        found[low - first : high - first] = series[low:high]
    return found


def _add(summed: Series, part: Series, first: int) -> None:
    """Add a part to a sum, what lies beyond its ends left out."""
    low, high = max(first, 0), min(first + len(part), len(summed))
    if low < high:
        summed[low:high] += part[low - first : high - first]


def at_own_rate(
    summed: Series, first: int, strain: Channel, block: tuple[float, float], *, rate: float, high: float
) -> Series:
    """A series at the samples of a recording in a block, exactly zero where it is, and where there are no data.

    Args:
        summed: At the common rate, (time,).
        first: Number of its first sample, from GPS 0.
        strain: The recording.
        block: Start and end, GPS s.
        rate: The common rate, Hz.
        high: Highest frequency in it, Hz.
    """
    own = strain.sample_rate
    begin = math.ceil((block[0] - strain.t0) * own - 1e-6)
    size = math.ceil((block[1] - strain.t0) * own - 1e-6) - begin
    glitch = np.zeros(size)
    if summed.any():
        finer = filters.resample(summed, rate, own, high)[0]
        # sample n of the recording is sample n + place of the finer series
        place = (strain.t0 - first / rate) * own + begin
        whole = round(place)
        if abs(place - whole) > 1e-2:
            finer = filters.shift(finer, whole - place, 2 * high / own)[0]
        glitch = _cut(finer, whole, size)
        near = ndimage.maximum_filter1d((summed != 0).astype(np.uint8), 3)
        at = np.clip(np.round((np.arange(size) + place) * rate / own).astype(int), 0, len(near) - 1)
        glitch[near[at] == 0] = 0.0
    measured = strain.series[begin : begin + size]
    glitch[~np.isfinite(measured)] = 0.0
    return glitch.astype(measured.dtype if measured.dtype.kind == "f" else np.float64)
