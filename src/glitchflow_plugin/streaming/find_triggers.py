"""Triggers of any number of channels from continuous data: blocks in parallel, then clusters, then the table."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.event_source import LoadedEvent
from glitchflow_plugin.data.files import atomic_path, content_hash
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.data.triggers.store import ROW_GROUP, TriggerManifest, TriggerWriter, read_manifest
from glitchflow_plugin.data.triggers.table import NANOSECONDS, SCHEMA, trigger_table
from glitchflow_plugin.preprocessing.engine import EngineSettings, map_shards
from glitchflow_plugin.signal.qtransform.loud_tiles import Tiles, tile_duration
from glitchflow_plugin.signal.tile_clusters import Clusters, LoudTiles, TileClusters
from glitchflow_plugin.streaming.blocks import Block, between, read_source
from glitchflow_plugin.streaming.trigger_search import CLUSTERING, SearchSettings, search_channel

logger = logging.getLogger(__name__)

_ABOUT = "glitchflow"
_TILES_VERSION = 2
"""Of the files of tiles: in order of time, in row groups that are read one by one."""
_TILE = ("time", "frequency", "q", "snr", "amplitude")
"""Columns of a tile, in the order of `LoudTiles`."""
TILES = "tiles"
"""Folder of the loud tiles of each block, below that of the triggers."""


@dataclass(frozen=True)
class FinderJob:
    """What is done with each block.

    Attributes:
        folder: Where the triggers go.
        channels: Names of those that are searched.
        settings: What is looked for.
        device: Where tiles are computed.
        inputs: Fingerprint of the data.
    """

    folder: Path
    channels: tuple[str, ...]
    settings: SearchSettings
    device: str = "cpu"
    inputs: str = ""

    def path(self, block: Block) -> Path:
        """File of a block's tiles, another one for other settings or data; how they are clustered changes none."""
        searched = {name: value for name, value in asdict(self.settings).items() if name not in CLUSTERING}
        key = content_hash([_TILES_VERSION, self.inputs, self.channels, searched, block.span, block.segment])[:12]
        return self.folder / TILES / f"{block.span[0]:.0f}-{block.span[1] - block.span[0]:.0f}-{key}.parquet"

    def pending(self, blocks: Sequence[Block]) -> list[Block]:
        """Blocks whose tiles are not there."""
        return [one for one in blocks if not self.path(one).is_file()]


@dataclass(frozen=True)
class Found:
    """What came of a run.

    Attributes:
        manifest: Of the store.
        searched: By channel the seconds that had data.
        broken: By channel what was wrong, and in how many blocks.
    """

    manifest: TriggerManifest
    searched: Mapping[str, float]
    broken: Mapping[str, Mapping[str, int]]


def find_triggers(job: FinderJob, blocks: Sequence[Block], engine: EngineSettings) -> Found:
    """Search the blocks that were not searched yet, and write the triggers of all.

    Args:
        job: What is done with each.
        blocks: From `streaming.blocks.with_sources`.
        engine: Where.

    Raises:
        ShareDone: In a task of an array: its share is made, and other blocks are not.
        ShardError: A block could not be searched; those that were finished stay.
    """
    pending = job.pending(blocks)
    if len(pending) < len(blocks):
        logger.info("%s: %d of %d blocks are there already.", job.folder, len(blocks) - len(pending), len(blocks))
    map_shards(partial(search_block, job), pending, engine, "Find", left=partial(job.pending, blocks), unit="block")
    files = [job.path(one) for one in blocks]
    # Nothing that decides how it is made but not what: the same triggers have the same files.
    unimportant = {"block_length": None, "cluster_tiles": None}
    recipe = {"search": {**asdict(job.settings), **unimportant}, "channels": list(job.channels)}
    with TriggerWriter(job.folder, recipe) as writer:
        for channel in job.channels:
            for triggers in channel_triggers(files, channel, job.settings):
                writer.write(triggers)
    searched, broken = Counter[str](), dict[str, Counter[str]]()
    for file in files:
        told = _about(pq.read_metadata(file))
        searched.update(told["searched"])
        for name, reason in told["problems"].items():
            broken.setdefault(name, Counter())[reason] += 1
    for name, reasons in broken.items():
        logger.warning("%s: %s", name, "; ".join(f"{reason} ({count} blocks)" for reason, count in reasons.items()))
    return Found(read_manifest(job.folder), searched, broken)


def searched_spans(job: FinderJob, blocks: Sequence[Block], channel: str) -> list[tuple[float, float]]:
    """Start and end (GPS s) of the blocks in which a channel was searched, which have all been looked at."""
    files = [(one.span, job.path(one)) for one in blocks]
    return [span for span, file in files if channel in _about(pq.read_metadata(file))["searched"]]


