"""Conditioning of a channel that runs on: gaps, spectra that change with time, whitening of any window.

An event is whitened by the noise beside it. Here spectra are measured on a grid of GPS times that depends on the
segment alone, and between two of them the density goes over smoothly: what is made of a window is the same whatever
stretch was read with it.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Complex, Int

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Positive, section
from glitchflow_plugin.signal import fourier
from glitchflow_plugin.signal.conditioning import (
    ChannelRejectedError,
    ConditioningSettings,
    after_band_pass,
    at_common_rate,
    fill_filter,
    usable_band,
)
from glitchflow_plugin.signal.psd import Psd, welch_psd
from glitchflow_plugin.signal.slow import SHARE, SlowScale, slow_motion
from glitchflow_plugin.signal.whitening import whiten, whitening_filter
from glitchflow_plugin.types.arrays import Series

_SHORTEST_FLAT = 16
"""Equal samples that are no sign of a dead channel: slow digital ones repeat a few."""

_SHORT_FILLING = 2**14
"""Samples of noise up to which it is filtered in one transform, by a response that is kept."""


@section
class SpectrumSettings:
    """Where spectra are measured.

    Attributes:
        length: Length of the stretch that a spectrum is the average of, s.
        stride: Time from one spectrum to the next, s; the grid is the multiples of it, in GPS time.
    """

    length: Positive = 64.0
    stride: Positive = 16.0

    def __post_init__(self) -> None:
        """Refuse spectra between which nobody looks at the data."""
        if self.stride > self.length:
            raise ConfigurationError(
                f"spectrum.stride ({self.stride:g} s) must not exceed spectrum.length ({self.length:g} s)."
            )


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A channel at the common rate, band-passed, and where it can be used.

    Attributes:
        series: Shape (time,), in the channel's unit; zero where it cannot be used.
        usable: Shape (time,).
        first: Number of the first sample at the common rate, from GPS 0.
        own_rate: Rate of the recording, Hz.
        band: Lower and upper edge of what the channel delivers, Hz.
        beside: What is added to it when it is whitened: noise where a slow channel delivers nothing, and motion below
            the band in units of its scale, where that is kept; shape (time,). None: nothing.
    """

    series: Series
    usable: Bool[np.ndarray, " time"]
    first: int
    own_rate: float
    band: tuple[float, float]
    beside: Series | None = None


def usable_runs(series: Series, flat_size: int) -> list[tuple[int, int]]:
    """First and one past the last sample of each stretch without a gap and without a dead sensor.

    Args:
        series: Recorded samples, shape (time,); NaN where there are no data.
        flat_size: So many equal samples mean a dead sensor or a gap that was filled.

    >>> usable_runs(np.array([1.0, 2.0, np.nan, 3.0, 3.0, 3.0, 4.0]), 3)
    [(0, 2), (6, 7)]
    """
    good, same = np.isfinite(series), series[1:] == series[:-1]
    if len(series) and good.all() and not same.any():
        return [(0, len(series))]
    equal = raised_runs(same)
    for start, stop in equal[equal[:, 1] - equal[:, 0] + 1 >= flat_size]:
        good[start : stop + 1] = False
    return [(int(start), int(stop)) for start, stop in raised_runs(good)]


