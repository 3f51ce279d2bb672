import numpy as np
import pytest

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.simulation.coupling import Coupling, couple, distort, resample, response

RATE = 4096.0
TIME = (np.arange(round(4 * RATE)) - round(2 * RATE)) / RATE
WIDE = (1.0, 1900.0)


def burst(frequency, width=0.05, time=TIME):
    return np.exp(-0.5 * (time / width) ** 2) * np.cos(2 * np.pi * frequency * time)


def peak_frequency(series):
    return np.fft.rfftfreq(series.size, 1.0 / RATE)[np.abs(np.fft.rfft(series)).argmax()]


def test_a_wide_linear_coupling_is_gain_and_delay():
    arrived = couple(burst(100.0), Coupling("linear", WIDE, delay=0.01, gain=3.0), RATE)
    np.testing.assert_allclose(arrived, 3.0 * burst(100.0, time=TIME - 0.01), atol=1e-6)


def test_no_gain_nothing_arrives():
    assert not couple(burst(100.0), Coupling("linear", gain=0.0), RATE).any()


def test_a_quadratic_coupling_doubles_the_frequency_and_squares_the_amplitude():
    coupling = Coupling("quadratic", (50.0, 900.0))
    arrived = couple(burst(100.0), coupling, RATE)
    assert peak_frequency(arrived) == pytest.approx(200.0, abs=1.0)
    np.testing.assert_allclose(couple(3.0 * burst(100.0), coupling, RATE), 9.0 * arrived, rtol=1e-9, atol=1e-12)


def test_an_odd_quadratic_coupling_keeps_the_frequency():
    arrived = couple(burst(100.0), Coupling("odd_quadratic", WIDE), RATE)
    assert peak_frequency(arrived) == pytest.approx(100.0, abs=1.0)


def test_below_the_threshold_nothing_arrives():
    coupling = Coupling("threshold", WIDE, threshold=1.5)
    assert not couple(burst(100.0), coupling, RATE).any()
    assert couple(2.0 * burst(100.0), coupling, RATE).any()
    assert distort(np.array([-2.0, 1.0, 2.5]), coupling) == pytest.approx([-0.5, 0.0, 1.0])


def test_a_bilinear_coupling_puts_sidebands_beside_the_fast_signal():
    fast, slow = burst(100.0, width=0.4), np.cos(2 * np.pi * 8.0 * TIME)
    spectrum = np.abs(np.fft.rfft(couple(fast, Coupling("bilinear", WIDE), RATE, slow)))
    frequency = np.fft.rfftfreq(TIME.size, 1.0 / RATE)
    at = {value: spectrum[np.abs(frequency - value).argmin()] for value in (92.0, 100.0, 108.0)}
    assert at[92.0] > 10.0 * at[100.0]
    assert at[108.0] > 10.0 * at[100.0]


def test_the_response_is_half_power_at_the_edges_and_resonates():
    plain = Coupling("linear", (50.0, 200.0))
    edges = np.abs(response(np.array([50.0, 100.0, 200.0]), plain)) ** 2
    np.testing.assert_allclose(edges, [0.5, 1.0, 0.5], rtol=1e-3)
    ringing = Coupling("linear", (50.0, 200.0), resonance=(100.0, 5.0))
    assert abs(response(np.array([100.0]), ringing)[0]) == pytest.approx(5.0, rel=1e-3)


def test_out_of_band_hardly_anything_arrives():
    coupling = Coupling("linear", (60.0, 300.0))
    inside, outside = (np.abs(couple(burst(f, 0.2), coupling, RATE)).max() for f in (150.0, 20.0))
    assert outside < 1e-3 * inside


@pytest.mark.parametrize("rate", [256.0, 1024.0, 8192.0])
def test_resampling_keeps_a_slow_burst(rate):
    resampled = resample(burst(40.0), RATE, rate)
    time = (np.arange(round(4 * rate)) - round(2 * rate)) / rate
    np.testing.assert_allclose(resampled, burst(40.0, time=time), atol=1e-6)


def test_resampling_removes_what_the_new_rate_cannot_hold():
    assert np.abs(resample(burst(700.0), RATE, 1024.0)).max() < 1e-6


@pytest.mark.parametrize("wrong", [{"band": (100.0, 50.0)}, {"form": "threshold", "threshold": -1.0}])
def test_impossible_couplings_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        Coupling(**wrong)


def test_an_unknown_law_is_refused_by_name():
    with pytest.raises(Exception, match="cubic"):  # by the type checker first, where it is on
        Coupling("cubic")
