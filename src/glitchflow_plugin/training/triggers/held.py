"""Rows of tensors with what is true of them, in memory, as examples to learn from."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from glitchflow_plugin.data.window_dataset import BatchOrder
from glitchflow_plugin.types.triggers import Rows

AT_ONCE = 256
"""Rows that are judged at once."""


@dataclass(frozen=True, eq=False)
class HeldRows:
    """Examples in memory, as `learner.Examples` says.

    Attributes:
        inputs: What is seen of each, sets of triggers or series.
        labels: What is true of each.
    """

    inputs: Rows
    labels: Rows

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def __getitem__(self, rows: Any) -> tuple[Any, Any]:
        """Some of them."""
        return self.inputs[rows], self.labels[rows]

    def in_order(
        self, size: int = AT_ONCE, *, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> Iterable[tuple[Any, Any]]:
        """All, or this process's share, some at a time."""
        del workers
        rows = torch.arange(rank, len(self), world_size)
        return [self[own] for own in rows.split(size)] if len(rows) else []

    def shuffled(
        self, size: int, *, seed: int | None, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> "HeldEpochs":
        """Batches in another order each epoch."""
        del workers
        return HeldEpochs(self, size, seed, rank, world_size)


@dataclass(frozen=True, eq=False)
class HeldEpochs:
    """Batches of one of several processes.

    Attributes:
        held: The examples.
        size: Of a batch.
        seed: Of the orders; None: as they are held.
        rank: This process.
        world_size: Number of processes.
    """

    held: HeldRows
    size: int
    seed: int | None
    rank: int
    world_size: int

    def numbers(self, epoch: int) -> Int[np.ndarray, " row"]:
        """Numbers of all examples in the order of the epoch."""
        if self.seed is None:
            return np.arange(len(self.held))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.held))

    def __call__(self, epoch: int, start: int = 0) -> Generator[tuple[Any, Any]]:
        """This process's batches from a place of the epoch on."""
        order = BatchOrder(self.numbers, self.size, rank=self.rank, world_size=self.world_size)
        order.set_epoch(epoch, start)
        for rows in order:
            yield self.held[torch.as_tensor(rows)]
