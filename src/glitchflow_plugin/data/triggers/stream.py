"""Batches of sets of triggers and labels out of a store that is larger than memory.

What an epoch holds, and in which order, depends on the store, the times and the settings alone: not on the number of
loader workers, nor on that of processes that train together, which share each global batch. Whatever ended a run, the
number of the epoch and a place in it are all that finds the next batch again.
"""

import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from glitchflow_plugin.data.parent import clean_start, serve_quietly
from glitchflow_plugin.data.triggers.epochs import StretchOrder, balanced, reading
from glitchflow_plugin.data.triggers.sets import COLUMNS, Flat, Points, SetSettings, Vocabulary, check_asked
from glitchflow_plugin.data.triggers.stretches import RowGroups
from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.settings import Count, Positive, Share, section
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import TriggerLabels, TriggerSets

logger = logging.getLogger(__name__)

_HELD, _MAKING = 40, 240
"""Bytes of a trigger that is held, and at most while it is read: measured by benchmarks/trigger_stream.py."""
_AT_ONCE = 2048
"""Sets that are made at one time, out of all stretches that are held."""


@section
class StreamSettings:
    """How sets of triggers are streamed.

    Attributes:
        memory: GiB that triggers may take in all processes of the loader, half of it to mix, half to read; the
            interpreter and its libraries (about 0.4 GiB) come on top.
        stretch_rows: Triggers that are read at once, at least a row group of each file of that time: fewer mix more
            stretches in the same memory, more read less twice.
        balance: Of the labels quiet, unknown class and each class: at 0 each example comes once an epoch, at 1 each
            label as often as the others.
    """

    memory: Positive = 1.0
    stretch_rows: Count = 262_144
    balance: Share = 0.0


Change = Callable[[TriggerSets, TriggerLabels, Int[Tensor, " set"]], tuple[TriggerSets, TriggerLabels]]
"""What is made of the sets and labels of some examples, whose numbers it is told."""


