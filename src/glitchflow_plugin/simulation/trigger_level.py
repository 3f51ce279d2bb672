"""Triggers without samples: what a finder would say of the simulator's families, for as many events as one asks for.

A disturbance of a family has an SNR in its witness. The strain sees it at (SNR / typical SNR) to the power of the
family's coupling, spread log-normally, if it is above the coupling's threshold; the delay, the band and the second
witness are the family's as well. Three laws are in no model: beam wander, which makes the strain's SNR go up and down
slowly; bystanders, transients of the same witness outside the coupling band; chains, in which channels without any
coupling see the disturbance too, later.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.triggers.live import LiveTime
from glitchflow_plugin.data.triggers.store import DAY, TRUTH_NAME, TriggerManifest, TriggerWriter, read_manifest
from glitchflow_plugin.data.triggers.table import NANOSECONDS, SCHEMA, trigger_table
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Count, CountOrNone, NotNegative, Positive, Range, Share, section
from glitchflow_plugin.simulation.families import FAMILIES

FAINTEST = 5.5
"""SNR of the weakest trigger."""

_TYPICAL_WITNESS_SNR, _TYPICAL_STRAIN_SNR = 25.0, 14.0
_BEAM_PERIOD = 613.0
"""s."""
_LINE_FREQUENCY = 50.0
"""Hz."""
_CHAIN_DELAYS = (0.01, 0.2)
"""s."""
_TRUTH = pa.schema(
    [SCHEMA.field("time"), ("kind", pa.string()), SCHEMA.field("snr"), ("witnessed", pa.bool_())],
)


@section
class TriggerLevelSettings:
    """A detector as its triggers show it.

    Attributes:
        duration: Length of the data, s.
        gps_start: Their begin, whole GPS s.
        seed: Of all that is drawn.
        ifo: Prefix of all channel names.
        target: Name of the strain after the prefix.
        families: Classes, by the names of the simulator's families.
        rate: Disturbances a second of each family, on average over the day.
        day_night: By which share of it the rate goes up and down with the hour.
        bystander_rate: Transients a second of each true witness outside the coupling band.
        chance_rate: Triggers of noise a second and channel.
        line_rate: Triggers a second of the one channel with a line.
        num_distractors: Channels that couple to nothing.
        chain: Probability that a distractor of a family's chain sees its disturbance.
        unwitnessed: Share of disturbances that no channel but the strain sees.
        dead: Share of blocks in which an auxiliary channel is silent.
        witness_snr: SNR in the witness, log-uniform.
        spread: Of ln SNR in the strain about its law.
        block: s that are drawn at once; bounds the memory, and another length draws other triggers.
    """

    duration: Positive = 86_400.0
    gps_start: CountOrNone = 1_400_000_000
    seed: CountOrNone = 0
    ifo: str = "V1"
    target: str = "Hrec_hoft"
    families: tuple[str, ...] = ("scattered_light", "whistle", "light_modulation", "blip", "tomte", "acoustic")
    rate: NotNegative = 0.01
    day_night: Share = 0.6
    bystander_rate: NotNegative = 0.01
    chance_rate: NotNegative = 0.02
    line_rate: NotNegative = 0.1
    num_distractors: CountOrNone = 8
    chain: Share = 0.5
    unwitnessed: Share = 0.1
    dead: Share = 0.05
    witness_snr: Range = (6.0, 120.0)
    spread: NotNegative = 0.25
    block: Count = 4096

    def __post_init__(self) -> None:
        """Refuse families that there are not."""
        unknown = sorted(set(self.families) - set(FAMILIES))
        if unknown or not self.families:
            raise ConfigurationError(f"expected families among {sorted(FAMILIES)}, got {unknown or 'none'}.")

    @property
    def strain(self) -> str:
        """Name of the strain channel."""
        return f"{self.ifo}:{self.target}"

    @property
    def channels(self) -> tuple[str, ...]:
        """All channels, the strain first, the one with a line last."""
        sensors = dict.fromkeys(sensor for family in self.families for sensor in FAMILIES[family].witnesses)
        others = (*sensors, *(f"AUX-{place:03d}" for place in range(self.num_distractors)), "ENV-MAINS")
        return (self.strain, *(f"{self.ifo}:{one}" for one in others))


def simulate_triggers(settings: TriggerLevelSettings, folder: Path | str) -> TriggerManifest:
    """Write the triggers into a store, and beside it the live time and what is true of the strain's (`truth.parquet`).

    Args:
        settings: The detector.
        folder: Where both go.

    Returns:
        What the store holds.
    """
    truths = []
    with TriggerWriter(Path(folder), {"simulation": "trigger_level", "seed": settings.seed}) as writer:
        for rows, truth in drawn_blocks(settings):
            writer.write(rows)
            truths.append(truth)
    with atomic_path(Path(folder) / TRUTH_NAME) as path:
        pq.write_table(pa.concat_tables(truths).cast(_TRUTH), path)
    LiveTime(settings.strain, ((settings.gps_start, settings.gps_start + settings.duration),)).write(folder)
    return read_manifest(folder)


def drawn_blocks(settings: TriggerLevelSettings) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Block by block the triggers and the truth: time (ns), kind, snr and whether it is witnessed."""
    for number, start in enumerate(np.arange(0.0, settings.duration, settings.block).tolist()):
        length = min(float(settings.block), settings.duration - start)
        yield _Block(settings, number, settings.gps_start + int(start), length).draw()


