"""Signals of merging black holes, which a twin must leave alone."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from glitchflow_plugin.signal.waveforms import polarisations
from glitchflow_plugin.types.arrays import Series

# detector-frame masses (solar) and aligned spins; heavy enough to last a few seconds from 20 Hz
_SOURCES = (
    (12.0, 9.0, 0.0, 0.0),
    (15.0, 12.0, 0.3, 0.0),
    (25.0, 20.0, 0.0, -0.2),
    (30.0, 28.0, 0.1, 0.1),
    (38.0, 31.0, 0.0, 0.0),
    (45.0, 30.0, 0.5, 0.2),
    (60.0, 45.0, -0.3, 0.0),
    (80.0, 60.0, 0.2, 0.4),
)


@dataclass(frozen=True, eq=False)
class MergerBank:
    """Polarisations of a few mergers.

    Attributes:
        polarisations: Plus and cross of each source at 400 Mpc, shape (source, 2, time).
        merger_offset: From the first sample to the merger, s.
        sources: Masses (solar masses) and aligned spins, one tuple a source.
    """

    polarisations: np.ndarray
    merger_offset: float
    sources: tuple[tuple[float, float, float, float], ...]

    def draw(self, rng: np.random.Generator) -> tuple[Series, dict[str, float]]:
        """A random source seen under a random polarisation angle, shape (time,), and its parameters."""
        row, angle = int(rng.integers(len(self.sources))), float(rng.uniform(0.0, np.pi))
        plus, cross = self.polarisations[row]
        mass_1, mass_2, spin_1, spin_2 = self.sources[row]
        parameters = {"mass_1": mass_1, "mass_2": mass_2, "s1z": spin_1, "s2z": spin_2, "psi": angle}
        return plus * np.cos(2.0 * angle) + cross * np.sin(2.0 * angle), parameters


@lru_cache(maxsize=2)
def merger_bank(sample_rate: float, lowest_frequency: float = 20.0, duration: float = 5.0) -> MergerBank:
    """Compute IMRPhenomD waveforms with ml4gw, conditioned to start softly at `lowest_frequency`.

    Args:
        sample_rate: Hz.
        lowest_frequency: Hz.
        duration: Length of the waveforms, s; earlier parts of the inspiral are faded out.
    """
    found, merger = polarisations(_SOURCES, sample_rate, lowest_frequency=lowest_frequency, duration=duration)
    return MergerBank(found, merger, _SOURCES)
