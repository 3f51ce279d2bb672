"""The families of glitches: where each comes from, which sensor sees it, and how it reaches the strain."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glitchflow_plugin.simulation import glitches
from glitchflow_plugin.simulation.coupling import Coupling
from glitchflow_plugin.types.arrays import Series


@dataclass(frozen=True, eq=False)
class Disturbance:
    """One drawn disturbance, before its loudness is set.

    Attributes:
        source: What couples to the strain, unit amplitude, shape (time,).
        witness: What the main witness sees, to the same scale; the source unless the two differ.
        modulation: Slow factor of a bilinear coupling, shape (time,) or 1.
        slow: What slow channels see of it, in their unit, by sensor; not scaled with the loudness.
        parameters: What was drawn.
    """

    source: Series
    witness: Series
    modulation: Series | float = 1.0
    slow: Mapping[str, Series] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


Draw = Callable[[np.random.Generator, Series, float], Disturbance]


@dataclass(frozen=True)
class Family:
    """A kind of glitch.

    Attributes:
        name: Name in truth and settings.
        witness: Main true witness (sensor).
        draw: Makes a disturbance from (rng, time from its centre (s), sample rate (Hz)).
        coupling: From the witness to the strain; its gain and threshold are set by the detector's calibration.
        threshold: Threshold of a `threshold` coupling as a share of a typical peak in the witness.
        bystander: Frequency range (Hz) of transients in the witness that lie outside the coupling band; None where
            they lie below the threshold instead.
        second: A further witness and its path from the main one (gain and all set by the calibration), or None.
    """

    name: str
    witness: str
    draw: Draw
    coupling: Coupling
    threshold: float = 0.0
    bystander: tuple[float, float] | None = None
    second: tuple[str, Coupling] | None = None

    @property
    def witnesses(self) -> tuple[str, ...]:
        """All true witnesses."""
        return (self.witness,) if self.second is None else (self.witness, self.second[0])


def _scattered_light(rng: np.random.Generator, time: Series, _rate: float) -> Disturbance:
    """A suspended bench swings by many wavelengths and scatters light back."""
    arch = float(np.exp(rng.uniform(np.log(30.0), np.log(100.0))))
    frequency, phase, rest = rng.uniform(0.35, 0.7), rng.uniform(-0.3, 0.3), rng.uniform(0.0, 2.0 * np.pi)
    displacement = glitches.swing(time, 0.5 * glitches.LASER_WAVELENGTH * arch, frequency, phase)
    # the light path is closed smoothly before the event ends; fringes of a bench at rest are constant
    half = min(-time[0], time[-1], 6.0)
    light = glitches.flat_envelope(time, 2.0 * half, 0.35 * half)
    return Disturbance(
        source=light * glitches.fringes(displacement, rest),
        witness=light * glitches.fringes(displacement, rest + 1.0),
        slow={"SUS-SB_DISP": displacement, "ENV-SEIS_SB": 0.02 * np.gradient(displacement, time)},
        parameters={"arch_frequency": arch, "swing_frequency": frequency, "swing_phase": phase, "rest_phase": rest},
    )


def _whistle(rng: np.random.Generator, time: Series, _rate: float) -> Disturbance:
    """An oscillator sweeps past another one; the strain sees the square of the beat, at twice its frequency."""
    drawn = {
        "lowest": rng.uniform(38.0, 55.0),
        "highest": rng.uniform(120.0, 190.0),
        "duration": rng.uniform(0.3, 0.7),
        "phase": rng.uniform(0.0, 2.0 * np.pi),
    }
    beat = glitches.whistle(time, **drawn)
    return Disturbance(beat, beat, parameters=drawn)


def _light_modulation(rng: np.random.Generator, time: Series, _rate: float) -> Disturbance:
    """An actuator oscillates; how much of it the strain sees depends on where the beam lies at that moment."""
    drawn = {
        "frequency": rng.uniform(40.0, 100.0),
        "modulation": rng.uniform(3.0, 8.0),
        "depth": 0.45,
        "duration": rng.uniform(0.5, 1.2),
        "phase": rng.uniform(0.0, 2.0 * np.pi),
    }
    rate, phase = rng.uniform(0.3, 1.0), rng.uniform(0.0, 2.0 * np.pi)
    position = np.sin(2.0 * np.pi * rate * time + phase)
    drive = glitches.light_modulation(time, **drawn)
    return Disturbance(
        drive,
        drive,
        modulation=1.0 + 0.4 * position,
        slow={"ASC-BEAM_POS": 2e-5 * position},
        parameters={**drawn, "beam_frequency": rate, "beam_phase": phase},
    )


def _blip(rng: np.random.Generator, time: Series, _rate: float) -> Disturbance:
    """A very short dip of the laser's intensity."""
    drawn = {
        "frequency": rng.uniform(90.0, 220.0),
        "quality": rng.uniform(2.0, 3.0),
        "phase": rng.uniform(-0.4, 0.4),
    }
    pulse = glitches.sine_gaussian(time, **drawn)
    return Disturbance(pulse, pulse, parameters=drawn)


def _tomte(rng: np.random.Generator, time: Series, _rate: float) -> Disturbance:
    """A magnetic pulse; the force on the magnets of a mirror goes with the square of the field."""
    drawn = {"frequency": rng.uniform(30.0, 60.0), "decay": rng.uniform(0.02, 0.05)}
    pulse = glitches.ringdown(time, **drawn)
    return Disturbance(pulse, pulse, parameters=drawn)


def _acoustic(rng: np.random.Generator, time: Series, rate: float) -> Disturbance:
    """A bang; a loose mount rattles once the sound is loud enough."""
    drawn = {"low": rng.uniform(60.0, 90.0), "high": rng.uniform(130.0, 180.0), "duration": rng.uniform(0.12, 0.3)}
    burst = glitches.noise_burst(rng, time, sample_rate=rate, **drawn)
    return Disturbance(burst, burst, parameters=drawn)


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "scattered_light",
            "SUS-SB_STRAY_PD",
            _scattered_light,
            Coupling("linear", band=(12.0, 140.0), delay=0.002),
            bystander=(230.0, 380.0),
        ),
        Family(
            "whistle",
            "PSL-FSS_VCO_FREQ",
            _whistle,
            Coupling("quadratic", band=(70.0, 450.0), delay=0.005),
            bystander=(10.0, 16.0),
        ),
        Family(
            "light_modulation",
            "ASC-ACT_DRIVE",
            _light_modulation,
            Coupling("bilinear", band=(25.0, 200.0), delay=0.012),
            bystander=(340.0, 395.0),
        ),
        Family(
            "blip",
            "PSL-POWER_MON",
            _blip,
            Coupling("linear", band=(60.0, 350.0), delay=0.008),
            bystander=(12.0, 24.0),
        ),
        Family(
            "tomte",
            "ENV-MAG_CEB",
            _tomte,
            Coupling("odd_quadratic", band=(15.0, 120.0), delay=0.03, resonance=(48.0, 3.0)),
            bystander=(240.0, 380.0),
        ),
        Family(
            "acoustic",
            "ENV-MIC_DET",
            _acoustic,
            Coupling("threshold", band=(40.0, 300.0), delay=0.015, resonance=(110.0, 4.0)),
            threshold=0.25,
            second=("ENV-ACC_DET", Coupling("linear", band=(30.0, 300.0), delay=0.004)),
        ),
    )
}
"""The families of the embedded default by name."""
