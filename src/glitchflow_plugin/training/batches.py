"""Batches of windows for each of the processes that train together."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from glitchflow_plugin.data.parent import clean_start, serve_quietly
from glitchflow_plugin.data.window_dataset import BatchOrder, CachedEvents, Share, share_cache
from glitchflow_plugin.data.window_order import WindowOrder, balancing_weights, read_labels
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.interruption import end_workers
from glitchflow_plugin.training.processes import Processes

#: A block of the shuffled order is this part of the cache, so that up to seven loader workers can hold it.
_BLOCKS = 8

Loader = DataLoader[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class WindowBatches:
    """Pairs of witnesses and strain, (window, channel, ...), on the CPU.

    Attributes:
        order: In which training windows come; it depends on seed and epoch alone.
        training: This process's part of each global batch.
        validation: This process's share of the windows, each once.
    """

    order: BatchOrder
    training: Loader
    validation: Loader

    def end_workers(self) -> None:
        """End loader workers in the middle of an epoch: deaf to signals, they would keep this process from ending."""
        end_workers(self.training, self.validation)


def window_batches(
    training: CachedEvents,
    validation: CachedEvents,
    config: TrainingConfiguration,
    *,
    seed: int,
    device: torch.device,
    processes: Processes,
) -> WindowBatches:
    """Batches of two data sets, which share the memory of the cache.

    Raises:
        ConfigurationError: A setting of order, balance or cache cannot work with these windows.
    """
    share_cache(int(config.cache_mib * 2**20), training, validation)
    labels = read_labels(config.labels) if config.labels else None
    places, block_mib = training.places, config.shuffle_mib or config.cache_mib / _BLOCKS
    windows = WindowOrder(
        places,
        shuffle=config.shuffle_train,
        seed=seed,
        block_bytes=int(block_mib * 2**20),
        weights=balancing_weights(places, config.balance, training.event_ids, labels),
    )
    order = BatchOrder(windows, config.batch_size, rank=processes.rank, world_size=processes.size)
    loader: Any = partial(
        DataLoader,
        num_workers=config.num_workers_dataloader,
        pin_memory=config.pin_gpu_memory or device.type == "cuda",
        persistent_workers=config.num_workers_dataloader > 0,
        multiprocessing_context=clean_start() if config.num_workers_dataloader else None,
        worker_init_fn=serve_quietly,
        # of its own: a loader draws a number whenever it starts, and a resumed run starts it once more
        generator=torch.Generator(),
    )
    share = Share(len(validation), rank=processes.rank, world_size=processes.size)
    return WindowBatches(
        order,
        loader(training, batch_sampler=order),
        loader(validation, batch_size=config.batch_size, sampler=share),
    )
