import json
import math
from dataclasses import replace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.inference.figures import (
    event_figures,
    example_figures,
    read_example,
    score_figures,
    timeline_figure,
)
from glitchflow_plugin.inference.report import run_warnings, summary_details, summary_metrics
from glitchflow_plugin.inference.run import InferenceSettings, run_inference
from glitchflow_plugin.inference.tensorboard import track_result
from glitchflow_plugin.inference.vetoes import write_vetoes
from glitchflow_plugin.products.veto_formats import read_flag
from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker, picture_name, unix_time
from glitchflow_plugin.types.intervals import holds, union

SETTINGS = InferenceSettings(batch_events=4, replicates=50, examples=2)


@pytest.fixture
def finished(make_bundle, make_set, tmp_path):
    """A run in which the event of row 2 stays dirty, because its only witness is dead."""
    valid = np.ones((10, 4), bool)
    valid[2, 1] = False
    spectrograms = make_set(valid=valid, groups=tuple(f"wave {row % 5}" for row in range(10)))
    bundle = make_bundle()
    return run_inference(bundle, spectrograms, tmp_path / "out", SETTINGS, progress=False), spectrograms, bundle


def panels(figure):
    return [(axes.get_title(loc="left"), axes) for axes in figure.axes if axes.get_title(loc="left")]


def test_uncleaned_panels_show_the_uncleaned_event_and_its_own_maps(finished):
    result, spectrograms, bundle = finished
    dirty = spectrograms.event_ids[2]
    figures = example_figures(result, spectrograms, bundle.target, SETTINGS, classes={dirty: "scattered light"})
    uncleaned = panels(figures["uncleaned"])
    assert len(uncleaned) == 3  # one event, three panels
    named = uncleaned[0][1].texts[0].get_text()
    assert named == f"{dirty}, row 2, scattered light, not vetoed, not cleaned, 1 witnesses missing"
    assert uncleaned[1][1].get_xlabel() == f"time from GPS {spectrograms.gps_event[2]:.3f} [s]"
    measured = spectrograms.read([2]).maps[0, 0]
    for (title, axes), energy in zip(uncleaned, (measured, 0 * measured, measured), strict=True):
        assert f"SNR² {energy.max():.0f}" in title
        drawn = np.asarray(axes.collections[0].get_array()).reshape(measured.shape)
        np.testing.assert_allclose(drawn, np.maximum(energy, 1), rtol=1e-5)


def test_each_kind_that_has_events_gets_a_figure(finished):
    result, spectrograms, bundle = finished
    figures = example_figures(result, spectrograms, bundle.target, SETTINGS)
    assert set(figures) == {"loudest", "median", "worst", "uncleaned", "missed"}  # there is no false alarm
    assert panels(figures["loudest"])[0][1].texts[0].get_text().startswith(spectrograms.event_ids[8])


def test_maps_of_another_event_are_refused(finished):
    result, spectrograms, bundle = finished
    result.events["event_id"] = np.roll(result.events["event_id"].to_numpy(), 1)
    with pytest.raises(FormatError, match="in the table"):
        read_example(result, spectrograms, bundle.target, 0)


def test_summary_has_figures_bands_and_baselines(finished):
    result, _, _ = finished
    metrics = summary_metrics(result.scores)
    cleaned = metrics["cleaned_share_snr2_16"]
    assert cleaned.value == pytest.approx(3 / 5)
    assert cleaned.low < cleaned.value <= cleaned.high
    assert cleaned.baseline == {"linear": 0.0, "zero": 0.0, "constant": 0.0, "clock": 0.0, "mean map": 0.0}
    assert set(metrics) >= {"balanced_veto_accuracy_snr2_16", "veto_roc_auc", "net_power_removed"}
    assert (metrics["veto_hits_snr2_16"].value, metrics["veto_misses_snr2_16"].value) == (4, 1)
    assert metrics["veto_misses_snr2_16"].baseline["zero"] == 5
    details = json.loads(json.dumps(summary_details(result), allow_nan=False))
    assert details["scores"]["model"]["cleaned_share"]["thresholds"] == list(range(1, 51))
    assert set(details["scores"]) == {"model", "linear", "zero", "constant", "clock", "mean map"}
    assert details["scores"]["model"]["confusion"]["hits"] == 4
    assert details["witnesses_missing"] == {"V1:SEIS": 1, "V1:MIC": 0}
    assert (details["events_vetoed"], details["segments"]) == (4, 4)


