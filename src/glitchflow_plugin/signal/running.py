"""Conditioning of a channel whose data end at the newest sample: what zero-phase filters can be there.

The band-pass of `signal.conditioning` goes forwards and backwards. Forwards needs only the past: it is done as data
come in, by an impulse response that ends, so that nothing older than it matters. Backwards, and the whitening, need the
future as well. They are done on a window each time, as one response, and beyond the newest sample the series goes on as
its own spectrum foretells: linear prediction, which of all estimates of what the zero-phase filters would give has the
least square error (Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949). Samples
farther from the end than the filters reach come out as they would offline.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Complex
from scipy import linalg, signal

from glitchflow_plugin.signal import filters, fourier
from glitchflow_plugin.signal.conditioning import ConditioningSettings, usable_band
from glitchflow_plugin.signal.continuous import usable_runs
from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.signal.whitening import whitening_filter
from glitchflow_plugin.types.arrays import Series

_FORETOLD = 0.5
"""How far back linear prediction looks, and how far ahead, s; beyond, the series is zero."""

_FLOOR = 1e-9
"""Share of the power added as white noise, without which the prediction's equations are next to singular."""

_ROUNDING = 1e-13
_SHORTEST_FLAT = 16


@lru_cache(maxsize=256)
def forward_taps(own_rate: float, low: float, high: float, order: int) -> Series:
    """Impulse response of the band-pass forwards, (time,), until it has died out; a constant gives exactly nothing.

    Args:
        own_rate: Rate of the recording, Hz.
        low: Lower edge, Hz.
        high: Upper edge, Hz.
        order: Order of each edge.
    """
    sections = filters.design_band_pass(own_rate, low, high, order)
    taps = np.asarray(signal.sosfilt(sections, np.eye(1, filters.settling_size(sections))[0]))
    return taps - taps.mean()


@dataclass(frozen=True)
class Forwards:
    """How a channel of some rate goes forwards, one stride after the other.

    Attributes:
        own_rate: Rate of the recording, Hz.
        band: What the channel delivers, Hz.
        stride: Length of a stride, s.
        delay: Samples at the common rate by which the result ends before the recording.
        before: Strides that are needed before the newest one.
    """

    own_rate: float
    band: tuple[float, float]
    stride: float
    delay: int
    before: int

    @classmethod
    def of(cls, own_rate: float, stride: float, settings: ConditioningSettings) -> "Forwards":
        """For a channel of some rate (Hz) and strides of some length (s).

        Raises:
            ChannelRejectedError: Nothing of the band is left at this rate.
            ValueError: The rate has nothing in common with the common one.
        """
        low, high = usable_band(settings, own_rate)
        delay = filters.resample_loss(own_rate, settings.sample_rate, high) + 1
        past = len(forward_taps(own_rate, low, high, settings.order)) / own_rate + 2 * delay / settings.sample_rate
        return cls(own_rate, (low, high), stride, delay, math.ceil(past / stride))


