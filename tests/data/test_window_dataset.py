import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet, WindowSettings, index_windows
from glitchflow_plugin.data.window_dataset import BatchOrder, Share, WindowDataset, share_cache
from glitchflow_plugin.data.window_order import WindowOrder
from glitchflow_plugin.errors import ConfigurationError, FormatError, LeakageError, NoEventsError


@pytest.fixture
def make_training_set(make_coupled_maps, tmp_path):
    def make(windows=None, **maps):
        made = make_coupled_maps(**maps)
        folder = str(tmp_path / "training")
        split = Splitter({"block_length": 100.0}, str(made.folder), folder).execute(made)
        return made, Processor(windows or {}, str(made.folder), folder).execute(split)

    return make


def test_every_window_knows_its_event_time_and_place(make_training_set):
    maps, training = make_training_set()
    whole = maps.read()
    for row in training.windows.itertuples():
        place = maps.event_ids.index(row.event_id)
        assert row.row == place
        assert row.gps_start == maps.gps_start[place] + maps.times[row.start]
        cut = whole.maps[place, 0, :, row.start : row.start + 64]
        assert row.peak == pytest.approx(cut.max())
        assert row.glitch == (cut.max() > 16)
    assert len(training.windows) == 5 * len(maps)
    assert training.windows["gps_start"].dtype == np.float64


def test_windows_stay_in_the_part_of_their_event(make_training_set):
    _, training = make_training_set()
    seen = {name: set(training.part(name)["event_id"]) for name in PARTS}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    moved = training.windows.copy()
    moved.loc[0, "part"] = "test" if moved.loc[0, "part"] != "test" else "train"
    with pytest.raises(LeakageError, match="another part"):
        TrainingSet(training.folder, training.spectrograms, "", training.split, moved, training.scaling)


def test_scaling_sees_training_events_only(make_training_set):
    maps, training = make_training_set()
    rows = np.flatnonzero(np.isin(maps.event_ids, training.split.train.event_ids))
    values = np.sqrt(maps.read(rows).maps[:, 0])
    assert training.scaling["scale"]["STRAIN"] == pytest.approx(np.quantile(values, 0.9999), rel=5e-3)
    everything = np.sqrt(maps.read().maps[:, 0])
    assert np.quantile(values, 0.9999) != pytest.approx(np.quantile(everything, 0.9999), rel=1e-4)


def test_background_is_thinned_in_training_alone(make_training_set):
    _, everything = make_training_set()
    _, thinned = make_training_set({"background_ratio": 0.5})
    counts, full = thinned.counts(), everything.counts()
    assert counts["train"]["glitch"] == full["train"]["glitch"]
    assert counts["train"]["background"] == round(0.5 * counts["train"]["glitch"])
    assert counts["validation"] == full["validation"]
    assert counts["test"] == full["test"]


def test_events_without_strain_give_no_window(make_training_set):
    valid = np.ones((24, 3), dtype=bool)
    valid[5, 0] = False
    _, training = make_training_set(valid=valid)
    assert "event-005" not in set(training.windows["event_id"])


def test_it_comes_back_from_disk(make_training_set):
    maps, training = make_training_set()
    back = TrainingSet.open(training.folder)
    pd.testing.assert_frame_equal(back.windows, training.windows)
    assert back.scaling == training.scaling
    assert back.settings == training.settings
    assert back.open_spectrograms().channels == maps.channels


def test_a_changed_spectrogram_set_is_noticed(make_training_set, make_coupled_maps):
    _, training = make_training_set()
    make_coupled_maps(seed=7)
    with pytest.raises(FormatError, match="has changed"):
        training.open_spectrograms()
    with pytest.raises(FormatError, match="another spectrogram set"):
        Processor({}, str(training.spectrograms), str(training.folder)).execute()


def test_a_missing_training_set_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"training_set\.json"):
        TrainingSet.open(tmp_path)


def test_windows_are_cut_from_the_right_place(make_training_set):
    maps, training = make_training_set()
    dataset = WindowDataset(training, "train")
    whole = maps.read()
    for index in (0, 7, len(dataset) - 1):
        witnesses, strain = dataset[index]
        row, start = dataset.windows.loc[index, ["row", "start"]]
        np.testing.assert_array_equal(strain.numpy(), whole.maps[row, :1, :, start : start + 64])
        np.testing.assert_array_equal(witnesses.numpy(), whole.maps[row, 1:, :, start : start + 64])
    assert dataset.event_ids[7] == dataset.windows.loc[7, "event_id"]


def test_witnesses_come_in_the_order_asked_for(make_training_set):
    _, training = make_training_set()
    there = WindowDataset(training, "train")[3][0]
    back = WindowDataset(training, "train", witnesses=("BYSTANDER", "GUIDE"))[3][0]
    assert torch.equal(back, there.flip(0))


