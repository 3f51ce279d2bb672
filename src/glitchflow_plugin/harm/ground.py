"""A stretch of strain into which signals are injected: its quiet noise, its glitches, and how the filter sees it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.signal import windows

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.harm.injections import HarmSettings
from glitchflow_plugin.signal.conditioning import at_common_rate
from glitchflow_plugin.signal.continuous import raised_runs
from glitchflow_plugin.signal.matched_filter import Weighted, weighted
from glitchflow_plugin.signal.psd import Psd, welch_psd
from glitchflow_plugin.signal.qtransform import axes, q_transform_relative
from glitchflow_plugin.streaming.windows import Prepared, StreamModel, look
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.intervals import union
from glitchflow_plugin.types.tensors import host

_ONE_GLITCH = 0.5
"""Loud times no farther apart are of one glitch, s."""

_BESIDE = 0.25
"""How far beside what is loud the noise is not called quiet, s."""


@dataclass(frozen=True, eq=False)
class Ground:
    """A stretch of strain at the common rate.

    Attributes:
        span: Start and end, GPS s.
        first: Number of its first sample, from GPS 0.
        rate: Common rate, Hz.
        band: In which signals are looked for, Hz.
        strain: As recorded, band-passed, (time,); zero where it cannot be used.
        usable: Where it can, (time,).
        psd: Density of its quiet noise.
        glitches: GPS s of what is loud in it.
        model: Twin and recipes.
    """

    span: tuple[float, float]
    first: int
    rate: float
    band: tuple[float, float]
    strain: Series
    usable: Bool[np.ndarray, " time"]
    psd: Psd
    glitches: Float[np.ndarray, " glitch"]
    model: StreamModel

    def weighted(self, series: Series, settings: HarmSettings) -> Weighted:
        """The spectrum of a series of the stretch as the matched filter takes it, its ends faded out."""
        return weighted(series * self._fade(settings), self.rate, self.psd, self.band)

    def whole_norm(self, series: Series, settings: HarmSettings) -> float:
        """SNR of a signal in the whole band of the model."""
        whole = (self.model.target.settings.low, self.highest)
        return weighted(series * self._fade(settings), self.rate, self.psd, whole).norm

    @property
    def highest(self) -> float:
        """Highest frequency that is kept of a signal, Hz."""
        return min(self.model.target.settings.high, 0.98 * self.rate / 2)

    def _fade(self, settings: HarmSettings) -> Series:
        size = len(self.strain)
        return windows.tukey(size, 2 * settings.fft_length * self.rate / size)

    def at_common_rate(self, recorded: Channel) -> Series:
        """What there is of a recording without a gap in the stretch, as the strain is conditioned, (time,)."""
        found = np.zeros(len(self.strain))
        if recorded.series.any():
            settings = self.model.target.settings
            (part,), first, _ = at_common_rate([recorded.series], recorded.sample_rate, recorded.t0, settings)
            low, high = max(first, self.first), min(first + len(part), self.first + len(found))
            found[low - self.first : high - self.first] = part[low - first : high - first]
        return found

    def free(self, settings: HarmSettings) -> list[tuple[float, float]]:
        """Stretches within which a signal may lie, GPS s: away from the ends and from gaps."""
        spans = (raised_runs(self.usable) + self.first) / self.rate + np.array([settings.edge, -settings.edge])
        return [(float(start), float(stop)) for start, stop in spans if stop > start]

    def loud(self, series: Weighted, share: float = 0.9) -> tuple[float, float]:
        """Start and end of the middle part of a signal that holds a share of its SNR², GPS s."""
        spectrum = np.zeros(series.size // 2 + 1, dtype=np.complex128)
        spectrum[series.first : series.first + len(series.values)] = series.values
        energy = np.cumsum(np.fft.irfft(spectrum, series.size) ** 2)
        ends = np.searchsorted(energy, energy[-1] * np.array([(1 - share) / 2, (1 + share) / 2]))
        start, stop = (self.first + ends) / self.rate
        return float(start), float(stop)


def make_ground(
    prepared: Sequence[Prepared | None], model: StreamModel, span: tuple[float, float], settings: HarmSettings
) -> Ground:
    """Look at a stretch of strain without signals.

    Args:
        prepared: From `streaming.windows.prepare`.
        model: Twin and recipes.
        span: Start and end, GPS s.
        settings: What is a glitch, how its noise is measured.

    Raises:
        ValueError: Its noise cannot be measured.
    """
    rate = model.rate
    target = prepared[0]
    assert target is not None  # noqa: S101  # the caller has refused strain of no use
    first, last = (round(edge * rate) for edge in span)
    inner = slice(first - target[0].first, last - target[0].first)
    strain, usable = target[0].series[inner], target[0].usable[inner]
    glitches, loud = loud_times(prepared, model, span, settings.glitch_snr2)
    busy = _busy(loud, usable, first, rate)
    psd = welch_psd(strain, rate, settings.fft_length, settings.fft_length / 2, exclude=busy)
    return Ground(span, first, rate, settings.band or target[0].band, strain, usable, psd, glitches, model)


def loud_times(
    prepared: Sequence[Prepared | None], model: StreamModel, span: tuple[float, float], threshold: float
) -> tuple[Float[np.ndarray, " glitch"], Float[np.ndarray, "stretch 2"]]:
    """When the strain is loud: the loudest time of each glitch, and the stretches, GPS s.

    Args:
        prepared: From `streaming.windows.prepare`.
        model: Twin and recipes.
        span: Start and end, GPS s.
        threshold: Energy of the Q-transform (SNR²) from which the strain is loud.
    """
    stride = model.duration / 2
    times = axes(model.duration, model.qtransform)[1] - model.duration / 2
    inside = np.abs(times) <= stride / 2
    found: list[np.ndarray] = []
    for centre in np.arange(span[0] + stride / 2, span[1] + stride / 2, stride):
        _, strain, _ = look(prepared[:1], alone(model), float(centre))
        if strain.any():
            series = torch.from_numpy(strain)[None]
            energy = host(q_transform_relative(series, series, model.rate, model.qtransform)[0].amax(dim=0))
            raised = inside & (energy > threshold)
            found.append(np.stack([centre + times[raised], energy[raised]], axis=1))
    loud = np.concatenate([np.empty((0, 2)), *found])
    loud = loud[(loud[:, 0] >= span[0]) & (loud[:, 0] < span[1])]
    stretches = union(np.stack([loud[:, 0], loud[:, 0]], axis=1), touching=_ONE_GLITCH)
    loudest = [_loudest(loud, start, stop) for start, stop in stretches]
    return np.array(loudest, dtype=np.float64), stretches


def alone(model: StreamModel) -> StreamModel:
    """The model's strain without witnesses, for what looks at the strain alone."""
    return replace(model, witnesses=())


def _loudest(loud: np.ndarray, start: float, stop: float) -> float:
    part = loud[(loud[:, 0] >= start) & (loud[:, 0] <= stop)]
    return float(part[part[:, 1].argmax(), 0])


def _busy(
    loud: Float[np.ndarray, "stretch 2"], usable: Bool[np.ndarray, " time"], first: int, rate: float
) -> np.ndarray:
    """First and one past the last sample of stretches that are loud or not there, apart and rising."""
    beside = loud + np.array([-_BESIDE, _BESIDE])
    samples = union(np.concatenate([np.round(beside * rate) - first, raised_runs(~usable)]))
    return np.clip(samples, 0, len(usable)).astype(int)
