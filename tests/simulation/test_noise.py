import numpy as np
import pytest
from scipy import signal

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.simulation.noise import (
    LOWEST_FREQUENCY,
    Line,
    advirgo_asd,
    aligo_asd,
    coloured_noise,
    line_noise,
    optimal_snr,
    sensitivity,
)

RATE = 4096.0


@pytest.mark.parametrize("name", ["advirgo", "aligo"])
def test_simulated_noise_has_the_analytic_spectrum(name):
    asd = sensitivity(name)
    noise = coloured_noise(np.random.default_rng(1), asd, RATE, round(128 * RATE))
    frequency, density = signal.welch(noise, RATE, nperseg=round(RATE))
    band = (frequency >= 15.0) & (frequency <= 1800.0)
    ratio = density[band] / asd(frequency[band]) ** 2
    # 128 s in 255 half-overlapping Hann segments: about 9 % scatter for a bin, far less for their mean
    assert abs(ratio.mean() - 1.0) < 0.01
    assert 0.06 < ratio.std() < 0.12


def test_published_values_of_the_sensitivities():
    # Advanced Virgo, equation 6 of the paper at x = 0; Advanced LIGO, table 1 at f = f0
    at_300 = 1.259e-24 * (0.07 * np.e**-0.142 + 3.1 * np.e**-0.466 + 0.4 * np.e**-0.304 + 0.09 * np.e**1.466)
    assert advirgo_asd(np.array([300.0]))[0] == pytest.approx(at_300)
    assert aligo_asd(np.array([215.0]))[0] ** 2 == pytest.approx(1e-49 * (1.0 - 5.0 + 111.0 * 0.5 / 1.5))


def test_the_asd_is_held_below_its_range():
    low = np.array([0.0, 1.0, LOWEST_FREQUENCY])
    for asd in (advirgo_asd, aligo_asd):
        assert np.ptp(asd(low)) == 0.0
        assert np.isfinite(asd(low)).all()


def test_an_unknown_sensitivity_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="advirgo"):
        sensitivity("kagra")


def test_the_end_of_a_stretch_does_not_join_its_beginning():
    # of noise made by one inverse transform without padding the first and last sample would be neighbours
    def red(frequency):
        return 1.0 / np.maximum(frequency, 0.5) ** 2

    jumps, steps = [], []
    for seed in range(20):
        noise = coloured_noise(np.random.default_rng(seed), red, 256.0, 4096)
        jumps.append(abs(noise[0] - noise[-1]))
        steps.append(np.abs(np.diff(noise)).mean())
    assert np.mean(jumps) > 10.0 * np.mean(steps)


def test_lines_stand_at_their_frequency_and_height():
    line = Line(50.0, height=20.0, wander=0.0)
    asd = advirgo_asd(np.array([50.0]))[0]
    series = line_noise(np.random.default_rng(3), (line,), advirgo_asd, RATE, round(16 * RATE))
    spectrum = 2.0 * np.abs(np.fft.rfft(series)) / series.size
    assert spectrum.argmax() == 50 * 16
    assert spectrum.max() == pytest.approx(20.0 * asd, rel=1e-6)


def test_lines_above_the_nyquist_frequency_are_left_out():
    series = line_noise(np.random.default_rng(3), (Line(300.0, 5.0),), advirgo_asd, 512.0, 1024)
    assert not series.any()


def test_snr_of_a_sine_gaussian_in_white_noise_is_the_root_of_its_energy():
    time = np.arange(8192) / RATE - 1.0
    waveform = np.exp(-0.5 * (time / 0.02) ** 2) * np.sin(2 * np.pi * 200 * time)
    density = 3.0
    psd = np.full(4097, density)
    # SNR² = 2 ∫ h² dt / S for white noise of one-sided density S
    assert optimal_snr(waveform, psd, RATE) == pytest.approx(
        np.sqrt(2.0 * np.sum(waveform**2) / RATE / density), rel=1e-4
    )


def test_snr_is_what_a_matched_filter_finds():
    size = round(8 * RATE)
    time = np.arange(size) / RATE - 4.0
    waveform = 1e-21 * np.exp(-0.5 * (time / 0.01) ** 2) * np.sin(2 * np.pi * 150 * time)
    frequency = np.fft.rfftfreq(size, 1.0 / RATE)
    psd = advirgo_asd(frequency) ** 2
    expected = optimal_snr(waveform, psd, RATE)
    template = np.where(frequency >= 10.0, np.fft.rfft(waveform) / psd, 0.0)
    outputs = []
    for seed in range(200):
        data = coloured_noise(np.random.default_rng(seed), advirgo_asd, RATE, size)
        outputs.append(np.vdot(template, np.fft.rfft(data)).real)
    signal_output = np.vdot(template, np.fft.rfft(waveform)).real
    assert signal_output / np.std(outputs) == pytest.approx(expected, rel=0.15)