def search_block(job: FinderJob, plan: ShardPlan) -> None:
    """Write the loud tiles of a block.

    Args:
        job: What is done.
        plan: The block.
    """
    if not isinstance(plan, Block) or plan.source is None:
        raise TypeError(f"expected a block with its source, got {plan!r}")
    loaded = read_source(plan.source, list(job.channels))
    row_groups: dict[str, list[int]] = {}
    searched, problems, written = {}, {}, 0
    path = job.path(plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for name in job.channels:
            try:
                loud, searched[name] = _searched(job, plan, loaded, name)
            except ValueError as error:
                problems[name] = str(error)
                continue
            if len(loud):  # of no rows there is no row group
                writer.write_table(loud, row_group_size=ROW_GROUP)
                row_groups[name] = list(range(written, written + -(-len(loud) // ROW_GROUP)))
                written += len(row_groups[name])
        about = {"row_groups": row_groups, "searched": searched, "problems": problems}
        writer.add_key_value_metadata({_ABOUT: json.dumps(about)})


def _searched(job: FinderJob, block: Block, loaded: LoadedEvent, name: str) -> tuple[pa.Table, float]:
    """The loud tiles of a channel in a block, in order of time, and how many seconds were searched.

    Raises:
        ValueError: The channel cannot be searched there, and why.
    """
    found = loaded.event.channels.get(name)
    channel = None if found is None else between(found, *block.segment)
    inside = None if channel is None else between(channel, *block.span)
    if channel is None or inside is None or not np.isfinite(inside.series).any():
        raise ValueError(loaded.problems.get(name, "no data").split(":")[0])
    if np.nanmin(inside.series) == np.nanmax(inside.series):
        raise ValueError("constant")
    found_in = search_channel(channel, block.span, job.settings, job.device)
    rows = [_rows(channel, origin, tiles) for origin, tiles in found_in]
    loud = pa.concat_tables([SCHEMA.empty_table(), *rows]).unify_dictionaries().sort_by("time")
    return loud, float(np.isfinite(inside.series).sum() / channel.sample_rate)


def _about(footer: pq.FileMetaData) -> Mapping[str, Any]:
    """What a file of tiles says of its block: row groups by channel, seconds searched, what was wrong."""
    return json.loads((footer.metadata or {})[_ABOUT.encode()])


def _tiles_of(file: Path, channel: str, most: int) -> Iterator[LoudTiles]:
    """The tiles of a channel in a block, in order of time, some at once."""
    with pq.ParquetFile(file) as opened:
        row_groups = _about(opened.metadata)["row_groups"].get(channel, [])
        if row_groups:
            for batch in opened.iter_batches(most, row_groups=row_groups, columns=list(_TILE)):
                yield LoudTiles(*(batch.column(name).to_numpy() for name in _TILE))


def _rows(channel: Channel, origin: int, tiles: Tiles) -> pa.Table:
    lengths = np.asarray(tile_duration(tiles.frequencies, tiles.qs))
    return trigger_table(
        {
            "time": origin + np.round(tiles.times * NANOSECONDS).astype(np.int64),
            "frequency": tiles.frequencies,
            "snr": tiles.snrs,
            "q": tiles.qs,
            # A sine-Gaussian in noise of unit variance: snr^2 = amplitude^2 / 2 x samples of its effective length.
            "amplitude": tiles.snrs * np.sqrt(2 / (channel.sample_rate * lengths)),
            "channel": [channel.name] * len(lengths),
        }
    )


def channel_triggers(files: Sequence[Path], channel: str, settings: SearchSettings) -> Iterator[pa.Table]:
    """The triggers of a channel: clusters of its tiles in all blocks.

    Args:
        files: Tiles of the blocks, in order of time.
        channel: Its name.
        settings: How tiles are joined, and how many at once.
    """
    clusters = TileClusters(settings.cluster_gap, settings.longest_tile, in_frequency=settings.cluster_in_frequency)
    for file in files:
        for tiles in _tiles_of(file, channel, settings.cluster_tiles):
            yield _triggers(clusters.add(tiles), channel)
    yield _triggers(clusters.finish(), channel)


def _triggers(clusters: Clusters, channel: str) -> pa.Table:
    loudest = clusters.loudest
    return trigger_table(
        {
            **{name: getattr(loudest, one.name) for name, one in zip(_TILE, fields(LoudTiles), strict=True)},
            "duration": clusters.durations,
            "bandwidth": clusters.bandwidths,
            "channel": [channel] * len(clusters),
        }
    )
