import json
import re

import pandas as pd
import pytest
from tests.components.test_stream import TIMES, register, turning, write_files  # noqa: F401  # one is a fixture
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


def test_a_witness_that_turns_round_is_stopped_as_in_streaming(tmp_path, turning, caplog):  # noqa: F811
    stream = {**STREAM, "block_length": 32, "stride": 1.0}
    made = harm(tmp_path, turning, {**SETTINGS, "near": 3.0}, stream=stream)
    summary = json.loads((made / "summary.json").read_text())
    assert summary["inputs"]["witnesses_stopped"] == 1
    (said,) = [one for one in summary["warnings"] if "was stopped" in one]
    since = float(re.search(r"from GPS ([\d.]+) on", said)[1])
    assert data.GPS + TIMES[8] < since < data.GPS + TIMES[14]
    assert "blocks are made without" in caplog.text
    first, *_, last = [json.loads(path.read_text()) for path in sorted((made / "records").glob("*.json"))]
    assert first["found"]["gains"]
    assert last["found"]["gains"]  # what was seen where nothing is stopped is kept
    assert (first["fingerprint"] == first["seen"], last["fingerprint"] == last["seen"]) == (True, False)
    # a block of 32 s has no eight windows without a glitch
    assert sum("too few windows without a glitch to tell" in one for one in summary["warnings"]) == 3
    # nothing of the strain is foretold any more, so its signals stay as they are
    table = pd.read_parquet(made / "injections.parquet")
    after = table[table["gps"] > since + 4]
    assert len(after) > 2
    assert (after["snr_after"] == after["snr_before"]).all()
    before = {path: path.stat().st_mtime_ns for path in (made / "records").glob("*.json")}
    assert harm(tmp_path, turning, {**SETTINGS, "near": 3.0}, stream=stream) == made
    assert {path: path.stat().st_mtime_ns for path in before} == before
