"""The families of glitches: where each comes from, which sensor sees it, and how it reaches the strain.

Six are the embedded default: a static law followed by a linear response, which is how the coupling network is made too.
Six more, marked `outside`, are not of that kind, so that a figure of merit does not measure how well one guess fits
another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from glitchflow_plugin.simulation import glitches
from glitchflow_plugin.simulation.coupling import Coupling, pole_pair, through
from glitchflow_plugin.simulation.sensors import SPOT, SPOT_WANDER, Sensor
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
    parameters: Mapping[str, object] = field(default_factory=dict)


Draw = Callable[[np.random.Generator, Series, float], Disturbance]


@dataclass(frozen=True)
class Family:
    """A kind of glitch.

    Attributes:
        name: Name in truth and settings.
        witness: Main true witness (sensor).
        draw: Makes a disturbance from (rng, time from its centre (s), sample rate (Hz)).
        coupling: From the witness to the strain; its gain and threshold are set by the detector's calibration.
        threshold: Threshold of the coupling as a share of a typical peak in the witness.
        bystander: Frequency range (Hz) of transients in the witness that lie outside the coupling band; None where
            they lie below the threshold instead.
        second: A further witness and its path from the main one (gain and all set by the calibration), or None.
        outside: Whether its law is none that the coupling network is made of (`models/coupling.py`).
        sensors: Channels that are there only where this family occurs.
        clips: Share of a typical peak beyond which the main witness shows no more, or None.
        echo: Strength and lateness (s) of a second path beside the coupling, each drawn from its range day by day; the
            strength has either sign.
    """

    name: str
    witness: str
    draw: Draw
    coupling: Coupling
    threshold: float = 0.0
    bystander: tuple[float, float] | None = None
    second: tuple[str, Coupling] | None = None
    outside: bool = False
    sensors: tuple[Sensor, ...] = ()
    clips: float | None = None
    echo: tuple[tuple[float, float], tuple[float, float]] | None = None

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


def _saturation(rng: np.random.Generator, time: Series, rate: float) -> Disturbance:
    """A pulse drives a suspension's actuator, whose resonance takes it beyond what its amplifier can give.

    Overflows of drives and sensors: Davis et al., Class. Quantum Grav. 38, 135014 (2021), doi:10.1088/1361-6382/abfd85.
    """
    drawn = {
        "frequency": rng.uniform(55.0, 100.0),
        "quality": rng.uniform(4.0, 9.0),
        "phase": rng.uniform(0.0, 2.0 * np.pi),
    }
    pulse = glitches.sine_gaussian(time, **drawn)
    # the resonance comes first: a law that acts on what the witness shows does not know what the path gets
    return Disturbance(through(pulse, rate, _actuator), pulse, parameters=drawn)


def _actuator(frequency: np.ndarray) -> np.ndarray:
    return 1.0 / pole_pair(frequency, 75.0, 3.0)


def _clipping(rng: np.random.Generator, time: Series, rate: float) -> Disturbance:
    """A burst of light that the strain feels in full and the photodiode's electronics cut off."""
    drawn = {"low": rng.uniform(50.0, 80.0), "high": rng.uniform(140.0, 200.0), "duration": rng.uniform(0.15, 0.35)}
    burst = glitches.noise_burst(rng, time, sample_rate=rate, **drawn)
    return Disturbance(burst, burst, parameters=drawn)


def _hysteresis(rng: np.random.Generator, time: Series, _rate: float) -> Disturbance:
    """A clamped joint sticks and slips: it moves on only after it was pushed far enough the other way."""
    drawn = {"frequency": rng.uniform(35.0, 70.0), "decay": rng.uniform(0.05, 0.12)}
    pulse = glitches.ringdown(time, **drawn)
    return Disturbance(pulse, pulse, parameters=drawn)


def _slow_gain(rng: np.random.Generator, time: Series, _rate: float) -> Disturbance:
    """A mirror's angle becomes length by as much as the beam is off its centre, and the beam wanders.

    Vajente et al., Phys. Rev. D 101, 042003 (2020), doi:10.1103/PhysRevD.101.042003.
    """
    drawn = {
        "frequency": rng.uniform(45.0, 110.0),
        "quality": rng.uniform(6.0, 14.0),
        "phase": rng.uniform(0.0, 2.0 * np.pi),
    }
    rate, phase = rng.uniform(0.05, 0.2), rng.uniform(0.0, 2.0 * np.pi)
    position = np.sin(2.0 * np.pi * rate * time + phase)
    angle = glitches.sine_gaussian(time, **drawn)
    return Disturbance(
        angle,
        angle,
        modulation=1.0 + 0.8 * position,
        slow={SPOT: SPOT_WANDER * position},
        parameters={**drawn, "spot_frequency": rate, "spot_phase": phase},
    )


