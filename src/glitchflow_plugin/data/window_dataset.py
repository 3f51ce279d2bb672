"""Windows as torch sees them: cut from the shards when they are asked for."""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.window_order import WindowPlaces
from glitchflow_plugin.errors import ConfigurationError


class CachedEvents(Dataset[tuple[Tensor, Tensor]], ABC):
    """A data set whose items are cut from the arrays of events, some of which it keeps in memory.

    Args:
        stored: Set that the events are read from.
        windows: One row an item: its event's id, and whether it holds a glitch.
        rows: Row of each item's event in the set, shape (item,).
        channels: Target and witnesses, in the order in which they are wanted.
        cache_mib: Largest size of the arrays kept in memory, MiB; the least recently used are dropped first. The
            workers of a loader share it.

    Raises:
        ConfigurationError: The cache is smaller than nothing.
        ChannelMismatchError: The set lacks a channel.
    """

    def __init__(
        self,
        stored: EventSet | SpectrogramSet,
        windows: pd.DataFrame,
        rows: np.ndarray,
        channels: tuple[str, ...],
        cache_mib: float,
    ) -> None:
        if cache_mib < 0:
            raise ConfigurationError(f"expected cache_mib of at least 0, got {cache_mib}. Correct training.yaml.")
        stored.channel_rows(channels)
        self.windows, self.channels = windows, channels
        self.limit = int(cache_mib * 2**20)
        # plain arrays: a DataFrame is slow to ask for one row
        self._stored, self._rows = stored, rows
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def event_ids(self) -> np.ndarray:
        """Event id of each item."""
        return self.windows["event_id"].to_numpy()

    @property
    def places(self) -> WindowPlaces:
        """Where each item lies."""
        pixels = len(self.channels) * math.prod(self._stored.manifest.data_shape[1:])
        return WindowPlaces(
            event=self._rows,
            shard=self._stored.shard_of_row[self._rows],
            glitch=self.windows["glitch"].to_numpy(dtype=bool),
            event_bytes=pixels * np.dtype(np.float32).itemsize,
        )

    @property
    def needed_bytes(self) -> int:
        """Memory in which the arrays of all events would fit."""
        places = self.places
        return len(np.unique(places.event)) * places.event_bytes

    def forget(self) -> None:
        """Drop what is in memory."""
        self._cache.clear()
        self._cached_bytes = 0

    @property
    def cached_bytes(self) -> int:
        """Bytes in memory at this moment."""
        return self._cached_bytes

    @abstractmethod
    def _read(self, row: int) -> np.ndarray:
        """The array of an event, from its shard."""

    def _event(self, row: int) -> np.ndarray:
        """The array of an event, from memory where it is there."""
        if row in self._cache:
            self._cache.move_to_end(row)
            return self._cache[row]
        found = self._read(row)
        worker = get_worker_info()
        limit = self.limit if worker is None else self.limit // worker.num_workers
        if found.nbytes <= limit:
            # room is made first: the bound holds at every moment
            while self._cached_bytes + found.nbytes > limit:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= dropped.nbytes
            self._cache[row] = found
            self._cached_bytes += found.nbytes
        return found

    def __getstate__(self) -> dict[str, object]:
        """Leave the cache behind when a worker process gets a copy."""
        return {**self.__dict__, "_cache": OrderedDict(), "_cached_bytes": 0}


class WindowDataset(CachedEvents):
    """Windows of one part of a training set, in the order of its index.

    Args:
        training_set: Index and maps.
        part: `train`, `validation` or `test`.
        cache_mib: Largest size of the maps kept in memory, MiB; the least recently used are dropped first. The workers
            of a loader share it.
        witnesses: Witness channels, in the order in which they are wanted; all of the set if None.

    Raises:
        ConfigurationError: The cache is smaller than nothing.
        ChannelMismatchError: The set lacks a witness.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        part: str,
        cache_mib: float = 512.0,
        witnesses: tuple[str, ...] | None = None,
    ) -> None:
        self.spectrograms = training_set.open_spectrograms()
        windows = training_set.part(part)
        chosen = self.spectrograms.channels[1:] if witnesses is None else witnesses
        channels = (self.spectrograms.target, *chosen)
        super().__init__(self.spectrograms, windows, windows["row"].to_numpy(), channels, cache_mib)
        self.training_set, self.name, self.size = training_set, part, training_set.settings.size
        self._starts = windows["start"].to_numpy()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Witness energies (witness, frequency, column) and strain energy (1, frequency, column), SNR²."""
        start = int(self._starts[index])
        maps = torch.from_numpy(self._event(int(self._rows[index]))[..., start : start + self.size].copy())
        return maps[1:], maps[:1]

    @property
    def gps_start(self) -> np.ndarray:
        """GPS time of the first column of each window, s, float64."""
        return self.windows["gps_start"].to_numpy()

    def _read(self, row: int) -> np.ndarray:
        return self.spectrograms.read([row], channels=list(self.channels)).maps[0]


