"""The simulated detector itself: settings and an event's number in, an event and all that is known about it out."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy import fft
from scipy import signal

from glitchflow_plugin.data.event_files import Channel, RawEvent
from glitchflow_plugin.data.glitch_bank import BankGlitch, read_glitch_bank
from glitchflow_plugin.data.truth_file import EventTruth, TransientTruth, WaveformTruth
from glitchflow_plugin.simulation import glitches
from glitchflow_plugin.simulation.arrivals import Arrival, BankGlitches, FamilyGlitches, GlitchSource, log_uniform
from glitchflow_plugin.simulation.families import FAMILIES
from glitchflow_plugin.simulation.mergers import MergerBank, merger_bank
from glitchflow_plugin.simulation.noise import optimal_snr
from glitchflow_plugin.simulation.sensors import (
    BEAM,
    BEAM_WANDER,
    CAUSES,
    DEAD,
    SENSORS,
    SPOT,
    SPOT_WANDER,
    STRAIN,
    UNSAFE,
    Sensor,
    SensorArray,
    bank_sensor,
    further_distractors,
)
from glitchflow_plugin.simulation.settings import SimulationSettings
from glitchflow_plugin.simulation.strain import StrainNoise, draw_strain, strain_noises
from glitchflow_plugin.types.arrays import Series

_DAY = 86400.0  # s
_MARGIN = 1.0  # s at either end of an event without transients


class Detector:
    """Simulates the events of one set; keeps what all of them share (spectra, calibrated gains, banks)."""

    def __init__(self, settings: SimulationSettings) -> None:
        self.settings = settings
        self.num_samples = round(settings.duration * settings.sample_rate)
        self.time = np.arange(self.num_samples) / settings.sample_rate
        self.noises = strain_noises(settings, fft.rfftfreq(self.num_samples, 1.0 / settings.sample_rate))
        waveforms = _bank_waveforms(settings)
        labels = sorted({waveform.label for waveform in waveforms})
        self.families = [FAMILIES[name] for name, one in (settings.families or {}).items() if one.weight > 0.0]
        sensors = [*SENSORS, *map(bank_sensor, labels), *further_distractors(settings.num_distractors)]
        # last, so that all others record the same with and without them
        sensors += [sensor for family in self.families for sensor in family.sensors]
        self.sensors = SensorArray(sensors, settings.duration, settings.mains)
        self.sources = self._glitch_sources(waveforms)

    @cached_property
    def mergers(self) -> MergerBank:
        """Waveforms of mergers, computed when first needed (imports torch)."""
        return merger_bank(self.settings.sample_rate, self.settings.mergers.lowest_frequency)

    # names -----------------------------------------------------------------------------------------------------------

    def full_name(self, sensor: str) -> str:
        """Channel name of a sensor."""
        return f"{self.settings.ifo}:{sensor}"

    @property
    def target(self) -> str:
        """Name of the strain channel."""
        return self.full_name(STRAIN)

    @property
    def witnesses_by_family(self) -> dict[str, tuple[str, ...]]:
        """Channel names of the true witnesses of each family that occurs."""
        return {source.label: tuple(map(self.full_name, source.witnesses)) for source in self.sources}

    @property
    def roles(self) -> dict[str, str]:
        """Role of each auxiliary channel. A sensor whose family does not occur is a distractor."""
        true = {name for source in self.sources for name in source.witnesses}
        roles = {
            self.full_name(name): "witness" if name in true else "cause" if name in CAUSES else "distractor"
            for name in self.sensors.by_name
        }
        return {**roles, self.full_name(UNSAFE.name): "unsafe", self.full_name(DEAD.name): "dead"}

    @property
    def outside(self) -> tuple[str, ...]:
        """Families that occur and follow no law that the coupling network is made of, sorted."""
        return tuple(sorted(family.name for family in self.families if family.outside))

    def gps_start(self, index: int) -> float:
        """Start of an event, GPS s."""
        return self.settings.gps_start + index * self.settings.spacing

    def event_id(self, index: int) -> str:
        """Name of an event: detector and the whole GPS second of its middle."""
        return f"{self.settings.ifo}-{int(self.gps_start(index) + self.settings.duration / 2.0)}"

    def _glitch_sources(self, waveforms: list[BankGlitch]) -> list[GlitchSource]:
        """The calibrated families that occur, then the classes of the bank."""
        settings, rate = self.settings, self.settings.sample_rate
        sources: list[GlitchSource] = [
            FamilyGlitches(
                family,
                (settings.families or {})[family.name],
                sensors=self.sensors,
                noise=self.noises[0],
                sample_rate=rate,
                time=self.time,
                seed=settings.seed,
            )
            for family in self.families
        ]
        if settings.bank is not None:
            for label in sorted({waveform.label for waveform in waveforms}):
                of_class = [waveform for waveform in waveforms if waveform.label == label]
                made = BankGlitches(
                    label, of_class, settings.bank, sensors=self.sensors, sample_rate=rate, time=self.time
                )
                sources.append(made)
        return sources

    # events ----------------------------------------------------------------------------------------------------------

    def generators(self, index: int) -> dict[str, np.random.Generator]:
        """Random numbers of an event, a stream for each ingredient: switching one off does not change the others."""
        names = ("strain", "sensors", "glitch", "bystanders", "distractors", "merger", "gap", "pickoff", "wander")
        seeds = np.random.SeedSequence([self.settings.seed, index]).spawn(len(names))
        return {name: np.random.default_rng(seed) for name, seed in zip(names, seeds, strict=True)}

    def event(self, index: int) -> tuple[RawEvent, EventTruth]:
        """Simulate event number `index`; it depends on the settings and this number alone."""
        settings, gps_start = self.settings, self.gps_start(index)
        rng = self.generators(index)

        noise = self.noises[int(rng["strain"].integers(len(self.noises)))]
        strain, background = draw_strain(rng["strain"], noise, settings, self.num_samples)
        recorded = {name: self.sensors.noise(rng["sensors"], name) for name in self.sensors.by_name}

        glitch = self.draw_glitch(index, rng["glitch"], noise)
        if glitch is None or BEAM not in glitch.seen:
            recorded[BEAM] += self._idle(rng["sensors"], BEAM, BEAM_WANDER, (0.3, 1.0))
        if SPOT in recorded and (glitch is None or SPOT not in glitch.seen):
            recorded[SPOT] += self._idle(rng["wander"], SPOT, SPOT_WANDER, (0.05, 0.2))
        transients: list[TransientTruth] = []
        glitch_truths: tuple[WaveformTruth, ...] = ()
        if glitch is not None:
            for name, seen in glitch.seen.items():
                recorded[name] += seen
            if settings.coupling == 0.0:
                transients += self._transient_truths(glitch, gps_start, "coupling is zero")
            else:
                strain = strain + glitch.strain
                glitch_truths = (self.waveform_truth(glitch, noise, gps_start),)
        for bystander in self.draw_bystanders(rng["bystanders"], noise):
            strain = strain + settings.coupling * bystander.strain
            for name, seen in bystander.seen.items():
                recorded[name] += seen
            transients += self._transient_truths(bystander, gps_start, bystander.label)
        for name, centre, seen in self.draw_distractions(rng["distractors"]):
            recorded[name] += seen
            snr = self.sensors.snr(name, seen)
            transients.append(TransientTruth(self.full_name(name), gps_start + centre, "distractor", snr))
        merger = self._draw_merger(rng["merger"], noise)
        if merger is not None:
            strain = strain + merger.strain

        channels = {self.target: Channel(self.target, strain, gps_start, settings.sample_rate, "strain")}
        for name, series in recorded.items():
            channels |= self._channel(self.sensors[name], series, gps_start)
        channels |= self._channel(UNSAFE, self._pick_off(rng["pickoff"], strain), gps_start)
        channels |= self._channel(DEAD, np.zeros(self.sensors.size(DEAD)), gps_start)
        gaps = self._cut_gap(rng["gap"], channels, gps_start)
        truth = EventTruth(
            event_id=self.event_id(index),
            gps_start=gps_start,
            gps_event=gps_start + settings.duration / 2.0,
            duration=settings.duration,
            group=self._group(index, glitch, noise),
            background=background,
            glitches=glitch_truths,
            signals=() if merger is None else (self.waveform_truth(merger, noise, gps_start),),
            transients=tuple(transients),
            gaps=gaps,
        )
        return RawEvent(truth.event_id, truth.gps_event, channels, truth.group), truth

    def _group(self, index: int, glitch: Arrival | None, noise: StrainNoise) -> str:
        """What an event shares with others: the bank's waveform, else the file of strain beneath, else nothing."""
        background = self.settings.background
        if glitch is not None and glitch.group:
            return glitch.group
        if noise.measured is not None and background is not None and background.mode == "stretch":
            return noise.measured.name
        return self.event_id(index)

    def draw_glitch(self, index: int, rng: np.random.Generator, noise: StrainNoise) -> Arrival | None:
        """The glitch of an event, over its length; None where it has none. Arguments as in `event`."""
        settings = self.settings
        unwitnessed = rng.random() < settings.no_witness_fraction
        # multiples of the golden ratio fill the unit interval evenly, so that every share is met within an event or two
        # whatever the number of events, and event i still depends on (seed, i) alone
        share = float(np.modf(np.random.default_rng(settings.seed).random() + index * 0.6180339887498949)[0])
        if share < settings.no_glitch_fraction or not self.sources:
            return None
        weights = np.cumsum([source.weight for source in self.sources])
        place = (share - settings.no_glitch_fraction) / (1.0 - settings.no_glitch_fraction) * weights[-1]
        source = self.sources[min(int(np.searchsorted(weights, place, side="right")), len(self.sources) - 1)]
        day = int(self.gps_start(index) // _DAY)
        glitch = source.glitch(rng, noise, self._central_time(rng), day)
        glitch = replace(glitch, strain=settings.coupling * glitch.strain, snr=settings.coupling * glitch.snr)
        return replace(glitch, seen={}, witnesses=()) if unwitnessed else glitch

    def draw_bystanders(self, rng: np.random.Generator, noise: StrainNoise) -> Iterator[Arrival]:
        """Transients in true witnesses that the strain does not notice."""
        for source in self.sources:
            for centre in self._times(rng, self.settings.witness_transient_rate):
                yield source.bystander(rng, noise, centre, self.settings.transient_snr)

    def draw_distractions(self, rng: np.random.Generator) -> Iterator[tuple[str, float, np.ndarray]]:
        """Bursts in the distractors: sensor, time from the start of the event (s), samples."""
        for full_name, role in self.roles.items():
            if role != "distractor":
                continue
            name = full_name.removeprefix(f"{self.settings.ifo}:")
            for centre in self._times(rng, self.settings.distractor_rate):
                shape = _burst(rng, self.sensors.time(name) - centre, self.sensors[name].sample_rate)
                yield (
                    name,
                    centre,
                    log_uniform(rng, self.settings.transient_snr) / self.sensors.snr(name, shape) * shape,
                )

    def _draw_merger(self, rng: np.random.Generator, noise: StrainNoise) -> Arrival | None:
        settings, rate = self.settings, self.settings.sample_rate
        if rng.random() >= settings.mergers.fraction:
            return None
        waveform, parameters = self.mergers.draw(rng)
        start = round((self._central_time(rng) - self.mergers.merger_offset) * rate)
        strain = np.zeros(self.num_samples)
        first, last = max(start, 0), min(start + waveform.size, self.num_samples)
        strain[first:last] = waveform[first - start : last - start]
        snr = log_uniform(rng, settings.mergers.snr)
        strain *= snr / optimal_snr(strain, noise.psd, rate)
        merged = start / rate + self.mergers.merger_offset
        return Arrival(strain, {}, "merger", merged, snr, parameters=parameters)

    # channels --------------------------------------------------------------------------------------------------------

    def _channel(self, sensor: Sensor, series: Series, gps_start: float) -> dict[str, Channel]:
        name = self.full_name(sensor.name)
        samples = (series + sensor.offset).astype(np.float32)
        return {name: Channel(name, samples, gps_start, sensor.sample_rate, sensor.unit)}

    def _idle(self, rng: np.random.Generator, name: str, wander: float, rates: tuple[float, float]) -> Series:
        """A beam wanders as well when nothing couples through it."""
        angle = 2.0 * np.pi * rng.uniform(*rates) * self.sensors.time(name) + rng.uniform(0.0, 2.0 * np.pi)
        return wander * np.sin(angle)

    def _pick_off(self, rng: np.random.Generator, strain: Series) -> np.ndarray:
        factor = round(self.settings.sample_rate / UNSAFE.sample_rate)
        scale = 1e18  # W per unit of strain
        picked = scale * (strain if factor == 1 else signal.resample_poly(strain, 1, factor, padtype="line"))
        # its own shot noise lies a little below the strain noise at its best frequency
        noise = self.noises[0]
        floor = 0.3 * scale * noise.asd_values[(noise.frequencies > 50.0) & (noise.frequencies < 500.0)].min()
        return picked + floor * np.sqrt(UNSAFE.sample_rate / 2.0) * rng.standard_normal(picked.size)

    def _cut_gap(
        self, rng: np.random.Generator, channels: Mapping[str, Channel], gps_start: float
    ) -> dict[str, tuple[float, float]]:
        """Put NaN into a stretch of one auxiliary channel of some events."""
        if rng.random() >= self.settings.gap_fraction:
            return {}
        channel = channels[self.full_name(list(self.sensors.by_name)[int(rng.integers(len(self.sensors.by_name)))])]
        length = rng.uniform(0.1, 1.0)
        start = rng.uniform(0.0, self.settings.duration - length)
        first, last = (round(edge * channel.sample_rate) for edge in (start, start + length))
        channel.series[first:last] = np.nan
        return {channel.name: (gps_start + first / channel.sample_rate, gps_start + last / channel.sample_rate)}

    def _central_time(self, rng: np.random.Generator) -> float:
        """Time of a glitch or signal from the start of the event, s."""
        return self.settings.duration / 2.0 + float(rng.uniform(-self.settings.time_jitter, self.settings.time_jitter))

    def _times(self, rng: np.random.Generator, rate: float) -> Iterator[float]:
        """Times of a Poisson number of transients from the start of the event, s."""
        for _ in range(int(rng.poisson(rate))):
            yield float(rng.uniform(_MARGIN, self.settings.duration - _MARGIN))

    # truth -----------------------------------------------------------------------------------------------------------

    def waveform_truth(self, arrival: Arrival, noise: StrainNoise, gps_start: float) -> WaveformTruth:
        """What is known of a transient in the strain of the event that starts then (GPS s)."""
        rate = self.settings.sample_rate
        magnitude = np.abs(arrival.strain)
        held = np.flatnonzero(magnitude > 1e-4 * magnitude.max())
        first, last = int(held[0]), int(held[-1]) + 1
        whitened = fft.irfft(fft.rfft(arrival.strain) / noise.asd_values, self.num_samples)
        energy = np.cumsum(whitened**2)
        low, high = np.searchsorted(energy, np.array([0.005, 0.995]) * energy[-1]) / rate
        return WaveformTruth(
            label=arrival.label,
            gps_time=gps_start + arrival.offset,
            t0=gps_start + first / rate,
            sample_rate=rate,
            waveform=arrival.strain[first:last],
            segment=(gps_start + float(low), gps_start + float(high)),
            snr=arrival.snr,
            witnesses=tuple(map(self.full_name, arrival.witnesses)),
            witness_snr={
                self.full_name(name): self.sensors.snr(name, arrival.seen[name]) for name in arrival.witnesses
            },
            coupling=arrival.coupling,
            parameters=arrival.parameters,
        )

    def _transient_truths(self, arrival: Arrival, gps_start: float, reason: str) -> list[TransientTruth]:
        return [
            TransientTruth(
                channel=self.full_name(name),
                gps_time=gps_start + arrival.offset,
                reason=reason,
                snr=self.sensors.snr(name, arrival.seen[name]),
                strain_snr=self.settings.coupling * arrival.snr,
            )
            for name in arrival.witnesses
        ]


def _burst(rng: np.random.Generator, time: Series, sample_rate: float) -> Series:
    """A transient of random shape, shape (time,)."""
    frequency = log_uniform(rng, (15.0, 350.0))
    match int(rng.integers(3)):
        case 0:
            return glitches.sine_gaussian(time, frequency, rng.uniform(4.0, 12.0))
        case 1:
            band = {"low": 0.85 * frequency, "high": 1.15 * frequency, "duration": rng.uniform(0.15, 0.4)}
            return glitches.noise_burst(rng, time, sample_rate=sample_rate, **band)
        case _:
            return glitches.whistle(time, 0.9 * frequency, 1.1 * frequency, rng.uniform(0.2, 0.6))


def _bank_waveforms(settings: SimulationSettings) -> list[BankGlitch]:
    chosen = settings.bank
    if chosen is None:
        return []
    return read_glitch_bank(chosen.path, chosen.classes, chosen.detectors, chosen.indices, chosen.min_snr)
