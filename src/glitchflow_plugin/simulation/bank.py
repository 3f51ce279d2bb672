"""Witnesses made for measured glitches: the coupling of each class, run backwards.

A bank holds what the strain saw. What a witness must have seen is the inverse of a known coupling, so that the twin has
a law to learn, and the strain holds the measured waveform unchanged.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import fft
from scipy import signal
from scipy.signal import windows

from glitchflow_plugin.data.glitch_bank import BankGlitch
from glitchflow_plugin.types.arrays import Series


@dataclass(frozen=True)
class InverseCoupling:
    """How a class of measured glitches got into the strain.

    Attributes:
        form: `linear`, `quadrature` (the witness is a quarter period behind), `odd_quadratic` (strain = w·|w|),
            `quadratic` (strain = the oscillating part of w², so the witness has half the frequency) or `bilinear`
            (strain = w times a slow modulation).
        delay: s by which the strain follows the witness.
        bystander: Frequency range of transients in the witness that do not couple, Hz.
    """

    form: str
    delay: float
    bystander: tuple[float, float]

    @property
    def degree(self) -> int:
        """Power with which the strain grows with the witness."""
        return 2 if self.form in ("odd_quadratic", "quadratic") else 1


COUPLINGS = {
    "Blip": InverseCoupling("linear", 0.008, (12.0, 24.0)),
    "Tomte": InverseCoupling("odd_quadratic", 0.025, (260.0, 380.0)),
    "Light_Modulation": InverseCoupling("bilinear", 0.012, (330.0, 390.0)),
    "Scattered_Light": InverseCoupling("quadrature", 0.004, (230.0, 380.0)),
    "Whistle": InverseCoupling("quadratic", 0.005, (12.0, 20.0)),
}
"""By class of Gravity Spy; other classes couple linearly."""

DEFAULT_COUPLING = InverseCoupling("linear", 0.01, (12.0, 20.0))


def coupling_of(label: str) -> InverseCoupling:
    """The coupling of a class."""
    return COUPLINGS.get(label, DEFAULT_COUPLING)


def analytic(series: Series) -> np.ndarray:
    """The analytic signal (positive frequencies only), complex128, shape (time,)."""
    spectrum = np.zeros(series.size, dtype=complex)
    positive = fft.rfft(series)
    spectrum[: positive.size] = 2.0 * positive
    spectrum[0] *= 0.5
    if series.size % 2 == 0:
        spectrum[series.size // 2] *= 0.5
    return fft.ifft(spectrum)


def tapered(glitch: BankGlitch, edge: float = 0.1) -> Series:
    """The glitch with soft ends, cut where its envelope stays below 3 % of its peak, shape (time,)."""
    rate = glitch.sample_rate
    width = round(0.02 * rate)
    smooth = np.convolve(np.abs(analytic(glitch.waveform)), np.ones(width) / width, mode="same")
    loud = np.flatnonzero(smooth > 0.03 * smooth.max())
    margin = round(edge * rate)
    start, stop = max(loud[0] - margin, 0), min(loud[-1] + margin + 1, glitch.waveform.size)
    window = np.zeros(glitch.waveform.size)
    window[start:stop] = windows.tukey(stop - start, min(1.0, 2.0 * margin / (stop - start)))
    return glitch.waveform * window


def placed(waveform: Series, rate: float, *, num_samples: int, centre: int, sample_rate: float) -> np.ndarray:
    """The waveform within `num_samples` zeros at `sample_rate` (Hz), the middle of its energy at sample `centre`.

    Returns:
        float64, shape (num_samples,).
    """
    if rate != sample_rate:
        waveform = signal.resample_poly(waveform, round(sample_rate), round(rate))
    energy = np.cumsum(waveform**2)
    start = centre - int(np.searchsorted(energy, 0.5 * energy[-1]))
    result = np.zeros(num_samples)
    first, last = max(start, 0), min(start + waveform.size, num_samples)
    result[first:last] = waveform[first - start : last - start]
    return result


def coloured(whitened: Series, asd: Callable[[np.ndarray], np.ndarray], sample_rate: float) -> Series:
    """A whitened waveform (unit variance noise) in units of strain, its low end below 10 Hz taken out."""
    frequency = fft.rfftfreq(whitened.size, 1.0 / sample_rate)
    high_pass = 1.0 / np.sqrt(1.0 + (10.0 / np.maximum(frequency, 1e-9)) ** 16)
    spectrum = fft.rfft(whitened) * asd(frequency) * np.sqrt(sample_rate / 2.0) * high_pass
    return fft.irfft(spectrum, whitened.size)


def made_witness(
    whitened: Series, coupling: InverseCoupling, sample_rate: float, modulation: Series | float = 1.0
) -> Series:
    """What the witness must have seen for the coupling to yield this glitch, unit amplitude, shape (time,).

    Args:
        whitened: The glitch in the event, shape (time,).
        coupling: The law to invert.
        sample_rate: Hz.
        modulation: Slow factor of a bilinear coupling, shape (time,), never near zero.
    """
    match coupling.form:
        case "quadrature":
            witness = np.imag(analytic(whitened))
        case "odd_quadratic":
            witness = np.sign(whitened) * np.sqrt(np.abs(whitened))
        case "quadratic":
            # w = √(2A) cos(φ/2) has w² = A (1 + cos φ), whose oscillating part is the glitch A cos φ
            rotating = analytic(whitened)
            witness = np.sqrt(2.0 * np.abs(rotating)) * np.cos(0.5 * np.unwrap(np.angle(rotating)))
        case "bilinear":
            witness = whitened / modulation
        case _:
            witness = whitened
    # the witness leads: roll by whole samples, its ends are zero
    witness = np.roll(witness, -round(coupling.delay * sample_rate))
    return witness / np.abs(witness).max()
