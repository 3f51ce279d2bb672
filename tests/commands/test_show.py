"""`glitchflow show`."""

import json
import os
import subprocess
import sys

import pytest

from glitchflow_plugin import cli
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, write_summary


def test_show_prints_the_summaries_below_a_folder(tmp_path, capsys):
    counts = EventCounts.from_reasons(3, ["gap"])
    summary = RunSummary("toy/First", "2020", events=counts, metrics={"roc_auc": Metric(0.75)})
    write_summary(tmp_path / "a", summary)
    write_summary(tmp_path / "b" / "c", RunSummary("toy/Second", "2020"))
    assert cli.main(["show", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "toy/Second" in output
    assert "roc_auc" in output
    assert "0.75" in output
    assert cli.main(["show", str(tmp_path / "a" / "summary.json")]) == 0
    assert "gap" in capsys.readouterr().out


def test_show_names_results_that_lie_side_by_side_and_finds_the_newest(tmp_path, capsys):
    for age, name in enumerate(("old", "new")):
        path = write_summary(tmp_path / name, RunSummary("toy/Step", "2020"))
        os.utime(path, (1000 + age, 1000 + age))
    assert cli.main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.index("old: toy/Step") < shown.index("new: toy/Step")
    assert cli.main(["show", "--newest", str(tmp_path)]) == 0
    assert "old" not in capsys.readouterr().out


def test_show_explains_a_folder_without_summaries_and_a_wrong_file(tmp_path, capsys):
    assert cli.main(["show", str(tmp_path)]) == 1
    assert "Run a pipeline first" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text(json.dumps({"a": 1}), encoding="utf-8")
    assert cli.main(["show", str(tmp_path / "summary.json")]) == 1
    assert "not a record of this program" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_summaries_are_shown_in_any_encoding(tmp_path, encoding):
    write_summary(tmp_path, RunSummary("toy/Step", "2026-01-01", inputs={"threshold": "20 SNR² ≥"}))
    command = [sys.executable, "-m", "glitchflow_plugin.cli", "show", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    ended = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert "20 SNR" in ended.stdout.decode(encoding)
