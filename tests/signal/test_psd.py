import numpy as np
import pytest
from scipy import signal as scipy_signal

from glitchflow_plugin.signal.psd import Psd, median_bias, welch_psd


@pytest.mark.parametrize("method", ["mean", "median"])
@pytest.mark.parametrize(("length", "overlap"), [(1.0, 0.5), (2.0, 1.5), (0.75, 0.0)])
def test_without_an_excluded_stretch_it_is_scipys_welch(method, length, overlap):
    series = np.random.default_rng(2).normal(size=16 * 512)
    found = welch_psd(series, 512, length, overlap, method=method)
    frequencies, expected = scipy_signal.welch(
        series, 512, "hann", int(length * 512), int(overlap * 512), detrend="constant", average=method
    )
    np.testing.assert_allclose(found.frequencies, frequencies)
    np.testing.assert_allclose(found.values, expected, rtol=1e-10)


def test_the_event_is_left_out():
    series = np.random.default_rng(3).normal(size=16 * 512)
    quiet = welch_psd(series, 512, 1.0, 0.5, exclude=(3072, 5120))
    series[3072:5120] += 1e6
    loud = welch_psd(series, 512, 1.0, 0.5, exclude=(3072, 5120))
    np.testing.assert_array_equal(quiet.values, loud.values)


def test_white_noise_has_the_density_of_its_variance():
    series = np.random.default_rng(4).normal(size=200 * 512)
    assert np.median(welch_psd(series, 512, 1.0, 0.5).values) == pytest.approx(2 / 512, rel=0.05)


def test_too_few_segments_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        welch_psd(np.ones(1024), 512, 1.0, 0.0, exclude=(100, 1000))
    with pytest.raises(ValueError, match="shorter than a segment"):
        welch_psd(np.ones(1024), 512, 1.0, 1.0)


def test_median_bias_equals_scipys():
    for count in (1, 2, 3, 10, 51):
        assert median_bias(count) == pytest.approx(scipy_signal._spectral_py._median_bias(count))


def test_interpolation():
    psd = Psd(np.array([1.0, 3.0]), 10.0)
    np.testing.assert_allclose(psd.at(np.array([0.0, 5.0, 20.0])), [1.0, 2.0, 3.0])
