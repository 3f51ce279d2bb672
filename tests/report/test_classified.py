"""The pages of Train and Classify of triggers, as a reader sees them."""

import numpy as np
import pandas as pd
import pytest
from tests.report.conftest import HOSTILE, flaws
from tests.report.test_omega import DATASET, GLITCH, recorded

from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.summary import RunSummary, write_summary
from glitchflow_plugin.report.run import write_report

pytest.importorskip("bokeh")
pytest.importorskip("itables")

WHEN = "2026-01-01T00:00:00+00:00"
TRUST = {
    "reliability": {
        "claimed": [0.05, 0.6, 0.95], "observed": [0.1, 0.5, 1.0], "low": [0.0, None, 0.9], "high": [0.2, None, 1.0],
        "times": [40, 3, 30],
    },
    "confusion": {"true": ["blip", "quiet"], "told": [HOSTILE, "blip", "quiet"], "counts": [[1, 27, 3], [0, 2, 40]]},
}  # fmt: skip


def figure(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "reason": None}


def summary(step, **others):
    return RunSummary(f"triggers_pipeline/{step}", WHEN, finished=WHEN, **others)


def answers(number):
    """What a model says of times: one of the first is the burst of the recorded series, the others are elsewhere."""
    generator = np.random.default_rng(0)
    time = (1_300_000_000 + 10 * np.arange(number)) * 10**9
    glitch = generator.uniform(0.0, 0.4, number)
    time[1], glitch[1], glitch[2] = round(GLITCH * 1e9), 0.99, 0.7
    channel = generator.choice(["V1:OTHER", HOSTILE, ""], number)
    channel[1] = "V1:COUPLED"
    order = np.argsort(time)
    table = pd.DataFrame(
        {
            "time": time, "glitch": glitch, "rank": np.log(glitch / (1 - glitch)), "false_alarm": 1 - glitch,
            "kind": "blip", "kind_blip": 0.8, "kind_tomte": 0.2, "snr": 10.0, "snr_low": 5.0, "snr_high": 20.0,
            "entropy": np.where(np.arange(number) == 2, 1.5, glitch), "channel": channel, "triggers": 3,
            "unknown_triggers": 0,
        }
    ).iloc[order]  # fmt: skip
    return table.reset_index(drop=True)


@pytest.fixture(scope="module")
def classified_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    series, place = folder / "series", folder / "classified" / "mine"
    for one in (series, place):
        one.mkdir(parents=True)
    hdf5.write(series / "V-TEST-1264000000-24.hdf5", recorded())
    answers(60).to_parquet(place / "classified.parquet")
    answers(60).to_csv(place / "classified.csv")
    entry = {key: value for key, value in DATASET.items() if key != "target"}
    details = {"trust": TRUST, "series": [{**entry, "path": "series"}, {"format": "open_data"}]}
    write_summary(place, summary("Classify", inputs={"target": "V1:STRAIN"}, details=details))
    return write_report(place)


def test_classified_times_are_counted_listed_and_scanned(visit, classified_page):
    page = visit(classified_page)
    assert flaws(page) == []
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("#chart-reliability canvas").count() > 0
    rows = page.locator("#table-counts tbody tr").all_inner_texts()
    assert sum(int(one.split("\t")[1]) for one in rows) == 60
    assert page.locator("#table-confusion tbody tr").all_inner_texts()[0].split("\t")[-3:] == ["1", "27", "3"]
    # of uncertain times the least known is the first
    first = page.locator("#table-uncertain tbody tr").first.inner_text().split("\t")
    assert (first[1], first[2]) == ("blip", "1.5")
    # the one time of which there are series has scans of the strain and of the loudest channel
    link = page.locator("#table-events tbody a")
    assert link.all_inner_texts() == [f"{GLITCH:.9f}"]
    link.click()
    shown = page.locator(".event:visible")
    assert shown.locator("h3").all_inner_texts() == ["V1:STRAIN (target)", "V1:COUPLED"]
    assert flaws(page) == []


def test_a_phone_shows_classified_times(visit, classified_page):
    page = visit(classified_page, 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_series_that_a_pattern_names_are_at_hand(tmp_path):
    hdf5.write(tmp_path / "V-TEST-1264000000-24.hdf5", recorded())
    answers(3).to_parquet(tmp_path / "classified.parquet")
    entry = {key: value for key, value in DATASET.items() if key != "target"}
    details = {"series": [{**entry, "path": str(tmp_path / "V-*.hdf5")}]}
    write_summary(tmp_path, summary("Classify", inputs={"target": "V1:STRAIN"}, details=details))
    assert "1 of 3 times have scans in this page" in write_report(tmp_path).read_text()


def test_a_table_of_an_earlier_version_says_what_it_lacks(tmp_path):
    answers(3).drop(columns="entropy").to_parquet(tmp_path / "classified.parquet")
    write_summary(tmp_path, summary("Classify", inputs={"target": "V1:STRAIN"}))
    with pytest.raises(FormatError, match="got no entropy: an earlier version wrote it"):
        write_report(tmp_path)


def test_of_very_many_times_the_page_lists_those_of_the_highest_ranks(tmp_path):
    told = answers(10_100)
    told.to_parquet(tmp_path / "classified.parquet")
    write_summary(tmp_path, summary("Classify", inputs={"target": "V1:STRAIN"}))
    html = write_report(tmp_path).read_text()
    assert "The 10000 of the highest ranks of 10100" in html
    assert "no series are at hand" in html
    assert len(html) < 12e6
    lowest = told["time"].iloc[told["rank"].argmin()]
    assert f"{lowest / 1e9:.9f}" not in html


def test_a_training_shows_its_leaderboard(visit, tmp_path):
    figures = {"auc": figure(0.9), "efficiency_0.01": {**figure(0.5), "low": None, "high": None}, "snr_r2": figure(0.6)}
    entrants = {
        "forest": {"validation_loss": 0.5, "lead_over_trees": {}, "training": 1e4},
        HOSTILE: {"validation_loss": 0.6123456, "lead_over_trees": {"auc": figure(-0.1)}, "training": None},
    }
    board = {
        "champion": "forest",
        "entrants": {
            name: {**one, "figures": figures, "sets_per_second": {"training": one.pop("training"), "inference": 1e5}}
            for name, one in entrants.items()
        },
        "rivals": {"loudest": {"auc": figure(0.8)}},
    }
    write_summary(tmp_path, summary("Train", details={"leaderboard": board, "trust": TRUST}))
    page = visit(write_report(tmp_path), wait="#table-leaderboard tbody tr td")
    assert flaws(page) == []
    assert page.evaluate("typeof hacked") == "undefined"
    rows = [one.split("\t") for one in page.locator("#table-leaderboard tbody tr").all_inner_texts()]
    assert rows[0][:4] == ["forest (champion)", "0.5", "0.900 [0.890, 0.910]", "0.500"]
    assert rows[1][1] == "0.6123"
    assert (rows[2][0], rows[2][2]) == ("loudest (rival)", "0.800 [0.790, 0.810]")
    assert page.locator("#table-leads tbody tr").count() == 1
