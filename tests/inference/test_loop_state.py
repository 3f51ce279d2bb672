"""What the closed loop knows stays between runs, and nothing that it has seen counts twice."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tests.inference._reference import measure_reference
from tests.inference.test_closed_loop import TRANSFORM, WITNESSES, coupled_series

from glitchflow_plugin.components.make_inference import MakeInference
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.inference import report as inference_report
from glitchflow_plugin.inference.closed_loop import NOTE, close_loop
from glitchflow_plugin.inference.loop_state import LoopFile
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.models.wiener import WienerFilter
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.signal.gain_watch import WatchSettings

STARTS = 1_200_000_000.5 + 100.0 * np.arange(24)
SERIES = coupled_series(24, 3, reversed_from=4)


@pytest.fixture(scope="module")
def reference():
    network = WienerFilter(2, filter_size=3)
    with torch.no_grad():
        network.filters[:, 1] = 0.4
    twin, before = WaveformTwin(network).eval(), torch.from_numpy(coupled_series(30, 1))
    return twin, measure_reference(twin, WITNESSES, [(before[:, 1:], before[:, :1])], np.arange(30), 1024.0)


@pytest.fixture
def make_case(make_event_set, reference, tmp_path):
    def make(rows):
        recipe = {"sample_rate": 1024.0, "duration": 1.0}
        name = f"events-{rows.start}-{rows.stop}"
        events = make_event_set(SERIES[rows], recipe=recipe, name=name, starts=STARTS[rows])
        maps = make_spectrograms(events, WITNESSES, TRANSFORM, tmp_path / f"maps-{name}", device="cpu")
        twin, gains = reference
        axes = {"frequencies": tuple(maps.frequencies), "times": tuple(maps.times)}
        notes = {NOTE: gains.to_dict(), "registered": {"name": "twin", "version": 3}}
        bundle = ModelBundle(
            twin=twin, target="STRAIN", witnesses=WITNESSES, recipe=maps.recipe, window_size=64, **axes,
            model={"name": "wiener"}, notes=notes,
        )  # fmt: skip
        return bundle, maps, events

    return make


def run(case, folder):
    bundle, maps, events = case
    file = LoopFile.of(bundle, folder)
    loop = close_loop(bundle, maps, events, WatchSettings(), state=file.before(maps))
    file.keep(loop, maps)
    return loop


def test_runs_that_follow_each_other_find_what_one_run_finds(make_case, tmp_path):
    whole = run(make_case(slice(0, 24)), tmp_path / "whole")
    parts = [run(make_case(slice(*rows)), tmp_path / "parts") for rows in ((0, 6), (6, 7), (7, 14), (14, 24))]
    assert [code for part in parts for code in part.codes()] == whole.codes()
    assert whole.codes()[-1] == "WITNESS_1:gain_low"
    np.testing.assert_allclose(np.concatenate([part.watch.evidence for part in parts]), whole.watch.evidence, atol=1e-9)
    # none of the short runs alone would have found it but the last one
    fresh = [run(make_case(slice(*rows)), tmp_path / f"alone-{rows[0]}") for rows in ((6, 7), (7, 10), (10, 13))]
    assert not any(loop.stopped for loop in fresh)


def test_a_repeated_run_begins_where_it_began_and_overlapping_events_count_once(make_case, tmp_path):
    first = run(make_case(slice(0, 10)), tmp_path)
    run(make_case(slice(10, 14)), tmp_path)
    again = run(make_case(slice(0, 10)), tmp_path)
    assert np.array_equal(again.watch.evidence, first.watch.evidence)
    overlapping = run(make_case(slice(8, 16)), tmp_path)
    assert not overlapping.watch.counted[:2].any()  # seen by the run that it goes on from
    assert overlapping.watch.counted[2:, 0].all()


def test_a_file_that_is_damaged_or_of_another_model_is_told(make_case, tmp_path, caplog):
    case = make_case(slice(0, 12))
    bundle = case[0]
    run(case, tmp_path)
    file = LoopFile.of(bundle, tmp_path)
    assert file.path.name == "twin-v3.json"
    later = make_case(slice(12, 14))[1]
    assert file.before(later).reason == ("gain_low", "")
    other = replace(bundle, notes={**bundle.notes, NOTE: {**bundle.notes[NOTE], "parts": ["A", "B"]}})
    assert LoopFile.of(other, tmp_path).before(later) is None
    assert "another model" in caplog.text
    content = json.loads(file.path.read_text())
    content["runs"][0]["state"]["reason"] = ["gain_low"]
    for damage in (json.dumps(content), file.path.read_text()[:-20], "[]"):
        file.path.write_text(damage)
        with pytest.raises(FormatError, match=r"twin-v3\.json(.|\n)*begins anew"):
            file.before(later)
    assert LoopFile.of(bundle, None) is None
    assert LoopFile.of(replace(bundle, notes={NOTE: bundle.notes[NOTE]}), tmp_path) is None
    assert LoopFile.of(replace(bundle, notes={"registered": bundle.notes["registered"]}), tmp_path) is None


def test_make_inference_leaves_it_out_until_the_file_is_removed(make_case, tmp_path, monkeypatch):
    monkeypatch.setattr(inference_report, "save_figures", lambda *_, **__: [])

    def analyse(rows):
        bundle, maps, events = make_case(rows)
        step = MakeInference(
            {"replicates": 0, "examples": 0, "products": []},
            str(tmp_path / "inference"),
            loop_state=str(tmp_path / "inference" / "closed_loop"),
            events=str(events.folder),
            device="cpu",
        )
        summary = step.execute(bundle, maps)
        table = pd.read_csv(step.place / "events.csv", keep_default_na=False)
        return table["witnesses_stopped"].tolist(), summary.warnings

    codes, warnings = analyse(slice(0, 20))
    assert codes[0] == ""
    assert codes[-1] == "WITNESS_1:gain_low"
    state = tmp_path / "inference" / "closed_loop" / "twin-v3.json"
    assert any(f"remove {state}" in each for each in warnings)
    later, warnings = analyse(slice(20, 22))
    assert later == ["WITNESS_1:gain_low"] * 2
    assert any("WITNESS_1 was stopped after GPS" in each for each in warnings)
    state.unlink()
    fresh, _ = analyse(slice(20, 22))
    assert fresh == ["", ""]
