"""The strain without glitches: simulated noise of a sensitivity, or measured strain."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import signal

from glitchflow_plugin.data.background import Background, read_background
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.simulation.noise import LOWEST_FREQUENCY, Line, coloured_noise, line_noise, sensitivity
from glitchflow_plugin.simulation.settings import SimulationSettings
from glitchflow_plugin.types.arrays import PowerSpectrum, Series


@dataclass(frozen=True, eq=False)
class StrainNoise:
    """A noise spectrum, and the measured strain it was taken from where there is one.

    Attributes:
        frequencies: Grid of an event's real FFT, Hz, shape (frequency,).
        asd_values: ASD there, 1/√Hz.
        sensitivity_name: Name of the simulated sensitivity; empty for measured strain.
        measured: Measured strain, or None.
        starts: Intervals of GPS times at which a stretch of it may start.
    """

    frequencies: np.ndarray
    asd_values: np.ndarray
    sensitivity_name: str = ""
    measured: Background | None = None
    starts: tuple[tuple[float, float], ...] = ()

    def asd(self, frequency: np.ndarray) -> np.ndarray:
        """ASD at any frequencies (Hz), 1/√Hz."""
        if self.sensitivity_name:
            return sensitivity(self.sensitivity_name)(frequency)
        return np.interp(np.maximum(frequency, LOWEST_FREQUENCY), self.frequencies, self.asd_values)

    @cached_property
    def psd(self) -> PowerSpectrum:
        """Power spectral density at `frequencies`, 1/Hz."""
        return self.asd_values**2


def strain_noises(settings: SimulationSettings, frequencies: np.ndarray) -> list[StrainNoise]:
    """The spectra that a set's events can have: one sensitivity, or one of each background file.

    Args:
        settings: The set.
        frequencies: Grid of an event's real FFT, Hz, shape (frequency,).

    Raises:
        ConfigurationError: A background file has no free stretch that is long enough.
    """
    background = settings.background
    if background is None:
        return [StrainNoise(frequencies, sensitivity(settings.noise)(frequencies), settings.noise)]
    noises = []
    for file in background.files:
        measured = read_background(file, settings.sample_rate)
        # the median over segments is not moved by the glitches and signals that the file holds
        segment = round(4.0 * settings.sample_rate)
        grid, density = signal.welch(measured.strain, settings.sample_rate, nperseg=segment, average="median")
        values = np.sqrt(np.interp(np.maximum(frequencies, LOWEST_FREQUENCY), grid, density))
        starts = tuple(measured.free_starts(settings.duration, background.exclude))
        if background.mode == "stretch" and not starts:
            raise ConfigurationError(
                f"Background {file} has no free stretch of {settings.duration} s outside {background.exclude}. "
                "Shorten `duration`, exclude less, or set background.mode=gaussian."
            )
        noises.append(StrainNoise(frequencies, values, measured=measured, starts=starts))
    return noises


def draw_strain(
    rng: np.random.Generator, noise: StrainNoise, settings: SimulationSettings, num_samples: int
) -> tuple[Series, str]:
    """The strain of one event without glitches.

    Returns:
        Strain, float64, shape (time,), and where measured strain came from (`file@GPS start`; empty if simulated).
    """
    measured, background = noise.measured, settings.background
    if measured is None or background is None:
        strain = coloured_noise(rng, noise.asd, settings.sample_rate, num_samples)
        lines = default_lines(settings) if settings.lines is None else settings.lines
        return strain + line_noise(rng, lines, noise.asd, settings.sample_rate, num_samples), ""
    if background.mode == "gaussian":
        return coloured_noise(rng, noise.asd, settings.sample_rate, num_samples), measured.name
    # an interval counts by its length; a single possible start has length zero
    lengths = np.array([stop - start for start, stop in noise.starts]) + 1e-3
    low, high = noise.starts[int(rng.choice(lengths.size, p=lengths / lengths.sum()))]
    first = round((rng.uniform(low, high) - measured.t0) * settings.sample_rate)
    first = min(first, measured.strain.size - num_samples)
    gps_start = measured.t0 + first / settings.sample_rate
    return measured.strain[first : first + num_samples].copy(), f"{measured.name}@{gps_start:.4f}"


def default_lines(settings: SimulationSettings) -> tuple[Line, ...]:
    """Lines in the strain: mains and harmonics, calibration tones, violin modes of the suspension fibres."""
    mains = [Line(number * settings.mains, height, number * 0.01) for number, height in ((1, 20.0), (2, 6.0), (3, 8.0))]
    calibration = [Line(frequency, 6.0) for frequency in (36.7, 77.3, 331.9)]
    violin = (500.1, 504.6, 512.3) if settings.noise == "aligo" else (442.3, 444.6, 448.1)
    return (*mains, *calibration, *(Line(frequency, 30.0) for frequency in violin))
