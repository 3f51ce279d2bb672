import numpy as np
import pytest
from scipy import signal as scipy_signal

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.psd import Psd, welch_psd
from glitchflow_plugin.signal.whitening import WhiteningSettings, whiten, whitening_filter

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
    values = psd.values.copy()
    values[500:504] = 0  # a digital notch
    holed = whitening_filter(Psd(values, psd.spacing), RATE, 2.0, (8.0, 400.0))
    assert np.all(np.isfinite(holed))


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
