"""What the Processor writes is checked on opening: by checksums and, where a set is older than these, by sense."""

import json

import pandas as pd
import pytest

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.files import read_json, write_json
from glitchflow_plugin.data.manifest import MANIFEST_NAME, ROWS_NAME
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import FormatError, GlitchflowError, LeakageError


@pytest.fixture
def training(make_coupled_maps, tmp_path):
    maps = make_coupled_maps()
    split = Splitter({"block_length": 100.0}, str(maps.folder), str(tmp_path / "training")).execute(maps)
    return Processor({}, str(maps.folder), str(tmp_path / "training")).execute(split)


def age(folder):
    """Make the files what an earlier version wrote: without checksums."""
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        for name in ("checksum", "files", "rows_sha256"):
            content.pop(name, None)
        path.write_text(json.dumps(content))
    (folder / ROWS_NAME).unlink(missing_ok=True)


def test_a_set_of_an_earlier_version_is_opened(training):
    age(training.folder)
    maps = training.spectrograms
    times = SpectrogramSet.open(maps).gps_event
    age(maps)
    again = TrainingSet.open(training.folder)
    pd.testing.assert_frame_equal(again.windows, training.windows)
    assert again.scaling == training.scaling
    assert (again.open_spectrograms().gps_event == times).all()


@pytest.mark.parametrize(
    "scaling",
    [
        {},
        {"transform": "sqrt", "clamp": -1, "scale": {"STRAIN": 1.0}},
        {"transform": "sqrt", "clamp": 1e4, "scale": {}},
        {"transform": "sqrt", "clamp": 1e4, "scale": {"STRAIN": -1.0}},
        {"transform": "sqrt", "clamp": 1e4, "scale": {"STRAIN": "1"}},
        {"transform": "cube", "clamp": 1e4, "scale": {"STRAIN": 1.0}},
        {"transform": "sqrt", "clamp": 1e4, "scale": {"STRAIN": 1.0}, "more": 1},
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_a_scaling_that_cannot_scale_is_refused_on_opening(training, scaling, old):
    if old:
        age(training.folder)
    write_json(training.folder / "scaling.json", scaling)
    with pytest.raises(FormatError, match=r"scaling\.json.*[Rr]un the Processor again"):
        TrainingSet.open(training.folder)


def test_a_scaling_of_other_channels_is_refused_when_it_meets_the_maps(training):
    age(training.folder)
    scaling = read_json(training.folder / "scaling.json")
    scaling["scale"].pop("GUIDE")
    write_json(training.folder / "scaling.json", scaling)
    with pytest.raises(FormatError, match="GUIDE"):
        TrainingSet.open(training.folder).open_spectrograms()


def edit_windows(training, change):
    windows = pd.read_parquet(training.folder / "windows.parquet")
    change(windows).to_parquet(training.folder / "windows.parquet", index=False)


CHANGES = {
    "row": lambda windows: windows.assign(row=windows["row"] + 1000),
    "other event": lambda windows: windows.assign(row=windows["row"].to_numpy()[::-1].copy()),
    "start": lambda windows: windows.assign(start=windows["start"] + 1000),
    "negative": lambda windows: windows.assign(row=-1),
    "type": lambda windows: windows.assign(start=windows["start"].astype("float32")),
    "peak": lambda windows: windows.assign(peak=windows["peak"] * float("nan")),
    "glitch": lambda windows: windows.assign(glitch=~windows["glitch"]),
    "part": lambda windows: windows.assign(part="train"),
    "doubled": lambda windows: pd.concat([windows, windows]),
    "shortened": lambda windows: windows.iloc[:-1],
    "column": lambda windows: windows.drop(columns="peak"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_windows_are_refused(training, change):
    edit_windows(training, change)
    with pytest.raises(FormatError, match=r"windows\.parquet does not match its checksum"):
        TrainingSet.open(training.folder)
    age(training.folder)
    with pytest.raises((FormatError, LeakageError), match=r"Run .*again"):
        TrainingSet.open(training.folder).open_spectrograms()


@pytest.mark.parametrize("name", ["split.json", "scaling.json", "windows.parquet", "reference.json"])
def test_a_file_of_another_set_is_refused(training, make_coupled_maps, tmp_path, name):
    maps = make_coupled_maps(name="others", seed=1)
    split = Splitter({"block_length": 100.0, "seed": 1}, str(maps.folder), str(tmp_path / "two")).execute(maps)
    Processor({}, str(maps.folder), str(tmp_path / "two")).execute(split)
    (training.folder / name).write_bytes((tmp_path / "two" / name).read_bytes())
    with pytest.raises(FormatError, match=name):
        TrainingSet.open(training.folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["shards"][0]["event_ids"].pop(),
        lambda manifest: manifest["shards"][0]["event_ids"].append(manifest["shards"][1]["event_ids"][0]),
        lambda manifest: manifest["shards"][0].update(file="../../evil.h5"),
        lambda manifest: manifest["shards"][0].update(sha256="0" * 63),
        lambda manifest: manifest["shards"].append(manifest["shards"][0]),
        lambda manifest: manifest["shards"].clear(),
        lambda manifest: manifest["axes"].update(times=[1.0, 1.0]),
        lambda manifest: manifest["axes"].update(frequencies=3),
        lambda manifest: manifest["rejected"].update({manifest["shards"][0]["event_ids"][0]: "twice"}),
        lambda manifest: manifest.update(channels=["STRAIN"]),
    ],
)
def test_a_manifest_that_contradicts_itself_or_its_shards_is_refused(training, change):
    age(training.spectrograms)
    manifest = read_json(training.spectrograms / MANIFEST_NAME)
    change(manifest)
    write_json(training.spectrograms / MANIFEST_NAME, manifest)
    with pytest.raises(GlitchflowError, match="again"):
        SpectrogramSet.open(training.spectrograms).gps_start  # noqa: B018  # of earlier sets the times are in the shards
    with pytest.raises(GlitchflowError, match="again"):
        SpectrogramSet.open(training.spectrograms).read([0])


def test_with_fewer_training_events_all_else_stays(training):
    every = training.split.train.event_ids
    wanted = every[1::2]
    fewer = training.with_training_events([*wanted, "of another set"])
    assert fewer.split.train.event_ids == wanted
    assert set(fewer.part("train")["event_id"]) == set(training.part("train")["event_id"]) & set(wanted)
    rows = [every.index(name) for name in wanted]
    assert (fewer.split.train.gps_event == training.split.train.gps_event[rows]).all()
    for name in ("validation", "gate", "test"):
        assert fewer.split.part(name) is training.split.part(name)
        pd.testing.assert_frame_equal(fewer.part(name), training.part(name))
    assert fewer.scaling == training.scaling
    # nothing is written
    assert TrainingSet.open(training.folder).split.train.event_ids == every