def share_cache(limit: int, training: CachedEvents, validation: CachedEvents) -> None:
    """Let two data sets that are visited in turn share a cache.

    Validation visits its windows in the order of the index: unless all its maps stay, keeping more than one event is of
    no use.

    Args:
        limit: Bytes for both.
        training: Gets what is left.
        validation: Gets its share where all fits, and little otherwise.
    """
    needed = training.needed_bytes, validation.needed_bytes
    if sum(needed) <= limit:
        validation.limit = limit * needed[1] // sum(needed)
    else:
        validation.limit = min(limit // 2, max(limit // 16, validation.places.event_bytes), needed[1])
    training.limit = limit - validation.limit


class BatchOrder(Sampler[list[int]]):
    """Batches of windows for one of several processes.

    The order of an epoch is cut into global batches of `batch_size` x `world_size` windows, and each process takes
    every `world_size`-th window of each: two processes with batches of four see the global batches of one with batches
    of eight.

    Args:
        order: Window numbers of an epoch, for instance a `WindowOrder`.
        batch_size: Windows of a full batch of one process.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self, order: Callable[[int], np.ndarray], batch_size: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"expected a batch_size of at least 1, got {batch_size}. Correct training.yaml.")
        self.order, self.batch_size, self.rank, self.world_size = order, batch_size, rank, world_size
        self.epoch, self.start = 0, 0

    @property
    def global_size(self) -> int:
        """Windows of a full batch of all processes together."""
        return self.batch_size * self.world_size

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the order of this epoch, without its first `start` windows."""
        self.epoch, self.start = epoch, start

    def global_batches(self) -> Iterator[np.ndarray]:
        """Window numbers of each batch of all processes together."""
        order = self.order(self.epoch)[self.start :]
        size = self.global_size
        return (order[first : first + size] for first in range(0, len(order), size))

    def __iter__(self) -> Iterator[list[int]]:
        for whole in self.global_batches():
            mine = whole[self.rank :: self.world_size]
            # a process that the last batch has no window for takes part with one that does not count
            yield (mine if len(mine) else whole[:1]).tolist()

    def shares(self) -> list[tuple[int, int]]:
        """Windows that count of each of this process's batches, and of the global batch."""
        return [(len(whole[self.rank :: self.world_size]), len(whole)) for whole in self.global_batches()]

    def left_out(self, num_channels: int, probability: float, seed: int) -> Iterator[np.ndarray]:
        """Which channels of each window of this process's batches to leave out, at random.

        A draw depends on seed, epoch and place in the epoch alone: any number of processes, and a run that was resumed,
        leave out the same.

        Args:
            num_channels: Channels of a window.
            probability: With which one is left out.
            seed: Decides the draws.

        Yields:
            Booleans, (window, channel), for each batch.
        """
        place = self.start
        for _, whole in self.shares():
            # as in `__iter__`: the first window for a process that has none
            mine = range(place + self.rank, place + whole, self.world_size) or range(place, place + 1)
            if probability:
                draws = [np.random.default_rng([seed, self.epoch, each]).random(num_channels) for each in mine]
                yield np.stack(draws) < probability
            else:
                yield np.zeros((len(mine), num_channels), dtype=bool)
            place += whole

    def __len__(self) -> int:
        return len(self.shares())


class Share(Sampler[int]):
    """Every window once, in the order of the index, shared among processes; for figures.

    Args:
        num_windows: Windows of the data set.
        rank: This process.
        world_size: Number of processes. Each gets every world_size-th window.
    """

    def __init__(self, num_windows: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.numbers = range(rank, num_windows, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)
