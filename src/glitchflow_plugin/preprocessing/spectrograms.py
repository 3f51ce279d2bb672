"""From an event set to a spectrogram set: Q-transform maps of the target and the selected witnesses."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.records import EventBatch, SpectrogramBatch
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter, ShardPlan
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.engine import IN_PROCESS, EngineSettings, map_shards
from glitchflow_plugin.preprocessing.map_settings import MapSettings
from glitchflow_plugin.settings import Count, section
from glitchflow_plugin.signal.qtransform import QTransformSettings, axes, check_settings, q_transform
from glitchflow_plugin.types.tensors import host

logger = logging.getLogger(__name__)

UNITS = "SNR^2"
#: Size of a shard that is still comfortable to hold in memory.
_SHARD_BYTES = 64 * 1024**2
LARGEST_SHARD = 64


@section
class ProcessSettings(MapSettings):
    """The keys of process.yaml; conf/process.yaml explains those that are not of maps."""

    num_batch: Count = 8


def event_transform(events: EventSet, settings: MapSettings) -> QTransformSettings:
    """Settings of the Q-transform for an event set, compared with its rate, length and band.

    Raises:
        ConfigurationError: They do not fit; the message says what fits.
    """
    transform = settings.transform(events.duration)
    check_settings(events.num_samples, events.sample_rate, transform)
    _check_band(events, transform)
    return transform


def _check_band(events: EventSet, transform: QTransformSettings) -> None:
    """Refuse rows outside the band-pass: next to nothing is left there, and over its median that looks like spikes."""
    bands = [(entry["minf"], entry["maxf"]) for entry in events.recipe.get("channels", {}).values()]
    if not bands:
        return
    low, high = max(minf for minf, _ in bands), min(maxf for _, maxf in bands)
    if transform.frequency_low < low or transform.frequency_high > high:
        raise ConfigurationError(
            f"frange [{transform.frequency_low:g}, {transform.frequency_high:g}] Hz reaches outside the band of the "
            f"data, [{low:g}, {high:g}] Hz, where rows hold nothing but what the filter left. Narrow `frange`, or run "
            "Data-processor with wider `minf` and `maxf` in datasets.yaml."
        )


def batch_maps(
    batch: EventBatch, sample_rate: float, settings: QTransformSettings, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Maps of a batch; invalid channels are not transformed and stay zero.

    Args:
        batch: Events, series of shape (event, channel, time).
        sample_rate: Hz.
        settings: The Q-transform.
        device: Computes the maps.

    Returns:
        Energy in SNR², float32, shape (event, channel, frequency, time).
    """
    maps = np.zeros((*batch.valid.shape, settings.num_frequencies, settings.num_times), dtype=np.float32)
    if batch.valid.any():
        series = torch.from_numpy(batch.series[batch.valid]).to(device)
        maps[batch.valid] = host(q_transform(series, sample_rate, settings))
    return maps


def make_spectrograms(
    events: EventSet,
    channels: Sequence[str],
    settings: QTransformSettings,
    folder: Path | str,
    *,
    device: torch.device | str = "cpu",
    engine: EngineSettings = IN_PROCESS,
    batch_size: int = 8,
    selection: Mapping[str, object] | None = None,
    require_target: bool = True,
    largest_shard: int = LARGEST_SHARD,
) -> SpectrogramSet:
    """Make the maps of an event set; a run that was cut off goes on at the missing shards.

    Args:
        events: Event set.
        channels: Witnesses, in the order of the maps; the target is put first.
        settings: The Q-transform.
        folder: Folder for the set.
        device: Computes the maps. On CPUs a shard is made by one thread, whatever the number of workers, since sums of
            several threads differ in their last bits; a GPU is used by one process.
        engine: Spreads the shards over processes.
        batch_size: Events of a shard transformed at a time.
        selection: How the channels were chosen; kept in the set's recipe.
        require_target: Leave out events whose target is not valid; if not, their target maps are zero and masked.
        largest_shard: Events of a shard, at most: what a killed run loses.

    Returns:
        The spectrogram set. Events that are left out are listed in its manifest.

    Raises:
        ShareDone: In a task of an array: its share is made, and the set is not complete.
        ConfigurationError: The settings do not fit the data, or `folder` is the event set's own.
        ChannelMismatchError: The event set lacks a channel.
        NoEventsError: No event has a valid target.
    """
    check_settings(events.num_samples, events.sample_rate, settings)
    if Path(folder).resolve() == events.folder.resolve():
        raise ConfigurationError(f"{folder} holds the event set; give the spectrogram set a folder of its own.")
    names = (events.target, *(name for name in channels if name != events.target))
    events.channel_rows(names)
    frequencies, times = axes(events.duration, settings)
    event_bytes = len(names) * settings.num_frequencies * settings.num_times * 4
    writer = ShardedWriter(
        folder=Path(folder),
        kind="spectrograms",
        target=events.target,
        channels=names,
        axes={"frequencies": frequencies.tolist(), "times": times.tolist()},
        units=UNITS,
        recipe=Recipe(events.recipe, asdict(settings), dict(selection or {})).to_dict(),
        event_ids=events.event_ids,
        shard_size=max(1, min(largest_shard, _SHARD_BYTES // event_bytes)),
        inputs=events.manifest.fingerprint if require_target else f"{events.manifest.fingerprint} target optional",
    )
    pending = writer.pending()
    left = sum(len(plan.event_ids) for plan in pending)
    if left < len(events):
        logger.info("%s: %d of %d events are there already.", folder, len(events) - left, len(events))
    if pending:
        _ = events.valid, events.gps_start, events.gps_event  # kept by the handle, so that no worker gathers them again
    work = partial(_make_shard, writer, events, settings, device, batch_size=batch_size, require_target=require_target)
    map_shards(work, pending, engine.on_device(device), "QT-dataset", left=writer.pending)
    made = writer.finish()
    assert isinstance(made, SpectrogramSet)  # noqa: S101  # tells the type checker what the writer's kind decides
    return made


def _make_shard(
    writer: ShardedWriter,
    events: EventSet,
    settings: QTransformSettings,
    device: torch.device | str,
    plan: ShardPlan,
    *,
    batch_size: int,
    require_target: bool,
) -> None:
    """Make one shard: read, transform, write. Runs in a worker."""
    row_of = {event_id: row for row, event_id in enumerate(events.event_ids)}
    planned = np.array([row_of[event_id] for event_id in plan.event_ids])
    usable = events.valid[planned, 0] | (not require_target)
    rejected = {events.event_ids[row]: "target not valid" for row in planned[~usable]}
    rows = planned[usable]
    valid = events.valid[rows][:, events.channel_rows(writer.channels)]
    maps = np.empty((*valid.shape, settings.num_frequencies, settings.num_times), dtype=np.float32)
    with single_thread():
        for start in range(0, len(rows), batch_size):
            batch = events.read(rows[start : start + batch_size], writer.channels)
            maps[start : start + len(batch)] = batch_maps(batch, events.sample_rate, settings, device)
    made = SpectrogramBatch(
        event_ids=tuple(events.event_ids[row] for row in rows),
        gps_start=events.gps_start[rows],
        gps_event=events.gps_event[rows],
        maps=maps,
        valid=valid,
        groups=tuple(events.groups[row] for row in rows),
    )
    writer.write(plan, made if len(rows) else None, rejected)


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch compute with one thread: sums that several threads share differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
