import numpy as np
import pytest
from scipy import signal as scipy_signal

from glitchflow_plugin.signal.filters import (
    band_pass,
    band_pass_power,
    design_band_pass,
    resample,
    settling_size,
    shift,
    usable_band,
)


def sine(frequency, rate, duration=8.0, t0=0.0):
    return np.sin(2 * np.pi * frequency * (t0 + np.arange(int(duration * rate)) / rate))


@pytest.mark.parametrize("rate", [256.0, 1000.0, 4096.0, 16384.0])
def test_band_pass_keeps_the_band_without_delay_and_removes_the_rest(rate):
    inside, below, above = sine(40, rate), sine(1, rate), sine(110, rate)
    passed, lost = band_pass(inside + 1e3 * below + above, rate, 10, 80)
    middle = slice(lost, -lost)
    assert lost < rate  # less than a second is lost
    # zero phase: what is left is the sine in the band itself, at the same times
    assert np.abs(passed[middle] - inside[middle]).max() < 0.1


def test_band_pass_equals_scipys_zero_phase_filter():
    series = np.random.default_rng(1).normal(size=8192)
    sos = scipy_signal.butter(4, 20, "highpass", fs=1024, output="sos")
    lowpass = scipy_signal.butter(4, 200, "lowpass", fs=1024, output="sos")
    expected = scipy_signal.sosfiltfilt(lowpass, scipy_signal.sosfiltfilt(sos, series - series.mean()))
    found, lost = band_pass(series, 1024, 20, 200)
    np.testing.assert_allclose(found[lost:-lost], expected[lost:-lost], atol=1e-5)


def test_band_pass_is_designed_at_the_channels_own_rate():
    # the trap: one design for all rates puts the edges of a slower channel elsewhere
    for rate in (512.0, 4096.0):
        power = band_pass_power(np.array([20.0, 100.0]), rate, 20, 100)
        np.testing.assert_allclose(power, 0.25, rtol=0.02)  # -6 dB at both edges, at every rate


def test_a_band_beyond_the_channels_range_is_high_pass_only():
    assert len(design_band_pass(256.0, 10.0, 400.0)) == 2
    assert len(design_band_pass(4096.0, 10.0, 400.0)) == 4
    passed, lost = band_pass(sine(100, 256.0), 256.0, 10, 400)
    assert np.abs(passed[lost:-lost] - sine(100, 256.0)[lost:-lost]).max() < 1e-3


def test_settling_covers_the_transient():
    sos = design_band_pass(1024.0, 8.0, 400.0)
    impulse = np.zeros(8192)
    impulse[0] = 1
    response = np.abs(scipy_signal.sosfilt(sos, impulse))
    assert response[settling_size(sos) :].max() < 1e-5 * response.max()


def test_unusable_bands_are_refused():
    with pytest.raises(ValueError, match="Nyquist frequency 8 Hz"):
        usable_band(8.0, 400.0, 16.0, 1024.0)
    with pytest.raises(ValueError, match="between 0 and the Nyquist"):
        design_band_pass(16.0, 9.0, 20.0)
    with pytest.raises(ValueError, match="too few"):
        band_pass(np.ones(5), 1024, 10, 100)


@pytest.mark.parametrize("rate", [256.0, 500.0, 1000.0, 4096.0, 16384.0, 20000.0])
def test_resampling_keeps_a_sine_at_its_times(rate):
    high = 0.9 * min(rate, 1024.0) / 2
    found, lost = resample(sine(0.8 * high, rate), rate, 1024.0, high)
    expected = sine(0.8 * high, 1024.0)
    assert abs(len(found) - len(expected)) <= 1
    size = min(len(found), len(expected))
    assert np.abs(found[lost : size - lost] - expected[lost : size - lost]).max() < 1e-3


def test_resampling_lets_no_alias_through():
    found, lost = resample(sine(700, 4096.0), 4096.0, 1024.0, 400.0)  # would alias to 324 Hz
    assert np.abs(found[lost:-lost]).max() < 1e-3
    up, lost = resample(sine(100, 256.0), 256.0, 1024.0, 115.0)
    spectrum = np.abs(np.fft.rfft(up[lost:-lost] * np.hanning(len(up) - 2 * lost)))
    frequencies = np.fft.rfftfreq(len(up) - 2 * lost, 1 / 1024)
    assert spectrum[frequencies > 140].max() < 1e-3 * spectrum.max()  # no image at 156 Hz


def test_resampling_to_the_same_rate_changes_nothing_and_nonsense_is_refused():
    series = np.random.default_rng(0).normal(size=100)
    found, lost = resample(series, 1024.0, 1024.0, 400.0)
    np.testing.assert_array_equal(found, series)
    assert lost == 0
    with pytest.raises(ValueError, match="common multiple"):
        resample(series, 1000.00012345, 1024.0, 400.0)


@pytest.mark.parametrize("delay", [-0.5, 0.0, 0.3])
def test_shift_delays_by_a_fraction_of_a_sample(delay):
    series = sine(200, 1024.0)
    found, lost = shift(series, delay, 0.8)
    expected = sine(200, 1024.0, t0=-delay / 1024)
    np.testing.assert_allclose(found[lost:-lost], expected[lost:-lost], atol=1e-3)