def test_memory_stays_below_its_bound(make_training_set):
    _, training = make_training_set()
    one = 3 * 64 * 257 * 4
    dataset = WindowDataset(training, "train", cache_mib=2.5 * one / 2**20)
    reference = WindowDataset(training, "train", cache_mib=0)
    for index in [0, 20, 40, 0, 60, 20]:
        assert torch.equal(dataset[index][0], reference[index][0])
        assert dataset.cached_bytes <= 2.5 * one
        assert reference.cached_bytes == 0
    assert dataset.cached_bytes == 2 * one


def test_the_cache_does_not_travel_to_worker_processes(make_training_set):
    _, training = make_training_set()
    dataset = WindowDataset(training, "train")
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301  # as torch's loader does
    assert copy.cached_bytes == 0
    assert torch.equal(copy[0][0], dataset[0][0])


def visited(dataset, order, epoch=0):
    """Windows in order, with the number of reads from the shards and the most bytes cached at any time."""
    reads, most = [], 0
    read = dataset.spectrograms.read
    object.__setattr__(
        dataset.spectrograms, "read", lambda rows, channels: reads.append(rows[0]) or read(rows, channels)
    )
    for index in order(epoch):
        dataset[int(index)]
        most = max(most, dataset.cached_bytes)
    return reads, most


def test_a_set_ten_times_the_limit_is_read_once_within_the_limit(make_training_set):
    _, training = make_training_set(num_events=60, shard_size=5)
    whole = WindowDataset(training, "train", cache_mib=0).needed_bytes
    dataset = WindowDataset(training, "train", cache_mib=whole / 10 / 2**20)
    order = WindowOrder(dataset.places, block_bytes=dataset.limit)
    reads, most = visited(dataset, order)
    assert sorted(reads) == sorted(set(dataset.places.event.tolist()))
    assert whole / 20 < most <= dataset.limit <= whole / 10
    # the same in a plain random order: the cache thrashes
    dataset.forget()
    thrashing, _ = visited(WindowDataset(training, "train", cache_mib=whole / 10 / 2**20), WindowOrder(dataset.places))
    assert len(thrashing) > 1.5 * len(reads)


