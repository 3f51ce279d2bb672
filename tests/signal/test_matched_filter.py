import numpy as np
import pytest
from scipy.signal import chirp, windows

from glitchflow_plugin.signal.matched_filter import Weighted, match, recovered, reweighted_snr, snr_series, weighted
from glitchflow_plugin.signal.psd import Psd

RATE, LENGTH, BAND = 1024.0, 16.0, (20.0, 400.0)
SIZE = round(RATE * LENGTH)
WHITE = Psd(np.full(513, 2 / RATE), 1.0)
"""Density of noise of variance 1 a sample."""


def burst(amplitude=1.0, at=8.0, frequency=100.0, width=0.05, phase=0.0):
    time = np.arange(SIZE) / RATE - at
    return amplitude * np.exp(-((time / width) ** 2)) * np.sin(2 * np.pi * frequency * time + phase)


def spectrum(series, psd=WHITE, band=BAND):
    return weighted(series, RATE, psd, band)


def coloured():
    """A density with a steep rise and a line, and noise of it."""
    frequencies = np.arange(SIZE // 2 + 1) / LENGTH
    density = 1e-40 * ((30 / np.maximum(frequencies, 1)) ** 6 + 1 + 50 * np.exp(-((frequencies - 150) ** 2)))
    generator = np.random.default_rng(3)
    drawn = generator.standard_normal((2, len(frequencies))) * np.sqrt(density * SIZE * RATE / 4)
    return Psd(density, 1 / LENGTH), np.fft.irfft(drawn[0] + 1j * drawn[1], SIZE)


def test_the_optimal_snr_is_that_of_the_formula_for_white_noise():
    # of a sine-Gaussian well within the band the energy is A² w sqrt(pi / 8)
    energy = 3.0**2 * 0.05 * np.sqrt(np.pi / 8)
    assert spectrum(burst(3.0)).norm == pytest.approx(np.sqrt(2 * energy / (2 / RATE)), rel=1e-4)


def test_a_template_alone_is_found_whole_where_it_lies():
    template = spectrum(burst())
    found = recovered(template, template, 0.1)
    assert found.snr == pytest.approx(template.norm)
    assert abs(found.shift) < 1e-6
    assert found.reduced_chi_squared < 1e-9


def test_time_and_phase_are_found_beside_the_samples():
    late = 0.01 + 0.37 / RATE
    found = recovered(spectrum(burst(at=8 + late, phase=1.2)), spectrum(burst()), 0.1)
    assert found.shift == pytest.approx(late, abs=0.05 / RATE)
    assert found.snr == pytest.approx(spectrum(burst()).norm, rel=1e-3)


def test_in_coloured_noise_the_snr_is_that_of_theory():
    psd, noise = coloured()
    template = spectrum(burst(1e-20), psd)
    unit = Weighted(template.values / template.norm, template.first, SIZE, RATE)
    loudness = np.abs(snr_series(spectrum(noise, psd), unit)) ** 2
    # chi-squared of two degrees: mean 2, and a share of exp(-2) above 4
    assert loudness.mean() == pytest.approx(2.0, rel=0.15)
    assert (loudness > 4).mean() == pytest.approx(np.exp(-2), rel=0.2)
    found = recovered(spectrum(noise + burst(1e-20 * 20 / template.norm), psd), template, 0.05)
    assert found.snr == pytest.approx(20, abs=3)
    assert found.reduced_chi_squared == pytest.approx(1.0, abs=0.6)


def test_the_snr_agrees_with_a_filter_in_time():
    _, noise = coloured()
    noise = noise / noise.std()
    template = burst(width=0.3)
    band = (2.0, 510.0)
    series = snr_series(spectrum(noise, band=band), spectrum(template, band=band)).real
    correlation = [np.dot(noise, np.roll(template, lag)) / np.linalg.norm(template) for lag in (0, 100, 1000)]
    # noise below 2 Hz is in the sum in time and not in the band; the template has nothing there
    np.testing.assert_allclose(series[[0, 100, 1000]], correlation, atol=1e-3)


def test_a_glitch_that_is_not_the_template_has_a_large_chi_squared():
    time = np.arange(SIZE) / RATE
    template = chirp(time, 20, 16, 300) * windows.tukey(SIZE, 0.2)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(SIZE)
    good = recovered(spectrum(noise + 0.3 * template), spectrum(template), 0.1)
    bad = recovered(spectrum(noise + burst(20, at=4.0, frequency=90)), spectrum(template), 0.1)
    assert good.reduced_chi_squared < 2
    assert bad.reduced_chi_squared > 3
    assert bad.reweighted_snr < 0.6 * bad.snr
    assert good.reweighted_snr > 0.8 * good.snr


def test_chi_squared_of_noise_is_one_whatever_the_snr():
    template = spectrum(burst(width=0.01))
    rng = np.random.default_rng(1)
    for amplitude in (0.0, 30.0):
        found = [
            recovered(spectrum(rng.standard_normal(SIZE) + burst(amplitude, width=0.01)), template, 0.1, at=0.0)
            for _ in range(60)
        ]
        assert np.mean([one.reduced_chi_squared for one in found]) == pytest.approx(1.0, abs=0.12)


def test_match_of_equal_signals_is_one_and_of_others_small():
    one = spectrum(burst())
    assert match(one, spectrum(burst(7.0, at=8.02, phase=0.4)), 0.1) == pytest.approx((1.0, 0.02), abs=1e-3)
    assert match(one, spectrum(burst(frequency=300.0)), 0.1)[0] < 1e-3
    assert match(one, spectrum(np.zeros(SIZE)), 0.1) == (0.0, 0.0)
    half = spectrum(burst()) - spectrum(burst(0.5))
    assert half.norm == pytest.approx(one.norm / 2)


def test_a_band_without_a_bin_or_without_noise_is_refused():
    with pytest.raises(ValueError, match="no frequency"):
        spectrum(burst(), band=(20.01, 20.02))
    with pytest.raises(ValueError, match="zero or not finite"):
        spectrum(burst(), psd=Psd(np.zeros(513), 1.0))


def test_the_punished_snr_is_continuous_where_it_begins():
    assert reweighted_snr(9.0, 1.0) == pytest.approx(reweighted_snr(9.0, 1.0 + 1e-9))
