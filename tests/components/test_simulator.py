import json

import pytest

from glitchflow_plugin.components.simulator import Simulator
from glitchflow_plugin.errors import ConfigurationError

DETECTOR = {"duration": 8.0, "mergers": {"fraction": 0.0}, "families": {"blip": {}}}
SETS = {
    "training": {"num_events": 2, "seed": 1, "gps_start": 1.4e9},
    "inference": {"num_events": 1, "seed": 2, "gps_start": 1.5e9},
}


def test_every_set_gets_its_folder_and_the_summary_tells(tmp_path, capsys):
    step = Simulator(str(tmp_path), SETS, DETECTOR, workers=1, progress=False)
    made = step.execute()
    assert {name: len(one) for name, one in made.items()} == {"training": 2, "inference": 1}
    assert made["inference"].event_ids == ("V1-1500000004",)
    assert made["training"].folder == tmp_path / "training"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["pipeline"] == "simulate_pipeline/Simulator"
    assert summary["events"]["kept"] == 3
    assert summary["outputs"]["training truth"] == str(tmp_path / "training" / "truth.h5")
    assert "V1:PSL-POWER_MON" in summary["outputs"]["training true witnesses"]
    assert "3 read" in capsys.readouterr().out


def test_the_step_keeps_its_parameters(tmp_path):
    step = Simulator(str(tmp_path), SETS, DETECTOR, workers=1, progress=False)
    assert step.parameters["sets"] == SETS
    assert step.parameters["detector"] == DETECTOR


def test_sets_override_what_they_share(tmp_path):
    sets = {"a": {"noise": "aligo"}, "b": {"gps_start": 1.6e9}}
    step = Simulator(str(tmp_path), sets, DETECTOR)
    assert (step.sets["a"].noise, step.sets["b"].noise) == ("aligo", "advirgo")
    assert step.sets["b"].duration == 8.0


def test_parts_are_merged_key_by_key(tmp_path):
    detector = {**DETECTOR, "bank": {"path": "bank.h5", "min_snr": 7.0}}
    sets = {
        "a": {"bank": {"indices": [0, 1]}},
        "b": {"bank": {"indices": [2]}, "gps_start": 1.6e9},
        "c": {"bank": None},
    }
    sets["c"]["gps_start"] = 1.7e9
    made = Simulator(str(tmp_path), sets, detector).sets
    assert (made["a"].bank.indices, made["b"].bank.indices, made["c"].bank) == ((0, 1), (2,), None)
    assert made["b"].bank.path == "bank.h5"
    assert made["b"].bank.min_snr == 7.0


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ({}, "at least one set"),
        ({"training": {"num_event": 2}}, r"sets\.training.*num_events"),
        ({"a": {"num_events": 10}, "b": {"num_events": 2, "gps_start": 1.4e9 + 100.0}}, "overlap"),
    ],
)
def test_wrong_sets_are_refused_before_anything_runs(tmp_path, sets, told):
    with pytest.raises(ConfigurationError, match=told):
        Simulator(str(tmp_path), sets, DETECTOR)


def test_data_that_run_on_lie_beside_the_sets_and_are_made_once(tmp_path):
    streams = {"stream": {"num_events": 4, "spacing": 20.0, "gps_start": 1.6e9, "no_glitch_fraction": 0.0}}
    step = Simulator(str(tmp_path), {"training": {"num_events": 1}}, DETECTOR, streams=streams, workers=1)
    step.execute()
    (tmp_path / "summary.json").unlink()
    files = sorted((tmp_path / "stream" / "frames").iterdir())
    assert [path.name for path in files] == ["V-V1_SIM-1600000000-64.h5", "V-V1_SIM-1600000064-16.h5"]
    before = [path.stat().st_mtime_ns for path in files]
    step.execute()
    assert [path.stat().st_mtime_ns for path in files] == before
    outputs = json.loads((tmp_path / "summary.json").read_text())["outputs"]
    assert outputs["stream glitches"] == "blip 4"
    files[1].unlink()
    Simulator(str(tmp_path), {"training": {"num_events": 1}}, DETECTOR, streams=streams, workers=1).execute()
    assert files[1].exists()
    shorter = {"stream": {**streams["stream"], "num_events": 3}}
    Simulator(str(tmp_path), {"training": {"num_events": 1}}, DETECTOR, streams=shorter, workers=1).execute()
    assert [path.name for path in sorted((tmp_path / "stream" / "frames").iterdir())] == ["V-V1_SIM-1600000000-60.h5"]


def test_files_of_elsewhere_are_not_replaced_by_a_stream(tmp_path):
    own = tmp_path / "stream" / "frames" / "V-V1_DATA-1600000000-64.h5"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"measured")
    step = Simulator(str(tmp_path), {"training": {"num_events": 1}}, DETECTOR, streams={"stream": {"gps_start": 1.6e9}})
    with pytest.raises(ConfigurationError, match="1 files that were not simulated"):
        step.execute()
    assert own.read_bytes() == b"measured"


@pytest.mark.parametrize(
    ("streams", "told"),
    [
        ({"stream": {"num_event": 2}}, r"simulate\.streams\.stream.*num_events"),
        ({"training": {"gps_start": 1.6e9}}, r"sets and simulate\.streams both have \['training'\]"),
        ({"stream": {"gps_start": 1.4e9 + 60.0}}, "overlap"),
    ],
)
def test_wrong_streams_are_refused_before_anything_runs(tmp_path, streams, told):
    with pytest.raises(ConfigurationError, match=told):
        Simulator(str(tmp_path), SETS, DETECTOR, streams=streams)