def test_vetoes_are_a_flag_of_the_time_that_was_looked_at(finished, tmp_path):
    result, _, bundle = finished
    settings = InferenceSettings(batch_events=4, replicates=50, products=("hdf5", "segwizard", "gates"))
    paths, losses = write_vetoes(result, bundle.target, settings, tmp_path)
    stem = paths[0].stem
    assert [path.name for path in paths] == [f"{stem}{end}" for end in (".h5", ".txt", "-known.txt", ".gates.txt")]
    assert [loss.split(" lack ")[0] for loss in losses] == ["vetoes as segwizard", "vetoes as gates"]
    assert "known" not in losses[0]
    assert "known" in losses[1]
    flag = read_flag(paths[0], "hdf5")
    assert (flag.ifo, flag.padding, flag.isgood) == ("V1", (-0.05, 0.05), False)
    # edges are moved outward by less than 2 ms
    segments = union(result.segments[["gps_start", "gps_end"]].to_numpy())
    assert np.all(np.abs(flag.active - segments) < 1 / 512)
    assert np.all(holds(flag.active, segments[:, 0]))
    events = union(result.events[["gps_start", "gps_end"]].to_numpy())
    assert np.all(np.abs(flag.known - events) < 1 / 512)
    assert len(segments)
    assert write_vetoes(result, bundle.target, InferenceSettings(products=()), tmp_path) == ([], [])


def test_each_event_has_a_decision_and_its_reasons(finished):
    result, spectrograms, _ = finished
    events = result.events
    assert events["decision"][events["veto"] & events["cleaned"]].eq("subtract").all()
    assert events["decision"][~events["veto"]].eq("pass").all()
    assert events["reasons"][2] == "missed; witness missing"
    boxes = result.segments[["frequency_low", "frequency_high"]].to_numpy()
    assert np.isin(boxes, spectrograms.frequencies).all()
    assert (boxes[:, 0] <= boxes[:, 1]).all()


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
    with TensorBoardTracker(tmp_path / "tb") as tracker:
        track_result(tracker, result, {"timeline": timeline_figure(result, SETTINGS)}, SETTINGS)
    assert "no strain" in shown(tmp_path / "tb", "Veto/events")


def test_undefined_figures_are_explained(make_bundle, make_set, tmp_path):
    spectrograms = make_set(1)
    quiet = spectrograms.read()
    assert quiet.maps.max() > 16
    settings = InferenceSettings(threshold=1e4, replicates=0)
    result = run_inference(make_bundle(), spectrograms, tmp_path / "out", settings, progress=False)
    said = run_warnings(result)
    assert any("cleaned_share_snr2_10000 is undefined: no case holds a glitch" in text for text in said)
    assert summary_metrics(result.scores)["veto_roc_auc"].value is None
    assert set(score_figures(result.scores, 1e4)) == {"accuracy", "roc", "confusion"}


def stored(folder):
    sizes = dict.fromkeys(("images", "scalars", "tensors"), 0)
    events = EventAccumulator(str(folder), size_guidance=sizes)
    events.Reload()
    return events


def shown(folder, name):
    return stored(folder).Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()


