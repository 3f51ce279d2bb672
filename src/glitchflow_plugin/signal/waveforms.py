"""Waveforms of signals: compact binaries from ml4gw, and sine-Gaussians."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal

from glitchflow_plugin.types.arrays import Series

_AFTER = 0.5
"""How long a binary's waveform goes on after the merger, s."""

_HIGHEST_RATE = 4096.0
"""Rate up to which ml4gw makes binaries, Hz: at 16384 Hz its high-pass filter is unstable and gives NaN."""

SUN = 4.925490947641267e-6
"""Mass of the sun as a time, G M / c³, s (nominal value of the IAU, resolution B3 of 2015)."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """A signal in one detector, of no particular loudness.

    Attributes:
        series: Strain, (time,).
        reference: Time of the merger or the middle, s from the first sample.
    """

    series: Series
    reference: float


def chirp_mass(mass_1: float, mass_2: float) -> float:
    """Chirp mass of a binary, in the unit of its masses.

    >>> round(chirp_mass(1.4, 1.4), 3)
    1.219
    """
    return (mass_1 * mass_2) ** 0.6 / (mass_1 + mass_2) ** 0.2


def chirp_time(mass_1: float, mass_2: float, frequency: float) -> float:
    """Time of a circular binary from a frequency to the merger, s: 5/256 (pi f)^(-8/3) M^(-5/3), the leading order.

    Args:
        mass_1: Detector frame, solar masses.
        mass_2: Likewise.
        frequency: Frequency of the wave, Hz.

    >>> round(chirp_time(1.4, 1.4, 20.0))
    158
    """
    return 5 / 256 * (math.pi * frequency) ** (-8 / 3) * (SUN * chirp_mass(mass_1, mass_2)) ** (-5 / 3)


def binary_duration(mass_1: float, mass_2: float, lowest_frequency: float) -> float:
    """How long the waveform of a binary is, s; arguments as for `chirp_time`."""
    # spins, and higher orders, make an inspiral somewhat longer than the leading order says
    return math.ceil(1.2 * chirp_time(mass_1, mass_2, lowest_frequency)) + 2.0


def polarisations(
    sources: Sequence[tuple[float, float, float, float]],
    sample_rate: float,
    *,
    lowest_frequency: float,
    duration: float,
) -> tuple[np.ndarray, float]:
    """Plus and cross of binaries seen face on at 400 Mpc: IMRPhenomD by ml4gw, which starts softly.

    Husa et al., Phys. Rev. D 93, 044006 (2016), doi:10.1103/PhysRevD.93.044006; Khan et al., Phys. Rev. D 93, 044007.

    Args:
        sources: Masses in the detector frame (solar masses) and aligned spins.
        sample_rate: Hz.
        lowest_frequency: Hz.
        duration: Length of the waveforms, s; earlier parts of the inspiral are faded out.

    Returns:
        Shape (source, 2, time), and the time from the first sample to the merger, s.
    """
    # torch and ml4gw take seconds to import and only mergers need them
    import torch  # noqa: PLC0415
    from ml4gw.waveforms import IMRPhenomD  # noqa: PLC0415
    from ml4gw.waveforms.generator import TimeDomainCBCWaveformGenerator  # noqa: PLC0415

    finer = math.ceil(sample_rate / _HIGHEST_RATE)
    generator = TimeDomainCBCWaveformGenerator(
        IMRPhenomD(),
        sample_rate=sample_rate / finer,
        duration=duration,
        f_min=lowest_frequency,
        f_ref=lowest_frequency,
        right_pad=_AFTER,
    )
    mass_1, mass_2, spin_1, spin_2 = torch.tensor(sources, dtype=torch.float64).T
    total = mass_1 + mass_2
    parameters = {
        "mass_1": mass_1,
        "mass_2": mass_2,
        "s1z": spin_1,
        "s2z": spin_2,
        "chi1": spin_1,
        "chi2": spin_2,
        "chirp_mass": torch.tensor([chirp_mass(*source[:2]) for source in sources], dtype=torch.float64),
        "mass_ratio": mass_2 / mass_1,
        "distance": torch.full_like(total, 400.0),
        "phic": torch.zeros_like(total),
        "inclination": torch.zeros_like(total),
    }
    with torch.no_grad():
        cross, plus = generator(**parameters)
    found = torch.stack([plus, cross], dim=1).double().numpy()
    if finer > 1:
        found = signal.resample_poly(found, finer, 1, axis=-1)
    fade = round(0.5 * sample_rate)
    found[..., :fade] *= np.sin(0.5 * np.pi * np.arange(fade) / fade) ** 2
    return found, duration - _AFTER


def compact_binary(
    sample_rate: float,
    lowest_frequency: float,
    *,
    mass_1: float,
    mass_2: float,
    spin_1: float,
    spin_2: float,
    psi: float,
) -> Waveform:
    """A binary from a frequency on, whole, face on.

    Args:
        sample_rate: Hz.
        lowest_frequency: Hz.
        mass_1: Detector frame, solar masses.
        mass_2: Likewise, not larger.
        spin_1: Aligned, -1 to 1.
        spin_2: Likewise.
        psi: Polarisation angle, rad.
    """
    duration = binary_duration(mass_1, mass_2, lowest_frequency)
    source = (mass_1, mass_2, spin_1, spin_2)
    found, merger = polarisations([source], sample_rate, lowest_frequency=lowest_frequency, duration=duration)
    plus, cross = found[0]
    return Waveform(plus * math.cos(2 * psi) + cross * math.sin(2 * psi), merger)


def sine_gaussian(sample_rate: float, *, frequency: float, quality: float, phase: float) -> Waveform:
    """A burst: a sine within a Gaussian, of amplitude 1.

    B. P. Abbott et al., Phys. Rev. D 95, 042003 (2017), doi:10.1103/PhysRevD.95.042003: the width is
    Q / (sqrt(2) pi f).

    Args:
        sample_rate: Hz.
        frequency: Frequency of the sine, Hz.
        quality: Q.
        phase: Phase of the sine in the middle, rad.
    """
    width = quality / (math.sqrt(2) * math.pi * frequency)
    # beyond five widths a hundred-billionth is left
    half = math.ceil(5 * width * sample_rate)
    time = np.arange(-half, half + 1) / sample_rate
    return Waveform(np.exp(-((time / width) ** 2)) * np.sin(2 * np.pi * frequency * time + phase), half / sample_rate)
