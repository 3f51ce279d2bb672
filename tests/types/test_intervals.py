import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.types.intervals import union


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
