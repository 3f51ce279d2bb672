import numpy as np
import pytest

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.livetime import LiveTime


def spikes(*rows, frequency=np.inf):
    event, channel, time = (np.array(column) for column in zip(*rows, strict=True))
    return Spikes(event, channel, time.astype(float), np.full(len(rows), frequency), np.ones(len(rows)))


def columns(duration=6.0, column=0.1):
    return Columns(column * np.arange(round(duration / column)))


def live(num_events=3, duration=6.0, column=0.1, **changes):
    return LiveTime(np.tile([0.0, duration], (num_events, 1)), columns(duration, column), **changes)


def test_as_much_time_as_there_are_columns():
    whole = LiveTime(np.array([[1.0, 3.0], [0.0, 6.0]]), columns())
    np.testing.assert_allclose(whole.length, [2.1, 6.0])  # 21 columns from 1.0 to 3.0, and all


def test_low_frequencies_keep_away_from_both_ends():
    inside = live(cycles=12 / (2 * np.pi))
    first, last = inside.limits(np.array([0, 0]), np.array([8.0, np.inf]))
    np.testing.assert_allclose(first, [0.25, 0.0])  # a tile of 0.239 s: the first column within is 0.3
    np.testing.assert_allclose(last, [5.75, 6.0])
    assert inside.holds(spikes((0, 0, 0.2), (0, 0, 0.3), (0, 0, 5.7), (0, 0, 5.8), frequency=8.0)).tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_dead_time_is_cut_out_of_the_axis():
    cut = live().without(spikes((1, 0, 2.0), (1, 0, 2.3)), 0.25)  # one stretch from 1.75 to 2.55
    np.testing.assert_allclose(cut.length, [6.0, 5.2, 6.0])
    event = np.ones(4, dtype=int)
    before, inside, end, after = cut.position(event, np.array([1.0, 2.0, 2.55, 3.0]))
    assert inside - before == pytest.approx(0.75)
    assert end == inside  # the clock stands still
    assert after - before == pytest.approx(1.2)
    assert cut.alive(event, np.array([1.0, 2.0, 2.5, 3.0])).tolist() == [True, False, False, True]
    assert cut.alive(np.array([0, 2]), np.array([2.0, 2.0])).all()


def test_dead_time_of_several_rounds_adds_up_whatever_the_order():
    first, second = spikes((0, 0, 1.0), (2, 0, 3.0)), spikes((0, 0, 1.2), (1, 0, 5.9))
    one = live().without(first, 0.25).without(second, 0.25)
    other = live().without(second, 0.25).without(first, 0.25)
    both = live().without(Spikes.concatenate([first, second]), 0.25)
    np.testing.assert_allclose(one.length, other.length)
    np.testing.assert_allclose(one.dead, both.dead)
    np.testing.assert_allclose(one.length, [6.0 - 0.7, 6.0 - 0.35, 6.0 - 0.5])  # the last window reaches past the end


@pytest.mark.parametrize("seed", range(4))
def test_covered_time_is_that_of_the_windows_on_a_fine_grid(seed):
    rng = np.random.default_rng(seed)
    rows = [(rng.integers(3), rng.integers(4), rng.uniform(0, 6)) for _ in range(60)]
    dead = [(rng.integers(3), 0, rng.uniform(0, 6)) for _ in range(5)]
    cut = live().without(spikes(*dead), 0.3)
    found = cut.covered(spikes(*rows), 0.2, 5)
    grid = np.arange(0.0, 6.0, 1e-4) + 5e-5
    for channel in range(5):
        total = 0.0
        for event in range(3):
            near = np.zeros(len(grid), dtype=bool)
            for its_event, its_channel, time in rows:
                if (its_event, its_channel) == (event, channel):
                    near |= np.abs(grid - time) < 0.2
            for its_event, _, time in dead:
                if its_event == event:
                    near &= np.abs(grid - time) > 0.3
            total += near.sum() * 1e-4
        assert found[channel] == pytest.approx(total, abs=5e-3)


def test_nothing_dead_and_nothing_covered():
    assert live().without(spikes((0, 0, 1.0)).select(np.zeros(1, bool)), 0.2).dead.shape == (0, 2)
    assert live().covered(Spikes.empty(), 0.2, 2).tolist() == [0.0, 0.0]
