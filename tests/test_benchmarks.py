import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PEERS = {
    "qtransform": {"ml4gw bicubic", "gwpy"},
    "best_q": {"ml4gw QScan", "gwpy"},
    "inverse": {"torch STFT"},
    "whitening": {"ml4gw", "gwpy"},
    "scan": {"ml4gw maps", "gwpy maps"},
    "reading": {"gwpy HDF5"},
}


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import harness

    return harness


@pytest.mark.slow
def test_the_quick_run_has_every_row_and_draws_the_growth(tmp_path):
    record, picture = tmp_path / "bench.json", tmp_path / "growth.png"
    options = ["--quick", "--threads", "1", "--json", record, "--picture", picture]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "run.py", *options], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(record.read_text())
    rows = content["rows"]
    for subject, peers in PEERS.items():
        assert {row["peer"] for row in rows if row["subject"] == subject} == peers
    for row in rows:
        assert min(row[key] for key in ("ours_ms", "peer_ms", "floor_ms", "ratio_low")) > 0
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["peer"] in done.stdout
    assert content["machine"]["bandwidth_gb_s"] > 0
    assert {axis: len(points) for axis, points in content["growth"].items()} == {
        "channels": 2,
        "events": 2,
        "length": 2,
    }
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("harness")
def test_a_misspelt_subject_is_refused(monkeypatch, capsys):
    import run

    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "qtransfrom"])
    with pytest.raises(SystemExit):
        run.main()
    assert "qtransfrom is not among qtransform" in capsys.readouterr().err


def test_ratios_are_taken_round_by_round(harness):
    times = harness.Times({"ours": [1.0, 2.0, 4.0], "peer": [3.0, 8.0, 4.0]})
    assert times.ratio("peer", "ours") == (3.0, 1.0, 4.0)
    assert times.typical("ours") == 2.0


def test_candidates_take_turns_and_the_first_round_does_not_count(harness, monkeypatch):
    monkeypatch.setattr(harness, "SHORTEST", 0.0)
    calls = []
    candidates = [harness.Candidate(name, lambda name=name: calls.append(name), 2) for name in "ab"]
    times = harness.race(candidates, 3, lambda: None)
    assert calls == ["a", "b", "a", "b", "a", "b", "b", "a", "a", "b"]
    assert {name: len(spent) for name, spent in times.seconds.items()} == {"a": 3, "b": 3}


def test_the_floor_adds_up_what_cannot_be_avoided(harness):
    class Rates:
        matmul, bandwidth = 1e9, 1e10

        def fft(self, _, *, real, **precision):
            assert precision == {"dtype": work.dtype}
            return 1e8 if real else 2e8

    work = harness.Work(ffts=((1024, 3, True), (64, 5, False)), multiplications=1e6, bytes=1e7)
    expected = 3 * 2.5 * 1024 * 10 / 1e8 + 5 * 5 * 64 * 6 / 2e8 + 2e6 / 1e9 + 1e7 / 1e10
    assert math.isclose(work.floor(Rates()), expected)


def test_peak_memory_is_what_a_call_adds(harness):
    import numpy as np

    assert harness.peak_of(lambda: np.ones(2**22).sum(), "cpu") > 30 * 2**20
