import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet, WindowSettings, index_windows
from glitchflow_plugin.data.window_dataset import WindowDataset, WindowSampler
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


def test_order_without_shuffling_is_that_of_the_index():
    assert list(WindowSampler(5)) == [0, 1, 2, 3, 4]


def test_shuffling_is_decided_by_seed_and_epoch():
    sampler, again = WindowSampler(50, shuffle=True, seed=3), WindowSampler(50, shuffle=True, seed=3)
    assert list(sampler) == list(again)
    assert sorted(sampler) == list(range(50))
    again.set_epoch(1)
    assert list(sampler) != list(again)


def test_processes_share_the_windows():
    even = [list(WindowSampler(11, shuffle=True, rank=rank, world_size=3, even=True)) for rank in range(3)]
    assert {len(part) for part in even} == {4}
    assert set().union(*even) == set(range(11))
    exact = [list(WindowSampler(11, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(index for part in exact for index in part) == list(range(11))


def test_a_quoted_false_is_refused():
    with pytest.raises(ConfigurationError, match="without quotes"):
        WindowSampler(3, shuffle="False")


def test_wrong_settings_are_refused(make_coupled_maps):
    with pytest.raises(TypeError, match="treshold"):
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
