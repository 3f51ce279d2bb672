"""What the loop of a training teaches where a network reads sets of triggers, and the batches that it is taught by."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.triggers.sets import SetSettings, Vocabulary
from glitchflow_plugin.data.triggers.stream import StreamSettings, TriggerStream
from glitchflow_plugin.data.window_dataset import BatchOrder
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.inference.metrics import weighted_auc
from glitchflow_plugin.models.triggers.build import build_network
from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.training.batches import WindowBatches
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.processes import Processes
from glitchflow_plugin.training.triggers.held import AT_ONCE
from glitchflow_plugin.training.triggers.hold_out import hold_out
from glitchflow_plugin.training.triggers.losses import TaskWeights, task_losses
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels, TriggerSets


class Examples(Protocol):
    """Sets of triggers, or series, with what is true of them, wherever they are."""

    def __len__(self) -> int:
        """Number of sets."""
        ...

    def in_order(
        self, size: int = AT_ONCE, *, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> Iterable[tuple[Any, Any]]:
        """All in order of time, or this process's share of them, some at a time; as often as it is gone through."""
        ...

    def shuffled(
        self, size: int, *, seed: int | None, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> "Epochs":
        """Batches of this process, in another order each epoch; None: always in order of time."""
        ...


class Epochs(Protocol):
    """Batches of one of several processes that share each global batch."""

    def numbers(self, epoch: int) -> Int[np.ndarray, " set"]:
        """Numbers of all sets in the order in which all processes together visit them."""
        ...

    def __call__(self, epoch: int, start: int = 0) -> Generator[tuple[Any, Any]]:
        """This process's batches from a place of the epoch on."""
        ...


@dataclass(frozen=True, eq=False)
class StoredSets:
    """Sets about the times of a part, made of a store whenever they are wanted: memory is bounded by `stream.memory`.

    Attributes:
        store: Folder of the triggers.
        times: Rising, GPS ns.
        labels: Theirs.
        vocabulary: Channels by index.
        target: Channel whose triggers are left out.
        sets: What a set holds.
        stream: How they are streamed.
        chances: Of each, which of its triggers is held out; None: none is.
    """

    store: Path
    times: Int[np.ndarray, " set"]
    labels: TriggerLabels
    vocabulary: Vocabulary
    target: str
    sets: SetSettings
    stream: StreamSettings
    chances: Float[Tensor, " set"] | None = None

    def __len__(self) -> int:
        """Number of sets."""
        return len(self.times)

    def in_order(
        self, size: int = AT_ONCE, *, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> Iterable[tuple[TriggerSets, TriggerLabels]]:
        """As `Examples` says: each process has the times of its share read alone."""
        return _Passes(partial(self._streamed(slice(rank, None, world_size), size, seed=None, workers=workers), 0))

    def shuffled(
        self, size: int, *, seed: int | None, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> TriggerStream:
        """As `Examples` says."""
        return self._streamed(slice(None), size, seed=seed, rank=rank, world_size=world_size, workers=workers)

    def _streamed(self, rows: slice, size: int, **given: Any) -> TriggerStream:
        chances = None if self.chances is None else self.chances[rows]
        return TriggerStream(
            self.store,
            self.times[rows],
            self.labels[rows],
            self.vocabulary,
            target=self.target,
            sets=self.sets,
            settings=self.stream,
            batch_size=size,
            change=None if chances is None else lambda sets, labels, rows: hold_out(sets, labels, chances[rows]),
            **given,
        )


class _Passes:
    """Batches to go through as often as one likes; `close` ends a pass that is under way, with its workers."""

    def __init__(self, begin: Callable[[], Generator[tuple[Any, Any]]]) -> None:
        self._begin = begin
        self._running: Generator[tuple[Any, Any]] | None = None

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self._running = self._begin()
        return self._running

    def close(self) -> None:
        """End it in the middle."""
        if self._running is not None:
            self._running.close()


class _Training(_Passes):
    """The batches of the epoch, and from the place on, that an order was set to."""

    def __init__(self, order: BatchOrder, epochs: Epochs) -> None:
        super().__init__(lambda: epochs(order.epoch, order.start))
        self._order = order

    def __len__(self) -> int:
        return len(self._order)


@dataclass(frozen=True, eq=False)
class SetResults:
    """What a network said of some sets.

    Attributes:
        told: Its answers.
        true: The truth.
        loss_sum: Sum of the losses.
    """

    told: TriggerAnswers
    true: TriggerLabels
    loss_sum: float

    @property
    def loss(self) -> float:
        """Mean loss of a set."""
        return self.loss_sum / len(self.true)

    @classmethod
    def concatenate(cls, parts: "list[SetResults]") -> "SetResults":
        """Join the results of several batches or processes."""
        return cls(
            TriggerAnswers.joined([one.told for one in parts]),
            TriggerLabels.joined([one.true for one in parts]),
            sum(one.loss_sum for one in parts),
        )

    def figures(self) -> dict[str, float]:
        """Loss, and the area under the ROC of glitch or not where there are both."""
        order = self.told.glitch.double().argsort()
        score, glitch = host(self.told.glitch[order]), host(self.true.glitch[order]) > 0.5
        if glitch.all() or not glitch.any():
            return {"loss": self.loss}
        ties = np.unique(score, return_inverse=True)[1]
        return {"loss": self.loss, "auc": float(weighted_auc(np.ones((1, len(score))), glitch, ties)[0])}


@dataclass(frozen=True, eq=False)
class TriggerLearner:
    """Teaches one network of triggers; a `Learnable` of the loop.

    Attributes:
        name: Name of the network.
        settings: Its arguments.
        tasks: What each task counts for.
        training: What it learns from, by which its scaling is fitted.
        times: Checksum of triggers, times with their parts, and sets.
    """

    name: str
    settings: Mapping[str, Any]
    tasks: TaskWeights
    training: Examples
    times: str = ""
    witnesses: tuple[str, ...] = ()

    def network(self) -> TriggerNetwork:
        """The network, its weights random."""
        return build_network(self.name, **self.settings)

    def initialise(self, network: nn.Module) -> None:
        """Fit the scaling to the training sets."""
        assert isinstance(network, TriggerNetwork)  # noqa: S101
        network.scaling.fit(sets for sets, _ in self.training.in_order())

    def twin(self, network: nn.Module) -> nn.Module:
        """The network itself, which holds its scaling."""
        return network

    def losses(self, network: Callable[..., Any], twin: Any, witnesses: TriggerSets, strain: TriggerLabels) -> Tensor:
        """Loss of each set; what the loop calls witnesses and strain are sets and labels."""
        del twin
        return task_losses(network(witnesses).float(), strain, self.tasks)

    def judge(
        self,
        predict: Callable[[TriggerSets], TriggerAnswers],
        batches: Iterable[tuple[TriggerSets, TriggerLabels]],
        twin: nn.Module,
        *,
        device: torch.device,
        threshold: float,
    ) -> SetResults:
        """Loss and answers, on the CPU."""
        del twin, threshold
        parts = []
        with torch.no_grad():
            for sets, labels in batches:
                told = predict(sets.to(device)).float().to("cpu")
                loss = float(task_losses(told, labels, self.tasks).double().sum())
                parts.append(SetResults(told, labels, loss))
        return SetResults.concatenate(parts)

    def origin(self) -> dict[str, str]:
        """Checksums of times and network."""
        return {"times": self.times, "network": content_hash([self.name, dict(self.settings), vars(self.tasks)])}


@dataclass(frozen=True, eq=False)
class SetBatches(WindowBatches):
    """Pairs of sets and labels."""

    def end_workers(self) -> None:
        """End workers in the middle of an epoch or of a validation."""
        for one in (self.training, self.validation):
            if isinstance(one, _Passes):
                one.close()


def set_batches(
    training: Examples, validation: Examples, config: TrainingConfiguration, *, seed: int, processes: Processes
) -> WindowBatches:
    """Batches of two parts for each of the processes that train together, in orders of seed and epoch alone.

    Raises:
        DataError: A part has no set for some process, which the others would wait for.
    """
    for name, part in (("learn from", training), ("validate with", validation)):
        if not len(part):
            raise DataError(f"expected sets of triggers to {name}, got none. Give that part a share of the split.")
        if len(part) < processes.size:
            raise DataError(
                f"expected sets of triggers to {name} for each process, got {len(part)} for "
                f"{processes.size}. Give that part a larger share of the split, or start fewer processes."
            )
    own: dict[str, int] = {
        "rank": processes.rank,
        "world_size": processes.size,
        "workers": config.num_workers_dataloader,
    }
    epochs = training.shuffled(config.batch_size, seed=seed if config.shuffle_train else None, **own)
    order = BatchOrder(epochs.numbers, config.batch_size, rank=processes.rank, world_size=processes.size)
    loaders: Any = (_Training(order, epochs), validation.in_order(**own))
    return SetBatches(order, *loaders)
