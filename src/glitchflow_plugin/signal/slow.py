"""What a channel does below the band of an event: too slow to be whitened, and able to decide how a glitch couples.

Where a beam lies on a mirror sets by how much an angle becomes length (Vajente et al., Phys. Rev. D 101, 042003 (2020),
doi:10.1103/PhysRevD.101.042003); which way a suspension swings sets the sign of the phase of the light it scatters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.types.arrays import Series

SHARE = 0.03
"""Slow motion of one `scale`, in a whitened series whose noise is 1 a sample: no map or gate of the band notices it."""

_ORDER = 4
#: Share of the band's lower edge up to which motion is slow: what is whitened begins above it.
_BELOW = 0.5
#: Of the events' motions, the one that counts as large: a few absurd ones do not matter.
_LARGE = 0.9


@dataclass(frozen=True)
class SlowScale:
    """The unit in which the slow motion of a channel is told.

    Attributes:
        location: What counts as zero, in the channel's unit.
        scale: What counts as one, in the channel's unit.
        highest: Frequency (Hz) up to which motion is slow.
    """

    location: float
    scale: float
    highest: float

    def __post_init__(self) -> None:
        """Refuse a unit that is none."""
        if not (self.scale > 0 and self.highest > 0 and math.isfinite(self.scale + self.highest + self.location)):
            raise ConfigurationError(
                f"expected a finite location, scale > 0 and highest > 0 Hz of a slow channel, got {self.location}, "
                f"{self.scale} and {self.highest}."
            )


def low_passed(series: Series, sample_rate: float, highest: float) -> np.ndarray:
    """Motion below `highest` (Hz), without delay, float64, shape (time,)."""
    values = np.asarray(series, dtype=np.float64)
    if highest >= 0.45 * sample_rate:  # all that it can hold is slow
        return values
    # offsets of sensors are many times what they measure
    middle = float(np.median(values))
    sections = signal.butter(_ORDER, highest, fs=sample_rate, output="sos")
    return (
        signal.sosfiltfilt(sections, values - middle, padlen=min(len(values) - 1, round(3 * sample_rate / highest)))
        + middle
    )


def find_scale(motions: Sequence[np.ndarray], minf: float) -> SlowScale | None:
    """The unit of a channel, rounded so that other events of the same detector give the same.

    Args:
        motions: Low-passed series of some events, in the channel's unit.
        minf: Lower edge of the band, Hz.

    Returns:
        Location near the middle of all, and a scale near that of the largest motions; None where nothing moves.
    """
    if not motions:
        return None
    middle = float(np.median([float(np.median(one)) for one in motions]))
    sizes = [float(np.sqrt(np.mean((one - middle) ** 2))) for one in motions]
    size = float(np.quantile(sizes, _LARGE))
    if size <= 1e-12 * abs(middle) or not math.isfinite(size):
        return None
    scale = 2.0 ** round(math.log2(size))
    return SlowScale(location=scale * round(middle / scale), scale=scale, highest=slow_edge(minf))


def slow_edge(minf: float) -> float:
    """Frequency (Hz) up to which motion is slow, for a band that begins at `minf` (Hz)."""
    return _BELOW * minf


def slow_motion(series: Series, sample_rate: float, t0: float, times: np.ndarray, scale: SlowScale) -> np.ndarray:
    """Slow motion of a channel at given times, in units of its scale.

    Args:
        series: As recorded, shape (time,), without NaN.
        sample_rate: Hz.
        t0: GPS time of its first sample, s.
        times: GPS s, shape (sample,).
        scale: The unit.
    """
    moved = (low_passed(series, sample_rate, scale.highest) - scale.location) / scale.scale
    return np.interp(times - t0, np.arange(len(moved)) / sample_rate, moved)
