import json

import pandas as pd
import pytest
from tests.components.test_stream import register, write_files
from tests.streaming import _streams as data

from glitchflow_plugin.components.harm import Harm
from glitchflow_plugin.errors import ConfigurationError, NoEventsError

SETTINGS = {"kinds": ["sine_gaussian"], "passes": 1, "replicates": 100}
STREAM = {"block_length": 60, "stride": 2.0, "spectrum": {"length": 48.0, "stride": 16.0}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("frames"))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    return register(monkeypatch)


def harm(folder, files, settings=SETTINGS, **changed):
    arguments = {
        "segments": [[data.GPS, data.GPS + 96]],
        "stream": STREAM,
        "settings": settings,
        "engine": {"workers": 1},
        **changed,
    }
    model = {"name": "twin", "version": "champion"}
    return Harm(model, "sqlite:///unused.db", str(folder), [{"path": str(files)}], **arguments).execute()


def test_signals_are_judged_told_and_not_judged_again(tmp_path, files, capsys):
    made = harm(tmp_path, files)
    assert made.name == f"{data.GPS:.0f}-{data.GPS + 96:.0f}-v7"
    said = capsys.readouterr().out
    assert "snr_change_quiet" in said
    summary = json.loads((made / "summary.json").read_text())
    metrics = summary["metrics"]
    assert metrics["snr_change_quiet"]["value"] < 0.01
    assert metrics["lost_quiet"]["value"] == 0
    assert set(metrics["snr_change_near"]["baseline"]) == {"gates", "elsewhere"}
    assert summary["inputs"]["glitches"] == 3
    table = pd.read_parquet(made / "injections.parquet")
    own = table[table["witness"] == ""]
    assert metrics["injections_quiet"]["value"] == (own["place"] == "quiet").sum() > 5
    pd.testing.assert_frame_equal(pd.read_csv(made / "injections.csv", keep_default_na=False), table, check_dtype=False)
    assert sorted(path.name for path in (made / "images").glob("*.png")) == ["distance.png", "recovered.png"]
    records = {path: path.stat().st_mtime_ns for path in (made / "records").glob("*.json")}
    assert len(records) == 2
    next(iter(records)).unlink()
    assert harm(tmp_path, files) == made
    after = {path: path.stat().st_mtime_ns for path in records}
    assert sum(after[path] != records[path] for path in records) == 1
    pd.testing.assert_frame_equal(pd.read_parquet(made / "injections.parquet"), table)
    with pytest.raises(ConfigurationError, match=r"holds another result.*harm\.result"):
        harm(tmp_path, files, SETTINGS | {"seed": 1}, result=made.name)


def test_what_no_signal_can_be_tried_in_is_told(tmp_path, files, registered):
    with pytest.raises(NoEventsError, match=r"(?s)at most 10 s.*stream\.segments.*harm\.settings\.kinds"):
        harm(tmp_path, files, segments=[[data.GPS, data.GPS + 10]])
    with pytest.raises(ConfigurationError, match=r"harm\.settings\.band must lie within.*10 to 200 Hz"):
        harm(tmp_path, files, SETTINGS | {"band": [100.0, 300.0]})
    with pytest.raises(ConfigurationError, match=r"harm\.settings\.kinds"):
        harm(tmp_path, files, SETTINGS | {"kinds": ["supernova"]})
    registered["bundle"] = data.bundle(model={"name": "unet"})
    with pytest.raises(ConfigurationError, match="has no phase"):
        harm(tmp_path, files)
