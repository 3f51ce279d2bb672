import numpy as np
import pytest

from glitchflow_plugin.signal.waveforms import chirp_time, compact_binary, sine_gaussian

RATE = 1024.0


def test_a_sine_gaussian_has_the_frequency_and_the_width_that_it_should():
    wave = sine_gaussian(RATE, frequency=100.0, quality=9.0, phase=0.3)
    time = np.arange(len(wave.series)) / RATE - wave.reference
    power = wave.series**2
    # the power is a Gaussian of half the width: its standard deviation is width / 2
    assert np.sqrt((power * time**2).sum() / power.sum()) == pytest.approx(9 / (np.sqrt(2) * np.pi * 100) / 2, rel=1e-2)
    spectrum = np.abs(np.fft.rfft(wave.series, 8192))
    assert spectrum.argmax() * RATE / 8192 == pytest.approx(100, abs=1)
    assert np.abs(wave.series[[0, -1]]).max() < 1e-10


def test_a_binary_takes_longer_from_a_lower_frequency_and_with_smaller_masses():
    assert chirp_time(1.4, 1.4, 10.0) / chirp_time(1.4, 1.4, 20.0) == pytest.approx(2 ** (8 / 3))
    assert chirp_time(14, 14, 20.0) / chirp_time(1.4, 1.4, 20.0) == pytest.approx(10 ** (-5 / 3))


@pytest.mark.slow
def test_neutron_stars_chirp_as_long_as_theory_says():
    wave = compact_binary(RATE, 30.0, mass_1=1.4, mass_2=1.3, spin_1=0.0, spin_2=0.0, psi=0.4)
    time = np.arange(len(wave.series)) / RATE
    for frequency in (40.0, 80.0):
        # the number of turns in a second says where in the chirp it is
        middle = wave.reference - chirp_time(1.4, 1.3, frequency)
        part = wave.series[np.abs(time - middle) < 0.5]
        assert np.count_nonzero(np.diff(np.sign(part)) > 0) == pytest.approx(frequency, rel=0.05)
    # half the sample rate is reached before the merger
    assert np.abs(wave.series).argmax() / RATE == pytest.approx(wave.reference, abs=0.05)


def test_a_binary_is_the_same_at_the_rate_of_recorded_strain():
    source = {"mass_1": 38.0, "mass_2": 33.0, "spin_1": 0.1, "spin_2": 0.0, "psi": 0.3}
    slow, fine = (compact_binary(rate, 20.0, **source) for rate in (4096.0, 16384.0))
    assert fine.reference == slow.reference
    np.testing.assert_allclose(fine.series[::4], slow.series, atol=1e-3 * np.abs(slow.series).max())
