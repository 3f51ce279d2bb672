import numpy as np
import pytest

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.simulation.coupling import (
    Coupling,
    couple,
    distort,
    play,
    pole_pair,
    resample,
    response,
    through,
)

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


def test_a_saturating_path_is_linear_while_small_and_keeps_a_tenth_of_its_slope_when_large():
    path = Coupling("saturating", WIDE, threshold=2.0)
    small = 1e-4 * burst(100.0)
    np.testing.assert_allclose(distort(small, path), small, atol=1e-10)
    assert distort(np.array([1e3, -1e3]), path) == pytest.approx([101.8, -101.8])
    steps = distort(np.linspace(-30.0, 30.0, 1001), path)
    assert (np.diff(steps) > 0).all()


def test_a_saturating_path_makes_odd_harmonics_alone():
    spectrum = np.abs(np.fft.rfft(distort(4.0 * burst(100.0, width=0.2), Coupling("saturating", WIDE, threshold=1.0))))
    frequency = np.fft.rfftfreq(TIME.size, 1.0 / RATE)
    at = {value: spectrum[np.abs(frequency - value).argmin()] for value in (100.0, 200.0, 300.0)}
    assert at[300.0] > 0.05 * at[100.0]
    assert at[200.0] < 1e-6 * at[100.0]


def test_play_is_nothing_below_its_width_and_the_series_without_any():
    assert not play(burst(50.0), 1.01).any()
    np.testing.assert_allclose(play(burst(50.0), 0.0), burst(50.0), atol=1e-300)


@pytest.mark.parametrize("kept", [1.0, 0.999])
def test_play_drags_as_its_definition_says(kept):
    series, width = burst(20.0, width=0.1), 0.3
    held, expected = 0.0, []
    for value in series:
        held = min(max(kept * held, value - width), value + width)
        expected.append(held)
    np.testing.assert_allclose(play(series, width, kept), expected, atol=1e-12)


def test_a_hysteretic_path_remembers_and_a_static_one_does_not():
    """A loop: at one value of the witness the path is in two places, by the way it came."""
    series = burst(20.0, width=0.2)
    near = np.flatnonzero(np.abs(series) < 0.02)
    dragged = distort(series, Coupling("hysteretic", WIDE, threshold=0.3, memory=10.0), 1.0, RATE)
    assert np.ptp(dragged[near]) > 0.4
    assert np.ptp(distort(series, Coupling("threshold", WIDE, threshold=0.3))[near]) == 0.0


def test_a_hysteretic_path_creeps_back_to_rest():
    dragged = distort(burst(20.0), Coupling("hysteretic", WIDE, threshold=0.3, memory=0.05), 1.0, RATE)
    later = dragged[TIME.size // 2 + 2400 :]
    np.testing.assert_allclose(later[205] / later[0], np.exp(-205 / RATE / 0.05), rtol=1e-6)
    assert np.abs(later[-1]) < 1e-9 * np.abs(dragged).max()


def test_an_echo_is_the_sum_of_two_delayed_paths_and_one_without_strength_is_a_delay():
    twice = couple(burst(100.0), Coupling("linear", WIDE, delay=0.01, echo=(-0.7, 0.013)), RATE)
    apart = burst(100.0, time=TIME - 0.01) - 0.7 * burst(100.0, time=TIME - 0.023)
    np.testing.assert_allclose(twice, apart, atol=1e-6)
    alone = couple(burst(100.0), Coupling("linear", WIDE, delay=0.01, echo=(0.0, 0.013)), RATE)
    np.testing.assert_allclose(alone, burst(100.0, time=TIME - 0.01), atol=1e-6)


def test_a_resonance_rings_for_its_quality_and_is_undone_by_its_inverse():
    pulse = burst(95.0, width=0.004)
    rung = through(pulse, RATE, lambda frequency: 1.0 / pole_pair(frequency, 95.0, 30.0))
    envelope = np.array([np.abs(rung[start : start + 128]).max() for start in range(TIME.size // 2 + 200, 12000, 128)])
    rate = -np.polyfit(128 / RATE * np.arange(envelope.size), np.log(envelope), 1)[0]
    assert rate == pytest.approx(np.pi * 95.0 / 30.0, rel=0.02)
    back = through(rung, RATE, lambda frequency: pole_pair(frequency, 95.0, 30.0))
    np.testing.assert_allclose(back, pulse, atol=1e-9)


@pytest.mark.parametrize("wrong", [{"threshold": -1.0}, {"memory": 0.0}])
def test_paths_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"must (not )?be"):
        Coupling("hysteretic", **wrong)
