"""Glitches with their loudness set: what of a disturbance arrives in the strain and in each sensor."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from scipy import optimize

from glitchflow_plugin.data.glitch_bank import BankGlitch
from glitchflow_plugin.simulation import bank, glitches
from glitchflow_plugin.simulation.coupling import Coupling, couple, resample
from glitchflow_plugin.simulation.families import Disturbance, Family
from glitchflow_plugin.simulation.noise import optimal_snr
from glitchflow_plugin.simulation.sensors import BEAM, BEAM_WANDER, SensorArray, bank_sensor
from glitchflow_plugin.simulation.settings import BankSettings, FamilySettings
from glitchflow_plugin.simulation.strain import StrainNoise
from glitchflow_plugin.types.arrays import Series

_CALIBRATION_DRAWS = 7
_CALIBRATION_SEED = 20150914


@dataclass(frozen=True, eq=False)
class Arrival:
    """A transient with its loudness set.

    Attributes:
        strain: What arrives in the strain, shape (time,).
        seen: Samples by sensor, at its rate and in its unit.
        label: Family or class.
        offset: Time in the strain from the start of the event, s.
        snr: Optimal SNR in the strain.
        witnesses: Sensors that count as its true witnesses, the main one first.
        coupling: The law and its parameters.
        parameters: What was drawn.
        group: Which measured waveform it is. Training and inference sets take different ones (`bank.indices`).
    """

    strain: Series
    seen: Mapping[str, np.ndarray]
    label: str
    offset: float
    snr: float
    witnesses: tuple[str, ...] = ()
    coupling: Mapping[str, object] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    group: str = ""


@runtime_checkable
class GlitchSource(Protocol):
    """A family or class of glitches in one detector."""

    label: str
    weight: float
    witnesses: tuple[str, ...]

    def glitch(self, rng: np.random.Generator, noise: StrainNoise, centre: float, day: int) -> Arrival:
        """Draw a glitch on that GPS day; `centre` is the disturbance's time from the start of the event, s."""
        ...

    def bystander(
        self, rng: np.random.Generator, noise: StrainNoise, centre: float, snr: tuple[float, float]
    ) -> Arrival:
        """Draw a transient that the witness sees (at an SNR from `snr`) and the strain does not; `label` is the why."""
        ...


