"""Stationary noise: sensitivities of the interferometers, coloured Gaussian noise, lines, and SNR against it."""

from collections.abc import Callable

import numpy as np
from numpy import fft

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import section
from glitchflow_plugin.types.arrays import PowerSpectrum, Series

LOWEST_FREQUENCY = 8.0
"""Hz. The fits below hold from 10 or 20 Hz up; lower down the value at 8 Hz is held, so that the seismic wall does not
eat up the numerical range."""

_PADDING = 0.25  # share of extra samples drawn and cut, so that the end of a stretch does not join its beginning


@section
class Line:
    """A narrow spectral line.

    Attributes:
        frequency: Hz.
        height: Amplitude in units of the noise's ASD at that frequency times 1 √Hz; a spectrum of resolution 1/T
            shows it height·√T/2 above the noise.
        wander: Standard deviation of the frequency's slow wander, Hz (mains 0.01, a calibration tone 0).
    """

    frequency: float
    height: float
    wander: float = 0.0


def aligo_asd(frequency: np.ndarray) -> np.ndarray:
    """Analytic amplitude spectral density of Advanced LIGO, 1/√Hz.

    Fit of Sathyaprakash & Schutz, Living Rev. Relativ. 12, 2 (2009), table 1, doi:10.12942/lrr-2009-2.

    Args:
        frequency: Hz, any shape; the fit is meant for 20 Hz and above.

    >>> bool(2e-24 < aligo_asd(np.array([100.0]))[0] < 4e-24)
    True
    """
    x = np.maximum(frequency, LOWEST_FREQUENCY) / 215.0
    shape = x**-4.14 - 5.0 * x**-2 + 111.0 * (1.0 - x**2 + x**4 / 2.0) / (1.0 + x**2 / 2.0)
    return np.sqrt(1e-49 * shape)


def advirgo_asd(frequency: np.ndarray) -> np.ndarray:
    """Analytic amplitude spectral density of Advanced Virgo, 1/√Hz.

    Fit of Manzotti & Dietz, arXiv:1202.4031 (2012), equation 6.

    Args:
        frequency: Hz, any shape; the fit is meant for 10 Hz and above.

    >>> bool(3e-24 < advirgo_asd(np.array([300.0]))[0] < 4e-24)
    True
    """
    x = np.log(np.maximum(frequency, LOWEST_FREQUENCY) / 300.0)
    return 1.259e-24 * (
        0.07 * np.exp(-0.142 - 1.437 * x + 0.407 * x**2)
        + 3.10 * np.exp(-0.466 - 1.043 * x - 0.548 * x**2)
        + 0.40 * np.exp(-0.304 + 2.896 * x - 0.293 * x**2)
        + 0.09 * np.exp(1.466 + 3.722 * x - 0.984 * x**2)
    )


SENSITIVITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"advirgo": advirgo_asd, "aligo": aligo_asd}
"""Sensitivities that the settings can name."""


def sensitivity(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The ASD function of that name.

    Raises:
        ConfigurationError: No such sensitivity.
    """
    if name not in SENSITIVITIES:
        raise ConfigurationError(f"Unknown sensitivity {name!r}; choose one of {sorted(SENSITIVITIES)}.")
    return SENSITIVITIES[name]


def coloured_noise(
    rng: np.random.Generator, asd: Callable[[np.ndarray], np.ndarray], sample_rate: float, num_samples: int
) -> Series:
    """Gaussian noise with the given amplitude spectral density.

    Args:
        rng: Source of randomness.
        asd: One-sided ASD as a function of frequency (Hz), unit/√Hz.
        sample_rate: Hz.
        num_samples: Length of the result.

    Returns:
        float64, shape (time,), mean zero.
    """
    drawn = 2 * round(0.5 * num_samples * (1.0 + _PADDING))
    frequency = fft.rfftfreq(drawn, 1.0 / sample_rate)
    spectrum = rng.standard_normal(2 * frequency.size).view(np.complex128)
    # real and imaginary part each carry half of the power; the factor undoes the norm of the inverse transform
    spectrum *= asd(frequency) * np.sqrt(drawn * sample_rate / 4.0)
    spectrum[0] = 0.0
    return fft.irfft(spectrum, drawn)[:num_samples]


def line_noise(
    rng: np.random.Generator,
    lines: tuple[Line, ...],
    asd: Callable[[np.ndarray], np.ndarray],
    sample_rate: float,
    num_samples: int,
) -> Series:
    """Sum of spectral lines with random phases; harmonics of one mains are separate lines.

    Args:
        rng: Source of randomness.
        lines: Those above the Nyquist frequency are left out.
        asd: ASD of the broadband noise, which the lines' heights refer to.
        sample_rate: Hz.
        num_samples: Length of the result.
    """
    time = np.arange(num_samples) / sample_rate
    total = np.zeros(num_samples)
    for line in lines:
        phase, drift, rate = rng.uniform(0.0, 2.0 * np.pi), rng.normal(), rng.uniform(0.05, 0.2)
        if line.frequency >= sample_rate / 2.0:
            continue
        angle = 2.0 * np.pi * line.frequency * time + phase
        if line.wander > 0.0:
            # frequency line.frequency + wander·drift·cos(2π·rate·t): slow, as that of a mains network
            angle = angle + line.wander * drift / rate * np.sin(2.0 * np.pi * rate * time + phase)
        total += line.height * asd(np.array([line.frequency]))[0] * np.cos(angle)
    return total


def optimal_snr(
    waveform: Series, psd: PowerSpectrum, sample_rate: float, low: float = 10.0, high: float | None = None
) -> float:
    """Optimal (matched-filter) signal-to-noise ratio of a known waveform, √(4 ∫ |h(f)|² / S(f) df).

    Cutler & Flanagan, Phys. Rev. D 49, 2658 (1994), equation 2.14, doi:10.1103/PhysRevD.49.2658.

    Args:
        waveform: Shape (time,), in the unit whose square per hertz `psd` has.
        psd: One-sided, at the frequencies of the waveform's real FFT.
        sample_rate: Hz.
        low: Lower limit of the integral, Hz.
        high: Upper limit, Hz; nine tenths of the Nyquist frequency by default.
    """
    frequency = fft.rfftfreq(waveform.size, 1.0 / sample_rate)
    band = (frequency >= low) & (frequency <= (0.45 * sample_rate if high is None else high))
    power = np.abs(fft.rfft(waveform)[band] / sample_rate) ** 2 / psd[band]
    return float(np.sqrt(4.0 * power.sum() * sample_rate / waveform.size))
