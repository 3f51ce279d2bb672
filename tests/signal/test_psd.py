import numpy as np
import pytest
from scipy import signal as scipy_signal

from glitchflow_plugin.signal import psd
from glitchflow_plugin.signal.psd import MovingPowers, Psd, median_bias, segment_powers, welch_psd


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


@pytest.mark.parametrize("method", ["mean", "median", "median-mean"])
def test_agrees_with_gwpy(method):
    timeseries = pytest.importorskip("gwpy.timeseries")
    if method == "median-mean":
        pytest.importorskip("lal")  # gwpy has this average from there
    series = np.random.default_rng(5).normal(size=21 * 512)  # 20 segments: lal wants an even number
    name = {"mean": "welch"}.get(method, method)
    theirs = timeseries.TimeSeries(series, sample_rate=512).psd(2.0, 1.0, method=name, window="hann")
    ours = welch_psd(series, 512, 2.0, 1.0, method=method)
    # lal keeps the mean of each segment, which reaches the first two bins, and its Hann window is symmetric.
    np.testing.assert_allclose(ours.values[3:], theirs.value[3:], rtol=2e-2 if method == "median-mean" else 1e-6)
    assert np.mean(ours.values[3:] / theirs.value[3:]) == pytest.approx(1, abs=1e-3)


def test_median_mean_is_the_mean_of_the_medians_of_segments_that_do_not_overlap():
    series = np.random.default_rng(6).normal(size=9 * 256)
    halves = [
        scipy_signal.welch(series[first:], 256, "hann", 256, 0, detrend="constant", average="median")[1]
        for first in (0, 128)
    ]
    found = welch_psd(series, 256, 1.0, 0.5, method="median-mean")
    np.testing.assert_allclose(found.values, np.mean(halves, axis=0), rtol=1e-10)
    quarters = [
        scipy_signal.welch(series[first:], 256, "hann", 256, 0, detrend="constant", average="median")[1]
        for first in (0, 64, 128, 192)
    ]
    found = welch_psd(series, 256, 1.0, 0.75, method="median-mean")
    np.testing.assert_allclose(found.values, np.mean(quarters, axis=0), rtol=1e-10)


@pytest.mark.parametrize("method", ["median", "median-mean"])
def test_a_loud_transient_moves_the_medians_little_and_the_mean_much(method):
    series = np.random.default_rng(7).normal(size=32 * 512)
    quiet = welch_psd(series, 512, 1.0, 0.5, method=method)
    series[8 * 512 : 8 * 512 + 100] += 1e3 * np.random.default_rng(8).normal(size=100)
    loud = welch_psd(series, 512, 1.0, 0.5, method=method)
    assert np.mean(loud.values / quiet.values) < 1.2
    assert np.mean(welch_psd(series, 512, 1.0, 0.5, method="mean").values / quiet.values) > 1e3


@pytest.mark.parametrize("method", ["mean", "median", "median-mean"])
def test_all_averages_have_the_same_expectation(method):
    series = np.random.default_rng(9).normal(size=33 * 512)
    assert welch_psd(series, 512, 1.0, 0.5, method=method).values[1:-1].mean() == pytest.approx(2 / 512, rel=0.03)


def test_strain_in_float32_keeps_its_density():
    series = 1e-23 * np.random.default_rng(10).normal(size=16 * 512)
    single = welch_psd(series.astype(np.float32), 512, 1.0, 0.5)
    assert single.values.dtype == np.float64
    assert 1e-50 < single.values.min() < 1e-46
    np.testing.assert_allclose(single.values, welch_psd(series, 512, 1.0, 0.5).values, rtol=1e-4)


def test_a_line_stands_where_it_is_with_its_power():
    time = np.arange(32 * 512) / 512
    density = welch_psd(3.0 * np.sin(2 * np.pi * 60 * time), 512, 1.0, 0.5, method="mean")
    assert density.values.argmax() == 60
    assert density.values.sum() * density.spacing == pytest.approx(3.0**2 / 2, rel=1e-6)


def test_silence_has_no_density():
    assert not welch_psd(np.zeros(4096), 512, 1.0, 0.5).values.any()


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
    with pytest.raises(ValueError, match="median, mean, median-mean"):
        welch_psd(np.ones(1024), 512, 0.5, 0.0, method="mode")
    with pytest.raises(ValueError, match="shorter than a segment"):
        welch_psd(np.ones(1024), 512, 1.0, 1.0)


def test_median_bias_equals_scipys():
    for count in (1, 2, 3, 10, 51):
        assert median_bias(count) == pytest.approx(scipy_signal._spectral_py._median_bias(count))


def test_interpolation():
    psd = Psd(np.array([1.0, 3.0]), 10.0)
    np.testing.assert_allclose(psd.at(np.array([0.0, 5.0, 20.0])), [1.0, 2.0, 3.0])


def test_what_is_known_of_segments_stays_the_same_and_anything_else_is_made_anew():
    noise = np.random.default_rng(4).standard_normal(4096)
    moving = MovingPowers(64.0, 1.0, 0.75)
    # on the grid of segments, off it, shorter, too short, back, far away
    for first, size in (
        (0, 1024),
        (256, 1024),
        (272, 1100),
        (275, 1100),
        (323, 200),
        (323, 40),
        (16, 512),
        (3000, 900),
    ):
        stretch = noise[first : first + size]
        np.testing.assert_array_equal(moving.of(stretch, first), segment_powers(stretch, 64.0, 1.0, 0.75))


def test_of_a_stretch_that_moves_on_only_what_is_new_is_transformed(monkeypatch):
    noise, transformed = np.random.default_rng(4).standard_normal(4096), []
    moving = MovingPowers(64.0, 1.0, 0.75)

    def counted(new, *how):
        transformed.append(len(new))
        return segment_powers(new, *how)

    monkeypatch.setattr(psd, "segment_powers", counted)
    for first in (0, 256):
        moving.of(noise[first : first + 1024], first)
    assert transformed == [1024, 256 + 48]
