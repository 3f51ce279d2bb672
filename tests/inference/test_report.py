import json

import numpy as np
import pytest

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.inference.report import (
    example_figures,
    read_example,
    run_warnings,
    score_figures,
    summary_details,
    summary_metrics,
    track_result,
)
from glitchflow_plugin.inference.run import InferenceSettings, run_inference
from glitchflow_plugin.tracking.tracker import MemoryTracker

SETTINGS = InferenceSettings(batch_events=4, replicates=50, examples=2)


@pytest.fixture
def finished(make_bundle, make_set, tmp_path):
    """A run in which the event of row 2 stays dirty, because its only witness is dead."""
    valid = np.ones((10, 4), bool)
    valid[2, 1] = False
    spectrograms = make_set(valid=valid)
    bundle = make_bundle()
    return run_inference(bundle, spectrograms, tmp_path / "out", SETTINGS, progress=False), spectrograms, bundle


def panels(figure):
    return [(axes.get_title(loc="left"), axes) for axes in figure.axes if axes.get_title(loc="left")]


def test_uncleaned_panels_show_the_uncleaned_event_and_its_own_maps(finished):
    result, spectrograms, bundle = finished
    figures = example_figures(result, spectrograms, bundle.target, SETTINGS)
    shown = panels(figures["uncleaned"])
    dirty = spectrograms.event_ids[2]
    assert len(shown) == 3  # one event, three panels
    assert shown[0][0].startswith(
        f"{dirty}, GPS {spectrograms.gps_start[2]:.3f} s, not vetoed, not cleaned, 1 witnesses"
    )
    measured = spectrograms.read([2]).maps[0, 0]
    for (title, axes), energy in zip(shown, (measured, 0 * measured, measured), strict=True):
        assert f"SNR² {energy.max():.0f}" in title
        drawn = np.asarray(axes.collections[0].get_array()).reshape(measured.shape)
        np.testing.assert_allclose(drawn, np.maximum(energy, 1), rtol=1e-5)


def test_each_kind_that_has_events_gets_a_figure(finished):
    result, spectrograms, bundle = finished
    figures = example_figures(result, spectrograms, bundle.target, SETTINGS)
    assert set(figures) == {"loudest", "median", "worst", "uncleaned", "missed"}  # there is no false alarm
    assert panels(figures["loudest"])[0][0].startswith(spectrograms.event_ids[8])


def test_maps_of_another_event_are_refused(finished):
    result, spectrograms, bundle = finished
    result.events["event_id"] = np.roll(result.events["event_id"].to_numpy(), 1)
    with pytest.raises(FormatError, match="in the table"):
        read_example(result, spectrograms, bundle.target, 0)


def test_summary_has_figures_bands_and_baselines(finished):
    result, _, _ = finished
    metrics = summary_metrics(result.scores)
    accuracy = metrics["denoising_accuracy_snr2_16"]
    assert accuracy.value == pytest.approx(4 / 5)
    assert accuracy.low < accuracy.value <= accuracy.high
    assert accuracy.baseline == {"linear": 0.0, "zero": 0.0}
    assert set(metrics) >= {"veto_accuracy_snr2_16", "roc_auc", "residual_power_removed"}
    assert (metrics["veto_hits_snr2_16"].value, metrics["veto_misses_snr2_16"].value) == (4, 1)
    assert metrics["veto_misses_snr2_16"].baseline["zero"] == 5
    details = json.loads(json.dumps(summary_details(result), allow_nan=False))
    assert details["scores"]["model"]["denoising_accuracy"]["thresholds"] == list(range(1, 51))
    assert set(details["scores"]) == {"model", "linear", "zero"}
    assert details["scores"]["model"]["confusion"]["hits"] == 4
    assert details["witnesses_missing"] == {"V1:SEIS": 1, "V1:MIC": 0}
    assert (details["events_vetoed"], details["windows_vetoed"]) == (4, 4)


def test_warnings_name_missing_witnesses(finished):
    said = run_warnings(finished[0])
    assert len(said) == 1
    assert said[0].startswith("V1:SEIS has no usable data in 1 of 10 events")


def test_without_strain_figures_are_left_out_with_a_warning(make_bundle, make_set, tmp_path):
    spectrograms = make_set(4, channels=("V1:SEIS", "V1:MIC"))
    result = run_inference(make_bundle(), spectrograms, tmp_path / "out", SETTINGS, progress=False)
    assert summary_metrics(result.scores) == {}
    assert score_figures(result.scores, 16.0) == {}
    assert any("left out" in text for text in run_warnings(result))
    figures = example_figures(result, spectrograms, "V1:STRAIN", SETTINGS)
    assert set(figures) == {"vetoed"}
    track_result(MemoryTracker(), result, figures, SETTINGS)


def test_undefined_figures_are_explained(make_bundle, make_set, tmp_path):
    spectrograms = make_set(1)
    quiet = spectrograms.read()
    assert quiet.maps.max() > 16
    settings = InferenceSettings(threshold=1e4, replicates=0)
    result = run_inference(make_bundle(), spectrograms, tmp_path / "out", settings, progress=False)
    said = run_warnings(result)
    assert any("denoising_accuracy_snr2_10000 is undefined: no window holds a glitch" in text for text in said)
    assert summary_metrics(result.scores)["roc_auc"].value is None
    assert set(score_figures(result.scores, 1e4)) == {"accuracy", "roc", "confusion"}


def test_tracker_gets_tables_curves_and_scalars_against_gps(finished):
    result, _, _ = finished
    figures = score_figures(result.scores, 16.0)
    tracker = MemoryTracker()
    track_result(tracker, result, figures, SETTINGS)
    assert result.events["event_id"].iloc[0] in tracker.texts["inference/events"]
    assert len(tracker.texts["inference/windows"].splitlines()) == 2 + len(result.windows)
    points = tracker.metrics["windows_by_gps/peak_snr2_measured"]
    assert points[0] == (1238166018, result.windows["peak_snr2_measured"].iloc[0])
    assert len({step for step, _ in points}) == len(result.windows)  # no two windows on one point
    assert tracker.metrics["denoising_accuracy_by_snr2/model"][15] == (16, pytest.approx(0.8))
    assert set(tracker.figures) == {"inference/accuracy", "inference/roc", "inference/confusion"}
    few = MemoryTracker()
    track_result(few, result, {}, InferenceSettings(tensorboard_rows=3))
    assert len(few.metrics["windows_by_gps/veto"]) == 3
    assert "37 more rows" in few.texts["inference/windows"]