def run_forwards(
    recorded: Series, forwards: Forwards, settings: ConditioningSettings
) -> tuple[Series, Bool[np.ndarray, " time"]]:
    """One stride of a channel at the common rate, band-passed forwards, `delay` samples behind the recording's end.

    Args:
        recorded: Samples of the stride and of those before that are needed, (time,); NaN where there are no data.
        forwards: Rate, band, and how much that is.
        settings: Common rate, and what counts as flat.

    Returns:
        The series, and where it can be used: where the filters saw data alone.
    """
    own, rate = forwards.own_rate, settings.sample_rate
    taps = forward_taps(own, *forwards.band, settings.order)
    good = np.zeros(len(recorded), dtype=np.bool_)
    for start, stop in usable_runs(recorded, max(round(settings.flat_length * own), _SHORTEST_FLAT)):
        good[start:stop] = True
    size = round(forwards.stride * rate)
    if not good.any():
        return np.zeros(size), np.zeros(size, dtype=np.bool_)
    whole = bool(good.all())
    # the mean passes nothing, but rounding errors of it would
    centred = recorded - recorded.mean() if whole else np.where(good, recorded - recorded[good].mean(), 0.0)
    response = _forward_response(len(centred), own, forwards.band, settings.order)
    passed = fourier.irfft(fourier.rfft(centred) * response, len(centred))
    loudest = np.abs(passed[-round(forwards.stride * own) :]).max()
    if loudest <= _ROUNDING * np.abs(recorded if whole else recorded[good]).max():
        return np.zeros(size), np.zeros(size, dtype=np.bool_)
    # what the transform has carried round from the end lies farther back, where the taps reach before the start;
    # no more is resampled than the filter sees, from where both rates have a sample
    up, down = filters.resampling_factors(own, rate)
    steps = math.ceil(2 * forwards.delay / up)
    last = passed[-(round(forwards.stride * own) + steps * down) :]
    found = filters.resample(last, own, rate, forwards.band[1])[0][steps * up - forwards.delay :][:size]
    if whole:
        return found, np.ones(size, dtype=np.bool_)
    stop = round(len(recorded) / own * rate) - forwards.delay
    seen = np.concatenate([[0], np.cumsum(~good)])
    at = (np.arange(stop - size, stop) / rate * own).astype(int)
    beside = math.ceil(forwards.delay / rate * own)
    low, high = np.maximum(at - beside - len(taps), 0), np.minimum(at + beside + 1, len(recorded))
    usable = seen[high] == seen[low]
    return np.where(usable, found, 0.0), usable


@dataclass(frozen=True, eq=False)
class Ending:
    """How the last window of a channel is whitened.

    Attributes:
        taps: Whitening filter, odd, as it is used offline.
        predictor: Weights of the latest samples in the next one, the newest first, (sample,).
        band: What the channel delivers, Hz.
        own_rate: Rate of the recording, Hz.
        settling: Samples that the way backwards reaches into the future.
    """

    taps: Series
    predictor: Series
    band: tuple[float, float]
    own_rate: float
    settling: int
    _responses: dict[int, Complex[np.ndarray, " frequency"]] = field(default_factory=dict, repr=False)

    @property
    def reach(self) -> int:
        """Samples beside a window that the filters see."""
        return len(self.taps) // 2 + self.settling

    @cached_property
    def foretelling(self) -> "Foretelling":
        """How a series goes on."""
        return Foretelling.of(self.predictor)

    def response(self, length: int, settings: ConditioningSettings) -> Complex[np.ndarray, " frequency"]:
        """Of the way backwards and of whitening, at the frequencies of a real transform of some length."""
        if length not in self._responses:
            half = len(self.taps) // 2
            centred = np.zeros(length)
            centred[: half + 1], centred[length - half :] = self.taps[half:], self.taps[:half]
            backwards = _backwards(length, settings.sample_rate, self.own_rate, self.band, settings.order)
            self._responses[length] = backwards * fourier.rfft(centred).real
        return self._responses[length]


def ending(forwards_psd: Psd, forwards: Forwards, settings: ConditioningSettings) -> Ending:
    """How a channel is whitened, from the density of what went forwards.

    Args:
        forwards_psd: Density of `run_forwards`.
        forwards: Rate and band.
        settings: Common rate and whitening.

    Raises:
        ValueError: The density is zero or not finite.
    """
    rate, own, band = settings.sample_rate, forwards.own_rate, forwards.band
    once = np.sqrt(filters.band_pass_power(forwards_psd.frequencies, own, *band, settings.order))
    both = Psd(forwards_psd.values * once, forwards_psd.spacing)
    taps = whitening_filter(both, rate, settings.whitening.filter_length, band)
    size = round(_FORETOLD * rate)
    grid = np.arange(2 * size + 1) * rate / (4 * size)
    correlation = np.fft.irfft(forwards_psd.at(grid))[: size + 1]
    correlation[0] *= 1 + _FLOOR
    predictor = linalg.solve_toeplitz(correlation[:-1], correlation[1:])
    settling = math.ceil(filters.band_pass_loss(own, *band, settings.order) * rate / own)
    return Ending(taps, predictor, band, own, settling)


