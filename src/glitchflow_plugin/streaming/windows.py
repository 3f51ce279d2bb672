"""Windows of continuous data as a model sees them, and what it says of each."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.closed_loop import measure_gains as gains_of
from glitchflow_plugin.inference.predict import explains, predict_strain
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.preprocessing.channel_recipe import ChannelRecipe
from glitchflow_plugin.settings import Count, Positive, Range, Share, section
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
from glitchflow_plugin.signal.gain_watch import GainReference, MeasuredGains, WatchSettings
from glitchflow_plugin.signal.qtransform import QTransformSettings, axes, q_transform_relative
from glitchflow_plugin.streaming.belief import BELIEF_EDGE, ENERGY_LENGTH, LONGEST, RINGING
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.tensors import host

_USUAL_RATES = (64.0, 256.0, 2048.0, 16384.0)
"""Rates of channels, Hz: the filters of each corrupt another length."""


@section
class StreamSettings:
    """How a model is used on continuous data; conf/stream.yaml explains the keys."""

    block_length: Count = 256
    stride: Positive = 2.0
    spectrum: SpectrumSettings = field(default_factory=SpectrumSettings)
    believed_snr: Range = (2.0, 4.0)
    agreement: bool = True
    closed_loop: WatchSettings = field(default_factory=WatchSettings)
    novelty: Share = 0.01
    signal_snr2: Positive = 25.0
    batch_size: Count = 8

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
        twin: A twin of waveforms.
        target: How the strain is conditioned.
        witnesses: The same of each witness, in the order of the twin.
        qtransform: Maps in which is looked for what is left.
        reference: Gains of the witnesses in validation; None where the closed loop cannot be.
    """

    twin: nn.Module
    target: ChannelRecipe
    witnesses: tuple[ChannelRecipe, ...]
    qtransform: QTransformSettings = field(default_factory=QTransformSettings)
    reference: GainReference | None = None

    @property
    def duration(self) -> float:
        """Length of a window, s."""
        return self.target.settings.duration

    @property
    def rate(self) -> float:
        """Common rate, Hz."""
        return self.target.settings.sample_rate


