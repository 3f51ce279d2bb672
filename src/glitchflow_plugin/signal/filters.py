"""Zero-phase band-pass, anti-aliased resampling and sub-sample shifts of one real series (NumPy, float64).

Every filter here tells how many samples it corrupts at each end, so that the caller cuts exactly these.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy import signal

from glitchflow_plugin.types.arrays import Series

_STOPBAND_DB = 80.0
"""Aliases and images are suppressed by this much."""

_KAISER_BETA = 0.1102 * (_STOPBAND_DB - 8.7)  # Kaiser's formula, Oppenheim & Schafer, Discrete-Time Signal Processing
_SETTLED = 1e-6
"""A transient is over when it has decayed to this share: strain below the band is far louder than in it."""

_MAX_FACTOR = 20_000
"""Largest integer factor of a resampling; larger ones mean a wrong sample rate rather than a rare one."""


def usable_band(low: float, high: float, sample_rate: float, new_rate: float) -> tuple[float, float]:
    """The part of a band that a channel can deliver after resampling.

    Args:
        low: Lower edge, Hz.
        high: Upper edge, Hz.
        sample_rate: The channel's own rate, Hz.
        new_rate: The rate it is brought to, Hz.

    Returns:
        Lower and upper edge, Hz. The upper one is limited by both Nyquist frequencies less the room that an
        anti-aliasing filter needs: 2 % of the output's, 10 % of a slower channel's own.

    Raises:
        ValueError: Nothing of the band is left.

    >>> usable_band(8.0, 400.0, 16384.0, 1024.0)
    (8.0, 400.0)
    >>> usable_band(8.0, 400.0, 256.0, 1024.0)
    (8.0, 115.2)
    """
    own_share = 0.90 if sample_rate < new_rate else 0.98
    upper = min(high, own_share * sample_rate / 2, 0.98 * new_rate / 2)
    if upper <= low * 1.05:
        raise ValueError(
            f"a band of {low:g}-{high:g} Hz cannot be taken from a channel sampled at {sample_rate:g} Hz "
            f"(Nyquist frequency {sample_rate / 2:g} Hz)"
        )
    return low, upper


@lru_cache(maxsize=256)
def design_band_pass(sample_rate: float, low: float, high: float, order: int = 4) -> np.ndarray:
    """Butterworth band-pass as second-order sections, designed at the given rate.

    Args:
        sample_rate: Hz.
        low: Lower edge, Hz.
        high: Upper edge, Hz. At or above 98 % of the Nyquist frequency the design is high-pass only.
        order: Order of each edge; the zero-phase application doubles it.

    Returns:
        Second-order sections, shape (section, 6).

    Raises:
        ValueError: `low` is not between zero and the Nyquist frequency.
    """
    nyquist = sample_rate / 2
    if not 0 < low < nyquist:
        raise ValueError(f"the lower edge must be between 0 and the Nyquist frequency {nyquist:g} Hz, got {low:g} Hz")
    if high <= low:
        raise ValueError(f"the upper edge must be above the lower one ({low:g} Hz), got {high:g} Hz")
    if high >= 0.98 * nyquist:
        return _butterworth(order, low, "highpass", sample_rate)
    # Two separate edges keep the order of each what it says; scipy's own band-pass would give the same skirts here.
    lower = _butterworth(order, low, "highpass", sample_rate)
    return np.concatenate([lower, _butterworth(order, high, "lowpass", sample_rate)])


def settling_size(sos: np.ndarray, tolerance: float = _SETTLED) -> int:
    """Samples until the transient of a recursive filter has decayed to `tolerance`.

    Args:
        sos: Second-order sections, shape (section, 6).
        tolerance: Share of the transient that may be left.

    Returns:
        Samples, from the slowest pole.
    """
    slowest = max(float(np.abs(np.roots(section[3:])).max(initial=0.0)) for section in sos)
    return 1 if slowest <= 0 else math.ceil(math.log(tolerance) / math.log(min(slowest, 1 - 1e-12)))


def band_pass(series: Series, sample_rate: float, low: float, high: float, order: int = 4) -> tuple[Series, int]:
    """Band-pass forwards and backwards, so that nothing is delayed.

    Args:
        series: Shape (time,).
        sample_rate: Hz.
        low: Lower edge, Hz (6 dB down after both passes).
        high: Upper edge, Hz; high-pass only where it exceeds the channel's range.
        order: Order of each edge in one pass.

    Returns:
        The filtered series, float64, and the samples corrupted at each end.

    Raises:
        ValueError: The band does not fit the rate, or the series is shorter than the filter's own padding.
    """
    sos = design_band_pass(float(sample_rate), float(low), float(high), order)
    values = np.asarray(series, dtype=np.float64)
    if len(values) <= 6 * len(sos) + 3:
        raise ValueError(f"{len(values)} samples are too few for a band-pass of {len(sos)} sections")
    return signal.sosfiltfilt(sos, values - values.mean()), band_pass_loss(
        float(sample_rate), float(low), float(high), order
    )


@lru_cache(maxsize=256)
def band_pass_loss(sample_rate: float, low: float, high: float, order: int = 4) -> int:
    """Samples that `band_pass` corrupts at each end."""
    return settling_size(design_band_pass(sample_rate, low, high, order))


def band_pass_power(frequencies: np.ndarray, sample_rate: float, low: float, high: float, order: int = 4) -> np.ndarray:
    """Power transmission of `band_pass` at the given frequencies (Hz): the single pass's |H| to the fourth."""
    sos = design_band_pass(float(sample_rate), float(low), float(high), order)
    _, response = signal.sosfreqz(sos, worN=np.minimum(frequencies, sample_rate / 2), fs=sample_rate)
    return np.abs(response) ** 4


