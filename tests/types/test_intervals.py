import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.types.intervals import common, covered, holds, union


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda one: (one[0], one[0] + one[1]))))
def test_joined_intervals_cover_the_same_times(pairs):
    found = union(pairs)
    covered = {second for start, end in pairs for second in range(start, end)}
    assert covered == {second for start, end in found for second in range(int(start), int(end))}
    assert np.all(found[1:, 0] > found[:-1, 1])


def test_intervals_that_nearly_touch_are_one_where_that_is_asked():
    assert union([(0.0, 1.0), (1.1, 2.0)]).tolist() == [[0.0, 1.0], [1.1, 2.0]]
    assert union([(0.0, 1.0), (1.1, 2.0)], touching=0.2).tolist() == [[0.0, 2.0]]
    assert union([]).shape == (0, 2)


PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda one: (one[0], one[0] + one[1])))


def seconds(pairs):
    return {second for start, end in pairs for second in range(int(start), int(end))}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PAIRS, PAIRS)
def test_intervals_are_compared_as_sets_of_seconds_are(one, other):
    first, second = union(one), union(other)
    assert seconds(common(first, second)) == seconds(one) & seconds(other)
    times = np.arange(100.0)
    assert set(times[holds(first, times)]) == seconds(one)
    spans = np.array(other, dtype=float).reshape(-1, 2)
    assert covered(first, spans).tolist() == [len(seconds(one) & seconds([span])) for span in other]
