import math
from dataclasses import replace

import pytest

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.summary import (
    EventCounts,
    Metric,
    RunSummary,
    format_summary,
    now,
    read_summary,
    write_summary,
)


def make_summary():
    return RunSummary(
        pipeline="inference_pipeline/Make-inference",
        started=now(),
        events=EventCounts.from_reasons(8, ["target missing", "target missing"]),
        metrics={
            "roc_auc": Metric(0.91, 0.88, 0.94, {"zero": 0.5}),
            "denoising_accuracy_snr2_16": Metric(None),
        },
        outputs={"table": "inference/demo/windows.csv"},
        warnings=("no window above SNR² 16",),
    )


def test_round_trip(tmp_path):
    summary = make_summary()
    path = write_summary(tmp_path, summary)
    assert path.name == "summary.json"
    assert read_summary(tmp_path) == summary
    assert read_summary(path) == summary


def test_table_shows_counts_interval_baseline_and_undefined():
    text = format_summary(make_summary())
    for part in (
        "10 read, 8 kept, 2 rejected",
        "rejected 2: target missing",
        "0.91  [0.88, 0.94]",
        "zero 0.5",
        "undefined",
    ):
        assert part in text


def test_counts_are_shown_to_their_last_digit():
    summary = replace(make_summary(), metrics={"times": Metric(26641.0, 9999.7, 27000.4, {"before": 13378.0})})
    assert "26641  [10000, 27000]  baseline: before 13378" in format_summary(summary)


def test_a_step_without_events_shows_no_count_of_them():
    assert "read" not in format_summary(RunSummary("stream_pipeline/Stream", now()))


def test_nan_becomes_null_so_that_any_json_reader_takes_the_file(tmp_path):
    path = write_summary(tmp_path, RunSummary("p", now(), metrics={"x": Metric(math.nan)}))
    assert "NaN" not in path.read_text()
    assert read_summary(path).metrics["x"].value is None


def test_what_is_no_summary_is_refused(tmp_path):
    (tmp_path / "summary.json").write_text('{"metrics": 3}')
    with pytest.raises(FormatError, match="not a record of this program"):
        read_summary(tmp_path)
    with pytest.raises(FormatError, match="does not exist"):
        read_summary(tmp_path / "none")


def test_paths_and_names_are_shown_as_they_are():
    inputs = {"set": "/data/[old]/[/new]", "channel": "V1:bell:x"}
    text = format_summary(RunSummary("a/b", now(), inputs, warnings=("nothing in [bold]",)))
    assert all(name in text for name in (*inputs.values(), "nothing in [bold]"))