class _Block:
    """What is drawn at once: columns are gathered, in s from the block's begin."""

    def __init__(self, settings: TriggerLevelSettings, number: int, start: int, length: float) -> None:
        self.settings, self.start, self.length = settings, start, length
        self.rng = np.random.default_rng([settings.seed, number])
        self.names = settings.channels
        self.columns: list[tuple[NDArray[np.float64], ...]] = []
        self.dead = self.rng.random(len(self.names)) < settings.dead
        self.dead[0] = False

    def draw(self) -> tuple[pa.Table, pa.Table]:
        truth = [self._family(place, name) for place, name in enumerate(self.settings.families)]
        for channel in range(len(self.names)):
            times = self._times(self.settings.chance_rate)
            self._add(channel, times, self._uniform(times, 12.0, 800.0), self._chance_snr(times))
        times = self._times(self.settings.line_rate)
        self._add(len(self.names) - 1, times, np.full(len(times), _LINE_FREQUENCY), self._chance_snr(times))
        return self._table(), pa.concat_tables(truth).sort_by("time")

    def _family(self, place: int, name: str) -> pa.Table:
        family, settings, rng = FAMILIES[name], self.settings, self.rng
        times = self._times(settings.rate)
        low, high = np.log(settings.witness_snr)
        seen = np.exp(rng.uniform(low, high, len(times)))
        relative = seen / _TYPICAL_WITNESS_SNR
        heard = _TYPICAL_STRAIN_SNR * relative ** (family.coupling.degree or 1.0)
        heard *= np.exp(settings.spread * rng.standard_normal(len(times)))
        heard *= 1.0 + 0.4 * np.sin(2.0 * np.pi * (self.start % _BEAM_PERIOD + times) / _BEAM_PERIOD + place)
        heard[relative < family.threshold] = 0.0
        band = family.coupling.band or (12.0, 800.0)
        frequency = self._uniform(times, *band)
        witnessed = rng.random(len(times)) >= settings.unwitnessed
        self._witnesses(name, times[witnessed], frequency[witnessed], seen[witnessed])
        arrival = times + family.coupling.delay
        self._add(0, arrival, frequency, heard)
        if family.bystander is not None:
            aside = self._times(settings.bystander_rate)
            loud = np.exp(rng.uniform(low, high, len(aside)))
            self._witnesses(name, aside, self._uniform(aside, *family.bystander), loud)
        there = (heard >= FAINTEST) & (arrival < self.length)
        return pa.table(
            {
                "time": self._ns(arrival[there]),
                "kind": pa.array([name] * int(there.sum()), pa.string()),
                "snr": heard[there],
                "witnessed": witnessed[there],
            }
        )

    def _witnesses(
        self,
        name: str,
        times: NDArray[np.float64],
        frequency: NDArray[np.float64],
        snr: NDArray[np.float64],
    ) -> None:
        """What the true witnesses see, and then the chain of distractors."""
        for order, sensor in enumerate(FAMILIES[name].witnesses):
            later = times + 0.003 * order + 0.002 * self.rng.standard_normal(len(times))
            self._add(self.names.index(f"{self.settings.ifo}:{sensor}"), later, frequency, snr * 0.7**order)
        own = self.settings.families.index(name)
        first = len(self.names) - 1 - self.settings.num_distractors
        for distractor in range(own, self.settings.num_distractors, len(self.settings.families)):
            among = self.rng.random(len(times)) < self.settings.chain
            later = times[among] + self.rng.uniform(*_CHAIN_DELAYS, int(among.sum()))
            self._add(first + distractor, later, frequency[among], 0.5 * snr[among])

    def _times(self, rate: float) -> NDArray[np.float64]:
        """Of a Poisson process whose rate follows the hour of the day, by thinning."""
        most = 1.0 + self.settings.day_night
        times = self.rng.uniform(0.0, self.length, self.rng.poisson(rate * most * self.length))
        hour = 2.0 * np.pi * (self.start % DAY + times) / DAY
        return times[self.rng.random(len(times)) * most < 1.0 + self.settings.day_night * np.sin(hour)]

    def _uniform(self, times: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
        return np.exp(self.rng.uniform(np.log(low), np.log(high), len(times)))

    def _chance_snr(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gaussian noise: SNR^2 / 2 beyond the threshold is exponential."""
        return np.sqrt(FAINTEST**2 + 2.0 * self.rng.exponential(size=len(times)))

    def _add(
        self, channel: int, times: NDArray[np.float64], frequency: NDArray[np.float64], snr: NDArray[np.float64]
    ) -> None:
        q = np.exp(self.rng.uniform(np.log(4.0), np.log(64.0), len(times)))
        seen = (snr >= FAINTEST) & (times >= 0.0) & (times < self.length) & (not self.dead[channel])
        codes = np.full(int(seen.sum()), channel, dtype=np.float64)
        self.columns.append((times[seen], frequency[seen], snr[seen], q[seen], codes))

    def _table(self) -> pa.Table:
        times, frequency, snr, q, codes = (np.concatenate(one) for one in zip(*self.columns, strict=True))
        table = {
            "time": self._ns(times),
            "frequency": frequency,
            "snr": snr,
            "q": q,
            "duration": q / (2.0 * np.pi * frequency),  # s, of a sine-Gaussian's envelope
            "bandwidth": frequency / q,
        }
        channels = pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(self.names, pa.string()))
        made = trigger_table({**table, "channel": np.zeros(len(times), dtype="U1")})
        return made.set_column(SCHEMA.get_field_index("channel"), SCHEMA.field("channel"), channels)

    def _ns(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        return self.start * NANOSECONDS + np.round(times * NANOSECONDS).astype(np.int64)
