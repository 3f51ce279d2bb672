"""Pages as steps of pipelines write them."""

import pytest

from glitchflow_plugin.products.overrides import Applied
from glitchflow_plugin.products.summary import Metric, RunSummary
from glitchflow_plugin.report.step import remember, report

SUMMARY = RunSummary("retrain_pipeline/Retrain", "2026-01-01", metrics={"drift": Metric(0.5, 0.4, 0.6)})


@pytest.fixture(autouse=True)
def in_a_pipeline():
    remember(Applied())
    yield
    remember(None)


def test_a_result_gets_a_page_and_what_prepares_gets_none(tmp_path):
    report(SUMMARY, tmp_path / "result")
    assert "0.4 to 0.6" in (tmp_path / "result" / "report.html").read_text()
    report(RunSummary("training_pipeline/Splitter", "2026-01-01"), tmp_path / "split")
    assert not (tmp_path / "split" / "report.html").exists()


def test_what_prevents_a_page_is_told_and_ends_no_run(tmp_path, caplog):
    (tmp_path / "report.html").write_text("of a run before")
    (tmp_path / "products.json").write_text("damaged")
    assert report(SUMMARY, tmp_path).pipeline == SUMMARY.pipeline
    assert not (tmp_path / "report.html").exists()
    assert "products.json" in caplog.text
    assert f"glitchflow report {tmp_path}" in caplog.text
