"""What the loop of a training teaches where a network reads sets of triggers, and the batches that it is taught by."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.parent import clean_start
from glitchflow_plugin.data.window_dataset import BatchOrder, Share
from glitchflow_plugin.data.window_order import WindowOrder, WindowPlaces
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.inference.metrics import weighted_auc
from glitchflow_plugin.models.triggers.build import build_network
from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.training.batches import WindowBatches
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.interruption import ignore_signals
from glitchflow_plugin.training.processes import Processes
from glitchflow_plugin.training.triggers.losses import TaskWeights, task_losses
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels, TriggerSets

AT_ONCE = 256
"""Sets that are judged at once."""


@dataclass(frozen=True, eq=False)
class HeldSets(Dataset[tuple[TriggerSets, TriggerLabels]]):
    """Sets of triggers with what is true of them, in memory.

    Attributes:
        sets: The sets.
        labels: Theirs.
    """

    sets: TriggerSets
    labels: TriggerLabels

    def __len__(self) -> int:
        """Number of sets."""
        return len(self.labels)

    def __getitem__(self, rows: Any) -> tuple[TriggerSets, TriggerLabels]:
        """Some of them."""
        return self.sets[rows], self.labels[rows]

    def __getitems__(self, rows: Sequence[int]) -> tuple[TriggerSets, TriggerLabels]:
        """Those of a batch, at once."""
        return self[torch.as_tensor(rows)]

    def batches(self, size: int = AT_ONCE) -> Iterator[tuple[TriggerSets, TriggerLabels]]:
        """All in order, some at a time."""
        return (self[first : first + size] for first in range(0, len(self), size))


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
        times: Checksum of the times and their parts.
    """

    name: str
    settings: Mapping[str, Any]
    tasks: TaskWeights
    training: HeldSets
    times: str = ""
    witnesses: tuple[str, ...] = ()

    def network(self) -> TriggerNetwork:
        """The network, its weights random."""
        return build_network(self.name, **self.settings)

    def initialise(self, network: nn.Module) -> None:
        """Fit the scaling to the training sets."""
        assert isinstance(network, TriggerNetwork)  # noqa: S101
        network.scaling.fit(sets for sets, _ in self.training.batches())

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


def set_batches(
    training: HeldSets,
    validation: HeldSets,
    config: TrainingConfiguration,
    *,
    seed: int,
    processes: Processes,
) -> WindowBatches:
    """Batches of two parts for each of the processes that train together, in orders of seed and epoch alone.

    Raises:
        DataError: A part is empty.
    """
    for name, part in (("learn from", training), ("validate with", validation)):
        if not len(part):
            raise DataError(f"expected sets of triggers to {name}, got none. Give that part a share of the split.")
    rows = np.arange(len(training))
    places = WindowPlaces(rows, np.zeros_like(rows), host(training.labels.glitch) > 0, 0)  # all are in memory
    windows = WindowOrder(places, shuffle=config.shuffle_train, seed=seed)
    order = BatchOrder(windows, config.batch_size, rank=processes.rank, world_size=processes.size)
    common: dict[str, Any] = {
        "num_workers": config.num_workers_dataloader,
        "collate_fn": _as_it_is,
        "multiprocessing_context": clean_start() if config.num_workers_dataloader else None,
        "worker_init_fn": ignore_signals,
        # of its own: a loader draws a number whenever it starts, and a resumed run starts it once more
        "generator": torch.Generator(),
    }
    share = Share(len(validation), rank=processes.rank, world_size=processes.size)
    loaders: Any = (
        DataLoader(training, batch_sampler=order, **common),
        DataLoader(validation, batch_size=AT_ONCE, sampler=share, **common),
    )
    return WindowBatches(order, *loaders)


def _as_it_is(batch: Any) -> Any:
    """A batch is cut from the sets as one."""
    return batch
