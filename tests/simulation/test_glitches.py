import numpy as np
import pytest
from scipy import signal

from glitchflow_plugin.simulation import glitches

RATE = 4096.0
TIME = (np.arange(round(8 * RATE)) - round(4 * RATE)) / RATE


def instantaneous_frequency(series):
    return np.gradient(np.unwrap(np.angle(signal.hilbert(series)))) * RATE / (2 * np.pi)


def test_the_arch_of_scattered_light_peaks_at_two_velocities_over_the_wavelength():
    wanted = 60.0
    displacement = glitches.swing(TIME, 0.5 * glitches.LASER_WAVELENGTH * wanted, 0.4)
    velocity = np.gradient(displacement, 1.0 / RATE)
    fringes = glitches.fringes(displacement, 0.3)
    near = np.abs(TIME) < 0.05
    measured = instantaneous_frequency(fringes)[near].mean()
    assert measured == pytest.approx(2.0 * np.abs(velocity).max() / glitches.LASER_WAVELENGTH, rel=0.02)
    assert measured == pytest.approx(wanted, rel=0.02)
    assert 2.0 * np.abs(velocity).max() / glitches.LASER_WAVELENGTH == pytest.approx(wanted, rel=1e-3)


def test_a_bench_at_rest_gives_constant_light():
    assert np.ptp(glitches.fringes(np.zeros(64), 0.7)) == 0.0


def test_the_whistle_follows_its_hyperbola():
    drawn = {"lowest": 45.0, "highest": 150.0, "duration": 0.8}
    measured = instantaneous_frequency(glitches.whistle(TIME, **drawn))
    expected = np.hypot(45.0, np.sqrt(150.0**2 - 45.0**2) * TIME / 0.4)
    inside = np.abs(TIME) < 0.2
    assert np.abs(measured[inside] / expected[inside] - 1.0).mean() < 0.02
    assert expected.min() == pytest.approx(45.0, rel=1e-3)
    assert np.interp(0.4, TIME, expected) == pytest.approx(150.0, rel=1e-3)


@pytest.mark.parametrize(
    "series",
    [
        glitches.sine_gaussian(TIME, 120.0, 3.0, 0.2),
        glitches.ringdown(TIME, 45.0, 0.03),
        glitches.whistle(TIME, 45.0, 150.0, 0.8),
        glitches.light_modulation(TIME, frequency=60.0, modulation=5.0, depth=0.8, duration=1.0),
        glitches.noise_burst(np.random.default_rng(1), TIME, low=60.0, high=150.0, duration=0.3, sample_rate=RATE),
    ],
)
def test_transients_have_about_unit_amplitude_and_end(series):
    assert 0.3 < np.abs(series).max() <= 1.0
    assert np.abs(series[np.abs(TIME) > 2.0]).max() < 1e-6


def test_a_noise_burst_stays_in_its_band():
    burst = glitches.noise_burst(np.random.default_rng(1), TIME, low=60.0, high=150.0, duration=0.3, sample_rate=RATE)
    power = np.abs(np.fft.rfft(burst)) ** 2
    frequency = np.fft.rfftfreq(TIME.size, 1.0 / RATE)
    assert power[(frequency > 50.0) & (frequency < 160.0)].sum() > 0.98 * power.sum()


def test_a_ringdown_starts_at_zero_and_decays():
    series = glitches.ringdown(TIME, 50.0, 0.02)
    assert not series[TIME <= 0.0].any()
    late = np.abs(series[(TIME > 0.1) & (TIME < 0.12)]).max()
    early = np.abs(series[(TIME > 0.04) & (TIME < 0.06)]).max()
    assert late / early == pytest.approx(np.exp(-0.06 / 0.02), rel=0.3)