def resample(series: Series, sample_rate: float, new_rate: float, high: float) -> tuple[Series, int]:
    """Polyphase resampling that keeps 0 to `high` Hz and lets no alias or image above it through.

    Args:
        series: Shape (time,).
        sample_rate: Its rate, Hz.
        new_rate: The rate wanted, Hz.
        high: Highest frequency that must pass, Hz; below both Nyquist frequencies. What is above `high` and below the
            smaller Nyquist frequency is the filter's transition.

    Returns:
        The series at `new_rate`, its first sample at the same time as before, and the samples corrupted at each end.

    Raises:
        ValueError: The rates have no sensible common multiple, or `high` leaves no room for the filter.
    """
    if sample_rate == new_rate:
        return np.asarray(series, dtype=np.float64), 0
    up, down = resampling_factors(sample_rate, new_rate)
    _, taps = _resampling_filter(up, down, round(2 * high / min(sample_rate, new_rate), 6))
    resampled = signal.resample_poly(np.asarray(series, dtype=np.float64), up, down, window=taps)
    return resampled, resample_loss(sample_rate, new_rate, high)


def resample_loss(sample_rate: float, new_rate: float, high: float) -> int:
    """Samples at `new_rate` that `resample` corrupts at each end.

    Raises:
        ValueError: As from `resample`.
    """
    if sample_rate == new_rate:
        return 0
    up, down = resampling_factors(sample_rate, new_rate)
    half, _ = _resampling_filter(up, down, round(2 * high / min(sample_rate, new_rate), 6))
    return math.ceil(half / down)


def shift(series: Series, delay: float, high_share: float) -> tuple[Series, int]:
    """Delay a series by a fraction of a sample with a windowed sinc.

    Args:
        series: Shape (time,).
        delay: Samples; `shift(x, d)[n]` is x at n - d.
        high_share: Highest frequency that must come out right, as a share of the Nyquist frequency.

    Returns:
        The delayed series and the samples corrupted at each end.
    """
    half = shift_loss(high_share) - 1
    grid = np.arange(-half, half + 1)
    # Kaiser's window about the delayed centre, where np.kaiser could only put it about a sample
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(1 - ((grid - delay) / (half + 1)) ** 2, 0))) / np.i0(_KAISER_BETA)
    taps = np.sinc(grid - delay) * window
    return signal.fftconvolve(series, taps, mode="same"), half + 1


def shift_loss(high_share: float) -> int:
    """Samples that `shift` corrupts at each end."""
    return _half_size(1 - high_share) + 1


def resampling_factors(sample_rate: float, new_rate: float) -> tuple[int, int]:
    """So many samples at the new rate (Hz) take as long as so many at the old one; no smaller numbers do.

    Raises:
        ValueError: As from `resample`.

    >>> resampling_factors(16384.0, 1024.0), resampling_factors(1000.0, 1024.0)
    ((1, 16), (128, 125))
    """
    ratio = Fraction(new_rate / sample_rate).limit_denominator(_MAX_FACTOR)
    if not ratio or ratio.numerator > _MAX_FACTOR or abs(float(ratio) * sample_rate / new_rate - 1) > 1e-9:
        raise ValueError(f"{sample_rate!r} Hz and {new_rate!r} Hz have no common multiple; is the sample rate right?")
    return ratio.numerator, ratio.denominator


def _butterworth(order: int, edge: float, kind: str, sample_rate: float) -> np.ndarray:
    return np.asarray(signal.butter(order, edge, kind, fs=sample_rate, output="sos"))  # pyright: ignore


def _half_size(width: float) -> int:
    """Half the length of a Kaiser-windowed filter whose transition is `width` of the Nyquist frequency."""
    if width <= 0:
        raise ValueError("the highest frequency must be below the Nyquist frequency")
    return math.ceil((_STOPBAND_DB - 7.95) / (2.285 * 2 * math.pi * width))


@lru_cache(maxsize=64)
def _resampling_filter(up: int, down: int, high_share: float) -> tuple[int, np.ndarray]:
    factor = max(up, down)
    half = _half_size(1 - high_share) * factor
    window = np.kaiser(2 * half + 1, _KAISER_BETA)
    cutoff = (1 + high_share) / 2 / factor
    taps = np.sinc(cutoff * np.arange(-half, half + 1)) * window
    return half, taps / taps.sum()
