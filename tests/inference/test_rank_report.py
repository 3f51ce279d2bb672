from dataclasses import replace

import numpy as np
import pytest

from glitchflow_plugin.inference.rank_report import BINS, EFFICIENCIES, GLITCHES, known_ranks, rank_reliability
from glitchflow_plugin.inference.veto_worth import Judged, rank_at_glitches
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.false_alarm import calibrate_false_alarm
from glitchflow_plugin.signal.glitch_snr import GlitchSNR
from glitchflow_plugin.signal.rank_calibration import RankedGlitches
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
    glitches = RankedGlitches.of(rank_at_glitches(rank, judged), judged.glitches.snr, groups, COLUMNS.width)
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
    assert known_ranks(notes, GlitchSNR(lowest=6.0)) is None  # none is so loud
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


def test_faint_glitches_count_as_those_do_of_which_it_is_claimed():
    """Half of the run's glitches are faint, and half too faint to count; so many were not there in validation."""
    rng, law = np.random.default_rng(6), GlitchSNR(5.0, 3.0)

    def _run(shares, seed, events=1200):
        rank, judged = _events(seed, events=events)
        snr = rng.choice([4.5, 5.5, 20.0], events, p=shares)
        at = judged.glitches.event, np.searchsorted(COLUMNS.right, judged.glitches.time, "right")
        rank[at] *= np.where(snr > 10, 3.0, 0.5)
        return rank, replace(judged, glitches=replace(judged.glitches, snr=snr))

    known = known_ranks(_notes(*_run([0.1, 0.2, 0.7], 0)), law)
    fresh = _run([0.5, 0.25, 0.25], 1)
    found = rank_reliability(*fresh, known, replicates=100)
    efficiency = found[found["quantity"] == "efficiency"]
    assert (efficiency["observed"] - efficiency["claimed"]).abs().max() < 0.06
