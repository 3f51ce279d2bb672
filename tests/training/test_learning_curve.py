import numpy as np
import pytest

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.training.contest import Entrant
from glitchflow_plugin.training.learning_curve import Candidates, CurveSettings, in_turn


@pytest.fixture
def known():
    """Six waveforms of 2 to 12 events each, and 21 quiet events of three stretches of strain."""
    groups = np.concatenate([np.repeat(np.arange(6), [2, 4, 6, 8, 10, 12]), np.repeat([6, 7, 8], 7)])
    glitch = np.arange(63) < 42
    order = np.random.default_rng(0).permutation(63)
    return Candidates(tuple(f"event-{row}" for row in order), groups[order], glitch[order])


def counts(known, names):
    rows = [known.event_ids.index(name) for name in names]
    glitch = known.glitch[rows]
    return np.unique(known.groups[rows][glitch], return_counts=True), int((~glitch).sum())


def test_groups_take_turns_and_fewer_are_among_the_first_of_more():
    groups = np.array([0, 0, 0, 0, 1, 1, 2])
    order = in_turn(groups, np.arange(7), None, seed=3)
    assert sorted(order) == list(range(7))
    assert len(set(groups[order[:3]])) == 3
    assert set(groups[order[3:5]]) == {0, 1}
    two = in_turn(groups, np.arange(7), 2, seed=3)
    assert len(set(groups[two])) == 2
    np.testing.assert_array_equal(two, [row for row in order if row in set(two)])
    assert (in_turn(groups, np.arange(7), None, seed=4) != order).any()


@pytest.mark.parametrize("size", [9, 30, 63])
def test_events_are_spread_over_all_groups_and_a_third_stays_quiet(known, size):
    names = known.drawn(size, None, seed=1)
    assert len(names) == len(set(names)) == size
    (groups, each), quiet = counts(known, names)
    assert len(groups) == 6
    assert quiet == size // 3
    # no group has two events more than another that has events left
    available = np.bincount(known.groups[known.glitch])
    assert each[each < available].min(initial=99) >= each.max() - 1
    assert set(known.drawn(size - 3, None, seed=1)) < set(names)


def test_waveforms_grow_at_one_number_of_events(known):
    same = known.equal_number([3, 6], seed=1)
    drawn = {number: known.drawn(same, number, seed=1) for number in (3, 4, 6)}
    found = {number: counts(known, names) for number, names in drawn.items()}
    assert [len(groups) for (groups, _), _ in found.values()] == [3, 4, 6]
    assert len({len(names) for names in drawn.values()}) == 1
    assert len({quiet for _, quiet in found.values()}) == 1
    assert set(found[3][0][0]) < set(found[4][0][0])


@pytest.mark.parametrize("numbers", [[3, 7], [1, 2, 6]])
def test_what_cannot_be_compared_is_refused(numbers):
    groups = np.repeat(np.arange(6), 4)
    few = Candidates(tuple(map(str, range(24))), groups, np.ones(24, bool))
    with pytest.raises(ConfigurationError, match="of 6 groups"):
        few.equal_number(numbers, seed=0)


def test_a_curve_of_an_entrant_that_is_not_there_is_refused():
    entrants = {"coupling": Entrant({"name": "coupling"}), "wiener": Entrant({"name": "wiener"})}
    assert CurveSettings(("couplin",)).chosen(entrants) == {}  # no curve is asked for
    assert list(CurveSettings(("wiener",), groups=(5,)).chosen(entrants)) == ["wiener"]
    with pytest.raises(ConfigurationError, match="Nearest: coupling"):
        CurveSettings(("couplin",), events=(50,)).chosen(entrants)