def conditioned(
    series: Series,
    sample_rate: float,
    t0: float,
    span: tuple[int, int],
    settings: ConditioningSettings,
    *,
    name: str,
    slow: SlowScale | None = None,
) -> Conditioned:
    """Band-pass and resample what there is of a channel, each stretch without a gap by itself.

    Args:
        series: Recorded samples, shape (time,); NaN where there are no data.
        sample_rate: Hz.
        t0: GPS time of its first sample, s.
        span: First and one past the last sample wanted, at the common rate, counted from GPS 0.
        settings: Band, common rate, what counts as flat.
        name: Name of the channel: with the GPS second it seeds the noise that fills what a slow channel cannot deliver.
        slow: Unit of the motion below the band, where that is kept.

    Raises:
        ChannelRejectedError: `band above nyquist` or `sample rate`: no part of it can be used.
    """
    size = span[1] - span[0]
    joined, usable = np.zeros(size), np.zeros(size, dtype=np.bool_)
    motion = np.zeros(size)
    band = usable_band(settings, sample_rate)
    flat_size = max(round(settings.flat_length * sample_rate), _SHORTEST_FLAT)
    for start, stop in usable_runs(series, flat_size):
        try:
            (part,), first, edge = at_common_rate(
                [np.asarray(series[start:stop], dtype=np.float64)], sample_rate, t0 + start / sample_rate, settings
            )
        except ChannelRejectedError as error:
            if error.reason == "sample rate":
                raise
            continue  # too short, or nothing in the band
        low, high = max(first + edge, span[0]), min(first + len(part) - edge, span[1])
        if low < high and slow is not None:
            times = np.arange(low, high) / settings.sample_rate
            recorded = series[start:stop], sample_rate, t0 + start / sample_rate
            motion[low - span[0] : high - span[0]] = SHARE * slow_motion(*recorded, times, slow)
        if low < high:
            joined[low - span[0] : high - span[0]] = part[low - first : high - first]
            usable[low - span[0] : high - span[0]] = np.isfinite(part[low - first : high - first])
    joined[~usable] = 0.0
    noise = filling(name, span, band, settings)
    beside = motion if noise is None else motion + noise
    return Conditioned(joined, usable, span[0], sample_rate, band, beside if beside.any() else None)


def filling(
    name: str, span: tuple[int, int], band: tuple[float, float], settings: ConditioningSettings
) -> Series | None:
    """White noise in the part of the band that a slow channel cannot deliver, (time,); None for another.

    Args:
        name: Name of the channel, which with the GPS second seeds it.
        span: First and one past the last sample, at the common rate, counted from GPS 0.
        band: What the channel delivers, Hz.
        settings: Whole band and common rate.
    """
    whitening, rate = settings.whitening, settings.sample_rate
    if not whitening.fill or band[1] >= min(settings.high, 0.98 * rate / 2):
        return None
    taps = fill_filter(rate, whitening.filter_length, *band, settings.high)
    half = len(taps) // 2
    noise = _white_noise(name, span[0] - half, span[1] - span[0] + 2 * half, round(rate))
    if len(noise) > _SHORT_FILLING:
        return whiten(noise, taps)[0][half : len(noise) - half]
    length = fourier.next_fast_len(len(noise))
    response = _fill_response(length, rate, whitening.filter_length, (*band, settings.high))
    return fourier.irfft(fourier.rfft(noise, length) * response, length)[2 * half : len(noise)]


@lru_cache(maxsize=16)
def _fill_response(
    size: int, rate: float, length: float, edges: tuple[float, float, float]
) -> Complex[np.ndarray, " frequency"]:
    """Transform of `fill_filter` with zeros behind it up to some size."""
    return fourier.rfft(fill_filter(rate, length, *edges), size)


@dataclass(frozen=True, eq=False)
class Spectra:
    """Densities of one channel on a grid of times, in rising order; None where there were too few data.

    Attributes:
        times: GPS s.
        densities: At these times, of the channel as it is after the band-pass.
    """

    times: tuple[float, ...]
    densities: tuple[Psd | None, ...]

    def at(self, gps: float) -> Psd | None:
        """Density at a time: between two neighbours their weighted geometric mean, beside a missing one the other."""
        place = int(np.clip(np.searchsorted(self.times, gps, side="right") - 1, 0, max(len(self.times) - 2, 0)))
        pair = self.densities[place : place + 2]
        known = [one for one in pair if one is not None]
        if len(known) < 2:
            return known[0] if known else None
        share = (gps - self.times[place]) / (self.times[place + 1] - self.times[place])
        share = min(max(share, 0.0), 1.0)
        before, after = known
        # a density of zero (a digital notch) has no logarithm, and stays
        low = np.maximum(before.values, np.finfo(float).tiny)
        high = np.maximum(after.values, np.finfo(float).tiny)
        return Psd(low ** (1 - share) * high**share, before.spacing)


def grid_times(start: float, stop: float, stride: float) -> tuple[float, ...]:
    """Multiples of a stride from the last one not after `start` to the first one not before `stop`.

    >>> grid_times(10.0, 70.0, 32.0)
    (0.0, 32.0, 64.0, 96.0)
    """
    return tuple(stride * number for number in range(math.floor(start / stride), math.ceil(stop / stride) + 1))


