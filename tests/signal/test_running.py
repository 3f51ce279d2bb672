import numpy as np
import pytest
from scipy import signal

from glitchflow_plugin.signal import filters
from glitchflow_plugin.signal.conditioning import ConditioningSettings, at_common_rate
from glitchflow_plugin.signal.psd import welch_psd
from glitchflow_plugin.signal.running import (
    Foretelling,
    Forwards,
    ending,
    foretold,
    forward_taps,
    run_forwards,
    whitened_ending,
)
from glitchflow_plugin.signal.whitening import whiten

SETTINGS = ConditioningSettings(low=10.0, high=200.0, sample_rate=512.0, duration=4.0)


@pytest.fixture(scope="module")
def series():
    """Noise that is far louder below the band than in it, on an offset, 2048 Hz."""
    white = np.random.default_rng(0).standard_normal(24 * 2048)
    return 1e5 + white + 1e3 * signal.sosfilt(signal.butter(2, 2.0, fs=2048.0, output="sos"), white)


def _forwards(series, forwards):
    parts = [
        run_forwards(series[(end - forwards.before - 1) * 2048 : end * 2048], forwards, SETTINGS)
        for end in range(forwards.before + 1, 25)
    ]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def test_an_impulse_forwards_is_that_of_the_recursive_filter_and_an_offset_is_nothing():
    taps = forward_taps(2048.0, 10.0, 200.0, 4)
    impulse = np.eye(1, len(taps) + 2048)[0]
    expected = signal.sosfilt(filters.design_band_pass(2048.0, 10.0, 200.0), impulse)
    np.testing.assert_allclose(np.pad(taps, (0, 2048)), expected, atol=1e-6)
    assert abs(taps.sum()) < 1e-15


def test_what_has_come_of_a_window_is_whitened_as_offline_and_its_end_within_the_noise(series):
    forwards = Forwards.of(2048.0, 1.0, SETTINGS)
    run, usable = _forwards(series, forwards)
    assert usable.all()
    one = ending(welch_psd(run, 512.0, 1.0, 0.5), forwards, SETTINGS)
    (offline,), first, _ = at_common_rate([series], 2048.0, 0.0, SETTINGS)
    assert first == 0
    expected = whiten(offline, one.taps)[0]
    end, begun = 20 * 512, forwards.before * 512 - forwards.delay
    window = whitened_ending(run[: end - begun], end - 2048 - begun, 2048, one, SETTINGS)
    missed = window - expected[end - 2048 : end]
    assert np.abs(missed[: -2 * 512]).max() < 1e-4
    assert np.sqrt(np.mean(np.square(missed[-512:-256]))) < 0.02


def test_a_gap_cannot_be_used_as_far_as_the_filters_see_it(series):
    forwards = Forwards.of(2048.0, 1.0, SETTINGS)
    broken = series.copy()
    broken[10 * 2048 : 10 * 2048 + 5] = np.nan
    _, usable = _forwards(broken, forwards)
    times = (np.arange(len(usable)) - forwards.delay) / 512 + forwards.before
    past = len(forward_taps(2048.0, 10.0, 200.0, 4)) / 2048
    assert not usable[(times >= 10) & (times < 10 + past)].any()
    assert usable[(times < 9.9) | (times > 10.1 + past)].all()


def test_a_series_goes_on_as_an_autoregression_of_first_order_does():
    """Foretold is the last sample times a power of the coefficient, but for the fading."""
    predictor = np.zeros(64)
    predictor[0] = 0.8
    series = np.random.default_rng(0).standard_normal(100)
    ahead = foretold(series, Foretelling.of(predictor), 64)
    fading = np.cos(0.5 * np.pi * np.arange(64) / 64) ** 2
    np.testing.assert_allclose(ahead, series[-1] * 0.8 ** np.arange(1, 65) * fading, atol=1e-12)
