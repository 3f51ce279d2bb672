"""What a disturbance looks like in its own sensor: waveforms of unit amplitude against time from their centre.

The classes follow what detectors show (Gravity Spy: Zevin et al., Class. Quantum Grav. 34, 064003 (2017),
doi:10.1088/1361-6382/aa5cea); the couplings of `coupling.py` turn them into the glitches of the strain.
All functions take `time`, s, shape (time,), zero at the centre of the transient.
"""

import numpy as np
from numpy import fft

from glitchflow_plugin.types.arrays import Series

LASER_WAVELENGTH = 1.064e-6
"""Wavelength of the Nd:YAG lasers of the interferometers, m."""


def sine_gaussian(time: Series, frequency: float, quality: float, phase: float = 0.0) -> Series:
    """Short burst: a sine of the given frequency (Hz) under a Gaussian of `quality` / (2π frequency) seconds width."""
    width = quality / (2.0 * np.pi * frequency)
    return np.exp(-0.5 * (time / width) ** 2) * np.cos(2.0 * np.pi * frequency * time + phase)


def ringdown(time: Series, frequency: float, decay: float, rise: float = 0.004) -> Series:
    """A pulse that sets in within `rise` seconds and rings at `frequency` (Hz), falling by e in `decay` seconds."""
    after = np.clip(time, 0.0, None)
    onset = np.where(time > 0.0, 1.0 - np.exp(-0.5 * (after / rise) ** 2), 0.0)
    return onset * np.exp(-after / decay) * np.sin(2.0 * np.pi * frequency * after)


def flat_envelope(time: Series, duration: float, edge: float) -> Series:
    """One for `duration` seconds about zero, with cosine edges of `edge` seconds inside it."""
    inside = np.clip((0.5 * duration - np.abs(time)) / edge, 0.0, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * inside)


def whistle(time: Series, lowest: float, highest: float, duration: float, phase: float = 0.0) -> Series:
    """Beat note of two oscillators that sweep past each other: from `lowest` Hz at 0 to `highest` at the ends."""
    slope = np.sqrt(highest**2 - lowest**2) / (0.5 * duration)
    cycles = 0.5 * time * np.sqrt(lowest**2 + (slope * time) ** 2) + lowest**2 / (2.0 * slope) * np.arcsinh(
        slope * time / lowest
    )
    return flat_envelope(time, duration, 0.2 * duration) * np.cos(2.0 * np.pi * cycles + phase)


def light_modulation(
    time: Series, *, frequency: float, modulation: float, depth: float, duration: float, phase: float = 0.0
) -> Series:
    """Drive of an oscillating actuator: a tone (Hz) whose amplitude beats at `modulation` (Hz) with the given depth."""
    beat = 1.0 - depth * 0.5 * (1.0 + np.cos(2.0 * np.pi * modulation * time + phase))
    # a trace of the second harmonic, as a driver near its limit makes
    tone = np.cos(2.0 * np.pi * frequency * time) + 0.3 * np.cos(4.0 * np.pi * frequency * time + phase)
    return flat_envelope(time, duration, 0.25 * duration) * beat * tone / 1.3


def noise_burst(
    rng: np.random.Generator, time: Series, *, low: float, high: float, duration: float, sample_rate: float
) -> Series:
    """Band-limited random burst (a door, a pump, an aeroplane): noise of low..high Hz under a Gaussian."""
    frequency = fft.rfftfreq(time.size, 1.0 / sample_rate)
    drawn = rng.standard_normal(2 * frequency.size).view(np.complex128)
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    noise = fft.irfft(drawn * np.exp(-(((frequency - centre) / half) ** 4)), time.size)
    burst = noise * np.exp(-0.5 * (time / (0.35 * duration)) ** 2)
    return burst / np.abs(burst).max()


def swing(time: Series, velocity: float, frequency: float, phase: float = 0.0, cycles: float = 0.24) -> Series:
    """Displacement of a suspended bench that is kicked: a swing under a Gaussian envelope, m.

    Args:
        time: s from the middle of the swing.
        velocity: Speed scale: amplitude times 2π frequency, m/s.
        frequency: Frequency of the pendulum, Hz.
        phase: Phase of the pendulum at time 0; near 0 the bench is fastest there.
        cycles: Width of the envelope in periods.
    """
    amplitude = velocity / (2.0 * np.pi * frequency)
    return amplitude * np.exp(-0.5 * (time * frequency / cycles) ** 2) * np.sin(2.0 * np.pi * frequency * time + phase)


def fringes(displacement: Series, phase: float) -> Series:
    """Light scattered back from a surface at `displacement` (m): sin(4π x / λ + phase).

    Accadia et al., Class. Quantum Grav. 27, 194011 (2010), doi:10.1088/0264-9381/27/19/194011. The fringe frequency
    is 2 |dx/dt| / λ, which draws the arches.
    """
    return np.sin(4.0 * np.pi / LASER_WAVELENGTH * displacement + phase)
