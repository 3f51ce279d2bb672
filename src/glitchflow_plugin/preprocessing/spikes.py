"""The expensive part of a scan: the spikes of every channel of an event set, found once and kept on disk."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.data.spike_store import SpikeStore
from glitchflow_plugin.preprocessing.engine import IN_PROCESS, EngineSettings, map_shards
from glitchflow_plugin.preprocessing.spectrograms import batch_maps, single_thread
from glitchflow_plugin.signal.clusters import Spikes, find_spikes
from glitchflow_plugin.signal.qtransform import QTransformSettings, axes


@dataclass(frozen=True)
class SpikeSettings:
    """What decides the spikes.

    Attributes:
        transform: The Q-transform.
        threshold: A pixel belongs to a spike if its energy is above this, SNR².
        time_only: Regions of a map that overlap in time are one spike.
    """

    transform: QTransformSettings
    threshold: float
    time_only: bool


@dataclass(frozen=True)
class BatchSettings:
    """How much is in memory.

    Attributes:
        memory: What the series and maps of one process may take, work space included, MiB.
        max_events: Events transformed at a time, at most; None: as many as fit.
        max_channels: Channels transformed at a time, at most; None: as many as fit.
        shard_maps: Maps a shard, about: some seconds of work, which is what a killed scan loses.
    """

    memory: float
    max_events: int | None = None
    max_channels: int | None = None
    shard_maps: int = 4096

    def sizes(self, num_samples: int, map_size: int, num_channels: int) -> tuple[int, int]:
        """Events and channels of a batch, for series of `num_samples` and maps of `map_size` pixels."""
        # as measured: with the copies, the transform's tiles and the search for spikes about eight times series and map
        at_once = max(1, int(self.memory * 2**20 // (8 * 4 * (num_samples + map_size))))
        channels = min(num_channels, at_once, self.max_channels or num_channels)
        events = max(1, at_once // channels)
        return min(events, self.max_events or events), channels


def event_spikes(
    events: EventSet,
    settings: SpikeSettings,
    folder: Path | str,
    *,
    batch: BatchSettings,
    device: torch.device | str = "cpu",
    engine: EngineSettings = IN_PROCESS,
) -> Spikes:
    """Spikes of all channels of an event set; a run that was cut off goes on at the missing shards.

    The work is split into stretches of events; every map is computed once, and dropped when its spikes are known.

    Args:
        events: Event set.
        settings: What decides the spikes.
        folder: Folder that keeps them. Those of other settings or events are replaced.
        batch: How much is in memory.
        device: Computes the maps.
        engine: Spreads the shards over processes; on CPUs of one thread each, a GPU is used by one process.

    Returns:
        Spikes; `event` and `channel` are rows of the event set.

    Raises:
        ShareDone: In a task of an array: its share is made, and others are not.
        ShardError: A shard could not be made; the others are kept.
    """
    store = SpikeStore(
        folder=Path(folder),
        recipe={"transform": asdict(settings.transform), "threshold": settings.threshold, "time": settings.time_only},
        inputs=events.manifest.fingerprint,
        event_ids=events.event_ids,
        shard_size=max(1, batch.shard_maps // len(events.channels)),
    )
    make = partial(_make_shard, events=events, settings=settings, store=store, batch=batch, device=str(device))
    map_shards(make, store.pending(), engine.on_device(device), "Annalisa-scan", left=store.pending)
    return Spikes(**store.read())


def _make_shard(
    plan: ShardPlan,
    *,
    events: EventSet,
    settings: SpikeSettings,
    store: SpikeStore,
    batch: BatchSettings,
    device: str,
) -> None:
    """Find the spikes of one shard and write them. Runs in a worker."""
    transform = settings.transform
    first = events.event_ids.index(plan.event_ids[0])
    map_size = transform.num_frequencies * transform.num_times
    num_events, num_channels = batch.sizes(events.num_samples, map_size, len(events.channels))
    parts = []
    with single_thread():
        for start in range(first, first + len(plan.event_ids), num_events):
            rows = np.arange(start, min(start + num_events, first + len(plan.event_ids)))
            for column in range(0, len(events.channels), num_channels):
                names = events.channels[column : column + num_channels]
                parts.append(_found(events, rows, names, settings, device).moved(events=start, channels=column))
    spikes = Spikes.concatenate(parts)
    store.write(plan, {name: getattr(spikes, name) for name in ("event", "channel", "time", "frequency", "energy")})


def _found(events: EventSet, rows: np.ndarray, channels: Sequence[str], settings: SpikeSettings, device: str) -> Spikes:
    maps = batch_maps(events.read(rows, channels), events.sample_rate, settings.transform, device)
    frequencies, times = axes(events.duration, settings.transform)
    return find_spikes(maps, settings.threshold, frequencies, times, time_only=settings.time_only)
