import json
import math
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
PEERS = {
    "qtransform": {"ml4gw bicubic", "gwpy"},
    "best_q": {"ml4gw QScan", "gwpy"},
    "inverse": {"torch STFT"},
    "whitening": {"ml4gw", "gwpy"},
    "scan": {"ml4gw maps", "gwpy maps"},
    "reading": {"gwpy HDF5", "ours, event files", "h5py, event files"},
    "frames": {"gwpy GWF", "ours HDF5"},
    "stream": {"wiener"},
    "training": {"wide", "plain"},
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


@pytest.mark.usefixtures("harness")
def test_maps_of_batches_are_timed_beside_those_of_ml4gw(monkeypatch, tmp_path, capsys):
    import batches

    record = tmp_path / "batches.json"
    options = ["--numbers", "1", "2", "--rounds", "1", "--threads", "1", "--json", str(record)]
    monkeypatch.setattr(sys, "argv", ["batches.py", *options])
    batches.main()
    rows = json.loads(record.read_text())["rows"]
    assert [(row["series"], row["what"]) for row in rows] == [
        (number, what) for number in (1, 2) for what in ("one Q", "best of four", "gradients")
    ]
    assert all(row["ratio"] > 0 for row in rows)
    assert "best of four" in capsys.readouterr().out


@pytest.fixture
def training(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import training

    return training


def test_operations_of_a_step_are_those_of_its_products(training):
    import torch

    class Products(torch.nn.Conv2d):
        """A convolution without bias on windows that need no gradient: one product forward and one backward."""

    one = training.Configuration("one", lambda channels: Products(channels, 1, 3, padding=1, bias=False), 1e-3, 1.0)
    convolution = 2 * 9 * 7 * 64 * 64
    # the blurs of the structural similarity: five forward, three of them with a gradient, two products each
    size, inside = 64, 54
    blur = 2 * (inside * size * size + inside * inside * size)
    assert training.operations(one, 7) == pytest.approx(2 * convolution + 8 * blur, rel=1e-3)


def test_the_first_configuration_attends_to_every_pixel(training):
    import torch

    network = training.full_attention(2, base=4)
    pixels = []
    attention = network.encoders[0][1]
    attention.register_forward_pre_hook(lambda _, maps: pixels.append(maps[0][0, 0].numel()))
    assert network(torch.rand(1, 2, 64, 64)).shape == (1, 1, 64, 64)
    assert pixels == [4096]


def test_each_configuration_learns_for_the_same_time(training, make_coupled_maps, tmp_path, monkeypatch):
    from glitchflow_plugin.components.processor import Processor
    from glitchflow_plugin.components.splitter import Splitter

    maps = make_coupled_maps(12, num_times=128)
    folder = tmp_path / "training"
    Processor({}, str(maps.folder), str(folder)).execute(
        Splitter({"block_length": 100.0}, str(maps.folder), str(folder)).execute(maps)
    )
    ticks = count()
    # a clock on which each step takes a second
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    chosen = training.configurations(quick=True)[:2]
    rows = training.quality(chosen, folder, seconds=24.0, slices=2, batch=4, device="cpu")
    assert [row["configuration"] for row in rows] == ["ours", "wide"] * 2
    assert [(row["seconds"], row["windows"]) for row in rows] == [(12, 48)] * 2 + [(24, 96)] * 2
    assert 0 < rows[2]["validation_loss"] < rows[0]["validation_loss"]
