"""Whitening by a zero-phase filter made from a power spectral density (NumPy, float64)."""

from functools import lru_cache

import numpy as np
from scipy import signal

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import NotNegative, Positive, section
from glitchflow_plugin.signal import fourier
from glitchflow_plugin.signal.psd import Psd, PsdMethod, hann
from glitchflow_plugin.types.arrays import Series

_HOLE = 1e-8
"""Bins below this share of the band's median density are holes, such as digital notches."""

_SMALLEST_RESPONSE = 1e-8
"""Un-whitening divides by no less than this share of the filter's median response: the deepest lines need 1e-5."""


@section
class WhiteningSettings:
    """How noise spectra are estimated and turned into whitening filters; conf/whiten.yaml explains the keys."""

    fft_length: Positive = 1.0
    overlap: NotNegative = 0.75
    method: PsdMethod = "median"
    exclude_length: NotNegative = 4.0
    filter_length: Positive = 2.0
    fill: bool = True

    def __post_init__(self) -> None:
        """Refuse segments that do not advance."""
        if not self.overlap < self.fft_length:
            raise ConfigurationError(
                f"whiten: overlap must be from 0 to below fft_length ({self.fft_length:g} s), got {self.overlap:g} s"
            )


def whitening_filter(psd: Psd, sample_rate: float, filter_length: float, band: tuple[float, float]) -> np.ndarray:
    """Taps that make noise of the given density white within a band and remove what is outside.

    The convention is gwpy's: noise whitened over the full band has variance 1 a sample, hence a one-sided density of
    2 / sample_rate; within a narrower band the density is the same and the variance smaller.

    Where the density is zero or next to it (a digital notch), it is taken to go on as on both sides: what the data hold
    there is neither blown up nor left ringing, and the filter can be inverted.

    Args:
        psd: Density of the noise as it enters the filter, at `sample_rate`.
        sample_rate: Hz.
        filter_length: s.
        band: Lower and upper edge, Hz. The gain falls to zero outside within a tenth of `low` and a fiftieth of `high`
            (at least two bins).

    Returns:
        An odd number of symmetric taps, the outermost not zero: half of them is what the filter corrupts.

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
    gain = _band_gain(size, sample_rate, low, high, 2 * sample_rate / size)
    known = np.isfinite(density) & (density > _HOLE * typical)
    bridged = np.interp(frequencies, frequencies[known], density[known])
    taps = np.roll(np.fft.irfft(gain * np.sqrt(2 / sample_rate) / np.sqrt(bridged), size), size // 2)
    # The window lets the filter end softly, which smooths its response over the width of a few bins; its own zeros at
    # both ends would only widen what counts as corrupted.
    return taps[1:] * hann(size + 1, symmetric=True)[1:-1]


def whiten(series: Series, taps: np.ndarray) -> tuple[Series, int]:
    """Apply a whitening filter.

    Args:
        series: Shape (time,).
        taps: From `whitening_filter`.

    Returns:
        The whitened series, not delayed, and the samples corrupted at each end.
    """
    return signal.oaconvolve(series, taps, mode="same"), len(taps) // 2


def unwhiten(
    series: Series, taps: np.ndarray, sample_rate: float, band: tuple[float, float], tolerance: float = 1e-3
) -> tuple[Series, int]:
    """Undo `whiten` within the band: the series that entered the filter, band-limited, in its own unit.

    What is needed beside the series are the taps it was whitened with, or the `Psd`, rate, filter length and band they
    were made of. The response of a symmetric filter is real; the spectrum is divided by it in the band and is zero
    outside, with the edges of `whitening_filter`. Nothing is delayed. A series that has passed `condition` comes back
    as it was after band-pass and resampling, that is 6 dB down at the band's edges. What `fill` added above the reach
    of a slow channel is dropped if `band` is the channel's own.

    Args:
        series: Whitened, shape (time,). Beyond its ends it counts as zero, which is exact for a burst that has died
            out before (a predicted glitch).
        taps: Those it was whitened with.
        sample_rate: Hz.
        band: The edges (Hz) given to `whitening_filter`.
        tolerance: Relative error (rms over that of the series) accepted in noise that goes on beyond the ends.

    Returns:
        The series, float64, and the samples at each end that are less accurate than `tolerance` if it is noise. They
        are many where the response has narrow dips: a line of 1 Hz width rings for seconds.

    Raises:
        ValueError: The filter passes nothing of the band.
    """
    inverse = _inverse(taps.tobytes(), _size_of(series, taps), sample_rate, band)
    power = fourier.irfft(inverse) ** 2
    # Of noise of unit density, the inverse response beyond n samples is what is missing n samples from an end.
    missing = np.cumsum(power[len(power) // 2 : 0 : -1])[::-1]
    lost = int(np.count_nonzero(missing > tolerance**2 * power.sum()))
    return unwhitened(series, taps, sample_rate, band), lost


def unwhitened(series: Series, taps: np.ndarray, sample_rate: float, band: tuple[float, float]) -> Series:
    """The series that `unwhiten` gives, without looking how many samples are inaccurate: for bursts.

    Args:
        series: Whitened, shape (time,).
        taps: Those it was whitened with.
        sample_rate: Hz.
        band: The edges (Hz) given to `whitening_filter`.

    Raises:
        ValueError: The filter passes nothing of the band.
    """
    size = _size_of(series, taps)
    inverse = _inverse(taps.tobytes(), size, sample_rate, band)
    return fourier.irfft(fourier.rfft(series, size) * inverse, size)[: len(series)]


def _size_of(series: Series, taps: np.ndarray) -> int:
    """Samples of a transform: twice the length keeps what leaves at one end from entering at the other."""
    return 1 << (2 * max(len(series), 8 * len(taps))).bit_length()


@lru_cache(maxsize=8)
def _inverse(filtered_by: bytes, size: int, sample_rate: float, band: tuple[float, float]) -> np.ndarray:
    """Response that undoes whitening taps (float64, as bytes), (frequency,), of a real transform of some size.

    Raises:
        ValueError: The taps pass nothing of the band.
    """
    taps = np.frombuffer(filtered_by, dtype=np.float64)
    half = len(taps) // 2
    centred = np.zeros(size)
    centred[: half + 1] = taps[half:]
    centred[size - half :] = taps[:half]
    response = fourier.rfft(centred).real
    gain = _band_gain(size, sample_rate, *band, 2 * sample_rate / (len(taps) + 1))
    typical = float(np.median(np.abs(response[gain == 1]))) if np.any(gain == 1) else 0.0
    if typical <= 0:
        raise ValueError(f"the whitening filter passes nothing between {band[0]:g} and {band[1]:g} Hz")
    return gain * response / np.maximum(response**2, (_SMALLEST_RESPONSE * typical) ** 2)


@lru_cache(maxsize=64)
def _band_gain(size: int, sample_rate: float, low: float, high: float, edge: float) -> np.ndarray:
    """1 within the band, falling to 0 outside it within at least `edge` (Hz)."""
    frequencies = np.arange(size // 2 + 1) * (sample_rate / size)
    rise = _ramp(frequencies, low - max(0.1 * low, edge), low)
    return rise * (1 - _ramp(frequencies, high, high + max(0.02 * high, edge)))


def _ramp(frequencies: np.ndarray, start: float, stop: float) -> np.ndarray:
    """0 below `start`, 1 above `stop`, a raised cosine in between."""
    share = np.clip((frequencies - start) / (stop - start), 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * share)
