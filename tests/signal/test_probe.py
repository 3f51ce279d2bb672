import numpy as np
import pytest

from glitchflow_plugin.signal.probe import arrived, burst, growth

RATE, SIZE = 1024.0, 4096


def response(probe, transfer):
    frequency = np.fft.rfftfreq(SIZE, 1 / RATE)
    return np.fft.irfft(np.fft.rfft(probe) * transfer(frequency), SIZE)


@pytest.mark.parametrize(("gain", "delay"), [(0.3, 0.0123), (2.0, -0.004), (1.0, 0.0)])
@pytest.mark.parametrize("frequency", [15.0, 120.0, 350.0])
def test_gain_and_delay_of_a_linear_path_are_found(gain, delay, frequency):
    probe = burst(frequency, 10.0, SIZE, RATE)
    assert np.sum(probe**2) == pytest.approx(100.0)
    output = response(probe, lambda f: gain * np.exp(-2j * np.pi * f * delay))
    found = arrived(probe, output, frequency, sample_rate=RATE, longest=0.1)
    assert found.gain == pytest.approx(gain, rel=5e-3)
    assert found.delay == pytest.approx(delay, abs=1e-4)
    assert found.phase == pytest.approx(0.0, abs=0.05)
    assert found.coherence == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("turn", "phase"), [(-1.0, np.pi), (1j, np.pi / 2), (-1j, -np.pi / 2)])
def test_a_turned_oscillation_is_a_phase_and_no_delay(turn, phase):
    probe = burst(60.0, 3.0, SIZE, RATE)
    found = arrived(probe, response(probe, lambda _: turn), 60.0, sample_rate=RATE, longest=0.1)
    assert abs(np.angle(np.exp(1j * (found.phase - phase)))) < 0.02
    assert found.delay == pytest.approx(0.0, abs=1e-4)


def test_a_square_has_other_frequencies_and_grows_with_the_square():
    sizes = np.array([10.0, 30.0, 100.0])
    found = [
        arrived(probe, 0.1 * probe**2, 100.0, sample_rate=RATE, longest=0.1)
        for probe in (burst(100.0, size, SIZE, RATE) for size in sizes)
    ]
    assert max(one.coherence for one in found) < 1e-3
    assert growth(np.array([one.size for one in found]), sizes) == pytest.approx(2.0)


def test_nothing_that_arrives_has_no_gain():
    probe = burst(100.0, 1.0, SIZE, RATE)
    found = arrived(probe, np.zeros(SIZE), 100.0, sample_rate=RATE, longest=0.1)
    assert (found.gain, found.coherence, found.size) == (0.0, 0.0, 0.0)
    assert np.isnan(growth(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0])))
