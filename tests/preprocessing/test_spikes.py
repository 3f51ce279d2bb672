import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest

from glitchflow_plugin.data.spike_store import SpikeStore
from glitchflow_plugin.preprocessing.engine import ShardError
from glitchflow_plugin.preprocessing.spikes import BatchSettings, SpikeSettings, event_spikes
from glitchflow_plugin.signal.qtransform import QTransformSettings

SETTINGS = SpikeSettings(QTransformSettings(num_frequencies=32, num_times=129), threshold=20.0, time_only=True)


def test_batches_fit_the_memory_whatever_the_number_of_channels():
    batch = BatchSettings(memory=100.0)
    for channels in (3, 1000, 100_000):
        events, at_once = batch.sizes(8192, 64 * 257, channels)
        assert at_once <= channels
        assert 8 * 4 * (8192 + 64 * 257) * events * at_once <= 100 * 2**20
    assert batch.sizes(8192, 64 * 257, 3)[0] > 40
    assert BatchSettings(1.0, max_events=7, max_channels=5).sizes(10**7, 10**6, 50) == (1, 1)
    assert BatchSettings(1000.0, max_events=7, max_channels=5).sizes(8192, 64 * 257, 50) == (7, 5)


def test_killed_search_goes_on_at_the_missing_shards(make_event_set, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    series = rng.standard_normal((9, 3, 4096))
    series[:, :, 2000:2010] += 9.0
    events = make_event_set(series)
    whole = event_spikes(events, SETTINGS, tmp_path / "whole", batch=BatchSettings(50.0, shard_maps=6))
    assert len(list((tmp_path / "whole").iterdir())) == 5  # two events of three channels each
    assert set(whole.event) == set(range(9))
    write, written = SpikeStore.write, []

    def killed(store, plan, columns):
        if len(written) == 2:
            raise MemoryError("killed")
        written.append(plan.index)
        write(store, plan, columns)

    monkeypatch.setattr(SpikeStore, "write", killed)
    with pytest.raises(ShardError, match="run the step again"):
        event_spikes(events, SETTINGS, tmp_path / "parts", batch=BatchSettings(50.0, shard_maps=6))
    assert written == [0, 1]

    def counted(store, plan, columns):
        written.append(plan.index)
        write(store, plan, columns)

    monkeypatch.setattr(SpikeStore, "write", counted)
    resumed = event_spikes(events, SETTINGS, tmp_path / "parts", batch=BatchSettings(50.0, shard_maps=6))
    assert written == [0, 1, 2, 3, 4]
    for name in ("event", "channel", "time", "frequency", "energy"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))


def _search(folder, places):
    from glitchflow_plugin.data.sharded import EventSet

    event_spikes(EventSet.open(folder), SETTINGS, f"{folder}-spikes", batch=BatchSettings(32.0))
    places.put(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_peak_memory_does_not_grow_with_channels_or_events(make_event_set):
    rng = np.random.default_rng(1)
    context = multiprocessing.get_context("spawn")
    peaks = []
    for num_events, num_channels in ((2, 40), (2, 160), (8, 40)):
        series = rng.standard_normal((num_events, num_channels, 8192), dtype=np.float32)
        events = make_event_set(series, name=f"{num_events}-{num_channels}")
        places = context.Queue()
        process = context.Process(target=_search, args=(str(events.folder), places))
        process.start()
        peaks.append(places.get(timeout=300))
        process.join()
    # 40 maps at a time; the 320 of the larger sets together would take some 200 MiB more than the 80 of the smallest
    assert max(peaks) < min(peaks) + 40
