"""A registered model on data that run on: windows of the length it was trained on, overlapping, and their sum.

The twin sees whitened windows as in training. What it predicts is believed where it stands out of the noise, brought
back by the inverse of each window's own whitening, and added up; windows lie on a grid of GPS times, so that the result
does not depend on how the data are cut into blocks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import nn

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.predict import explains, predict_strain
from glitchflow_plugin.preprocessing.channel_recipe import ChannelRecipe
from glitchflow_plugin.settings import Count, Positive, Range, Share, section
from glitchflow_plugin.signal import filters
from glitchflow_plugin.signal.conditioning import ChannelRejectedError, needed_length
from glitchflow_plugin.signal.continuous import (
    Conditioned,
    Spectra,
    SpectrumSettings,
    conditioned,
    grid_times,
    measure_spectra,
    whitened_window,
    window_taps,
)
from glitchflow_plugin.signal.psd import hann
from glitchflow_plugin.signal.whitening import unwhiten
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.tensors import host

_ENERGY_LENGTH = 0.5
"""Time over which the energy of a prediction is summed to tell its SNR, s."""

_BELIEF_EDGE = 0.25
"""Time in which belief rises and falls, s."""

_RINGING = 1.0
"""How far beyond what is believed the un-whitened glitch is kept, s: lines ring."""

_USUAL_RATES = (64.0, 256.0, 2048.0, 16384.0)
"""Rates of channels, Hz: the filters of each corrupt another length."""


@section
class StreamSettings:
    """How a model is used on continuous data; conf/stream.yaml explains the keys."""

    block_length: Count = 256
    stride: Positive = 2.0
    spectrum: SpectrumSettings = field(default_factory=SpectrumSettings)
    believed_snr: Range = (2.0, 4.0)
    novelty: Share = 0.01
    batch_size: Count = 16

    def __post_init__(self) -> None:
        """Refuse what leaves no window its own time."""
        if self.stride * 1024 != round(self.stride * 1024):
            raise ConfigurationError(f"stream.settings.stride must be a multiple of 1/1024 s, got {self.stride!r} s.")

    def decisive(self) -> dict[str, object]:
        """The settings that change what comes of it, JSON-like."""
        return {key: value for key, value in asdict(self).items() if key not in ("batch_size", "block_length")}


@dataclass(frozen=True, eq=False)
class StreamModel:
    """What is needed of a registered model, picklable.

    Attributes:
        twin: Of waveforms.
        target: How the strain is conditioned.
        witnesses: The same of each witness, in the order of the twin.
    """

    twin: nn.Module
    target: ChannelRecipe
    witnesses: tuple[ChannelRecipe, ...]

    @property
    def duration(self) -> float:
        """Length of a window, s."""
        return self.target.settings.duration

    @property
    def rate(self) -> float:
        """Common rate, Hz."""
        return self.target.settings.sample_rate


@dataclass(frozen=True, eq=False)
class Subtraction:
    """What a model says of a stretch of strain.

    Attributes:
        glitch: Predicted glitches at the strain's own rate, in its type and unit, exactly zero where nothing is
            believed, shape (time,).
        analysed: Where there is strain and a prediction, (time,) at the common rate.
        complete: Where no witness was missing, likewise.
        familiar: Where the model tells that the like was seen in training, likewise.
        missing: By witness the time for which it was missing, s.
    """

    glitch: Series
    analysed: Bool[np.ndarray, " sample"]
    complete: Bool[np.ndarray, " sample"]
    familiar: Bool[np.ndarray, " sample"]
    missing: Mapping[str, float]


def reach(model: StreamModel, settings: StreamSettings) -> float:
    """How far beyond a block data are read, s, so that what comes of it does not depend on where blocks end.

    Args:
        model: Its windows and filters.
        settings: Stride, spectra.
    """
    whole = model.target.settings
    edge = 0.0
    for rate in (whole.sample_rate, *_USUAL_RATES):
        try:
            needed = needed_length(whole, rate, psd=True, aligned=False)
            edge = max(edge, (needed - whole.duration - whole.whitening.filter_length) / 2)
        except ChannelRejectedError:
            continue
    return math.ceil(_used(model, settings) + edge)


def _used(model: StreamModel, settings: StreamSettings) -> float:
    """How far beyond a block band-passed series are used, s: by windows that ring into it, or by their spectra."""
    filter_length = model.target.settings.whitening.filter_length
    windows = (model.duration + filter_length) / 2
    spectra = settings.spectrum.stride + settings.spectrum.length
    return _beyond(filter_length) + settings.stride + max(windows, spectra)


def _beyond(filter_length: float) -> float:
    """How far beyond a block windows may reach into it by what rings, s."""
    return filter_length + 2 * _RINGING + _ENERGY_LENGTH + 2 * _BELIEF_EDGE


def subtract(
    channels: Mapping[str, Channel],
    model: StreamModel,
    block: tuple[float, float],
    segment: tuple[float, float],
    settings: StreamSettings,
) -> Subtraction:
    """Predict the glitches in a block of strain.

    Args:
        channels: As recorded, by name, from `reach` before the block to as much after it; NaN where there are no data,
            nothing outside the segment. The strain covers the block; witnesses may be missing.
        model: What to use.
        block: Start and end, GPS s, a part of the segment.
        segment: Start and end of the science segment, GPS s.
        settings: How.

    Raises:
        ConfigurationError: Windows are shorter than what each is used for.
    """
    if 1.5 * settings.stride > model.duration:
        raise ConfigurationError(
            f"stream.settings.stride must be at most two thirds of the model's windows ({model.duration:g} s), got "
            f"{settings.stride:g} s."
        )
    strain, rate = channels[model.target.name], model.rate
    margin = _beyond(model.target.settings.whitening.filter_length)
    outer = (round((block[0] - margin) * rate), round((block[1] + margin) * rate))
    centres = settings.stride * np.arange(
        math.floor((block[0] - margin) / settings.stride), math.ceil((block[1] + margin) / settings.stride) + 1
    )
    prepared = _prepare(channels, model, block, segment, settings)
    target = prepared[0]
    assert target is not None  # noqa: S101  # the caller has refused strain of no use
    windows = _predict(prepared, model, centres, settings)
    trusted = belief(_joined(windows, outer, rate, settings.stride), rate, settings.believed_snr)
    summed = np.zeros(outer[1] - outer[0])
    tail = round(model.target.settings.whitening.filter_length * rate)
    for window in windows:
        if window.strain is None:
            continue
        weight = window_weight(len(window.strain), rate, settings.stride)
        part = window.strain * weight * _cut(trusted, window.start - outer[0], len(weight))
        if part.any():
            ringing = unwhiten(np.pad(part, tail), window.target_taps, rate, target[0].band)[0]
            _add(summed, ringing, window.start - tail - outer[0])
    summed *= _kept(trusted, rate)
    glitch = _at_own_rate(summed, outer[0], strain, block, rate=rate, high=target[0].band[1])
    inner = slice(round(block[0] * rate) - outer[0], round(block[1] * rate) - outer[0])
    of_windows = {
        name: _joined_flags(windows, outer, rate, settings.stride, name)[inner]
        for name in ("predicted", "complete", "familiar")
    }
    usable = _cut(target[0].usable.astype(float), round(block[0] * rate) - target[0].first, inner.stop - inner.start)
    missing = {
        one.name: settings.stride * sum(one.lacking[place] for one in windows if one.predicted and _within(one, block))
        for place, one in enumerate(model.witnesses)
    }
    return Subtraction(
        glitch,
        analysed=of_windows["predicted"] & (usable > 0),
        complete=of_windows["complete"],
        familiar=of_windows["familiar"],
        missing={name: time for name, time in missing.items() if time},
    )


@dataclass(frozen=True, eq=False)
class _Window:
    """What is known of a window.

    Attributes:
        centre: GPS s.
        start: Number of its first sample, from GPS 0.
        target_taps: Whitening filter of the strain; empty where there is none.
        strain: Predicted whitened strain, (time,); None where nothing can be predicted.
        lacking: By witness, whether it is missing.
        familiar: Whether the model tells that the like was seen in training.
    """

    centre: float
    start: int
    target_taps: np.ndarray
    strain: Series | None
    lacking: Bool[np.ndarray, " witness"]
    familiar: bool = False

    @property
    def predicted(self) -> bool:
        return self.strain is not None

    @property
    def complete(self) -> bool:
        return not self.lacking.any()


_Prepared = tuple[Conditioned, Spectra]


def _prepare(
    channels: Mapping[str, Channel],
    model: StreamModel,
    block: tuple[float, float],
    segment: tuple[float, float],
    settings: StreamSettings,
) -> list[_Prepared | None]:
    """Each channel band-passed with its spectra, the target first; None for one of no use."""
    whole, rate = model.target.settings, model.rate
    margin = _beyond(whole.whitening.filter_length) + settings.stride
    times = grid_times(block[0] - margin, block[1] + margin, settings.spectrum.stride)
    away = _used(model, settings)
    span = tuple(round(edge * rate) for edge in (max(block[0] - away, segment[0]), min(block[1] + away, segment[1])))
    prepared: list[_Prepared | None] = []
    for recipe in (model.target, *model.witnesses):
        found = channels.get(recipe.name)
        if found is None:
            prepared.append(None)
            continue
        try:
            recorded = found.series, found.sample_rate, found.t0
            one = conditioned(*recorded, (span[0], span[1]), recipe.settings, slow=recipe.slow)
        except ChannelRejectedError:
            prepared.append(None)
            continue
        spectra = measure_spectra(one, times, segment, settings.spectrum, recipe.settings, psd=recipe.psd)
        prepared.append((one, spectra))
    return prepared


def _predict(
    prepared: Sequence[_Prepared | None], model: StreamModel, centres: np.ndarray, settings: StreamSettings
) -> list[_Window]:
    """Windows about some times (GPS s), with what the twin says of them."""
    windows: list[_Window] = []
    for first in range(0, len(centres), settings.batch_size):
        batch = centres[first : first + settings.batch_size]
        looked = [_look(prepared, model, float(centre)) for centre in batch]
        asked = [place for place, (taps, series) in enumerate(looked) if len(taps) and series.any()]
        strains: dict[int, Series] = {}
        familiar: dict[int, bool] = {}
        if asked:
            series = torch.from_numpy(np.stack([looked[place][1] for place in asked]))
            predicted, explained = predict_strain(model.twin, series, settings.batch_size)
            strains = dict(zip(asked, host(predicted).astype(np.float64), strict=True))
            if explained is not None and explains(model.twin):
                p_values = host(model.twin.strangeness(explained.summary, explained.strain))
                familiar = dict(zip(asked, (p_values >= settings.novelty).tolist(), strict=True))
        half = round(model.duration * model.rate) // 2
        for place, (centre, (taps, series)) in enumerate(zip(batch, looked, strict=True)):
            start = round(float(centre) * model.rate) - half
            lacking = ~series.any(axis=1)
            windows.append(_Window(float(centre), start, taps, strains.get(place), lacking, familiar.get(place, False)))
    return windows


def _look(
    prepared: Sequence[_Prepared | None], model: StreamModel, centre: float
) -> tuple[np.ndarray, Float[np.ndarray, "witness time"]]:
    """Whitening filter of the strain, and whitened witnesses, in a window; zeros for one that cannot be used."""
    size = round(model.duration * model.rate)
    start = round(centre * model.rate) - size // 2
    series = np.zeros((len(model.witnesses), size), dtype=np.float32)
    filters_of: list[np.ndarray] = []
    for row, (recipe, found) in enumerate(zip((model.target, *model.witnesses), prepared, strict=True), start=-1):
        taps = None if found is None else window_taps(found[1], centre, found[0], recipe.settings)
        if row < 0:
            filters_of.append(np.empty(0) if taps is None else taps)
        elif found is not None and taps is not None:
            whitened = whitened_window(found[0], taps, start, size, settings=recipe.settings, name=recipe.name)
            if whitened is not None:
                series[row] = whitened
    return filters_of[0], series


def window_weight(size: int, rate: float, stride: float) -> Series:
    """Weight of a window in the sum, (time,): one in the middle, and with its neighbours one everywhere.

    Args:
        size: Samples of the window.
        rate: Hz.
        stride: From one window to the next, s; half of it is the time in which one gives way to the next.
    """
    away = np.abs(np.arange(size) - size // 2) / rate
    edge = stride / 2
    share = np.clip((away - (stride - edge) / 2) / edge, 0.0, 1.0)
    return np.cos(0.5 * np.pi * share) ** 2


def belief(whitened: Series, rate: float, believed_snr: tuple[float, float]) -> Series:
    """How far a prediction is believed, 0 to 1, (time,): by its SNR in half a second, and beside what is loud.

    Args:
        whitened: Predicted whitened strain, (time,).
        rate: Hz.
        believed_snr: SNR up to which nothing is believed, and from which everything.
    """
    energy = ndimage.uniform_filter1d(np.square(whitened), round(_ENERGY_LENGTH * rate), mode="constant")
    snr = np.sqrt(np.maximum(energy, 0.0) * round(_ENERGY_LENGTH * rate))
    low, high = believed_snr
    found = np.clip((snr - low) / (high - low), 0.0, 1.0)
    return _softened(found, rate, _BELIEF_EDGE)


def _softened(shares: Series, rate: float, beside: float) -> Series:
    """Shares that hold for some time (s) beside where they are reached, and fall softly from there, exactly to zero."""
    edge = round(_BELIEF_EDGE * rate)
    reached = ndimage.maximum_filter1d(shares, 2 * (round(beside * rate) + edge) + 1, mode="constant")
    if not reached.any():
        return reached
    window = hann(2 * edge + 1, symmetric=True)
    soft = np.convolve(reached, window / window.sum(), mode="same")
    untouched = ndimage.maximum_filter1d(reached, 2 * edge + 1, mode="constant") == 0
    soft[untouched] = 0.0
    return np.minimum(soft, 1.0)


def _kept(trusted: Series, rate: float) -> Series:
    """Where the un-whitened glitch is kept: all that is believed, and for a while what rings beside it."""
    return _softened((trusted > 0).astype(float), rate, _RINGING)


def _joined(windows: Sequence[_Window], outer: tuple[int, int], rate: float, stride: float) -> Series:
    """The whitened prediction of all windows, (time,)."""
    summed = np.zeros(outer[1] - outer[0])
    for window in windows:
        if window.strain is not None:
            weight = window_weight(len(window.strain), rate, stride)
            _add(summed, window.strain * weight, window.start - outer[0])
    return summed


def _joined_flags(
    windows: Sequence[_Window], outer: tuple[int, int], rate: float, stride: float, name: str
) -> Bool[np.ndarray, " time"]:
    """Where all windows that have a share in the sum agree on something, (time,)."""
    held = np.ones(outer[1] - outer[0], dtype=np.bool_)
    half = round(0.75 * stride * rate)
    for window in windows:
        if not getattr(window, name):
            middle = round(window.centre * rate) - outer[0]
            held[max(middle - half, 0) : max(middle + half, 0)] = False
    return held


def _within(window: _Window, block: tuple[float, float]) -> bool:
    return block[0] <= window.centre < block[1]


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


def _at_own_rate(
    summed: Series, first: int, strain: Channel, block: tuple[float, float], *, rate: float, high: float
) -> Series:
    """The glitch at the samples of the recorded strain in a block, exactly zero where nothing was believed."""
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
