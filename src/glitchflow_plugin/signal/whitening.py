"""Whitening by a zero-phase filter made from a power spectral density (NumPy, float64)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import signal

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.psd import Psd, hann
from glitchflow_plugin.types.arrays import Series

_FLOOR = 1e-8
"""Bins below this share of the band's median density are holes (digital notches): they are not blown up further."""


@dataclass(frozen=True)
class WhiteningSettings:
    """How noise spectra are estimated and turned into whitening filters.

    Attributes:
        fft_length: Length of a spectrum's segment, s; its inverse is the resolution for lines.
        overlap: Overlap of neighbouring segments, s.
        method: `median` or `mean` over the segments.
        exclude_length: Stretch about the trigger that the spectrum leaves out, s.
        filter_length: Length of the whitening filter, s; half of it is lost at each end.
        fill: Give a channel whose own Nyquist frequency is below the band's upper edge white noise of the same density
            above it. Without it, the empty rows of a Q-transform divide next to nothing by next to nothing.
    """

    fft_length: float = 1.0
    overlap: float = 0.75
    method: Literal["median", "mean"] = "median"
    exclude_length: float = 4.0
    filter_length: float = 2.0
    fill: bool = True

    def __post_init__(self) -> None:
        """Refuse lengths that make no sense."""
        if self.fft_length <= 0 or self.filter_length <= 0 or self.exclude_length < 0:
            raise ConfigurationError(
                f"whiten: fft_length and filter_length must be positive and exclude_length not negative, got {self}"
            )
        if not 0 <= self.overlap < self.fft_length:
            raise ConfigurationError(
                f"whiten: overlap must be from 0 to below fft_length ({self.fft_length:g} s), got {self.overlap:g} s"
            )
        if self.method not in ("median", "mean"):
            raise ConfigurationError(f"whiten: method must be median or mean, got {self.method!r}")


def whitening_filter(psd: Psd, sample_rate: float, filter_length: float, band: tuple[float, float]) -> np.ndarray:
    """Taps that make noise of the given density white within a band and remove what is outside.

    The convention is gwpy's: noise whitened over the full band has variance 1 a sample, hence a one-sided density of
    2 / sample_rate; within a narrower band the density is the same and the variance smaller.

    Args:
        psd: Density of the noise as it enters the filter, at `sample_rate`.
        sample_rate: Hz.
        filter_length: s.
        band: Lower and upper edge, Hz. The gain falls to zero outside within a tenth of `low` and a fiftieth of `high`
            (at least two bins).

    Returns:
        An odd number of symmetric taps.

    Raises:
        ValueError: The density is zero or not finite where it is needed.
    """
    size = max(2 * (round(filter_length * sample_rate) // 2), 8)
    frequencies = np.arange(size // 2 + 1) * (sample_rate / size)
    low, high = band
    density = psd.at(frequencies)
    inside = (frequencies >= low) & (frequencies <= high)
    if not np.all(np.isfinite(density[inside])):
        raise ValueError("the spectrum is not finite")
    typical = float(np.median(density[inside])) if inside.any() else 0.0
    if typical <= 0:
        raise ValueError("the spectrum is zero")
    gain = _band_gain(size, sample_rate, low, high)
    passed = gain > 0
    floored = np.maximum(np.nan_to_num(density, nan=typical, posinf=typical), _FLOOR * typical)
    response = np.where(passed, gain * np.sqrt(2 / sample_rate) / np.sqrt(floored), 0.0)
    taps = np.roll(np.fft.irfft(response, size), size // 2)
    # The window lets the filter end softly, which smooths its response over the width of a few bins.
    return np.append(taps, taps[0]) * hann(size + 1, symmetric=True)


def whiten(series: Series, taps: np.ndarray) -> tuple[Series, int]:
    """Apply a whitening filter.

    Args:
        series: Shape (time,).
        taps: From `whitening_filter`.

    Returns:
        The whitened series, not delayed, and the samples corrupted at each end.
    """
    return signal.oaconvolve(series, taps, mode="same"), len(taps) // 2


@lru_cache(maxsize=64)
def _band_gain(size: int, sample_rate: float, low: float, high: float) -> np.ndarray:
    """1 within the band, falling to 0 outside it."""
    frequencies = np.arange(size // 2 + 1) * (sample_rate / size)
    edge = 2 * sample_rate / size
    rise = _ramp(frequencies, low - max(0.1 * low, edge), low)
    return rise * (1 - _ramp(frequencies, high, high + max(0.02 * high, edge)))


def _ramp(frequencies: np.ndarray, start: float, stop: float) -> np.ndarray:
    """0 below `start`, 1 above `stop`, a raised cosine in between."""
    share = np.clip((frequencies - start) / (stop - start), 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * share)