def reach(model: StreamModel, settings: StreamSettings) -> float:
    """How far beyond a block data are read, s, so that what comes of it does not depend on where blocks end.

    Args:
        model: Whose windows and filters are used.
        settings: Stride and spectra.
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
    return foresight(model, settings) + max(windows, spectra)


def beyond(filter_length: float) -> float:
    """How far beyond a block windows may reach into it by what rings, or by the answer about a stretch, s.

    Args:
        filter_length: Length of the whitening filter, s.
    """
    return filter_length + 2 * RINGING + ENERGY_LENGTH + 2 * BELIEF_EDGE + 1.5 * LONGEST


def foresight(model: StreamModel, settings: StreamSettings) -> float:
    """How far beyond a block the last window lies that decides about it, s.

    Args:
        model: Whose windows and filters are used.
        settings: Stride.
    """
    return beyond(model.target.settings.whitening.filter_length) + settings.stride


@dataclass(frozen=True, eq=False)
class Window:
    """What is known of a window.

    Attributes:
        centre: GPS s.
        start: Number of its first sample, from GPS 0.
        target_taps: Whitening filter of the strain; empty where there is none.
        lacking: By witness, whether it is missing.
        stopped: By witness, whether the closed loop has stopped it.
        measured: Measured whitened strain, (time,).
        strain: Predicted whitened strain, (time,); None where nothing can be predicted.
        familiar: Whether the model tells that the like was seen in training.
        accounted: Whether nothing loud is left of the strain, in the middle of the window.
        quiet: Whether nothing loud is in the strain itself there.
    """

    centre: float
    start: int
    target_taps: np.ndarray
    lacking: Bool[np.ndarray, " witness"]
    stopped: Bool[np.ndarray, " witness"]
    measured: Series
    strain: Series | None = None
    familiar: bool = False
    accounted: bool = False
    quiet: bool = False

    @property
    def predicted(self) -> bool:
        """Whether the twin was asked."""
        return self.strain is not None

    @property
    def complete(self) -> bool:
        """Whether no witness is missing or stopped."""
        return not (self.lacking | self.stopped).any()


Prepared = tuple[Conditioned, Spectra]
Looked: TypeAlias = tuple[np.ndarray, Float[np.ndarray, " time"], Float[np.ndarray, "witness time"]]
"""Whitening filter of the strain, whitened strain and witnesses in a window, as `look` gives them."""
Look: TypeAlias = Callable[[float], Looked]
"""What is seen in the window about a time, GPS s."""


def prepare(
    channels: Mapping[str, Channel],
    model: StreamModel,
    block: tuple[float, float],
    segment: tuple[float, float],
    settings: StreamSettings,
) -> list[Prepared | None]:
    """Each channel band-passed with its spectra, the target first; None for one of no use.

    Args:
        channels: As for `stream.subtract`.
        model: Twin and recipes.
        block: Start and end, GPS s.
        segment: Start and end of the science segment, GPS s.
        settings: Stride, spectra, and from when a window is new or its rest loud.
    """
    rate, margin = model.rate, foresight(model, settings)
    times = grid_times(block[0] - margin, block[1] + margin, settings.spectrum.stride)
    away = _used(model, settings)
    span = tuple(round(edge * rate) for edge in (max(block[0] - away, segment[0]), min(block[1] + away, segment[1])))
    prepared: list[Prepared | None] = []
    for recipe in (model.target, *model.witnesses):
        found = channels.get(recipe.name)
        if found is None:
            prepared.append(None)
            continue
        try:
            recorded = found.series, found.sample_rate, found.t0
            one = conditioned(*recorded, (span[0], span[1]), recipe.settings, name=recipe.name, slow=recipe.slow)
        except ChannelRejectedError:
            prepared.append(None)
            continue
        spectra = measure_spectra(one, times, segment, settings.spectrum, recipe.settings, psd=recipe.psd)
        prepared.append((one, spectra))
    return prepared


def predict_windows(
    seen_at: Look,
    model: StreamModel,
    centres: np.ndarray,
    settings: StreamSettings,
    stopped: Mapping[str, float],
    *,
    ahead: float = math.inf,
) -> list[Window]:
    """Windows about some times, with what the twin says of them.

    Args:
        seen_at: `look`, of what was prepared.
        model: Twin and recipes.
        centres: Centres of the windows, GPS s.
        settings: Stride, spectra, and from when a window is new or its rest loud.
        stopped: By witness the GPS time, s, from which on it is taken as missing: where a window counts.
        ahead: How far behind the centre of a window data have come, s.
    """
    windows: list[Window] = []
    half = round(model.duration * model.rate) // 2
    since = np.array([stopped.get(one.name, math.inf) for one in model.witnesses])
    for first in range(0, len(centres), settings.batch_size):
        batch = [float(centre) for centre in centres[first : first + settings.batch_size]]
        looked = [seen_at(centre) for centre in batch]
        off = [since <= centre - 0.75 * settings.stride for centre in batch]
        seen = [np.where(gone[:, None], 0, series) for gone, (_, _, series) in zip(off, looked, strict=True)]
        asked = [place for place, (taps, _, _) in enumerate(looked) if len(taps) and seen[place].any()]
        said: dict[int, tuple[Series, bool, bool, bool]] = {}
        if asked:
            strain = torch.from_numpy(np.stack([looked[place][1] for place in asked]))
            witnesses = torch.from_numpy(np.stack([seen[place] for place in asked]))
            predicted, summary = predict_strain(model.twin, witnesses, settings.batch_size)
            familiar = torch.zeros(len(asked), dtype=torch.bool)
            if summary is not None and explains(model.twin):
                familiar = model.twin.strangeness(summary, predicted[:, None]) >= settings.novelty
            accounted = _loudest_left(strain, predicted, model, settings, ahead) <= settings.signal_snr2
            quiet = accounted.clone()
            # of what is no louder nothing is believed: the strain itself is what is left of it
            believed = predicted.square().sum(dim=-1) > settings.believed_snr[0] ** 2
            if believed.any():
                own = strain[believed]
                loudest = _loudest_left(own, torch.zeros_like(own), model, settings, ahead)
                quiet[believed] = loudest <= settings.signal_snr2
            flags = zip(familiar.tolist(), accounted.tolist(), quiet.tolist(), strict=True)
            told = ((one, *held) for one, held in zip(host(predicted).astype(np.float64), flags, strict=True))
            said = dict(zip(asked, told, strict=True))
        for place, (centre, (taps, strain, series)) in enumerate(zip(batch, looked, strict=True)):
            known = taps, ~series.any(axis=1), off[place], strain.astype(np.float64)
            start = round(centre * model.rate) - half
            windows.append(Window(centre, start, *known, *said.get(place, (None, False, False, False))))
    return windows


def measure_gains(
    seen_at: Look, model: StreamModel, centres: Sequence[float], settings: WatchSettings
) -> MeasuredGains:
    """How strongly the strain follows each witness in the windows about some times, none of them stopped.

    Args:
        seen_at: `look`, of what was prepared.
        model: Twin and recipes.
        centres: Centres of the windows, GPS s.
        settings: How far a part is moved.
    """
    looked = map(seen_at, centres)
    batches = ((torch.from_numpy(series)[None], torch.from_numpy(strain)[None, None]) for _, strain, series in looked)
    return gains_of(cast("WaveformTwin", model.twin), batches, model.rate, settings)


def _loudest_left(
    strain: Float[torch.Tensor, "window time"],
    predicted: Float[torch.Tensor, "window time"],
    model: StreamModel,
    settings: StreamSettings,
    ahead: float,
) -> Float[torch.Tensor, " window"]:
    """Largest energy (SNR²) that is left of the strain where a window counts; NaN where there is no strain."""
    come = strain.shape[-1] // 2 + min(round(min(ahead, model.duration) * model.rate), strain.shape[-1] // 2)
    # what has not come yet is quieter than noise: by its median all would be loud
    noise = torch.cat([strain[..., :come], strain[..., 2 * come - strain.shape[-1] : come].flip(-1)], dim=-1)
    times = axes(model.duration, model.qtransform)[1]
    counting = np.flatnonzero(np.abs(times - model.duration / 2) <= 0.75 * settings.stride)
    columns = int(counting[0]), int(counting[-1]) + 1
    maps = q_transform_relative(strain - predicted, noise, model.rate, model.qtransform, columns=columns)
    loudest = maps.amax(dim=(-2, -1))
    return torch.where(strain.any(dim=-1), loudest, torch.nan)


def look(prepared: Sequence[Prepared | None], model: StreamModel, centre: float) -> Looked:
    """Whitening filter of the strain, whitened strain and witnesses in a window; zeros for one that cannot be used.

    Args:
        prepared: From `prepare`.
        model: Twin and recipes.
        centre: Centre of the window, GPS s.
    """
    size = round(model.duration * model.rate)
    start = round(centre * model.rate) - size // 2
    series = np.zeros((1 + len(model.witnesses), size), dtype=np.float32)
    filters_of: list[np.ndarray] = []
    for row, (recipe, found) in enumerate(zip((model.target, *model.witnesses), prepared, strict=True)):
        taps = None if found is None else window_taps(found[1], centre, found[0], recipe.settings)
        filters_of.append(np.empty(0) if taps is None else taps)
        if found is not None and taps is not None:
            whitened = whitened_window(found[0], taps, start, size)
            if whitened is not None:
                series[row] = whitened
    return filters_of[0], series[0], series[1:]
