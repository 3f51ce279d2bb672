import numpy as np
import pytest
from scipy.interpolate import CubicSpline, InterpolatedUnivariateSpline

from glitchflow_plugin.signal.interpolation import periodic_taps, spline_matrix


def interpolated(values, positions):
    first, weights = periodic_taps(len(values), positions)
    return np.sum(values[(first[:, None] + np.arange(weights.shape[1])) % len(values)] * weights, axis=1)


@pytest.mark.parametrize("number", [4, 16, 64, 1000])
def test_between_the_samples_it_is_the_interpolating_spline(number):
    values = np.random.default_rng(0).exponential(size=number)
    positions = np.linspace(0, number - 1, 257)
    expected = InterpolatedUnivariateSpline(np.arange(number), values)(positions)
    np.testing.assert_allclose(interpolated(values, positions), expected, atol=5e-6)


def test_beyond_the_last_sample_it_goes_on_periodically():
    number = 128
    values = np.random.default_rng(1).exponential(size=number)
    positions = np.array([127.2, 127.5, 127.9])
    expected = CubicSpline(np.arange(number + 1), np.append(values, values[0]), bc_type="periodic")(positions)
    np.testing.assert_allclose(interpolated(values, positions), expected, atol=1e-5)


def test_cubics_are_exact():
    def cubic(x):
        return 1 - 2 * x + 0.3 * x**2 - 0.01 * x**3

    positions = np.linspace(0, 39, 50)
    np.testing.assert_allclose(interpolated(cubic(np.arange(40.0)), positions), cubic(positions), rtol=1e-9, atol=1e-9)


def test_matrix_is_the_spline_and_keeps_the_outermost_values():
    knots = np.geomspace(8, 400, 20)
    values = np.random.default_rng(2).exponential(size=20)
    wanted = np.linspace(4, 500, 70)
    expected = CubicSpline(knots, values)(np.clip(wanted, 8, 400))
    np.testing.assert_allclose(spline_matrix(knots, wanted) @ values, expected, rtol=1e-9)
    np.testing.assert_array_equal(spline_matrix(np.array([50.0]), wanted), np.ones((70, 1)))
