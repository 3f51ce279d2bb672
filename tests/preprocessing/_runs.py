"""A program that makes a set, to be started, killed and started again by tests: python -m tests.preprocessing._runs."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.preprocessing import ingest
from glitchflow_plugin.preprocessing.engine import EngineSettings, map_shards

TARGET, WITNESS = "V1:STRAIN", "V1:SEIS"
T0 = 1_264_000_000.0
make_shard = ingest.make_shard


def write_events(folder, number):
    """Files of sixteen seconds of noise each; the last has no usable target."""
    for index in range(number):
        generator = np.random.default_rng(index)
        start = T0 + 100.0 * index
        channels = {
            name: Channel(name, generator.normal(size=int(16 * rate)), start, rate, "m")
            for name, rate in ((TARGET, 2048.0), (WITNESS, 256.0))
        }
        if index == number - 1:
            channels[TARGET].series[:] = 0
        write_event(folder / f"event-{index:02d}.h5", RawEvent(f"event-{index:02d}", start + 8.3, channels))


def dying_shard(writer, channels, job, *, require_target):
    """Make a shard; whoever makes number 2 is killed when its file is half written."""
    if job.index == 2:
        with atomic_path(writer.folder / "shard-00002.h5") as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    make_shard(writer, channels, job, require_target=require_target)


def failing_shard(plan):
    raise ValueError(f"{plan.index} does not please")


def events(source, folder, engine):
    """One shard an event."""
    dataset = {"path": source, "target": TARGET, "processing": {"batch": 1}}
    return ingest.ingest([dataset], None, folder, engine=engine)


def maps(source, folder, engine):
    """Two events a shard, of which one a batch."""
    from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
    from glitchflow_plugin.signal.qtransform import QTransformSettings

    source, settings = EventSet.open(source), QTransformSettings()
    return make_spectrograms(source, (WITNESS,), settings, folder, engine=engine, batch_size=1, largest_shard=2)


def dying(source, folder, engine):
    ingest.make_shard = dying_shard
    return events(source, folder, engine)


def spikes(source, folder, engine):
    """Two events a shard, of which one a batch."""
    from glitchflow_plugin.preprocessing import spikes
    from glitchflow_plugin.signal.qtransform import QTransformSettings

    spikes._SHARD_MAPS = 4
    settings = spikes.SpikeSettings(QTransformSettings(), threshold=8.0, time_only=True)
    batch = spikes.BatchSettings(memory=100.0, max_events=1)
    return spikes.event_spikes(EventSet.open(source), settings, folder, batch=batch, engine=engine)


def stream(source, folder, engine):
    """Two blocks of continuous data."""
    from tests.streaming import _streams as data

    from glitchflow_plugin.data.datasets import DatasetSettings
    from glitchflow_plugin.streaming.blocks import open_blocks, plan_blocks
    from glitchflow_plugin.streaming.run import (
        ProductSettings,
        StreamJob,
        provenance_of,
        run_stream,
        stream_model,
    )

    bundle, blocks = data.bundle(), plan_blocks([(data.GPS, data.GPS + 50)], 25)
    told = provenance_of(bundle, data.SETTINGS, data.STRAIN)
    job = StreamJob(Path(folder), stream_model(bundle), data.SETTINGS, ProductSettings(), told)
    opened, catalogue = open_blocks(DatasetSettings.listed([{"path": source}]), blocks, job.model, job.settings)
    return run_stream(job.at(job.folder, catalogue.fingerprint), opened, engine, job.what(opened))


def all_sets(source, folder, engine):
    stream(str(Path(source).with_name("frames")), Path(folder) / "stream", engine)
    events(source, Path(folder) / "events", engine)
    spikes(Path(folder) / "events", Path(folder) / "spikes", engine)
    return maps(Path(folder) / "events", Path(folder) / "maps", engine)


def failing(_source, _folder, engine):
    return map_shards(failing_shard, [ShardPlan(0, ("a",)), ShardPlan(1, ("b",))], engine, "test")


def main(what, source, folder, engine):
    globals()[what](source, folder, EngineSettings(**json.loads(engine)))


if __name__ == "__main__":
    main(*sys.argv[1:])
