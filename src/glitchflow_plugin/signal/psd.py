"""Power spectral densities of noise that leave the event out (NumPy, float64)."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int
from scipy import signal

from glitchflow_plugin.signal import fourier
from glitchflow_plugin.types.arrays import PowerSpectrum, Series

PsdMethod = Literal["median", "mean", "median-mean"]
PSD_METHODS: tuple[str, ...] = get_args(PsdMethod)
"""How `welch_psd` averages the segments."""

LEAST_SEGMENTS = 2
"""Segments that a spectrum needs."""


@dataclass(frozen=True, eq=False)
class Psd:
    """A one-sided power spectral density on an even grid from 0 Hz.

    Attributes:
        values: unit²/Hz, shape (frequency,).
        spacing: Distance of its frequencies, Hz.
    """

    values: PowerSpectrum
    spacing: float

    @property
    def frequencies(self) -> np.ndarray:
        """Frequency of each value, Hz."""
        return np.arange(len(self.values)) * self.spacing

    def at(self, frequencies: np.ndarray) -> np.ndarray:
        """Values at other frequencies (Hz), linearly in between, constant beyond the ends."""
        return np.interp(frequencies, self.frequencies, self.values)


def welch_psd(
    series: Series,
    sample_rate: float,
    fft_length: float,
    overlap: float,
    *,
    method: PsdMethod = "median",
    exclude: tuple[int, int] | Int[np.ndarray, "stretch 2"] | None = None,
) -> Psd:
    """Welch's average over segments that do not touch an excluded stretch.

    Args:
        series: Shape (time,), any real type; computed in float64, because the power of strain (1e-46) is zero in
            float32.
        sample_rate: Hz.
        fft_length: Length of a segment, s.
        overlap: Overlap of neighbouring segments, s.
        method: `mean`; `median`, corrected for its bias, so that other transients weigh little; or `median-mean`, the
            mean of such medians over groups of segments that do not overlap each other (two groups, the even and the
            odd segments, for half overlap). The corrections hold for independent segments; overlap leaves about 1 %.
        exclude: First and one past the last sample that no segment may touch, or several such stretches, apart and
            rising; None to use all.

    Returns:
        The density. Without `exclude`, for `mean` and `median`, it is `scipy.signal.welch` with a Hann window and
        constant detrending.

    Raises:
        ValueError: The method is unknown, or less than two segments are left.

    References:
        Welch, https://doi.org/10.1109/TAU.1967.1161901; Allen et al., FINDCHIRP, appendix B,
        https://doi.org/10.1103/PhysRevD.85.122006 (median, its bias, median-mean).
    """
    if method not in PSD_METHODS:
        raise ValueError(f"method must be one of {', '.join(PSD_METHODS)}, got {method!r}")
    series = np.asarray(series, dtype=np.float64)
    left_out = np.clip(np.reshape([] if exclude is None else exclude, (-1, 2)), 0, None).astype(int)
    stretches = [series[a:b] for a, b in zip([0, *left_out[:, 1]], [*left_out[:, 0], len(series)], strict=True)]
    powers = np.concatenate([segment_powers(one, sample_rate, fft_length, overlap) for one in stretches])
    if len(powers) < LEAST_SEGMENTS:
        raise ValueError(
            f"{len(powers)} segment(s) of {fft_length:g} s beside the event; a spectrum needs at least {LEAST_SEGMENTS}"
        )
    return averaged(powers, sample_rate, fft_length, overlap, method=method)


def segment_powers(
    series: Series, sample_rate: float, fft_length: float, overlap: float
) -> Float[np.ndarray, "segment frequency"]:
    """Squared spectrum of each of Welch's segments, less its mean and under a Hann window, for `averaged`.

    Args:
        series: Shape (time,), float64.
        sample_rate: Hz.
        fft_length: Length of a segment, s.
        overlap: Overlap of neighbouring segments, s.

    Raises:
        ValueError: The segments do not advance.
    """
    size, step = _sizes(sample_rate, fft_length, overlap)
    if len(series) < size:
        return np.zeros((0, size // 2 + 1))
    segments = np.lib.stride_tricks.sliding_window_view(series, size)[::step]
    windowed = (segments - segments.mean(axis=-1, keepdims=True)) * hann(size)
    spectra = fourier.rfft(windowed, axis=-1)
    return np.square(spectra.real) + np.square(spectra.imag)


class MovingPowers:
    """`segment_powers` of stretches of one series, each later than the last: what is known of segments stays.

    Args:
        sample_rate: Hz.
        fft_length: Length of a segment, s.
        overlap: Overlap of neighbouring segments, s.

    >>> noise, moving = np.random.default_rng(0).standard_normal(96), MovingPowers(16.0, 1.0, 0.75)
    >>> held = [moving.of(noise[start : start + 64], start).copy() for start in (0, 16)]
    >>> bool((held[1] == segment_powers(noise[16:80], 16.0, 1.0, 0.75)).all())
    True
    """

    def __init__(self, sample_rate: float, fft_length: float, overlap: float) -> None:
        self._settings = sample_rate, fft_length, overlap
        self._size, self._step = _sizes(*self._settings)
        self._first = self._number = 0
        self._memory = np.zeros((0, self._size // 2 + 1))

    def of(self, stretch: Series, first: int) -> Float[np.ndarray, "segment frequency"]:
        """Of a stretch whose first sample has some number; the same number is always that of the same sample.

        Args:
            stretch: Shape (time,), float64.
            first: Number of its first sample.

        Returns:
            As `segment_powers`; true until the next call.
        """
        moved = first - self._first
        number = max((len(stretch) - self._size) // self._step + 1, 0)
        over = moved // self._step if moved >= 0 and moved % self._step == 0 else self._number
        kept = min(max(self._number - over, 0), number)
        held = self._memory[over : over + kept]
        if number > len(self._memory):
            self._memory = np.zeros((number, self._size // 2 + 1))
        # in place: to ask for so much memory each time takes longer than to fill it
        self._memory[:kept] = held
        self._memory[kept:number] = segment_powers(stretch[kept * self._step :], *self._settings)
        self._first, self._number = first, number
        return self._memory[:number]


def averaged(
    powers: Float[np.ndarray, "segment frequency"],
    sample_rate: float,
    fft_length: float,
    overlap: float,
    *,
    method: PsdMethod = "median",
) -> Psd:
    """The one-sided density that segments have on average.

    Args:
        powers: From `segment_powers`, with the same rate, length and overlap; at least one.
        sample_rate: Hz.
        fft_length: Length of a segment, s.
        overlap: Overlap of neighbouring segments, s.
        method: As for `welch_psd`.
    """
    size, step = _sizes(sample_rate, fft_length, overlap)
    scale = 2 / (sample_rate * np.sum(hann(size) ** 2))
    density = _average(powers, method, groups=math.ceil(size / step)) * scale
    density[0] /= 2
    if size % 2 == 0:
        density[-1] /= 2
    return Psd(density, sample_rate / size)


def _sizes(sample_rate: float, fft_length: float, overlap: float) -> tuple[int, int]:
    """Samples of a segment, and from one to the next."""
    size = round(fft_length * sample_rate)
    step = size - round(overlap * sample_rate)
    if step < 1:
        raise ValueError(f"the overlap ({overlap:g} s) must be shorter than a segment ({fft_length:g} s)")
    return size, step


def _average(power: np.ndarray, method: PsdMethod, groups: int) -> np.ndarray:
    """Average over the segments; members of one of the groups do not overlap each other."""
    if method == "mean":
        return power.mean(axis=0)
    groups = min(groups, len(power)) if method == "median-mean" else 1
    parts = [power[first::groups] for first in range(groups)]
    return np.mean([np.median(part, axis=0) / median_bias(len(part)) for part in parts], axis=0)


@lru_cache(maxsize=32)
def hann(size: int, *, symmetric: bool = False) -> np.ndarray:
    """Hann window of `size` samples; kept, because every channel of every event needs the same."""
    return np.asarray(signal.get_window("hann", size, fftbins=not symmetric), dtype=np.float64)


@lru_cache(maxsize=256)
def median_bias(count: int) -> float:
    """Ratio of the median to the mean of `count` exponentially distributed powers.

    >>> median_bias(1)
    1.0
    >>> round(median_bias(1001), 3)  # towards ln 2
    0.694
    """
    terms = np.arange(1, (count - 1) // 2 + 1) * 2
    return float(1 + np.sum(1 / (terms + 1) - 1 / terms))
