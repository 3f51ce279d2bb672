"""A registered twin that is asked about other witnesses than those that were measured."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError, NoEventsError, nearest
from glitchflow_plugin.inference.model_data import check_events, check_spectrograms
from glitchflow_plugin.inference.predict import (
    MapPredictor,
    SeriesPredictor,
    blank_invalid,
    expected_maps,
    make_predictor,
    predict_maps,
    predict_strain,
    read_series,
)
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.intervention import Intervention, delayed_maps, delayed_series, matching, own_noise
from glitchflow_plugin.signal.qtransform import QTransformSettings, q_transform
from glitchflow_plugin.types.plain import JsonObject
from glitchflow_plugin.types.tensors import host


@dataclass(frozen=True, eq=False)
class AskedTwin(ABC):
    """A twin and the events about which it is asked.

    What it sees of an event has the shape (witness, ..., time); its answer is the whitened strain, (time,), or, of a
    twin of energies, the map, (frequency, time). Rows are those of the spectrogram set.

    Attributes:
        spectrograms: Maps of the events.
        witnesses: In the order of the twin.
        seed: Decides noise.
    """

    spectrograms: SpectrogramSet
    witnesses: tuple[str, ...]
    seed: int

    @abstractmethod
    def read(self, rows: Sequence[int]) -> Tensor:
        """What was measured, (event, witness, ..., time); zero where a witness is missing."""

    @abstractmethod
    def answer(self, seen: Tensor) -> Tensor:
        """What the twin foretells, (event, ..., time)."""

    @abstractmethod
    def maps(self, answer: Tensor) -> Tensor:
        """The same as maps, SNR², (event, frequency, time)."""

    @abstractmethod
    def snr(self, answer: Tensor) -> Tensor:
        """How loud it is, (event,): optimal SNR of a strain; of a map the root of its largest pixel."""

    @property
    @abstractmethod
    def step(self) -> float:
        """From one sample, or column, to the next, s."""

    @abstractmethod
    def energy(self, answer: Tensor) -> Tensor:
        """What of it is there at each time, (event, time)."""

    @abstractmethod
    def witness_maps(self, seen: Tensor) -> Tensor:
        """Maps of the witnesses, SNR², (event, witness, frequency, time)."""

    @abstractmethod
    def scaled(self, seen: Tensor, factor: float | Tensor) -> Tensor:
        """Witnesses, or answers, whose series are so many times larger."""

    @abstractmethod
    def delayed(self, seen: Tensor, delay: float) -> Tensor:
        """Witnesses that show everything so much later, s."""

    @abstractmethod
    def noise(self, seen: Tensor, seed: Sequence[int]) -> Tensor:
        """What one witness of one event, (..., time), would show if nothing but its noise were there."""

    def changed(self, rows: Sequence[int], changes: Sequence[Intervention]) -> Tensor:
        """What the twin sees of events in which witnesses are changed, one change after the other.

        A witness that is missing stays so, but where that of another event is put in its place.

        Raises:
            ChannelMismatchError: The model has no such witness.
            ConfigurationError: There is no such event, or a delay is longer than the events.
            NoEventsError: No other event could give its witness.
        """
        seen = self.read(rows).clone()
        for change in changes:
            places = matching(change.channels, self.witnesses)
            for place in places:
                seen[:, place] = self._one(seen[:, place], rows, place, change)
        return seen

    def _one(self, seen: Tensor, rows: Sequence[int], place: int, change: Intervention) -> Tensor:
        match change.action:
            case "scale":
                return self.scaled(seen, change.factor or 0.0)
            case "silence":
                return torch.zeros_like(seen)
            case "delay":
                return self.delayed(seen, change.delay or 0.0)
            case "swap":
                donors = [self._donor(row, place, change.event) for row in rows]
                return torch.cat([self.read([donor])[:, place] for donor in donors])
            case "noise":
                there = seen.flatten(1).abs().amax(dim=1) > 0
                made = [
                    self.noise(one, self._seed(row, place)) if any_ else one
                    for one, row, any_ in zip(seen, rows, there.tolist(), strict=True)
                ]
                return torch.stack(made)

    def _seed(self, row: int, place: int) -> list[int]:
        # by name, so that neither the batch nor the other events decide
        return [self.seed, zlib.crc32(f"{self.spectrograms.event_ids[row]} {self.witnesses[place]}".encode())]

    def _donor(self, row: int, place: int, event: str | None) -> int:
        spectrograms = self.spectrograms
        if event is not None:
            if event not in spectrograms.row_of:
                raise ConfigurationError(
                    f"expected the id of an event of {spectrograms.folder}, got {event!r}."
                    f"{nearest(event, spectrograms.event_ids)} Correct `event`."
                )
            return spectrograms.row_of[event]
        column = spectrograms.channel_rows([self.witnesses[place]])[0]
        group = spectrograms.groups[row]
        for step in range(1, len(spectrograms)):
            other = (row + step) % len(spectrograms)
            alike = group and spectrograms.groups[other] == group
            if spectrograms.valid[other, column] and not alike:
                return other
        raise NoEventsError(
            f"no other event could give its {self.witnesses[place]}: expected one of another group in which it is "
            f"valid, in {spectrograms.folder}. Bring more events, or choose another action."
        )


@dataclass(frozen=True, eq=False)
class AskedSeries(AskedTwin):
    """A twin of whitened series.

    Attributes:
        predictor: The twin with the event set.
    """

    predictor: SeriesPredictor

    @property
    def sample_rate(self) -> float:
        """Of the series, Hz."""
        return self.predictor.events.sample_rate

    def read(self, rows: Sequence[int]) -> Tensor:
        """Whitened series."""
        index = np.asarray(rows, dtype=np.int64)
        ids = [self.spectrograms.event_ids[row] for row in index]
        read = read_series(self.predictor.events, ids, self.spectrograms.gps_start[index], self.witnesses)
        valid = read.valid & self.spectrograms.valid[index][:, self.spectrograms.channel_rows(self.witnesses)]
        return torch.from_numpy(read.series * valid[..., None]).float()

    def answer(self, seen: Tensor) -> Tensor:
        """Whitened strain."""
        strain, _ = predict_strain(self.predictor.twin, seen, self.predictor.batch_size)
        # not every network is silent when all its witnesses are
        return strain * (seen.flatten(1).abs().amax(dim=1) > 0).to(strain)[:, None]

    def maps(self, answer: Tensor) -> Tensor:
        """Q-transform of the strain."""
        return expected_maps(answer, self.sample_rate, self.predictor.qtransform)

    def snr(self, answer: Tensor) -> Tensor:
        """Of a whitened strain: its noise has variance 1."""
        return answer.square().sum(dim=-1).sqrt()

    @property
    def step(self) -> float:
        """Of samples."""
        return 1 / self.sample_rate

    def energy(self, answer: Tensor) -> Tensor:
        """By sample."""
        return answer.square()

    def witness_maps(self, seen: Tensor) -> Tensor:
        """In the unit of measured ones; a missing witness has no energy."""
        made = q_transform(seen.flatten(0, 1), self.sample_rate, self.predictor.qtransform)
        there = seen.abs().amax(dim=-1) > 0
        return torch.where(there[..., None, None], made.unflatten(0, seen.shape[:2]), 0)

    def scaled(self, seen: Tensor, factor: float | Tensor) -> Tensor:
        """The sign with it."""
        return factor * seen

    def delayed(self, seen: Tensor, delay: float) -> Tensor:
        """To a part of a sample."""
        return delayed_series(seen, delay / self.step)

    def noise(self, seen: Tensor, seed: Sequence[int]) -> Tensor:
        """Of the witness's own spectrum in this event."""
        return torch.from_numpy(own_noise(host(seen.double()), self.sample_rate, seed)).to(seen)


