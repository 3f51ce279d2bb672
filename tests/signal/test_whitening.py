import numpy as np
import pytest
from scipy import signal as scipy_signal

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.psd import Psd, welch_psd
from glitchflow_plugin.signal.whitening import WhiteningSettings, unwhiten, unwhitened, whiten, whitening_filter

RATE = 1024


def coloured(seed=0, duration=64):
    """Noise that falls with frequency, and its density."""
    white = np.random.default_rng(seed).normal(size=duration * RATE)
    numerator, denominator = [1.0], [1.0, -0.9]
    frequencies, response = scipy_signal.freqz(numerator, denominator, worN=4096, fs=RATE)
    return scipy_signal.lfilter(numerator, denominator, white), Psd(np.abs(response) ** 2 * 2 / RATE, frequencies[1])


def test_noise_of_known_density_becomes_white_with_variance_one():
    series, psd = coloured()
    white, lost = whiten(series, whitening_filter(psd, RATE, 2.0, (4.0, 512.0)))
    clean = white[lost:-lost]
    assert clean.std() == pytest.approx(1, rel=0.02)
    frequencies, density = scipy_signal.welch(clean, RATE, nperseg=RATE)
    inside = (frequencies > 8) & (frequencies < 500)
    np.testing.assert_allclose(density[inside].mean(), 2 / RATE, rtol=0.03)
    halves = density[inside][:240].mean() / density[inside][240:].mean()
    assert halves == pytest.approx(1, rel=0.05)


def test_a_band_has_its_share_of_the_variance_and_nothing_outside():
    series, psd = coloured(1)
    white, lost = whiten(series, whitening_filter(psd, RATE, 2.0, (8.0, 400.0)))
    clean = white[lost:-lost]
    assert clean.std() == pytest.approx(np.sqrt(392 / 512), rel=0.03)
    frequencies, density = scipy_signal.welch(clean, RATE, nperseg=2 * RATE, detrend=False)
    assert density[frequencies < 4].max() < 1e-3 * 2 / RATE
    assert density[frequencies > 420].max() < 1e-3 * 2 / RATE


def test_agrees_with_gwpy():
    timeseries = pytest.importorskip("gwpy.timeseries")
    series, _ = coloured(2, 32)
    psd = welch_psd(series, RATE, 2.0, 1.0)
    ours, lost = whiten(series, whitening_filter(psd, RATE, 2.0, (0.5, 512.0)))
    gwpy_series = timeseries.TimeSeries(series, sample_rate=RATE)
    theirs = gwpy_series.whiten(2.0, 1.0, method="median", fduration=2.0, window="hann").value
    inner = slice(lost, -lost)
    assert np.corrcoef(ours[inner], theirs[inner])[0, 1] > 0.995
    assert ours[inner].std() == pytest.approx(theirs[inner].std(), rel=0.03)


def test_agrees_with_gwpy_for_a_given_spectrum_with_a_line():
    timeseries = pytest.importorskip("gwpy.timeseries")
    frequencyseries = pytest.importorskip("gwpy.frequencyseries")
    series, psd = coloured(4, 32)
    series = series + 30 * np.sin(2 * np.pi * 60 * np.arange(len(series)) / RATE)
    grid = np.arange(RATE + 1) / 2
    density = psd.at(grid) * (1 + 1e4 / (1 + ((grid - 60) / 0.5) ** 2))
    asd = frequencyseries.FrequencySeries(np.sqrt(density), df=0.5, f0=0)
    theirs = timeseries.TimeSeries(series, sample_rate=RATE).whiten(asd=asd, fduration=2.0, window="hann").value
    ours, lost = whiten(series, whitening_filter(Psd(density, 0.5), RATE, 2.0, (0.5, 512.0)))
    inner = slice(2 * lost, -2 * lost)  # gwpy tapers the ends by as much again
    band = scipy_signal.butter(6, (20, 450), "bandpass", fs=RATE, output="sos")  # the two treat 0 Hz differently
    ours, theirs = (scipy_signal.sosfiltfilt(band, whitened[inner]) for whitened in (ours, theirs))
    assert np.abs(ours - theirs)[RATE:-RATE].max() < 1e-2 * theirs.std()


