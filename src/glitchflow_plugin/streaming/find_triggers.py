"""Triggers of any number of channels from continuous data: blocks in parallel, then clusters, then the table."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import atomic_path, content_hash
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.data.triggers.store import TriggerManifest, TriggerWriter, read_manifest
from glitchflow_plugin.data.triggers.table import NANOSECONDS, SCHEMA, trigger_table
from glitchflow_plugin.preprocessing.engine import EngineSettings, map_shards
from glitchflow_plugin.signal.qtransform.loud_tiles import Tiles, tile_duration
from glitchflow_plugin.signal.tile_clusters import cluster_tiles
from glitchflow_plugin.streaming.blocks import Block, between, read_source
from glitchflow_plugin.streaming.trigger_search import SearchSettings, search_channel

logger = logging.getLogger(__name__)

_ABOUT = b"glitchflow"
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
        searched = {**asdict(self.settings), "cluster_gap": None}
        key = content_hash([self.inputs, self.channels, searched, block.span, block.segment])[:12]
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
    recipe = {"search": {**asdict(job.settings), "block_length": None}, "channels": list(job.channels)}
    with TriggerWriter(job.folder, recipe) as writer:
        for channel in job.channels:
            writer.write(channel_triggers(files, channel, job.settings.cluster_gap))
    searched, broken = Counter[str](), dict[str, Counter[str]]()
    for file in files:
        told = _about(pq.read_schema(file))
        searched.update(told["searched"])
        for name, reason in told["problems"].items():
            broken.setdefault(name, Counter())[reason] += 1
    for name, reasons in broken.items():
        logger.warning("%s: %s", name, "; ".join(f"{reason} ({count} blocks)" for reason, count in reasons.items()))
    return Found(read_manifest(job.folder), searched, broken)


def searched_spans(job: FinderJob, blocks: Sequence[Block], channel: str) -> list[tuple[float, float]]:
    """Start and end (GPS s) of the blocks in which a channel was searched, which have all been looked at."""
    files = [(one.span, job.path(one)) for one in blocks]
    return [span for span, file in files if channel in _about(pq.read_schema(file))["searched"]]


def search_block(job: FinderJob, plan: ShardPlan) -> None:
    """Write the loud tiles of a block.

    Args:
        job: What is done.
        plan: The block.
    """
    if not isinstance(plan, Block) or plan.source is None:
        raise TypeError(f"expected a block with its source, got {plan!r}")
    loaded = read_source(plan.source, list(job.channels))
    tables: dict[str, pa.Table] = {}
    searched, problems = {}, {}
    for name in job.channels:
        found = loaded.event.channels.get(name)
        channel = None if found is None else between(found, *plan.segment)
        inside = None if channel is None else between(channel, *plan.span)
        if channel is None or inside is None or not np.isfinite(inside.series).any():
            problems[name] = loaded.problems.get(name, "no data").split(":")[0]
            continue
        if np.nanmin(inside.series) == np.nanmax(inside.series):
            problems[name] = "constant"
            continue
        try:
            found_in = search_channel(channel, plan.span, job.settings, job.device)
            rows = [_rows(channel, origin, tiles) for origin, tiles in found_in]
            loud = pa.concat_tables([SCHEMA.empty_table(), *rows]).unify_dictionaries()
            # of no rows there is no row group
            tables |= {name: loud} if len(loud) else {}
            searched[name] = float(np.isfinite(inside.series).sum() / channel.sample_rate)
        except ValueError as error:
            problems[name] = str(error)
    about = {"channels": list(tables), "searched": searched, "problems": problems}
    schema = SCHEMA.with_metadata({_ABOUT: json.dumps(about).encode()})
    path = job.path(plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a row group a channel: each is read alone
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in tables.values():
            writer.write_table(table, row_group_size=len(table))


def _about(schema: pa.Schema) -> Mapping[str, Any]:
    """What a file of tiles says of its block: channels by row group, seconds searched, what was wrong."""
    return json.loads((schema.metadata or {})[_ABOUT])


def _tiles_of(file: Path, channel: str) -> pa.Table:
    """The tiles of a channel in a block."""
    with pq.ParquetFile(file) as opened:
        channels = _about(opened.schema_arrow)["channels"]
        if channel not in channels:
            return SCHEMA.empty_table()
        return opened.read_row_group(channels.index(channel)).replace_schema_metadata(None)


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


def channel_triggers(files: Sequence[Path], channel: str, gap: float) -> pa.Table:
    """The triggers of a channel: clusters of its tiles in all blocks.

    Args:
        files: Tiles of the blocks.
        channel: Its name.
        gap: Longest time between tiles of one cluster, s.
    """
    tiles = pa.concat_tables([_tiles_of(file, channel) for file in files], promote_options="permissive")
    times, frequencies, qs, snrs = (tiles[name].to_numpy() for name in ("time", "frequency", "q", "snr"))
    clusters = cluster_tiles(times, frequencies, qs, snrs, gap)
    at = clusters.loudest
    return trigger_table(
        {
            "time": times[at],
            "frequency": frequencies[at],
            "snr": snrs[at],
            "q": qs[at],
            "duration": clusters.durations,
            "bandwidth": clusters.bandwidths,
            "amplitude": tiles["amplitude"].to_numpy()[at],
            "channel": [channel] * len(at),
        }
    )