@pytest.mark.slow
def test_resident_memory_of_a_process_stays_bounded(make_training_set):
    _, training = make_training_set(num_events=500, shard_size=20)
    code = """
import sys
from torch.utils.data import DataLoader
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.window_dataset import BatchOrder, WindowDataset
from glitchflow_plugin.data.window_order import WindowOrder

def resident():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))

dataset = WindowDataset(TrainingSet.open(sys.argv[1]), "train", cache_mib=float(sys.argv[2]))
batches = BatchOrder(WindowOrder(dataset.places, block_bytes=dataset.limit), 8)
dataset[0]
before = most = resident()
for _ in DataLoader(dataset, batch_sampler=batches):
    most = max(most, resident())
print(dataset.needed_bytes / 2**20, most - before)
"""
    growth = {}
    for limit in (5, 500):
        command = [sys.executable, "-c", code, str(training.folder), str(limit)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        needed, growth[limit] = map(float, answer.stdout.split())
    assert needed > 10 * 5
    # the rest are HDF5's own buffers, the batch and what the allocator keeps
    assert growth[5] < 5 + 20
    assert growth[500] > 0.9 * needed


def test_workers_share_the_limit(make_training_set, monkeypatch):
    _, training = make_training_set(num_times=128)
    one = 3 * 64 * 128 * 4
    dataset = WindowDataset(training, "train", cache_mib=4 * one / 2**20)
    worker = type("Worker", (), {"num_workers": 2})()
    monkeypatch.setattr("glitchflow_plugin.data.window_dataset.get_worker_info", lambda: worker)
    for index in range(len(dataset)):
        dataset[index]
    assert dataset.cached_bytes == 2 * one


def test_training_and_validation_share_the_cache(make_training_set):
    _, training = make_training_set(num_times=128)
    train, validation = WindowDataset(training, "train"), WindowDataset(training, "validation")
    needed, one = train.needed_bytes + validation.needed_bytes, train.places.event_bytes
    share_cache(3 * needed, train, validation)
    assert train.limit + validation.limit == 3 * needed
    assert train.limit >= 2 * train.needed_bytes
    assert validation.limit >= 2 * validation.needed_bytes
    share_cache(6 * one, train, validation)
    assert (train.limit, validation.limit) == (5 * one, one)
    share_cache(0, train, validation)
    assert (train.limit, validation.limit) == (0, 0)


def test_places_name_the_shard_of_each_event(make_training_set):
    maps, training = make_training_set(shard_size=7)
    dataset = WindowDataset(training, "train")
    places = dataset.places
    for number in (0, 20, len(dataset) - 1):
        holder = maps.manifest.shards[places.shard[number]]
        assert dataset.event_ids[number] in holder.event_ids
    assert places.event_bytes == maps.read([0]).maps.nbytes
    assert (places.glitch == dataset.windows["glitch"]).all()


def test_any_number_of_processes_sees_the_same_global_batches():
    order = lambda epoch: np.random.default_rng(epoch).permutation(45)  # noqa: E731
    alone = list(BatchOrder(order, 8))
    two = [list(BatchOrder(order, 4, rank=rank, world_size=2)) for rank in range(2)]
    assert len(alone) == len(two[0]) == len(two[1]) == 6
    for together, first, second in zip(alone, *two, strict=True):
        assert sorted(together) == sorted(first + second)
    # of the last five windows the first process has three, the second two
    shares = [BatchOrder(order, 4, rank=rank, world_size=2).shares()[-1] for rank in range(2)]
    assert shares == [(3, 5), (2, 5)]


def test_a_process_without_a_window_of_the_last_batch_still_takes_part():
    parts = [BatchOrder(lambda _: np.arange(9), 2, rank=rank, world_size=4) for rank in range(4)]
    assert [len(list(part)) for part in parts] == [2, 2, 2, 2]
    assert [part.shares()[-1] for part in parts] == [(1, 1), (0, 1), (0, 1), (0, 1)]
    assert {tuple(list(part)[-1]) for part in parts} == {(8,)}


def test_an_epoch_can_be_begun_in_its_middle():
    batches = BatchOrder(lambda epoch: np.arange(20) + epoch, 4)
    whole = list(batches)
    batches.set_epoch(0, start=8)
    assert list(batches) == whole[2:]
    batches.set_epoch(1)
    assert next(iter(batches)) == [1, 2, 3, 4]


def test_any_number_of_processes_leaves_out_the_same_channels():
    def by_place(batch_size, world_size, epoch=0, start=0):
        found = {}
        for rank in range(world_size):
            batches = BatchOrder(lambda _: np.arange(21), batch_size, rank=rank, world_size=world_size)
            batches.set_epoch(epoch, start)
            drawn = list(batches.left_out(40, 0.3, seed=5))
            for windows, (counting, _), missing in zip(batches, batches.shares(), drawn, strict=True):
                assert missing.shape == (len(windows), 40)
                found |= dict(zip(windows[:counting], map(tuple, missing[:counting]), strict=True))
        return found

    alone = by_place(8, 1)
    assert alone == by_place(4, 2) == by_place(2, 4) == by_place(3, 1)
    assert by_place(8, 1, start=8) == {place: alone[place] for place in range(8, 21)}
    assert alone != by_place(8, 1, epoch=1)
    assert len(set(alone.values())) == 21
    assert np.mean(list(alone.values())) == pytest.approx(0.3, abs=0.07)  # 840 draws: 0.016


def test_figures_see_every_window_once():
    assert list(Share(5)) == [0, 1, 2, 3, 4]
    exact = [list(Share(11, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(index for part in exact for index in part) == list(range(11))


def test_wrong_settings_are_refused(make_coupled_maps):
    with pytest.raises(ConfigurationError, match=r"'treshold'\. Nearest: threshold"):
        Processor({"treshold": 3}, "", "")
    with pytest.raises(ConfigurationError, match="background_ratio"):
        WindowSettings(background_ratio=-1)
    maps = make_coupled_maps(valid=np.column_stack([np.zeros(24), np.ones((24, 2))]).astype(bool))
    split = Splitter({"block_length": 100.0}, str(maps.folder), str(maps.folder.parent / "t")).execute(maps)
    with pytest.raises(NoEventsError, match="STRAIN"):
        index_windows(maps, split, (0,), WindowSettings())


def test_maps_of_another_height_are_refused(make_coupled_maps, tmp_path):
    maps = make_coupled_maps(size=32)
    folder = str(tmp_path / "t")
    split = Splitter({"block_length": 100.0}, str(maps.folder), folder).execute(maps)
    with pytest.raises(FormatError, match="64 rows"):
        Processor({}, str(maps.folder), folder).execute(split)


def test_events_without_a_window_say_why(make_training_set):
    _, whole = make_training_set()
    assert whole.unused_events() == []
    maps, thinned = make_training_set({"background_ratio": 0.0})
    unused = thinned.unused_events()
    assert set(unused) == {"no background window drawn"}
    assert len(set(thinned.windows["event_id"])) + len(unused) == len(maps)