def whitened_ending(series: Series, start: int, size: int, one: Ending, settings: ConditioningSettings) -> Series:
    """A window of a channel, whitened with what has come of it.

    Args:
        series: From `run_forwards`, up to the newest sample, (time,).
        start: First sample of the window, from that of the series, at least `reach` of the ending.
        size: Samples of the window; it may reach beyond the newest one.
        one: Filters.
        settings: Common rate, order.
    """
    low, high = start - one.reach, start + size + one.reach
    known = series[low:high]
    lacking = high - low - len(known)
    if lacking:
        ahead = foretold(series, one.foretelling, min(lacking, len(one.predictor)))
        known = np.concatenate([known, ahead, np.zeros(lacking - len(ahead))])
    length = _fast_size(len(known))
    spectrum = fourier.rfft(known, length) * one.response(length, settings)
    return fourier.irfft(spectrum, length)[one.reach : one.reach + size]


@dataclass(frozen=True, eq=False)
class Foretelling:
    """Linear prediction as two convolutions: of the latest samples with the predictor, of that with what follows.

    Attributes:
        size: Weights of the predictor.
        predictor: Its transform, of `_fast_size(2 * size)` samples.
        impulse: Transform of the response of the recursion to an impulse, likewise.
    """

    size: int
    predictor: Complex[np.ndarray, " frequency"]
    impulse: Complex[np.ndarray, " frequency"]

    @classmethod
    def of(cls, predictor: Series) -> "Foretelling":
        """Of the weights of the latest samples, the newest first, (sample,)."""
        size = len(predictor)
        impulse = np.asarray(signal.lfilter([1.0], np.concatenate([[1.0], -predictor]), np.eye(1, size)[0]))
        return cls(size, *(fourier.rfft(one, _fast_size(2 * size)) for one in (predictor, impulse)))


def foretold(series: Series, foretelling: Foretelling, size: int) -> Series:
    """What follows a series as its spectrum foretells, (size,), fading to zero.

    Args:
        series: (time,), at least as long as the predictor.
        foretelling: Of the predictor.
        size: Samples, at most those of the predictor.
    """
    past, length = foretelling.size, _fast_size(2 * foretelling.size)
    # what the known samples give to each of those that follow, were all between them zero
    given = fourier.irfft(fourier.rfft(series[-past:], length) * foretelling.predictor, length)[past - 1 : 2 * past - 1]
    ahead = fourier.irfft(fourier.rfft(given, length) * foretelling.impulse, length)[:size]
    return ahead * np.cos(0.5 * np.pi * np.arange(size) / past) ** 2


@lru_cache(maxsize=64)
def _forward_response(
    length: int, own_rate: float, band: tuple[float, float], order: int
) -> Complex[np.ndarray, " frequency"]:
    """Transform of `forward_taps` with zeros behind them up to some length."""
    return fourier.rfft(forward_taps(own_rate, *band, order), length)


@lru_cache(maxsize=64)
def _fast_size(size: int) -> int:
    return fourier.next_fast_len(size)


@lru_cache(maxsize=64)
def _backwards(
    length: int, rate: float, own_rate: float, band: tuple[float, float], order: int
) -> Complex[np.ndarray, " frequency"]:
    """Response of the band-pass backwards at the frequencies of a real transform of some length."""
    sections = filters.design_band_pass(own_rate, *band, order)
    frequencies = np.minimum(np.fft.rfftfreq(length, 1 / rate), own_rate / 2)
    return np.conj(signal.sosfreqz(sections, worN=frequencies, fs=own_rate)[1])
