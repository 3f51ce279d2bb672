"""Probes of a response: bursts of one frequency, and what of them arrives at the other end."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import signal

QUALITY = 6.0
"""Q of the bursts: short enough for an event at 10 Hz, and a sixth of an octave or so wide."""


class Arrived(NamedTuple):
    """What arrived of a probe.

    Attributes:
        gain: Output over input of what has the probe's shape, at the delay at which that is most.
        delay: s by which it is later.
        phase: By which its oscillation is ahead beside its envelope, rad: 0 of a delay alone, pi of a reversed sign.
        coherence: Share of what arrived, in power, that has the probe's shape: 1 of a linear response that is flat
            about the probe's frequency, 0 of a law that changes the frequency.
        size: Root of the power that arrived.
    """

    gain: float
    delay: float
    phase: float
    coherence: float
    size: float


def burst(
    frequency: float, size: float, num_samples: int, sample_rate: float, quality: float = QUALITY
) -> Float[np.ndarray, " time"]:
    """A sine-Gaussian in the middle of so many samples.

    Args:
        frequency: Hz.
        size: Root of the sum of its squares: its SNR in white noise of variance 1.
        num_samples: Length.
        sample_rate: Hz.
        quality: Q: its envelope has the deviation Q / (2 pi f) in amplitude.
    """
    time = (np.arange(num_samples) - num_samples // 2) / sample_rate
    width = quality / (2 * math.pi * frequency)
    shape = np.exp(-0.5 * (time / width) ** 2) * np.cos(2 * math.pi * frequency * time)
    return size * shape / np.sqrt(np.sum(shape**2))


def arrived(
    probe: Float[np.ndarray, " time"],
    output: Float[np.ndarray, " time"],
    frequency: float,
    *,
    sample_rate: float,
    longest: float,
) -> Arrived:
    """Compare what arrived with the probe.

    Args:
        probe: From `burst`.
        output: What came of it alone.
        frequency: Frequency of the probe, Hz.
        sample_rate: Hz.
        longest: Largest delay to either side, s.
    """
    power, total = float(np.sum(probe**2)), float(np.sum(output**2))
    lags = round(longest * sample_rate)
    middle = len(probe) - 1
    # of the analytic signal, whose modulus does not oscillate from delay to delay
    correlation = signal.correlate(output, signal.hilbert(probe), mode="full")[middle - lags : middle + lags + 1]
    best = int(np.argmax(np.abs(correlation)))
    found = complex(correlation[best])
    shift, height = _vertex(np.abs(correlation) ** 2, best)
    gain = math.sqrt(height) / power
    coherence = min(1.0, gain**2 * power / total) if total > 0 else 0.0
    # the phase at the delay itself, which lies between two samples
    phase = float(np.angle(found * np.exp(2j * math.pi * frequency * shift / sample_rate)))
    return Arrived(gain, (best - lags + shift) / sample_rate, phase, coherence, math.sqrt(total))


def _vertex(values: NDArray[np.float64], best: int) -> tuple[float, float]:
    """Where between samples a parabola through the largest value and its neighbours has its top, and how high it is."""
    top = float(values[best])
    if not 0 < best < len(values) - 1:
        return 0.0, top
    before, after = float(values[best - 1]), float(values[best + 1])
    curvature = before - 2 * top + after
    shift = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    return shift, top + 0.25 * (after - before) * shift


def growth(sizes: NDArray[np.float64], amplitudes: NDArray[np.float64]) -> float:
    """Power with which what arrives grows with the probe: 1 of a linear response, 2 of a square; NaN of nothing.

    >>> growth(np.array([0.5, 2.0, 8.0]), np.array([1.0, 2.0, 4.0])).round(6)
    2.0
    """
    there = sizes > 0
    if there.sum() < 2:
        return float("nan")
    return float(np.polyfit(np.log(amplitudes[there]), np.log(sizes[there]), 1)[0])