def stretch_about(gps: float, length: float, segment: tuple[float, float]) -> tuple[float, float]:
    """A stretch of some length about a time, moved into the segment, and shortened where that is shorter.

    >>> stretch_about(5.0, 64.0, (0.0, 1000.0)), stretch_about(5.0, 64.0, (0.0, 40.0))
    ((0.0, 64.0), (0.0, 40.0))
    """
    start = max(segment[0], min(gps - length / 2, segment[1] - length))
    return start, min(start + length, segment[1])


def measure_spectra(
    channel: Conditioned,
    times: Sequence[float],
    segment: tuple[float, float],
    spectrum: SpectrumSettings,
    settings: ConditioningSettings,
    *,
    psd: Psd | None = None,
) -> Spectra:
    """Spectra of a channel about some times, from data of its segment alone.

    Args:
        channel: What there is.
        times: GPS s, from `grid_times`.
        segment: Start and end of the science segment, GPS s.
        spectrum: Length of a stretch. Of a stretch with gaps, the longest part without one is used.
        settings: Segments of the average, common rate.
        psd: Density of the channel as recorded, where it is given: then nothing is measured.
    """
    rate, whitening = settings.sample_rate, settings.whitening
    if psd is not None:
        given = after_band_pass(psd, channel.own_rate, channel.band, settings.order)
        return Spectra(tuple(times), (given,) * len(times))
    densities: list[Psd | None] = []
    for gps in times:
        low, high = (round(edge * rate) - channel.first for edge in stretch_about(gps, spectrum.length, segment))
        start, stop = longest_run(channel.usable, max(low, 0), min(high, len(channel.series)))
        try:
            stretch = channel.series[start:stop]
            found = welch_psd(stretch, rate, whitening.fft_length, whitening.overlap, method=whitening.method)
            densities.append(found)
        except ValueError:  # too short
            densities.append(None)
    return Spectra(tuple(times), tuple(densities))


def whitened_window(channel: Conditioned, taps: np.ndarray, start: int, size: int) -> Series | None:
    """A window of a channel, whitened; None where a part of it cannot be used.

    Args:
        channel: What there is.
        taps: Whitening filter, odd.
        start: Number of the window's first sample, from GPS 0.
        size: Its samples.
    """
    half = len(taps) // 2
    low, high = start - half - channel.first, start + size + half - channel.first
    if low < 0 or high > len(channel.series) or not channel.usable[low:high].all():
        return None
    found = whiten(channel.series[low:high], taps)[0][half : half + size]
    return found if channel.beside is None else found + channel.beside[low + half : low + half + size]


def window_taps(spectra: Spectra, gps: float, channel: Conditioned, settings: ConditioningSettings) -> Series | None:
    """Whitening filter of a window centred on a GPS time (s); None where no spectrum is known or it is zero."""
    density = spectra.at(gps)
    if density is None:
        return None
    try:
        return whitening_filter(density, settings.sample_rate, settings.whitening.filter_length, channel.band)
    except ValueError:
        return None


def raised_runs(flags: Bool[np.ndarray, " time"]) -> Int[np.ndarray, "run 2"]:
    """First and one past the last sample of each run of raised flags."""
    return np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)


def longest_run(usable: Bool[np.ndarray, " time"], low: int, high: int) -> tuple[int, int]:
    """First and one past the last sample of the longest stretch without a gap; twice the same where there is none.

    Args:
        usable: Where there are data, (time,).
        low: Where to look from.
        high: And up to where.
    """
    if low >= high:
        return 0, 0
    runs = raised_runs(usable[low:high])
    if not len(runs):
        return 0, 0
    start, stop = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    return low + int(start), low + int(stop)


def _white_noise(name: str, first: int, size: int, rate: int) -> Series:
    """Noise of variance 1 that is the same for a channel and GPS second whatever is asked for with it."""
    seconds = range(first // rate, (first + size - 1) // rate + 1)
    seed = zlib.crc32(name.encode())
    offset = first - seconds.start * rate
    return np.concatenate([_white_second(seed, second, rate) for second in seconds])[offset : offset + size]


@lru_cache(maxsize=512)
def _white_second(seed: int, second: int, rate: int) -> Series:
    """One GPS second of it, kept: what is filled second by second asks for each several times."""
    return np.random.default_rng([seed, second]).standard_normal(rate)