def rows_of(text):
    """Heading and rows of a Markdown table, as they are read."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")] for line in lines]


def test_tensorboard_shows_the_veto_first_with_whole_times(finished, tmp_path):
    result, _, _ = finished
    with TensorBoardTracker(tmp_path / "tb") as tracker:
        track_result(tracker, result, score_figures(result.scores, 16.0), SETTINGS, {"event-0": "blip"})
    heading, *rows = rows_of(shown(tmp_path / "tb", "Veto/events"))
    assert heading[0] == "veto"
    assert len(heading) <= 7  # more are broken at the width of a usual screen
    assert len(rows) == len(result.events)
    assert [row[0] == "VETO" for row in rows] == result.events["veto"].tolist()
    assert [row[2] for row in rows] == [f"{gps:.3f}" for gps in result.events["gps_event"]]
    heading, *segments = rows_of(shown(tmp_path / "tb", "Veto/segments"))
    assert heading[:2] == ["GPS start", "GPS end"]
    assert len(segments) == len(result.segments)
    assert set(stored(tmp_path / "tb").Tags()["images"]) == {
        "Inference/accuracy",
        "Inference/roc",
        "Inference/confusion",
    }


@pytest.mark.parametrize(("shift", "unit", "factor"), [(0.0, "s", 1), (0.125, "ms", 1000)])
def test_curves_count_from_a_stated_gps_time_and_hold_no_flags(finished, tmp_path, shift, unit, factor):
    result, _, _ = finished
    result.events["gps_event"] = np.round(result.events["gps_event"]) + shift
    with TensorBoardTracker(tmp_path / "tb") as tracker:
        track_result(tracker, result, {}, SETTINGS)
    events = stored(tmp_path / "tb")
    zero = math.floor(result.events["gps_start"].min())
    curve = events.Scalars(f"SNR² of events, {unit} from GPS {zero}/real")
    assert [point.step for point in curve] == [round(factor * (gps - zero)) for gps in result.events["gps_event"]]
    assert [point.wall_time for point in curve] == pytest.approx([unix_time(gps) for gps in result.events["gps_event"]])
    assert [point.value for point in curve] == pytest.approx(result.events["peak_snr2_measured"].tolist())
    for name in events.Tags()["scalars"]:
        assert max(point.step for point in events.Scalars(name)) < 1e9
        assert "veto" not in name or "accuracy" in name
    assert events.Scalars("cleaned share by SNR² threshold/model")[15].value == pytest.approx(0.6)


def test_a_row_leads_to_its_picture(finished, tmp_path):
    result, spectrograms, bundle = finished
    settings = replace(SETTINGS, tensorboard_pictures=4)
    with TensorBoardTracker(tmp_path / "tb") as tracker:
        track_result(tracker, result, {}, settings)
        for row, figure in event_figures(result, spectrograms, bundle.target, settings):
            assert figure.axes[0].texts[0].get_text().startswith(f"{result.events['event_id'].iloc[row]}, row {row}, ")
            tracker.figure(picture_name(row), figure, row)
    named = {row[1] for row in rows_of(shown(tmp_path / "tb", "Veto/events"))[1:] if "/" in row[1]}
    assert named == set(stored(tmp_path / "tb").Tags()["images"])
    assert len(named) == 4
    for name in named:
        assert stored(tmp_path / "tb").Images(name)[0].step == int(name.rpartition("/")[2])


def test_with_few_rows_the_vetoed_ones_stay(finished, tmp_path):
    result, _, _ = finished
    with TensorBoardTracker(tmp_path / "tb") as tracker:
        track_result(tracker, result, {}, replace(SETTINGS, tensorboard_rows=4))
    text = shown(tmp_path / "tb", "Veto/events")
    assert [row[0] for row in rows_of(text)[1:]] == ["VETO"] * 4
    assert "6 more events in events.csv" in text


def test_timeline_has_every_event_and_segment(finished):
    result, _, _ = finished
    events, lane = timeline_figure(result, SETTINGS).axes
    assert sum(len(group.get_offsets()) for group in events.collections) == len(result.events)
    assert len(lane.collections[0].get_paths()) == len(result.segments)