class TriggerStream:
    """Batches of an epoch after another; each call begins an epoch, or goes on at a place in one.

    Args:
        store: Folder of the triggers.
        times: Of the examples of one part, rising, GPS ns.
        labels: Theirs.
        vocabulary: Channels by index.
        target: Channel whose triggers are left out: they would tell the answer.
        sets: What a set holds.
        settings: How they are streamed.
        batch_size: Sets of a batch of one process.
        seed: Of the orders, another one each epoch; None: in order of time.
        workers: Processes that read; 0: none beside this one.
        change: What is made of each batch.
        rank: This process among those that train together.
        world_size: How many these are.

    Attributes:
        left_out: Number of the times about which triggers are lost with files that cannot be read.

    Raises:
        FormatError: There is no store, or a file is another one than its manifest says.
        DataError: No file can be read, or no time is left.
        ConfigurationError: Times do not rise, the vocabulary has the target, or the memory is too small.
    """

    def __init__(
        self,
        store: Path | str,
        times: Int[np.ndarray, " set"],
        labels: TriggerLabels,
        vocabulary: Vocabulary,
        *,
        target: str,
        sets: SetSettings,
        settings: StreamSettings,
        batch_size: int = 128,
        seed: int | None = 0,
        workers: int = 0,
        change: Change | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_asked(times, vocabulary, target)
        if len(times) != len(labels):
            raise ConfigurationError(f"expected as many times of sets as labels, got {len(times)} and {len(labels)}.")
        self.settings, self.batch_size, self.workers, self.change = settings, batch_size, workers, change
        self.rank, self.world_size = rank, world_size
        groups = RowGroups.of(store)
        known = _known(times, groups.lost_spans, sets.reach)
        self.left_out = int(np.count_nonzero(~known))
        if self.left_out:
            logger.warning(
                "%s: %d of %d times lie about lost triggers and are left out", store, self.left_out, len(times)
            )
        if not known.any():
            raise DataError(f"{store}: expected times with triggers that can be read, got none of {len(times)}.")
        self.times, self.labels = times[known], labels[torch.from_numpy(np.flatnonzero(known))]
        self._stretches = _Stretches(groups, self.times, vocabulary, target, sets, settings.stretch_rows)
        mixed = self._mixed(max(self._stretches.rows))
        label = np.where(host(self.labels.glitch) > 0, host(self.labels.kind) + 1, -1)
        often = None if seed is None else balanced(label, settings.balance)
        self.order = StretchOrder(self._stretches.member, mixed, seed, often)
        if often is not None:
            weights = self.labels.weights / torch.from_numpy(often).float()
            self.labels = replace(self.labels, weights=weights)

    def _mixed(self, largest: float) -> int:
        """How many stretches are held: the number of workers is not asked, that the order does not depend on it."""
        half, readers = self.settings.memory * 2**29, max(1, self.workers)
        needed = readers * largest * _MAKING
        if half < needed:
            raise ConfigurationError(
                f"expected {2 * needed / 2**30:.3g} GiB of memory, half of it to read {readers} stretches of "
                f"{largest:.0f} triggers, got memory: {self.settings.memory:g}. Raise memory, or lower workers "
                "(num_workers_dataloader) or stretch_rows."
            )
        return int(half // (largest * _HELD))

    def __len__(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.times) / (self.batch_size * self.world_size))

    def numbers(self, epoch: int) -> Int[np.ndarray, " set"]:
        """Numbers of all examples of an epoch, in the order in which all processes together visit them."""
        return np.concatenate([step.examples for step in self.order.steps(epoch)])

    def __call__(self, epoch: int, start: int = 0) -> Generator[tuple[TriggerSets, TriggerLabels]]:
        """The batches of an epoch, from a place on at which the first begins, on the CPU.

        Where the last global batch has no example for this process, it takes part with one of weight 0.

        Raises:
            FormatError: A file is damaged.
        """
        size = self.batch_size
        waiting: list[tuple[NDArray[np.int64], NDArray[np.float32], Flat]] = []
        for piece in self._pieces(epoch, start):
            waiting.append(piece)
            while sum(len(one[0]) for one in waiting) >= size:
                numbers, counted, flat = _joined(waiting)
                yield self._batch(numbers[:size], counted[:size], flat[np.arange(size)])
                rest = np.arange(size, len(numbers))
                waiting = [(numbers[size:], counted[size:], flat[rest])] if len(rest) else []
        if waiting:
            yield self._batch(*_joined(waiting))

    def _batch(
        self, numbers: NDArray[np.int64], counted: NDArray[np.float32], flat: Flat
    ) -> tuple[TriggerSets, TriggerLabels]:
        examples = torch.from_numpy(numbers)
        labels = self.labels[examples]
        labels = replace(labels, weights=labels.weights * torch.from_numpy(counted))
        return (flat.padded(), labels) if self.change is None else self.change(flat.padded(), labels, examples)

    def _pieces(self, epoch: int, start: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], Flat]]:
        """Numbers, weights and sets of this process's examples, from a place of the epoch on."""
        steps, wanted = reading(self.order.steps(epoch, start))
        arriving = iter(_loader(self._stretches, wanted, self.workers))
        held: dict[int, Points] = {}
        for step in steps:
            held = {name: points for name, points in held.items() if name in step.held}
            for _ in range(len(step.held) - len(held)):
                name, arrays = next(arriving)
                held[name] = Points(*map(host, arrays))
            places = np.arange(step.first, step.first + len(step.examples))
            own = (places >= start) & self._own(places - start, len(self.times) - start)
            counted = ((places[own] - start) % self.world_size == self.rank).astype(np.float32)
            numbers = step.examples[own]
            for at in range(0, len(numbers), _AT_ONCE):
                some = numbers[at : at + _AT_ONCE]
                yield some, counted[at : at + _AT_ONCE], self._stretches.sets(some, held)

    def _own(self, places: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
        """Whether this process visits the examples at some of so many places.

        Those are every `world_size`-th, and one where the last batch has none for it.
        """
        own, size = places % self.world_size == self.rank, self.batch_size * self.world_size
        last = (number - 1) // size * size
        return own if last + self.rank < number else own | (places == last)


@dataclass(eq=False)
class _Stretches(Dataset[tuple[int, tuple[Tensor, ...]]]):
    """The stretches of a store of at least so many triggers, each read as a whole."""

    groups: RowGroups
    times: NDArray[np.int64]
    vocabulary: Vocabulary
    target: str
    settings: SetSettings
    least: int
    member: NDArray[np.int64] = field(init=False)
    spans: dict[int, tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        """Find which time lies in which, and from when to when triggers matter for these."""
        self.member = np.searchsorted(self.groups.edges(self.least), self.times, "right")
        names, first = np.unique(self.member, return_index=True)
        last = np.append(first[1:], len(self.times)) - 1
        self.spans = {
            int(name): (int(self.times[low]), int(self.times[high]))
            for name, low, high in zip(names, first, last, strict=True)
        }

    @property
    def rows(self) -> list[float]:
        """About how many triggers each has."""
        return [
            self.groups.expected(low - self.settings.reach, high + self.settings.reach)
            for low, high in self.spans.values()
        ]

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, name: int) -> tuple[int, tuple[Tensor, ...]]:
        """Number and `Points` of one, as tensors: these go from worker to worker without a copy."""
        tables = self.groups.read(self.spans[name], self.settings.near, self.settings.reach, COLUMNS)
        points = Points.of(tables, self.vocabulary, self.target)
        return name, tuple(torch.from_numpy(getattr(points, one.name)) for one in fields(Points))

    def sets(self, numbers: NDArray[np.int64], held: dict[int, Points]) -> Flat:
        """The sets of some examples, in their order."""
        member = self.member[numbers]
        order = np.argsort(member, kind="stable")
        names, first = np.unique(member[order], return_index=True)
        made = [
            held[int(name)].about(self.times[numbers[own]], self.vocabulary.num_channels, self.settings)
            for name, own in zip(names, np.split(order, first[1:]), strict=True)
        ]
        return Flat.joined(made)[np.argsort(order)]


def _loader(stretches: _Stretches, wanted: Sequence[int], workers: int) -> Iterable[tuple[int, tuple[Tensor, ...]]]:
    return DataLoader(
        stretches,
        batch_size=None,
        sampler=list(wanted),
        num_workers=workers,
        prefetch_factor=1 if workers else None,
        multiprocessing_context=clean_start() if workers else None,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # of its own: a loader draws a number whenever it starts
    )


def _begin_worker(_number: int) -> None:
    serve_quietly()
    torch.set_num_threads(1)


def _joined(
    pieces: Sequence[tuple[NDArray[np.int64], NDArray[np.float32], Flat]],
) -> tuple[NDArray[np.int64], NDArray[np.float32], Flat]:
    numbers, counted, flats = zip(*pieces, strict=True)
    return np.concatenate(numbers), np.concatenate(counted), Flat.joined(flats)


def _known(times: NDArray[np.int64], lost: Int[np.ndarray, "lost_file 2"], reach: int) -> NDArray[np.bool_]:
    """Times whose triggers do not lie in a lost file."""
    known = np.ones(len(times), dtype=bool)
    for low, high in lost:
        known[np.searchsorted(times, low - reach) : np.searchsorted(times, high + reach)] = False
    return known
