"""How far a detector hears a merger of neutron stars: one figure for a noise spectrum, in Mpc."""

import math

import numpy as np
from scipy import constants, integrate

from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.signal.waveforms import SUN, chirp_mass

LOWEST = 10.0
"""Frequency from which on the signal is counted, Hz."""

_AVERAGE = 1.77 / 4
"""The distance averaged over all directions and orientations, by volume, over that of the best of them."""


def inspiral_range(psd: Psd, mass_1: float = 1.4, mass_2: float = 1.4, snr: float = 8.0) -> float:
    """Distance to which an inspiral is heard with an SNR, averaged over sky and orientation, Mpc.

    The amplitude of an inspiral falls as f^(-7/6) until the innermost stable orbit of a black hole of the total mass;
    the expansion of the universe is left out. LIGO-T030276; L. S. Finn, D. F. Chernoff, Phys. Rev. D 47, 2198 (1993),
    doi:10.1103/PhysRevD.47.2198. So it is the figure that detectors publish, and `gwpy.astro.sensemon_range` from
    `LOWEST` on.

    Args:
        psd: Density of the noise in the strain, 1/Hz; up to 1.6 kHz for neutron stars.
        mass_1: Mass, solar masses.
        mass_2: The other, solar masses.
        snr: SNR that the optimal filter finds at this distance.

    Returns:
        The range; 0 where the density is infinite.

    Raises:
        ValueError: The density is zero or NaN at a frequency that counts.
    """
    last = 1 / (6**1.5 * math.pi * (mass_1 + mass_2) * SUN)
    frequencies = psd.frequencies
    counted = (frequencies >= LOWEST) & (frequencies < last)
    density = psd.values[counted]
    if not np.all(density > 0):
        raise ValueError(f"the density must be positive from {LOWEST:g} to {last:.0f} Hz")
    integral = integrate.trapezoid(frequencies[counted] ** (-7 / 3) / density, frequencies[counted])
    size = (SUN * chirp_mass(mass_1, mass_2)) ** (5 / 6)
    heard = 4 * _AVERAGE * math.sqrt(5 / 96) * math.pi ** (-2 / 3) * size / snr * math.sqrt(integral)
    return float(heard * constants.c / (1e6 * constants.parsec))
