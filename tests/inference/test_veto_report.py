import numpy as np
import pytest

from glitchflow_plugin.inference.figures import veto_figures
from glitchflow_plugin.inference.run import InferenceSettings, run_inference
from glitchflow_plugin.inference.veto_report import veto_report, with_false_alarms
from glitchflow_plugin.signal.false_alarm import calibrate_false_alarm

SETTINGS = InferenceSettings(batch_events=8, replicates=50, stride=64)


@pytest.fixture
def run(make_bundle, make_set, tmp_path):
    """Half of 16 events hold a glitch that the first witness sees; with what a model would carry of such events."""
    spectrograms = make_set(16)
    result = run_inference(make_bundle(), spectrograms, tmp_path / "out", SETTINGS, progress=False)
    quiet = ~result.events["glitch"].to_numpy(dtype=bool)
    clean = np.repeat(quiet[:, None], len(spectrograms.times), axis=1) & result.judged.any(axis=0)
    rivals = {
        "channel": "V1:SEIS",
        "padding": 0.0,
        "rounds": [{"channel": "V1:SEIS", "threshold": 50.0, "significance": 9.0}],
        "window": 0.1,
    }
    false_alarm = calibrate_false_alarm(result.ranks["model"], clean, np.arange(16)).to_dict()
    return result, spectrograms, {"false_alarm": false_alarm, "padding": 0.0, "rivals": rivals}


def test_a_model_that_follows_its_witness_vetoes_as_the_witness_does(run):
    result, spectrograms, notes = run
    report = veto_report(result, spectrograms, notes, SETTINGS)
    assert set(report.worths) == {"model", "linear", "best channel", "rounds", "random"}
    assert report.num_glitches == 8
    assert report.metrics(16.0)["veto_glitches"].value == 8
    assert report.as_written["efficiency"].value == 1.0
    assert report.as_written["use_percentage"].value == 100.0
    # padded by 0.05 s on both sides: glitches of 8 columns of 23 ms in half of the events of 6 s
    assert report.as_written["deadtime"].value == pytest.approx((8 * 6 / 257 + 0.1) / 2 / 6, rel=0.1)
    # 0.9 of what the witness shows ranks as it does
    assert report.leads["best channel"].value == pytest.approx(1.0)
    metrics = report.metrics(16.0)
    half = metrics["veto_efficiency_over_deadtime_at_half"]
    assert half.value > 10 * half.baseline["random"]
    assert metrics["veto_efficiency_snr2_16"].value == 1.0
    table = report.table()
    assert set(table["veto"]) == set(report.worths)
    assert (table["efficiency_low"].dropna() <= table["efficiency"][table["efficiency_low"].notna()]).all()
    # calibrated on the very time that is asked: what is claimed is at least what is there
    assert (report.reliability["observed"] <= report.reliability["claimed"]).all()
    assert report.warnings() == []


def test_segments_say_how_likely_they_are_false(run):
    result, _, notes = run
    found = with_false_alarms(result.segments, notes)["false_alarm_probability"]
    assert (found < 0.01).all()
    assert with_false_alarms(result.segments, None)["false_alarm_probability"].isna().all()


def test_a_model_without_notes_is_compared_with_what_needs_none(run):
    result, spectrograms, _ = run
    report = veto_report(result, spectrograms, None, SETTINGS)
    assert set(report.worths) == {"model", "linear", "random"}
    assert report.reliability.empty
    assert report.of_ranks.empty
    assert "no calibration" in report.warnings()[0]
    assert set(veto_figures(report)) == {"veto_efficiency"}


def test_pictures_show_each_veto_and_the_reliability(run):
    result, spectrograms, notes = run
    figures = veto_figures(veto_report(result, spectrograms, notes, SETTINGS))
    assert set(figures) == {"veto_efficiency", "veto_reliability"}
    names = [text.get_text() for text in figures["veto_efficiency"].legends[0].get_texts()]
    assert {"model", "best channel", "channels in rounds", "vetoes as written"} <= set(names)


def test_without_a_glitch_there_is_nothing_to_find(make_bundle, make_set, tmp_path):
    spectrograms = make_set(4)
    settings = InferenceSettings(threshold=1e4, replicates=0)
    result = run_inference(make_bundle(), spectrograms, tmp_path / "out", settings, progress=False)
    assert veto_report(result, spectrograms, None, settings) is None