class FamilyGlitches:
    """Glitches of a simulated family: disturbance -> witness -> coupling -> strain.

    The gain, and the amplitude of a typical disturbance, are fixed once, so that a typical glitch has the wanted SNR
    in strain and witness; each glitch then gets the amplitude in the witness at which the strain has the drawn SNR.

    Args:
        family: What happens.
        settings: How often and how loud.
        sensors: The auxiliary channels.
        noise: Spectrum for the calibration.
        sample_rate: Sample rate of the strain, Hz.
        time: Times of its samples from the start of the event, s, shape (time,).
        seed: Seed of what changes from day to day.
    """

    def __init__(
        self,
        family: Family,
        settings: FamilySettings,
        *,
        sensors: SensorArray,
        noise: StrainNoise,
        sample_rate: float,
        time: Series,
        seed: int = 0,
    ) -> None:
        self.label, self.weight, self.witnesses = family.name, settings.weight, family.witnesses
        self.family, self.settings, self.sensors = family, settings, sensors
        self.sample_rate, self.time, self.seed = sample_rate, time, seed
        self.second_gain = 1.0
        rng = np.random.default_rng(_CALIBRATION_SEED)
        drawn = [family.draw(rng, time - 0.5 * time[-1], sample_rate) for _ in range(_CALIBRATION_DRAWS)]
        # where the sensor clips is a share of a typical peak, so that here all are of unit size
        self.limit = np.inf if family.clips is None else family.clips
        seen = [self._seen(each.witness) for each in drawn]
        self.typical = settings.witness_snr / geometric_mean(self._snrs(family.witness, seen))
        if family.second is not None:
            second = geometric_mean(self._snrs(family.second[0], seen))
            self.second_gain = settings.witness_snr / (self.typical * second)
        self.limit *= self.typical
        coupling = replace(family.coupling, threshold=family.threshold * self.typical)
        heard = [self._heard(self.typical, each, coupling, noise) for each in drawn]
        self.coupling = replace(coupling, gain=geometric_mean(settings.snr) / geometric_mean(heard))

    def glitch(self, rng: np.random.Generator, noise: StrainNoise, centre: float, day: int = 0) -> Arrival:
        """See `GlitchSource`."""
        snr = log_uniform(rng, self.settings.snr)
        spread = float(np.exp(self.settings.gain_spread * rng.standard_normal()))
        coupling = replace(self.coupling, gain=self.coupling.gain * spread, echo=self._echo(day))
        disturbance = self.family.draw(rng, self.time - centre, self.sample_rate)
        amplitude = self._amplitude(disturbance, coupling, noise, snr)
        strain = couple(amplitude * disturbance.source, coupling, self.sample_rate, disturbance.modulation)
        seen = self._seen(amplitude * disturbance.witness)
        for name, slow in disturbance.slow.items():
            # slow motions hold nothing near the sensor's Nyquist frequency, so picking samples is exact
            seen[name] = slow[:: round(self.sample_rate / self.sensors[name].sample_rate)]
        return Arrival(
            strain=strain,
            seen=seen,
            label=self.label,
            offset=centre + coupling.delay,
            snr=snr,
            witnesses=self.witnesses,
            coupling=asdict(coupling),
            parameters={**disturbance.parameters, "amplitude": amplitude},
        )

    def bystander(
        self, rng: np.random.Generator, noise: StrainNoise, centre: float, snr: tuple[float, float]
    ) -> Arrival:
        """See `GlitchSource`. The transient goes through the same coupling, which lets next to nothing pass."""
        if self.family.bystander is None:
            label = "below threshold"
            shape = self.family.draw(rng, self.time - centre, self.sample_rate).source
            amplitude = 0.95 * self.coupling.threshold / float(np.abs(shape).max())
        else:
            label = "out of band"
            shape = glitches.sine_gaussian(self.time - centre, rng.uniform(*self.family.bystander), 8.0)
            main = self.family.witness
            whole = resample(shape, self.sample_rate, self.sensors[main].sample_rate)
            amplitude = log_uniform(rng, snr) / self.sensors.snr(main, whole)
        strain = couple(amplitude * shape, self.coupling, self.sample_rate)
        heard = optimal_snr(strain, noise.psd, self.sample_rate)
        return Arrival(strain, self._seen(amplitude * shape), label, centre, heard, self.witnesses)

    def _seen(self, witness: Series) -> dict[str, np.ndarray]:
        """What the true witnesses see of a disturbance that is given in the main one's unit."""
        rate, main = self.sample_rate, self.family.witness
        seen = {main: np.clip(resample(witness, rate, self.sensors[main].sample_rate), -self.limit, self.limit)}
        if self.family.second is not None:
            name, path = self.family.second
            arrived = couple(witness, replace(path, gain=self.second_gain), rate)
            seen[name] = resample(arrived, rate, self.sensors[name].sample_rate)
        return seen

    def _echo(self, day: int) -> tuple[float, float] | None:
        """Strength and lateness (s) of the second path on a day."""
        if self.family.echo is None:
            return None
        rng = np.random.default_rng([self.seed, day])
        strength, later = (float(rng.uniform(*interval)) for interval in self.family.echo)
        return float(rng.choice((-1.0, 1.0))) * strength, later

    def _snrs(self, name: str, seen: list[dict[str, np.ndarray]]) -> list[float]:
        return [self.sensors.snr(name, each[name]) for each in seen]

    def _heard(self, amplitude: float, disturbance: Disturbance, coupling: Coupling, noise: StrainNoise) -> float:
        """SNR in the strain of a disturbance with that amplitude in the witness."""
        arrived = couple(amplitude * disturbance.source, coupling, self.sample_rate, disturbance.modulation)
        return optimal_snr(arrived, noise.psd, self.sample_rate)

    def _amplitude(self, disturbance: Disturbance, coupling: Coupling, noise: StrainNoise, snr: float) -> float:
        """Amplitude in the witness at which the strain shows the disturbance with that SNR."""
        if coupling.degree is not None:
            heard = self._heard(self.typical, disturbance, coupling, noise)
            return self.typical * (snr / heard) ** (1.0 / coupling.degree)
        # up to here nothing is heard, above it the SNR grows steadily
        low = coupling.silent_below / float(np.abs(disturbance.source).max())
        high = 2.0 * max(low, self.typical)
        while self._heard(high, disturbance, coupling, noise) < snr:
            high *= 2.0
        found = optimize.root_scalar(
            lambda amplitude: self._heard(amplitude, disturbance, coupling, noise) - snr, bracket=(low, high), rtol=1e-6
        )
        return float(found.root)


