"""The matched filter as searches for compact binaries apply it: SNR, chi-squared, match.

The inner product of a and b in noise of the one-sided density S is 4 Re of the sum of conj(a) b / S over a band, times
the spacing of its bins (B. Allen et al., FINDCHIRP, Phys. Rev. D 85, 122006 (2012), doi:10.1103/PhysRevD.85.122006).
The filter joins both ends of a series: what counts must lie farther from them than template and spectrum ring.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.types.arrays import Series

CHI_SQUARED_BANDS = 16
"""Bands of equal expected SNR² into which a signal is parted, at most."""

_BAND_WIDTH = 0.5
"""Width of such a band on average, at least, Hz: a narrower one rings for so long that it hears the neighbours."""


@dataclass(frozen=True, eq=False)
class Weighted:
    """The spectrum of a series in a band, divided by the noise's, so that an inner product is a plain sum of products.

    Attributes:
        values: Shape (bin,).
        first: Number of the first bin in the spectrum of the series.
        size: Samples of the series.
        sample_rate: Hz.
    """

    values: Complex[np.ndarray, " bin"]
    first: int
    size: int
    sample_rate: float

    @property
    def norm(self) -> float:
        """Of a template: its optimal SNR, the mean of what is recovered of it in such noise."""
        return float(np.linalg.norm(self.values))

    def __sub__(self, other: "Weighted") -> "Weighted":
        """The spectrum of the difference of two series of one length, of one noise and band."""
        return Weighted(self.values - other.values, self.first, self.size, self.sample_rate)


@dataclass(frozen=True)
class Recovered:
    """What the filter finds of a template in a series.

    Attributes:
        snr: Largest over phase and over the times that were looked at.
        shift: Time from where the template lies to where it is found, s.
        reduced_chi_squared: How much the SNR is spread over the bands otherwise than that of the template: about 1 in
            Gaussian noise, whatever the SNR.
    """

    snr: float
    shift: float
    reduced_chi_squared: float

    @property
    def reweighted_snr(self) -> float:
        """The SNR, made smaller where chi-squared says that it is not of the template."""
        return reweighted_snr(self.snr, self.reduced_chi_squared)


def weighted(series: Series, sample_rate: float, psd: Psd, band: tuple[float, float]) -> Weighted:
    """The spectrum of a series as the filter takes it.

    Args:
        series: Data or template, (time,); both sides of a product begin at the same time and have the same length.
        sample_rate: Hz.
        psd: One-sided density of the noise at this rate.
        band: Lower and upper edge, Hz.

    Raises:
        ValueError: No bin lies in the band, or the density is zero or not finite in it.
    """
    size = len(series)
    spacing = sample_rate / size
    # half the sample rate, and zero, are bins that count once: they are left out
    first, last = max(int(np.ceil(band[0] / spacing)), 1), min(int(np.floor(band[1] / spacing)), (size - 1) // 2)
    if last < first:
        raise ValueError(f"no frequency of {size} samples at {sample_rate:g} Hz lies in {band[0]:g} to {band[1]:g} Hz")
    density = psd.at(spacing * np.arange(first, last + 1))
    if not (np.isfinite(density).all() and (density > 0).all()):
        raise ValueError(f"the spectrum is zero or not finite between {band[0]:g} and {band[1]:g} Hz")
    spectrum = np.fft.rfft(series)[first : last + 1] / sample_rate
    return Weighted(spectrum * np.sqrt(4 * spacing / density), first, size, sample_rate)


def snr_series(data: Weighted, template: Weighted) -> Complex[np.ndarray, " time"]:
    """Complex SNR by how many samples the template is moved; its modulus is the largest over phases.

    In noise alone the mean of its square is 2, and of a series with the template in it the modulus is about `norm`.

    Args:
        data: From `weighted`.
        template: Likewise, of the same noise and band.
    """
    spectrum = np.zeros(data.size, dtype=np.complex128)
    spectrum[data.first : data.first + len(data.values)] = template.values.conj() * data.values
    return np.fft.ifft(spectrum) * (data.size / max(template.norm, np.finfo(float).tiny))


def recovered(data: Weighted, template: Weighted, reach: float, *, at: float | None = None) -> Recovered:
    """The largest SNR of a template near where it lies, and the chi-squared there.

    Args:
        data: From `weighted`.
        template: Likewise.
        reach: How far it is looked for on both sides, s.
        at: Look at this shift alone, s, in place of the largest.
    """
    if at is None:
        at = _loudest(np.abs(snr_series(data, template)), round(reach * data.sample_rate)) / data.sample_rate
    bins = data.first + np.arange(len(data.values))
    turn = np.exp(2j * np.pi * data.sample_rate / data.size * at * bins)
    parts = template.values.conj() * data.values * turn / max(template.norm, np.finfo(float).tiny)
    share = np.cumsum(np.abs(template.values) ** 2)
    share /= max(share[-1], np.finfo(float).tiny)
    width = np.count_nonzero((share > 0.05) & (share < 0.95)) * data.sample_rate / data.size
    bands = int(np.clip(width / _BAND_WIDTH, 2, CHI_SQUARED_BANDS))
    place = np.minimum((bands * share).astype(int), bands - 1)
    of_bands = np.bincount(place, parts.real, bands) + 1j * np.bincount(place, parts.imag, bands)
    expected = np.bincount(place, np.diff(share, prepend=0.0), bands)
    found = of_bands.sum()
    # few bins make uneven bands: each is weighed by what it should have
    spread = np.abs(of_bands - expected * found) ** 2 / np.where(expected > 0, expected, np.inf)
    freedom = 2 * (np.count_nonzero(expected) - 1)
    return Recovered(float(abs(found)), at, float(spread.sum() / max(freedom, 1)))


def _loudest(loudness: Float[np.ndarray, " time"], reach: int) -> float:
    """By how many samples (a fraction too) the loudest of the samples near the first lies after it."""
    near = np.concatenate([loudness[-reach - 1 :], loudness[: reach + 2]])
    best = 1 + int(near[1:-1].argmax())
    before, peak, after = near[best - 1 : best + 2]
    bend = before - 2 * peak + after
    part = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return best - reach - 1 + float(np.clip(part, -0.5, 0.5))


def reweighted_snr(snr: float, reduced_chi_squared: float) -> float:
    """SNR that is punished for a chi-squared above what noise gives.

    The form of PyCBC (S. A. Usman et al., Class. Quantum Grav. 33, 215004 (2016), doi:10.1088/0264-9381/33/21/215004)
    with the chi-squared of B. Allen, Phys. Rev. D 71, 062001 (2005), doi:10.1103/PhysRevD.71.062001.

    Args:
        snr: Matched-filter SNR.
        reduced_chi_squared: By its degrees of freedom.

    >>> reweighted_snr(10.0, 0.8), round(reweighted_snr(10.0, 4.0), 2)
    (10.0, 5.6)
    """
    return snr if reduced_chi_squared <= 1 else snr * ((1 + reduced_chi_squared**3) / 2) ** (-1 / 6)


def match(one: Weighted, other: Weighted, reach: float) -> tuple[float, float]:
    """Overlap of two signals by their norms, 0 to 1, the largest over phase and time, and the time, s.

    Args:
        one: From `weighted`.
        other: Likewise.
        reach: How far the other may lie before or after the one, s.

    Returns:
        The match, and how much later the other lies; 0 and 0 where there is nothing of one of them.
    """
    if not (one.norm and other.norm):
        return 0.0, 0.0
    found = recovered(other, one, reach)
    return min(found.snr / other.norm, 1.0), found.shift