def test_white_noise_within_the_band_is_unchanged():
    series = np.random.default_rng(5).normal(size=16 * RATE)
    series = scipy_signal.sosfiltfilt(scipy_signal.butter(8, (30, 350), "bandpass", fs=RATE, output="sos"), series)
    flat = Psd(np.full(2, 2 / RATE), RATE / 2)
    white, lost = whiten(series, whitening_filter(flat, RATE, 2.0, (8.0, 400.0)))
    np.testing.assert_allclose(white[lost:-lost], series[lost:-lost], atol=1e-4)


def test_a_line_is_brought_to_the_level_of_the_noise():
    # A line of amplitude A has the power A² / 2 in the 1.5 / T Hz that a bin of a Hann window of T takes in: A² T / 3.
    amplitude, length = 1e3, 1.0
    series = np.random.default_rng(6).normal(size=64 * RATE)
    series += amplitude * np.sin(2 * np.pi * 60 * np.arange(64 * RATE) / RATE)
    psd = welch_psd(series, RATE, length, 0.5, method="mean")
    white, lost = whiten(series, whitening_filter(psd, RATE, 8.0, (8.0, 400.0)))
    spectrum = scipy_signal.welch(white[lost:-lost], RATE, "flattop", 8 * RATE, scaling="spectrum")[1]
    expected = np.sqrt(2 / RATE) / np.sqrt(amplitude**2 * length / 3) * amplitude
    assert np.sqrt(2 * spectrum[60 * 8]) == pytest.approx(expected, rel=0.1)
    assert white[lost:-lost].std() == pytest.approx(np.sqrt(392 / 512), rel=0.03)


def test_zero_phase_a_click_stays_where_it_is():
    _, psd = coloured()
    click = np.zeros(8 * RATE)
    click[4000] = 1
    white, _ = whiten(click, whitening_filter(psd, RATE, 2.0, (8.0, 400.0)))
    assert np.abs(white).argmax() == 4000
    np.testing.assert_allclose(white[4000 - 50 : 4001], white[4000:4051][::-1], atol=1e-12)


def test_scale_and_holes_in_the_spectrum_do_not_matter():
    _, psd = coloured(3, 8)
    taps = whitening_filter(psd, RATE, 2.0, (8.0, 400.0))
    tiny = whitening_filter(Psd(psd.values * 1e-46, psd.spacing), RATE, 2.0, (8.0, 400.0))
    np.testing.assert_allclose(tiny * 1e-23, taps, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("hole", [0.0, 1e-60])
def test_a_digital_notch_stays_a_notch(hole):
    series, psd = coloured(3, 32)
    grid = np.arange(RATE + 1) / 2
    density = np.where((grid > 59) & (grid < 65), hole, psd.at(grid))
    taps = whitening_filter(Psd(density, 0.5), RATE, 2.0, (8.0, 400.0))
    spectrum = np.fft.rfft(series)
    frequencies = np.fft.rfftfreq(len(series), 1 / RATE)
    spectrum[(frequencies > 58) & (frequencies < 66)] = 0
    notched, lost = whiten(np.fft.irfft(spectrum), taps)
    frequencies, density = scipy_signal.welch(notched[lost:-lost], RATE, nperseg=RATE)
    assert density[61:64].max() < 1e-3 * 2 / RATE
    around = (frequencies > 40) & (frequencies < 90) & (np.abs(frequencies - 62) > 6)
    assert density[around].mean() == pytest.approx(2 / RATE, rel=0.1)
    assert np.abs(notched[lost:-lost]).max() < 6  # nothing rings
    plain = whitening_filter(psd, RATE, 2.0, (8.0, 400.0))
    np.testing.assert_allclose(taps, plain, atol=1e-3 * plain.max())  # data without the notch are whitened as ever


@pytest.mark.parametrize("seconds", [0.5, 2.0, 1.999])
def test_exactly_the_corrupted_samples_are_cut(seconds):
    series, psd = coloured(7, 8)
    taps = whitening_filter(psd, RATE, seconds, (8.0, 400.0))
    white, lost = whiten(series, taps)
    assert lost == len(taps) // 2
    start, stop = 3000, 5000  # kept
    for first, last in ((0, start - lost), (stop + lost, len(series))):
        other = series.copy()
        other[first:last] += 1e3 * np.random.default_rng(8).normal(size=last - first)
        np.testing.assert_allclose(whiten(other, taps)[0][start:stop], white[start:stop], rtol=0, atol=1e-10)
    for sample, kept, further in ((start - lost, start, -1), (stop + lost - 1, stop - 1, 1)):
        for moved, expected in (
            (sample, 1e6 * taps[0]),
            (sample + further, 0.0),
        ):  # the outermost tap is next to nothing
            other = series.copy()
            other[moved] += 1e6
            change = whiten(other, taps)[0][kept] - white[kept]
            assert change == pytest.approx(expected, rel=1e-3, abs=1e-9)
    assert abs(1e6 * taps[0]) > 1e-7


def test_a_whitened_burst_comes_back_in_the_unit_it_had():
    _, psd = coloured()
    time = np.arange(8 * RATE) / RATE - 4
    burst = 1e-21 * np.exp(-0.5 * (time / 0.03) ** 2) * np.sin(2 * np.pi * 100 * time)
    taps = whitening_filter(Psd(psd.values * 1e-46, psd.spacing), RATE, 2.0, (8.0, 400.0))
    back, _ = unwhiten(whiten(burst, taps)[0], taps, RATE, (8.0, 400.0))
    np.testing.assert_allclose(back, burst, rtol=0, atol=1e-6 * burst.max())
    np.testing.assert_array_equal(unwhitened(whiten(burst, taps)[0], taps, RATE, (8.0, 400.0)), back)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3])