@dataclass(frozen=True, eq=False)
class AskedMaps(AskedTwin):
    """A twin of energies: no phase, so that a sign changes nothing and a delay is one of columns.

    Attributes:
        predictor: The twin.
        recipe: Recipe of the maps.
    """

    predictor: MapPredictor
    recipe: JsonObject

    def read(self, rows: Sequence[int]) -> Tensor:
        """Energies."""
        batch = self.spectrograms.read(rows, self.witnesses)
        return blank_invalid(torch.from_numpy(batch.maps).float(), batch.valid)

    def answer(self, seen: Tensor) -> Tensor:
        """Energies."""
        twin = self.predictor
        return predict_maps(twin.twin, seen, twin.batch_size, size=twin.window_size, stride=twin.stride)

    def maps(self, answer: Tensor) -> Tensor:
        """As they are."""
        return answer

    def snr(self, answer: Tensor) -> Tensor:
        """Of the loudest pixel."""
        return answer.flatten(1).amax(dim=1).clamp(min=0).sqrt()

    @property
    def step(self) -> float:
        """Of columns."""
        return Columns(self.spectrograms.times).width

    def energy(self, answer: Tensor) -> Tensor:
        """By column, above the median of noise."""
        return (answer - 1).clamp(min=0).sum(dim=-2)

    def witness_maps(self, seen: Tensor) -> Tensor:
        """As they are."""
        return seen

    def scaled(self, seen: Tensor, factor: float | Tensor) -> Tensor:
        """Energies go with the square."""
        return factor**2 * seen

    def delayed(self, seen: Tensor, delay: float) -> Tensor:
        """Linear between columns."""
        return delayed_maps(seen, delay / self.step)

    def noise(self, seen: Tensor, seed: Sequence[int]) -> Tensor:
        """Maps are divided by the median of their rows: noise of any spectrum looks like white noise."""
        duration, rate = Columns(self.spectrograms.times).duration, float(self.recipe["events"]["sample_rate"])
        white = np.random.default_rng(seed).standard_normal((1, round(duration * rate)))
        transform = QTransformSettings.from_recipe(self.recipe["qtransform"])
        return q_transform(torch.from_numpy(white).float(), rate, transform)[0].to(seen)


def ask(
    bundle: ModelBundle,
    twin: torch.nn.Module,
    spectrograms: SpectrogramSet,
    events: EventSet | None,
    *,
    stride: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> AskedTwin:
    """A registered twin, or its baseline, that can be asked.

    Args:
        bundle: Says what the twin looks at.
        twin: The bundle's twin or baseline, on the device where it is to run.
        spectrograms: Maps made by the model's recipe.
        events: The event set that they were made of; a twin of waveforms needs it.
        stride: As for `make_predictor`.
        batch_size: Likewise.
        seed: Decides noise.

    Raises:
        ChannelMismatchError: The maps lack a witness.
        ConfigurationError: The twin needs an event set and there is none.
        FormatError: Maps or event set were made another way.
    """
    check_spectrograms(bundle, spectrograms)
    check_events(spectrograms, events)
    predictor = make_predictor(bundle, twin, events, stride=stride, batch_size=batch_size)
    if isinstance(predictor, SeriesPredictor):
        return AskedSeries(spectrograms, bundle.witnesses, seed, predictor)
    assert isinstance(predictor, MapPredictor)  # noqa: S101  # there are these two
    return AskedMaps(spectrograms, bundle.witnesses, seed, predictor, bundle.recipe)
