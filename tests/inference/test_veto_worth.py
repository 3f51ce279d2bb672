import numpy as np
import pytest

from glitchflow_plugin.inference.veto_rivals import choose_rivals
from glitchflow_plugin.inference.veto_worth import (
    Judged,
    best_padding,
    figures,
    judge_rank,
    lead_at_half,
    slid,
    veto_sums,
    worth_at,
)
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.vetoes import find_glitches, runs_of

COLUMNS = Columns(np.arange(120) * 0.05)
LIVE = np.ones(120, bool)
LIVE[[0, 1, -2, -1]] = False


@pytest.fixture(scope="module")
def case():
    """60 events, 45 with a glitch of 3 columns; a rank that sees 40 of them and is wrong in 5 quiet events."""
    rng = np.random.default_rng(3)
    measured, rank = rng.exponential(1.4, (2, 60, 120)).clip(max=8)
    for event in range(45):
        column = rng.integers(10, 110)
        measured[event, column - 1 : column + 2] = 20, 50, 20
        if event < 40:
            rank[event, column - 1 : column + 2] = 30
    rank[45:50, 60] = 29
    glitches = find_glitches(measured * LIVE, 16.0, COLUMNS, 1)
    return rank, Judged(COLUMNS, LIVE, glitches, np.arange(60))


def test_figures_are_those_that_counting_gives(case):
    rank, judged = case
    found = figures({name: part.sum(axis=0) for name, part in veto_sums(rank, judged, np.array([20.0]), 0.05).items()})
    live = 60 * 116 * 0.05
    assert found["efficiency"][0] == pytest.approx(40 / 45)
    assert found["deadtime"][0] == pytest.approx((40 * 0.25 + 5 * 0.15) / live)
    assert found["efficiency_over_deadtime"][0] == found["efficiency"][0] / found["deadtime"][0]
    assert found["use_percentage"][0] == pytest.approx(100 * 40 / 45)
    assert found["glitch_time_found"][0] == pytest.approx(40 / 45)  # a glitch is widened by a column, so is a veto
    assert found["clean_time_vetoed"][0] == pytest.approx(5 * 0.15 / (live - 45 * 0.25))


def test_time_of_vetoes_and_glitches_is_that_of_a_fine_clock(case):
    rank, judged = case
    padding, threshold = 0.033, 4.0
    sums = veto_sums(rank, judged, np.array([threshold]), padding)
    runs = runs_of(rank > threshold, COLUMNS, padding)
    clock = np.arange(0.0005, COLUMNS.duration, 0.001)
    column = np.searchsorted(COLUMNS.right, clock)
    for event in (0, 17, 50):
        own = runs.event == event
        vetoed = sum((clock > a) & (clock < b) for a, b in zip(runs.start[own], runs.end[own], strict=True)) > 0
        vetoed &= LIVE[column]
        assert sums["dead"][event, 0] == pytest.approx(vetoed.sum() / 1000, abs=0.02)
        inside = vetoed & judged.glitches.inside[event, column]
        assert sums["dead_in"][event, 0] == pytest.approx(inside.sum() / 1000, abs=0.005)


def test_a_rank_is_better_than_itself_at_random_times(case):
    rank, judged = case
    own = judge_rank(rank, judged, padding=0.0, replicates=100)
    chance = judge_rank(slid(rank, LIVE), judged, padding=0.0, replicates=100)
    assert own.at_half["efficiency_over_deadtime"].value > 10
    assert own.at_half["efficiency_over_deadtime"].low > chance.at_half["efficiency_over_deadtime"].high
    assert 0.5 < chance.at_half["efficiency_over_deadtime"].value < 2
    assert chance.roc_area.low < 0.55
    assert lead_at_half(own, own, replicates=100).value == 1.0
    assert lead_at_half(own, chance, replicates=100).low > 1
    assert best_padding(rank, judged) == 0.0


def test_what_knows_nothing_and_vetoes_all_has_a_ratio_of_one(case):
    _, judged = case
    whole = worth_at(np.ones((60, 120)), judged, 0.5, 0.0, replicates=50)
    assert (whole["efficiency"].value, whole["deadtime"].value) == (1.0, pytest.approx(1.0))
    nothing = worth_at(np.zeros((60, 120)), judged, 0.5, 0.0, replicates=50)
    assert (nothing["efficiency"].value, nothing["efficiency_over_deadtime"].value) == (0.0, None)
    never = judge_rank(np.full((60, 120), -np.inf), judged, padding=0.0, replicates=50)
    assert never.at_half["deadtime"].value is None
    assert "fewer than half" in never.at_half["deadtime"].reason


def test_rivals_are_the_channels_that_see_the_glitches(case):
    _, judged = case
    rng = np.random.default_rng(5)
    peaks = rng.exponential(1.4, (60, 4, 120)).clip(max=12).astype(np.float32)
    for event, time in zip(judged.glitches.event, judged.glitches.time, strict=True):
        column = round(time / 0.05)
        peaks[event, 1 if event % 3 else 2, column] = 120.0  # two causes, one twice as often
    rivals = choose_rivals(peaks, ["a", "b", "c", "d"], np.ones((60, 4), bool), judged)
    assert rivals.channel == "b"
    assert [one.channel for one in rivals.rounds] == ["b", "c"]
    assert rivals.rounds[0].significance > rivals.rounds[1].significance > 5
    assert type(rivals).from_dict(rivals.to_dict()) == rivals
