"""The step Find, and its triggers as those of a data set."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from glitchflow_plugin.components.data_processor import DataProcessor
from glitchflow_plugin.components.find_triggers import FindTriggers
from glitchflow_plugin.errors import ConfigurationError

RATE, START, SECONDS = 512, 1_400_000_000, 96
GLITCHES = (20.0, 40.0, 70.0)
SETTINGS = {"q": [4.0, 32.0], "band": [20.0, 200.0], "margin": 2, "block_length": 32}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draw = tmp_path_factory.mktemp("find"), np.random.default_rng(4)
    times = np.arange(SECONDS * RATE) / RATE
    with h5py.File(folder / f"X-SIM-{START}-{SECONDS}.hdf5", "w") as file:
        for name in ("X1:STRAIN", "X1:AUX"):
            series = draw.standard_normal(len(times))
            for at in GLITCHES:
                wave = np.exp(-((30.0 * (times - at)) ** 2)) * np.sin(2 * np.pi * 60.0 * (times - at))
                series += 25.0 * wave / np.sqrt(np.sum(wave**2))
            data = file.create_dataset(name, data=series)
            data.attrs.update({"x0": float(START), "dx": 1 / RATE, "xunit": "s", "unit": "", "name": name})
    return folder


def test_what_is_found_is_told_drawn_and_feeds_a_data_set(frames: Path, tmp_path: Path) -> None:
    datasets = [{"path": str(frames), "format": "hdf5"}]
    names = ["X1:STRAIN", "X1:AUX"]
    step = FindTriggers(datasets, str(tmp_path / "found"), channels=names, settings=SETTINGS, drawn=1, device="cpu")
    folder = step.execute()
    told = json.loads((folder / "summary.json").read_text())
    assert told["metrics"]["channels_searched"]["value"] == 2
    assert [one.name for one in (folder / "images").iterdir()] in (["01-X1_AUX.png"], ["01-X1_STRAIN.png"])
    processing = {"minf": 20.0, "maxf": 200.0, "sr": 512, "len": 4.0}
    triggers = {"path": str(folder), "select": {"channel": ["X1:STRAIN"], "snr": [12.0, None]}}
    target = {"target": "X1:STRAIN", "ch_list": ["X1:AUX"], "processing": processing, "triggers": triggers}
    events = DataProcessor([{**datasets[0], **target}], str(tmp_path / "events")).execute()
    assert sorted(events.gps_event - START) == pytest.approx(GLITCHES, abs=0.02)


def test_a_number_of_pictures_is_a_number(tmp_path: Path) -> None:
    for wrong in (-1, True, "all"):
        with pytest.raises(ConfigurationError, match="drawn"):
            FindTriggers([{"path": str(tmp_path)}], str(tmp_path), channels=["X"], drawn=wrong)  # type: ignore[arg-type]