class BankGlitches:
    """Measured glitches of one class, and the witness that is made for them.

    Args:
        label: The class.
        waveforms: Its glitches.
        settings: The bank's settings.
        sensors: The auxiliary channels.
        sample_rate: Sample rate of the strain, Hz.
        time: Times of its samples from the start of the event, s, shape (time,).
    """

    weight = 1.0

    def __init__(
        self,
        label: str,
        waveforms: list[BankGlitch],
        settings: BankSettings,
        *,
        sensors: SensorArray,
        sample_rate: float,
        time: Series,
    ) -> None:
        self.label, self.waveforms, self.settings = label, waveforms, settings
        self.sensor, self.coupling = bank_sensor(label), bank.coupling_of(label)
        self.witnesses = (self.sensor.name,)
        self.sensors, self.sample_rate, self.time = sensors, sample_rate, time
        self.range = settings.snr or (min(each.snr for each in waveforms), max(each.snr for each in waveforms))
        seen = [self._witness(self._placed(each, time.size // 2), 1.0) for each in waveforms]
        self.typical = settings.witness_snr / geometric_mean([sensors.snr(self.sensor.name, each) for each in seen])

    def glitch(
        self,
        rng: np.random.Generator,
        noise: StrainNoise,
        centre: float,
        day: int = 0,  # noqa: ARG002  # the protocol's
    ) -> Arrival:
        """See `GlitchSource`; the strain holds the measured waveform, coloured with the noise's spectrum."""
        rate = self.sample_rate
        chosen = self.waveforms[int(rng.integers(len(self.waveforms)))]
        snr = chosen.snr if self.settings.snr is None else log_uniform(rng, self.settings.snr)
        sample = round(centre * rate)
        whitened = self._placed(chosen, sample)
        modulation: Series | float = 1.0
        seen: dict[str, np.ndarray] = {}
        if self.coupling.form == "bilinear":
            position = np.sin(2.0 * np.pi * rng.uniform(0.3, 1.0) * self.time + rng.uniform(0.0, 2.0 * np.pi))
            modulation = 1.0 + 0.4 * position
            seen[BEAM] = BEAM_WANDER * position[:: round(rate / self.sensors[BEAM].sample_rate)]
        strain = bank.coloured(whitened, noise.asd, rate)
        strain *= snr / optimal_snr(strain, noise.psd, rate)
        spread = float(np.exp(-self.settings.gain_spread * rng.standard_normal()))
        amplitude = self.typical * (snr * spread / geometric_mean(self.range)) ** (1.0 / self.coupling.degree)
        seen[self.sensor.name] = amplitude * self._witness(whitened, modulation)
        return Arrival(
            strain=strain,
            seen=seen,
            label=self.label,
            offset=sample / rate,
            snr=snr,
            witnesses=self.witnesses,
            coupling=asdict(self.coupling),
            parameters={"bank": chosen.name, "amplitude": amplitude},
            group=chosen.name,
        )

    def bystander(
        self,
        rng: np.random.Generator,
        noise: StrainNoise,  # noqa: ARG002  # the protocol's
        centre: float,
        snr: tuple[float, float],
    ) -> Arrival:
        """See `GlitchSource`; nothing of it reaches the strain."""
        name = self.sensor.name
        shape = glitches.sine_gaussian(self.sensors.time(name) - centre, rng.uniform(*self.coupling.bystander), 8.0)
        seen = log_uniform(rng, snr) / self.sensors.snr(name, shape) * shape
        return Arrival(np.zeros(self.time.size), {name: seen}, "out of band", centre, 0.0, self.witnesses)

    def _placed(self, chosen: BankGlitch, sample: int) -> Series:
        return bank.placed(
            bank.tapered(chosen),
            chosen.sample_rate,
            num_samples=self.time.size,
            centre=sample,
            sample_rate=self.sample_rate,
        )

    def _witness(self, whitened: Series, modulation: Series | float) -> np.ndarray:
        made = bank.made_witness(whitened, self.coupling, self.sample_rate, modulation)
        return resample(made, self.sample_rate, self.sensor.sample_rate)


def log_uniform(rng: np.random.Generator, interval: tuple[float, float]) -> float:
    """A number whose logarithm is uniform in the interval."""
    low, high = interval
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def geometric_mean(values: tuple[float, ...] | list[float]) -> float:
    """The mean of the logarithms, exponentiated."""
    return float(np.exp(np.mean(np.log(values))))
