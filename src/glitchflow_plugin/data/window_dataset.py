"""Windows as torch sees them: cut from the shards when they are asked for."""

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError


class WindowDataset(Dataset[tuple[Tensor, Tensor]]):
    """Windows of one part of a training set, in the order of its index.

    Args:
        training_set: Index and maps.
        part: `train`, `validation` or `test`.
        cache_mib: Largest size of the maps kept in memory, MiB; the least recently used are dropped first.
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
        if cache_mib < 0:
            message = f"expected cache_mib of at least 0, got {cache_mib}. Correct training.yaml."
            raise ConfigurationError(message)
        self.training_set = training_set
        self.name = part
        self.windows = training_set.part(part)
        self.size = training_set.settings.size
        self.spectrograms: SpectrogramSet = training_set.open_spectrograms()
        chosen = self.spectrograms.channels[1:] if witnesses is None else witnesses
        self.channels = (self.spectrograms.target, *chosen)
        self.spectrograms.channel_rows(self.channels)
        self._limit = int(cache_mib * 2**20)
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cached_bytes = 0
        # plain arrays: a DataFrame is slow to ask for one row
        self._rows = self.windows["row"].to_numpy()
        self._starts = self.windows["start"].to_numpy()

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Witness energies (witness, frequency, column) and strain energy (1, frequency, column), SNR²."""
        start = int(self._starts[index])
        maps = torch.from_numpy(self._maps(int(self._rows[index]))[..., start : start + self.size].copy())
        return maps[1:], maps[:1]

    @property
    def event_ids(self) -> np.ndarray:
        """Event id of each window."""
        return self.windows["event_id"].to_numpy()

    @property
    def gps_start(self) -> np.ndarray:
        """GPS time of the first column of each window, s, float64."""
        return self.windows["gps_start"].to_numpy()

    @property
    def cached_bytes(self) -> int:
        """Bytes of maps in memory at this moment."""
        return self._cached_bytes

    def _maps(self, row: int) -> np.ndarray:
        if row in self._cache:
            self._cache.move_to_end(row)
            return self._cache[row]
        maps = self.spectrograms.read([row], channels=list(self.channels)).maps[0]
        if maps.nbytes <= self._limit:
            self._cache[row] = maps
            self._cached_bytes += maps.nbytes
            while self._cached_bytes > self._limit:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= dropped.nbytes
        return maps

    def __getstate__(self) -> dict[str, object]:
        """Leave the cache behind when a worker process gets a copy."""
        return {**self.__dict__, "_cache": OrderedDict(), "_cached_bytes": 0}


class WindowSampler(Sampler[int]):
    """Order in which windows are visited: seeded, and the same on all ranks of a distributed run.

    Args:
        num_windows: Windows of the data set.
        shuffle: Draw a new order each epoch; otherwise the order of the index.
        seed: Of the orders; the epoch is added to it.
        rank: This process.
        world_size: Number of processes. Each gets every world_size-th window.
        even: Repeat a few windows so that all processes get equally many (gradients are exchanged at each step);
            if false, every window is visited exactly once (for figures).
    """

    def __init__(
        self,
        num_windows: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        even: bool = False,
    ) -> None:
        if not isinstance(shuffle, bool):
            # 'False' in quotes is a true string; maps were compared with other events' maps through this
            message = f"expected shuffle to be true or false, got {shuffle!r}. Write it without quotes."
            raise ConfigurationError(message)
        self.num_windows, self.shuffle, self.seed = num_windows, shuffle, seed
        self.rank, self.world_size, self.even = rank, world_size, even
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def order(self) -> np.ndarray:
        """Numbers of the windows that this process visits in this epoch."""
        everything = np.arange(self.num_windows)
        if self.shuffle:
            everything = np.random.default_rng([self.seed, self.epoch]).permutation(everything)
        if self.even and self.num_windows % self.world_size:
            missing = self.world_size - self.num_windows % self.world_size
            everything = np.concatenate([everything, np.resize(everything, missing)])
        return everything[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return len(self.order())