def test_noise_comes_back_within_the_tolerance_except_at_its_ends(tolerance):
    series, psd = coloured(9)
    line = Psd(psd.at(np.arange(513.0)) * (1 + 1e3 * (np.arange(513) == 60)), 1.0)  # a line makes the filter ring
    series = scipy_signal.sosfiltfilt(scipy_signal.butter(8, (20, 350), "bandpass", fs=RATE, output="sos"), series)
    taps = whitening_filter(line, RATE, 2.0, (8.0, 400.0))
    white, corrupted = whiten(series, taps)
    inner = series[corrupted:-corrupted]
    back, lost = unwhiten(white[corrupted:-corrupted], taps, RATE, (8.0, 400.0), tolerance)
    error = back - inner
    assert error[lost:-lost].std() < 0.5 * tolerance * inner.std()
    assert lost > 100
    assert max(np.abs(error[:100]).max(), np.abs(error[-100:]).max()) > 2 * tolerance * inner.std()


def test_unwhitening_removes_what_is_outside_the_band_and_refuses_a_filter_that_passes_nothing():
    _, psd = coloured()
    taps = whitening_filter(psd, RATE, 2.0, (8.0, 400.0))
    noise = np.random.default_rng(10).normal(size=16 * RATE)
    spectrum = np.abs(np.fft.rfft(unwhiten(noise, taps, RATE, (50.0, 200.0))[0] * np.hanning(len(noise))))
    frequencies = np.fft.rfftfreq(len(noise), 1 / RATE)
    outside = (frequencies < 44) | (frequencies > 206)
    assert spectrum[outside].max() < 1e-3 * np.median(spectrum[~outside])
    with pytest.raises(ValueError, match="passes nothing"):
        unwhiten(noise, 0 * taps, RATE, (8.0, 400.0))


def test_a_spectrum_without_power_is_refused():
    with pytest.raises(ValueError, match="zero"):
        whitening_filter(Psd(np.zeros(100), 10.0), RATE, 2.0, (8.0, 400.0))
    with pytest.raises(ValueError, match="not finite"):
        whitening_filter(Psd(np.full(100, np.nan), 10.0), RATE, 2.0, (8.0, 400.0))


def test_settings_refuse_nonsense():
    with pytest.raises(TypeError):
        WhiteningSettings(fftlength=2)
    for wrong in ({"fft_length": 0.0}, {"overlap": 1.0, "fft_length": 1.0}, {"method": "mode"}):
        with pytest.raises(ConfigurationError):
            WhiteningSettings(**wrong)
