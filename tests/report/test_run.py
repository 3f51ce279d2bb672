import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.report.conftest import HOSTILE, tables

from glitchflow_plugin import cli
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.summary import RunSummary, write_summary
from glitchflow_plugin.report.events import event_name, explaining, most_telling
from glitchflow_plugin.report.run import write_report
from glitchflow_plugin.report.tables import table

pytest.importorskip("bokeh")
pytest.importorskip("itables")


def test_a_page_stands_alone_and_runs_nothing_that_came_with_the_data(page_file):
    html = page_file.read_text()
    assert "<script>hacked" not in html
    assert "<img src=x" not in html
    # scripts, images and styles are within
    assert not re.search(r"<(script|img|link|image)[^>]+(src|href)=[\"'](?!data:)", html)
    assert "V1:&lt;/script&gt;" in html


def test_each_event_has_scans_of_what_explains_it(page_file, run):
    html = page_file.read_text()
    events = pd.read_parquet(run / "events.parquet")
    parts = dict(re.findall(r'<section class="event" id="(event-\d+)"(.*?)</section>', html, re.S))
    assert set(parts) == {event_name(row) for row in range(len(events))}
    titles = [re.findall(r"<h3>(.*?)</h3>", parts[event_name(row)]) for row in range(len(events))]
    assert titles[2][:3] == ["Real: V1:STRAIN", "Predicted from the witnesses", "Cleaned: real without the prediction"]
    assert titles[2][3] == "Witness: V1:LOUD"
    assert len(titles[2]) == 5
    assert "Real: V1:STRAIN" not in titles[-1]  # no strain
    assert parts["event-2"].count('role="img"') == 5 * 3 + 1
    assert "8 s, of which there are 5.4 s" in parts["event-2"]
    # the loudest moment is the middle of the windows: columns 62 to 71 of 257 in 6 s
    start = events["gps_start"][2]
    zero = float(re.search(r"s from GPS ([\d.]+)", parts["event-2"]).group(1))
    assert start + 61 * 6 / 257 <= zero <= start + 72 * 6 / 257


def test_the_witness_that_explains_is_the_one_that_is_loud_when_something_is_predicted():
    maps = np.ones((3, 4, 10))
    maps[0, :, 8] = 1000  # loud, but not then
    maps[1, 2, 3] = 50
    maps[2, 1, 3] = 80
    predicted = np.zeros((4, 10))
    predicted[2, 3] = 40
    assert explaining(maps, np.array([True, True, True]), predicted) == {2: 80, 1: 50}
    assert explaining(maps, np.array([True, True, False]), predicted) == {1: 50, 0: 1}
    assert explaining(maps, np.array([False, False, False]), predicted) == {}


def test_of_many_events_each_outcome_is_shown(run):
    events = pd.read_parquet(run / "events.parquet")
    rows = most_telling(events, 4)
    assert rows == sorted(rows)
    assert events["glitch"].iloc[rows].nunique() == 2
    assert most_telling(events, 1000) == list(range(len(events)))
    assert most_telling(events, 0) == []


def test_a_run_whose_maps_are_gone_is_told_as_it_is(tmp_path, run):
    tables(tmp_path, 5)
    (tmp_path / "summary.json").write_text((run / "summary.json").read_text())
    html = write_report(tmp_path).read_text()
    assert "0 of 5 events have scans" in html
    assert "no longer those of this run" in html


def test_the_command_writes_pages_and_says_what_it_lacks(tmp_path, run, capsys):
    assert cli.main(["report", str(run), "--scans", "2"]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert written == run / "report.html"
    assert written.read_text().count('<section class="event"') == 2
    write_report(run)
    assert cli.main(["report", str(run), "--scans", "-1"]) == 1
    assert cli.main(["report", str(tmp_path)]) == 1
    with pytest.raises(FormatError, match="summary"):
        write_report(tmp_path)
    assert HOSTILE not in written.read_text()


def test_numbers_that_are_not_known_are_empty_in_a_table():
    frame = pd.DataFrame({"snr": [10.5, np.nan, 2e-05], "witness": [np.nan, np.nan, np.nan]})
    html = table("harm", frame, "Harm.").html
    assert "NaN" not in html
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells == ["10.5", "", "", "", "2e-05", ""]


def test_what_came_of_a_step_stands_above_its_files(tmp_path):
    summary = RunSummary(
        "retrain_pipeline/Retrain",
        "2026-01-01T23:00:00+00:00",
        outputs={"decision": "wait: 7 events", "status": "temp/retrain/status.json"},
        finished="2026-01-01T23:00:05+00:00",
    )
    write_summary(tmp_path, summary)
    above, below = write_report(tmp_path).read_text().split('id="files"')
    assert "2026-01-01 23:00:00 to 23:00:05 UTC" in above
    assert "wait: 7 events" in above
    assert "wait: 7 events" not in below
    assert "temp/retrain/status.json" in below


def test_the_picture_of_one_entrant_has_the_words_of_its_kind(tmp_path):
    write_summary(tmp_path, RunSummary("benchmark_pipeline/Leaderboard", "2026-01-01T00:00:00+00:00"))
    Image.new("RGB", (8, 8)).save(tmp_path / "trust-coupling.png")
    assert "coupling: Coverage of the uncertainty" in write_report(tmp_path).read_text()
