import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from scalability import row

STEPS = {
    1: {"with": 101.0, "without": 100.0},
    2: {"with": 80.0, "without": 72.0, "alone": 56.0},
}


def test_what_is_lost_of_a_step_is_shared_out_whole():
    found = row(2, {1: [12.0, 10.0, 11.0], 2: [8.0, 7.0]}, STEPS)
    assert found["speed_up"] == pytest.approx(11 / 7.5)
    assert found["efficiency"] == pytest.approx(11 / 15)
    assert found["step_efficiency"] == pytest.approx(100 / 160)
    assert found["share"] == pytest.approx({"communication": 0.1, "contention": 0.2, "small_batch": 0.075})
    assert found["limited_by"] == "contention"
    # what is left is the ideal step
    assert 1 - sum(found["share"].values()) == pytest.approx(100 / 2 / 80)


def test_one_process_is_the_measure():
    found = row(1, {1: [2.0, 2.0]}, STEPS)
    assert (found["speed_up"], found["efficiency"]) == (1.0, 1.0)
    assert "share" not in found
