import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.columns import Columns, judged_pixels, tile_length
from glitchflow_plugin.signal.qtransform import QTransformSettings, axes

FREQUENCIES, TIMES = axes(6.0, QTransformSettings())


@given(
    duration=st.floats(0.5, 64.0),
    num_times=st.integers(2, 600),
    gps=st.sampled_from([0.0, 1126259462.4, 1400000000.123456]),
)
def test_columns_fill_the_event_and_nothing_else(duration, num_times, gps):
    times = axes(duration, QTransformSettings(num_times=num_times))[1]
    columns = Columns(times).gps(gps)
    rounding = 1e-12 * duration if gps == 0 else 5e-7
    np.testing.assert_array_equal(columns.left[1:], columns.right[:-1])
    assert columns.left[0] == gps
    assert columns.right[-1] == pytest.approx(gps + duration, abs=rounding)
    assert np.sum(columns.right - columns.left) == pytest.approx(duration, abs=rounding)
    assert (columns.left <= columns.centre).all()
    assert (columns.centre < columns.right).all()


@given(time=st.floats(0.0, 6.0, exclude_max=True))
def test_a_time_lies_in_the_column_sampled_nearest_to_it(time):
    columns = Columns(TIMES)
    inside = np.flatnonzero((columns.left <= time) & (time < columns.right))
    assert len(inside) == 1
    # nothing is sampled at the right edge: the last half column is of the last sample there is
    assert abs(columns.centre[inside[0]] - time) == pytest.approx(np.abs(columns.centre - time).min(), abs=1e-12)


def test_gps_seconds_keep_their_precision():
    columns = Columns(TIMES).gps(1126259462.4)
    assert columns.centre.dtype == np.float64
    np.testing.assert_allclose(columns.centre - 1126259462.4, TIMES, rtol=0, atol=3e-7)
    np.testing.assert_array_equal(columns.edges, np.append(columns.left, columns.right[-1]))
    assert columns.width == Columns(TIMES).width
    assert len(columns) == 257


@pytest.mark.parametrize(
    "times", [[0.0], [0.1, 0.2, 0.3], [0.0, 0.1, 0.3], [0.0, 0.0], [[0.0, 0.1]], [0.0, -0.1], [0.0, np.nan]]
)
def test_times_that_are_no_columns_are_refused(times):
    with pytest.raises(ConfigurationError, match="times of all columns"):
        Columns(np.asarray(times))


def test_pixels_within_a_tile_of_an_edge_are_not_judged():
    judged = judged_pixels(FREQUENCIES, Columns(TIMES), (12.0,))
    assert judged.shape == (64, 257)
    for row, frequency in enumerate(FREQUENCIES):
        tile = 12.0 / (2 * np.pi * frequency)
        expected = [tile <= time <= 6.0 - tile for time in TIMES]
        assert judged[row].tolist() == expected
    # the longest of several tiles counts
    several = judged_pixels(FREQUENCIES, Columns(TIMES), (8.0, 24.0))
    np.testing.assert_array_equal(several, judged_pixels(FREQUENCIES, Columns(TIMES), (24.0,)))
    assert tile_length(np.array([8.0]), 12.0)[0] == pytest.approx(0.2387, abs=1e-4)
