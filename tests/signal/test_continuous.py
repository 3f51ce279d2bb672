import numpy as np
import pytest

from glitchflow_plugin.signal.conditioning import ConditioningSettings, condition
from glitchflow_plugin.signal.continuous import (
    SpectrumSettings,
    conditioned,
    filling,
    grid_times,
    measure_spectra,
    usable_runs,
    whitened_window,
    window_taps,
)
from glitchflow_plugin.signal.psd import welch_psd

RATE, GPS = 2048.0, 1_400_000_000.0
SETTINGS = ConditioningSettings(low=10.0, high=200.0, sample_rate=512.0, duration=4.0)
SPECTRUM = SpectrumSettings(length=32.0, stride=8.0)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(3).standard_normal(round(120 * RATE))


def _whitened(series, t0, window, *, rate=RATE, name="V1:A"):
    span = tuple(round(edge * 512) for edge in (t0, t0 + len(series) / rate))
    channel = conditioned(series, rate, t0, span, SETTINGS, name=name)
    spectra = measure_spectra(channel, grid_times(window - 8, window + 8, 8.0), (GPS, GPS + 120), SPECTRUM, SETTINGS)
    taps = window_taps(spectra, window, channel, SETTINGS)
    return whitened_window(channel, taps, round((window - 2) * 512), 2048)


def test_a_window_is_whitened_as_that_event_would_be(noise):
    # the same spectrum for both, so that nothing differs but the way
    band_passed = conditioned(noise, RATE, GPS, (round(GPS * 512), round((GPS + 120) * 512)), SETTINGS, name="V1:A")
    spectrum = welch_psd(noise, RATE, 1.0, 0.75)
    spectra = measure_spectra(band_passed, [GPS], (GPS, GPS + 120), SPECTRUM, SETTINGS, psd=spectrum)
    taps = window_taps(spectra, GPS + 60, band_passed, SETTINGS)
    window = whitened_window(band_passed, taps, round((GPS + 58) * 512), 2048)
    event, start = condition(noise, RATE, GPS, GPS + 60, SETTINGS, psd=spectrum)
    assert start == GPS + 58
    np.testing.assert_allclose(window, event, atol=1e-5)


def test_a_window_is_the_same_whatever_is_read_with_it(noise):
    whole = _whitened(noise, GPS, GPS + 60)
    part = _whitened(noise[round(20 * RATE) : round(100 * RATE)], GPS + 20, GPS + 60)
    assert np.abs(whole - part).max() < 1e-4


def test_white_noise_comes_out_with_the_variance_of_the_band(noise):
    spread = np.concatenate([_whitened(noise, GPS, GPS + middle) for middle in range(20, 100, 4)]).std()
    assert spread == pytest.approx((190 / 256) ** 0.5, rel=0.05)


@pytest.mark.parametrize("spoilt", [np.nan, 0.0])
def test_a_gap_spoils_the_windows_that_touch_it_and_no_other(noise, spoilt):
    series = noise.copy()
    series[round(60 * RATE) : round(62 * RATE)] = spoilt
    assert _whitened(series, GPS, GPS + 60) is None
    assert _whitened(series, GPS, GPS + 64) is None
    for middle in (40, 80):
        difference = _whitened(series, GPS, GPS + middle) - _whitened(noise, GPS, GPS + middle)
        assert difference.std() < 0.1  # what is left of it is that the spectra are of other stretches


def test_runs_are_those_between_gaps_and_flat_stretches():
    rng = np.random.default_rng(0)
    series = rng.standard_normal(100)
    series[10:15], series[40:60], series[99] = np.nan, 1.0, np.nan
    assert usable_runs(series, 20) == [(0, 10), (15, 40), (60, 99)]
    assert usable_runs(series, 21) == [(0, 10), (15, 99)]
    assert usable_runs(np.zeros(50), 20) == []


def test_a_density_goes_over_from_one_spectrum_to_the_next(noise):
    louder = noise * np.linspace(1, 3, len(noise))
    channel = conditioned(louder, RATE, GPS, (round(GPS * 512), round((GPS + 120) * 512)), SETTINGS, name="V1:A")
    times = [GPS + 40, GPS + 60]
    spectra = measure_spectra(channel, times, (GPS, GPS + 120), SPECTRUM, SETTINGS)
    first, middle, last = (spectra.at(gps).values[50] for gps in (times[0], GPS + 50, times[1]))
    assert middle == pytest.approx((first * last) ** 0.5)
    assert spectra.at(GPS).values[50] == first


def test_a_slow_channel_is_filled_with_the_same_noise_each_time_and_each_channel_with_its_own():
    slow = np.random.default_rng(5).standard_normal(120 * 128)
    one = _whitened(slow, GPS, GPS + 60, rate=128.0)
    again = _whitened(slow[20 * 128 :], GPS + 20, GPS + 60, rate=128.0)
    other = _whitened(slow, GPS, GPS + 60, rate=128.0, name="V1:B")
    assert np.abs(one - again).max() < 1e-4
    assert np.abs(one - other).std() > 0.1


def test_flat_stretches_are_those_that_a_count_finds():
    rng = np.random.default_rng(5)
    for size in (1, 2, 400):
        series = rng.integers(0, 2, size).astype(np.float64)
        series[rng.random(size) < 0.05] = np.nan
        expected = np.isfinite(series)
        for first in range(size - 3):
            if (series[first : first + 4] == series[first]).all():
                expected[first : first + 4] = False
        found = np.zeros(size, dtype=np.bool_)
        for start, stop in usable_runs(series, 4):
            found[start:stop] = True
        np.testing.assert_array_equal(found, expected)


def test_noise_that_fills_is_the_same_by_the_second_and_in_one_go():
    first = round(GPS) * 512
    whole = filling("V1:A", (first, first + 40 * 512), (10.0, 57.6), SETTINGS)
    parts = [filling("V1:A", (one, one + 512), (10.0, 57.6), SETTINGS) for one in range(first, first + 40 * 512, 512)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-12)
