import numpy as np
import pytest

from glitchflow_plugin.inference.rank_report import BINS, EFFICIENCIES, GLITCHES, known_ranks, rank_reliability
from glitchflow_plugin.inference.veto_worth import Judged, rank_at_glitches
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.false_alarm import calibrate_false_alarm
from glitchflow_plugin.signal.rank_calibration import calibrate_ranks
from glitchflow_plugin.signal.vetoes import find_glitches

COLUMNS = Columns(np.arange(100) * 0.02)


def _events(seed, louder=1.0, events=400):
    """Ranks and strain: in each event a glitch of one column, which the rank follows with some scatter."""
    rng = np.random.default_rng(seed)
    measured, rank = np.zeros((events, 100)), rng.exponential(size=(events, 100))
    at = np.arange(events), rng.integers(10, 90, events)
    measured[at] = 30.0
    rank[at] = louder * rng.gamma(4, 2.0, events)
    glitches = find_glitches(measured, 16.0, COLUMNS, 4)
    return rank, Judged(COLUMNS, np.ones(100, bool), glitches, np.arange(events) // 2)


def _notes(rank, judged):
    false_alarm = calibrate_false_alarm(rank, judged.clean, judged.groups)
    groups = judged.groups[judged.glitches.event]
    glitches = calibrate_ranks(rank_at_glitches(rank, judged), groups, false_alarm, COLUMNS.width)
    return {"false_alarm": false_alarm.to_dict(), GLITCHES: glitches.to_dict()}


def test_events_of_the_same_kind_agree_and_others_do_not():
    known = known_ranks(_notes(*_events(0)))
    assert known.glitches == 400
    assert known.groups == 200
    same = rank_reliability(*_events(1), known, replicates=100)
    assert len(same) == len(EFFICIENCIES) + len(BINS) - 1
    efficiency = same[same["quantity"] == "efficiency"]
    assert (efficiency["observed"] - efficiency["claimed"]).abs().max() < 0.07
    probability = same[same["quantity"] == "probability"].dropna()
    assert (
        (probability["low"] - 0.1 <= probability["claimed"]) & (probability["claimed"] <= probability["high"] + 0.1)
    ).all()
    louder = rank_reliability(*_events(1, louder=3.0), known, replicates=0)
    assert louder["observed"][EFFICIENCIES.index(0.5)] > 0.7


def test_old_models_know_nothing():
    notes = _notes(*_events(0, events=20))
    assert known_ranks(None) is None
    assert known_ranks({"false_alarm": notes["false_alarm"]}) is None
    table = rank_reliability(*_events(1, events=4), None, replicates=0)
    assert table.empty
    assert list(table) == ["quantity", "claimed", "observed", "low", "high"]


def test_a_group_counts_once():
    rank, judged = _events(0, events=20)
    known = known_ranks(_notes(rank, judged))
    one = Judged(judged.columns, judged.live, judged.glitches, np.zeros(20, int))
    assert rank_reliability(rank, one, known, replicates=50)["low"].isna().all()
    found = rank_reliability(rank, judged, known, replicates=50)
    assert found["low"][2] < found["observed"][2] < found["high"][2]
    assert found["observed"][2] == pytest.approx(0.5, abs=0.06)