def _two_paths(rng: np.random.Generator, time: Series, rate: float) -> Disturbance:
    """The vacuum tube shakes and scatters light at two places, which move with the temperature of the day.

    Nguyen et al., Class. Quantum Grav. 38, 145001 (2021), doi:10.1088/1361-6382/ac011a.
    """
    drawn = {"low": rng.uniform(35.0, 60.0), "high": rng.uniform(150.0, 210.0), "duration": rng.uniform(0.12, 0.3)}
    burst = glitches.noise_burst(rng, time, sample_rate=rate, **drawn)
    return Disturbance(burst, burst, parameters=drawn)


def _resonant_witness(rng: np.random.Generator, time: Series, rate: float) -> Disturbance:
    """An accelerometer on a mount that rings by itself, at frequencies that drift with the temperature.

    What undoes a mount's response rings as well, at its antiresonance.
    """
    drawn = {
        "frequency": rng.uniform(60.0, 150.0),
        "quality": rng.uniform(2.0, 5.0),
        "phase": rng.uniform(0.0, 2.0 * np.pi),
    }
    drift = float(np.exp(rng.uniform(-0.06, 0.06)))
    force = glitches.sine_gaussian(time, **drawn)
    return Disturbance(
        force,
        through(force, rate, lambda frequency: mount(frequency / drift)),
        parameters={**drawn, "mount_drift": drift},
    )


def mount(frequency: np.ndarray) -> np.ndarray:
    """What an accelerometer's mount makes of a motion: a resonance at 95 Hz and an antiresonance at 130 Hz.

    Args:
        frequency: Hz, divided by the drift of both.
    """
    return pole_pair(frequency, 130.0, 40.0) / pole_pair(frequency, 95.0, 30.0)


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
        Family(
            "saturation",
            "SUS-COIL_DRIVE",
            _saturation,
            Coupling("saturating", band=(25.0, 250.0), delay=0.006),
            threshold=0.5,
            bystander=(330.0, 395.0),
            outside=True,
            sensors=(Sensor("SUS-COIL_DRIVE", 1024.0, "V", floor=2e-5, knee=8.0),),
        ),
        Family(
            "clipping",
            "LSC-POP_PD",
            _clipping,
            Coupling("linear", band=(40.0, 300.0), delay=0.003),
            bystander=(12.0, 20.0),
            outside=True,
            sensors=(Sensor("LSC-POP_PD", 2048.0, "W", floor=4e-8, knee=15.0),),
            clips=0.3,
        ),
        Family(
            "hysteresis",
            "SAT-CLAMP_ACC",
            _hysteresis,
            Coupling("hysteretic", band=(15.0, 200.0), delay=0.01, memory=0.1),
            threshold=0.35,
            outside=True,
            sensors=(Sensor("SAT-CLAMP_ACC", 1024.0, "m/s^2", floor=2e-6, knee=8.0),),
        ),
        Family(
            "slow_gain",
            "ASC-TM_PITCH",
            _slow_gain,
            Coupling("bilinear", band=(20.0, 200.0), delay=0.007),
            bystander=(340.0, 395.0),
            outside=True,
            sensors=(
                Sensor("ASC-TM_PITCH", 1024.0, "rad", floor=1e-13, knee=10.0),
                Sensor(SPOT, 256.0, "m", floor=1e-7, knee=1.0, offset=2e-3),
            ),
        ),
        Family(
            "two_paths",
            "ENV-ACC_TUBE",
            _two_paths,
            Coupling("linear", band=(30.0, 230.0), delay=0.004),
            bystander=(330.0, 395.0),
            outside=True,
            sensors=(Sensor("ENV-ACC_TUBE", 2048.0, "m/s^2", floor=4e-6, knee=15.0),),
            echo=((0.5, 1.0), (0.006, 0.018)),
        ),
        Family(
            "resonant_witness",
            "ENV-ACC_MOUNT",
            _resonant_witness,
            Coupling("linear", band=(40.0, 220.0), delay=0.009),
            bystander=(330.0, 395.0),
            outside=True,
            sensors=(Sensor("ENV-ACC_MOUNT", 2048.0, "m/s^2", floor=3e-6, knee=12.0),),
        ),
    )
}
"""The families by name."""
