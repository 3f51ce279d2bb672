"""How alike series are: cross-correlation and coherence with a reference, each beside what chance gives.

References:
    Welch, IEEE Trans. Audio Electroacoust. 15 (1967) 70, doi:10.1109/TAU.1967.1161901: independent averages of segments
    that overlap. Carter, Knapp and Nuttall, IEEE Trans. Audio Electroacoust. 21 (1973) 337,
    doi:10.1109/TAU.1973.1162496: the law of the estimated coherence of independent series, P(> c) = (1 - c)^(n - 1).
"""

from dataclasses import dataclass

import numpy as np
import scipy.signal
from jaxtyping import Float

from glitchflow_plugin.errors import DataError

_CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike several series and a reference are, by one measure.

    Attributes:
        value: Between 0 and 1, (channel,).
        place: Where it is reached: lag, s, or frequency, Hz, (channel,).
        by_chance: What 19 of 20 independent series do not reach (coherence), or half of them (correlation), (channel,).
    """

    value: Float[np.ndarray, " channel"]
    place: Float[np.ndarray, " channel"]
    by_chance: Float[np.ndarray, " channel"]


def cross_correlation(
    reference: Float[np.ndarray, " time"],
    others: Float[np.ndarray, "channel time"],
    sample_rate: float,
    longest_lag: float,
) -> Similarity:
    """Largest normalised cross-correlation, in magnitude, within a range of lags.

    At a lag L it is the sum over t of reference(t) other(t + L), divided by the root of the product of both sums of
    squares; a lag is positive where the other follows. By chance: the median of the same over all other ranges of lags
    as long as this one, at which the end of the window goes on at its beginning.

    Args:
        reference: The strain, whitened, in the window that is compared.
        others: Whitened, the same window.
        sample_rate: Hz.
        longest_lag: s; less than a third of the window.

    Raises:
        DataError: The window is too short for these lags.
    """
    size, most = len(reference), round(longest_lag * sample_rate)
    if not 0 < 3 * most < size:
        raise DataError(f"expected a window longer than three times the lags, got {size} samples and lags of {most}.")
    norm = np.sqrt(np.square(reference).sum() * np.square(others).sum(axis=1))[:, None]
    norm = np.where(norm > 0, norm, np.inf)
    found = _correlated(reference, others, 2 * size) / norm  # zeros beyond both ends
    near = np.abs(np.concatenate([found[:, -most:], found[:, : most + 1]], axis=1))
    best = near.argmax(axis=1)
    width = 2 * most + 1
    number = (size - 2 * width) // width
    around = np.abs(_correlated(reference, others, size) / norm)  # as many samples at each lag
    ranges = around[:, width : width + number * width].reshape(len(others), number, width)
    chance = np.median(ranges.max(axis=2), axis=1) if number > 0 else np.full(len(others), np.nan)
    return Similarity(near[np.arange(len(others)), best], (best - most) / sample_rate, chance)


def _correlated(
    reference: Float[np.ndarray, " time"], others: Float[np.ndarray, "channel time"], size: int
) -> Float[np.ndarray, "channel lag"]:
    """Circular cross-correlation of series that are continued by zeros to `size` samples, by lag."""
    spectra = np.conj(np.fft.rfft(reference, size)) * np.fft.rfft(others, size)
    return np.fft.irfft(spectra, size)


def coherence(
    reference: Float[np.ndarray, " time"],
    others: Float[np.ndarray, "channel time"],
    sample_rate: float,
    band: tuple[float, float],
    *,
    segment_length: float = 0.5,
) -> Similarity:
    """Largest magnitude-squared coherence in a band, |P_xy|² / (P_xx P_yy), by Welch's method with Hann windows.

    Args:
        reference: The strain.
        others: Series of the same time.
        sample_rate: Hz.
        band: Hz.
        segment_length: s; segments overlap by half.

    Raises:
        DataError: There are fewer than three segments, or no frequency lies in the band.
    """
    size = round(segment_length * sample_rate)
    number = (len(reference) - size) // (size // 2) + 1
    if number < 3:
        raise DataError(f"expected at least three segments of {segment_length:g} s, got {len(reference)} samples.")
    with np.errstate(invalid="ignore", divide="ignore"):  # a channel without data
        frequencies, found = scipy.signal.coherence(reference, others, sample_rate, nperseg=size, noverlap=size // 2)
    inside = (frequencies >= band[0]) & (frequencies <= band[1])
    if not inside.any():
        raise DataError(f"no frequency of segments of {segment_length:g} s lies within {band[0]:g} to {band[1]:g} Hz.")
    found = np.nan_to_num(found[:, inside])
    averages = 18 * number**2 / (19 * number - 1)  # independent ones, of segments that overlap by half
    tail = 1 - _CONFIDENCE ** (1 / inside.sum())
    chance = np.full(len(others), 1 - tail ** (1 / (averages - 1)))
    return Similarity(found.max(axis=1), frequencies[inside][found.argmax(axis=1)], chance)
