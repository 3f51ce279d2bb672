"""How a disturbance gets from its sensor into another channel: a static law, then a delayed, band-limited response."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy import fft

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.types.arrays import Series

Form = Literal["linear", "quadratic", "odd_quadratic", "threshold", "bilinear"]


@dataclass(frozen=True)
class Coupling:
    """A path from a witness to another channel.

    Attributes:
        form: The static law: `linear` s; `quadratic` s², which doubles frequencies; `odd_quadratic` s·|s|;
            `threshold` nothing below `threshold`, the excess above it; `bilinear` s times a slow modulation.
        band: Half-power band of the response, Hz.
        delay: s by which the other channel follows the witness.
        resonance: Frequency (Hz) and quality factor of a mechanical resonance on the way, or None.
        gain: Unit of the other channel per unit of the witness (per unit² for the quadratic laws).
        threshold: In the witness's unit.
        order: Steepness of the band's edges (Butterworth).
    """

    form: Form = "linear"
    band: tuple[float, float] = (10.0, 400.0)
    delay: float = 0.0
    resonance: tuple[float, float] | None = None
    gain: float = 1.0
    threshold: float = 0.0
    order: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if self.form not in get_args(Form):
            raise ConfigurationError(f"Unknown coupling {self.form!r}; choose one of {get_args(Form)}.")
        if not 0.0 < self.band[0] < self.band[1]:
            raise ConfigurationError(f"A coupling band needs 0 < low < high (Hz), got {self.band}.")
        if self.form == "threshold" and self.threshold < 0.0:
            raise ConfigurationError(f"A threshold must not be negative, got {self.threshold}.")

    @property
    def degree(self) -> int | None:
        """Power with which the result grows with the witness's amplitude; None where there is no single power."""
        return {"linear": 1, "bilinear": 1, "quadratic": 2, "odd_quadratic": 2, "threshold": None}[self.form]


def distort(witness: Series, coupling: Coupling, modulation: Series | float = 1.0) -> Series:
    """The static law of a coupling.

    Args:
        witness: Shape (time,), in the witness's unit.
        coupling: The path.
        modulation: Slow factor of a bilinear coupling, shape (time,).
    """
    match coupling.form:
        case "linear":
            return witness
        case "quadratic":
            return witness**2
        case "odd_quadratic":
            return witness * np.abs(witness)
        case "threshold":
            return np.sign(witness) * np.maximum(np.abs(witness) - coupling.threshold, 0.0)
        case "bilinear":
            return witness * modulation


def response(frequency: np.ndarray, coupling: Coupling) -> np.ndarray:
    """Complex transfer function of a coupling after its static law.

    The band's edges act on the magnitude only; all phase is the delay's and the resonance's, so that `delay` is what
    a coincidence test will find.

    Args:
        frequency: Hz, shape (frequency,).
        coupling: The path.

    Returns:
        complex128, shape (frequency,).
    """
    low, high = coupling.band
    positive = np.maximum(frequency, 1e-9)
    magnitude = 1.0 / np.sqrt(
        (1.0 + (low / positive) ** (2 * coupling.order)) * (1.0 + (frequency / high) ** (2 * coupling.order))
    )
    result = coupling.gain * magnitude * np.exp(-2j * np.pi * frequency * coupling.delay)
    if coupling.resonance is not None:
        centre, quality = coupling.resonance
        ratio = frequency / centre
        result = result / (1.0 - ratio**2 + 1j * ratio / quality)
    return result


def couple(witness: Series, coupling: Coupling, sample_rate: float, modulation: Series | float = 1.0) -> Series:
    """What arrives at the other end of a coupling.

    Args:
        witness: Shape (time,), in the witness's unit, zero at both ends (the response is circular).
        coupling: The path.
        sample_rate: Of the witness and the result, Hz.
        modulation: Slow factor of a bilinear coupling, shape (time,).

    Returns:
        float64, shape (time,), in the unit of the other channel.
    """
    spectrum = fft.rfft(distort(witness, coupling, modulation))
    spectrum *= response(fft.rfftfreq(witness.size, 1.0 / sample_rate), coupling)
    return fft.irfft(spectrum, witness.size)


def resample(series: Series, sample_rate: float, new_rate: float) -> np.ndarray:
    """A transient at another sample rate, low-passed (roll-off in the last tenth below the new Nyquist frequency).

    Args:
        series: Shape (time,), zero at both ends.
        sample_rate: Hz.
        new_rate: Hz; the duration must hold a whole number of samples at both rates.

    Returns:
        float64, shape (time at the new rate,).
    """
    num_samples = round(series.size * new_rate / sample_rate)
    if num_samples == series.size:
        return series
    spectrum = fft.rfft(series)
    nyquist = 0.5 * min(new_rate, sample_rate)
    frequency = fft.rfftfreq(series.size, 1.0 / sample_rate)
    edge = np.clip((nyquist - frequency) / (0.1 * nyquist), 0.0, 1.0)
    spectrum *= 0.5 - 0.5 * np.cos(np.pi * edge)
    size = num_samples // 2 + 1
    fitted = np.zeros(size, dtype=complex)
    kept = min(size, spectrum.size)
    fitted[:kept] = spectrum[:kept]
    return fft.irfft(fitted, num_samples) * (num_samples / series.size)
