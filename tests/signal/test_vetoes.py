import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.vetoes import find_glitches, runs_of

COLUMNS = Columns(np.arange(12) * 0.5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(bool, (3, 12)), st.sampled_from([0.0, 0.25, 0.7, 20.0]))
def test_runs_cover_what_is_raised_and_its_padding(flags, padding):
    runs = runs_of(flags, COLUMNS, padding)
    times = np.arange(0.005, 6, 0.01)
    for event, raised in enumerate(flags):
        inside = np.zeros(len(times), dtype=bool)
        for column in np.flatnonzero(raised):
            inside |= (times > COLUMNS.left[column] - padding) & (times < COLUMNS.right[column] + padding)
        own = runs.event == event
        pairs = zip(runs.start[own], runs.end[own], strict=True)
        covered = sum((times > start) & (times < end) for start, end in pairs)
        np.testing.assert_array_equal(covered, inside)  # once each: runs of an event do not overlap


def test_loud_columns_near_each_other_are_one_glitch_at_the_loudest():
    measured = np.ones((2, 12))
    measured[0, [2, 4]], measured[0, 10], measured[1, 5] = (30, 40), 17, 16
    glitches = find_glitches(measured, 16.0, COLUMNS, margin=1)
    assert glitches.event.tolist() == [0, 0]  # an energy equal to the threshold is not above it
    assert glitches.time.tolist() == [2.0, 5.0]
    assert np.flatnonzero(glitches.inside[0]).tolist() == [1, 2, 3, 4, 5, 9, 10, 11]
