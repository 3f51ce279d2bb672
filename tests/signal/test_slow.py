import numpy as np
import pytest

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.conditioning import ChannelRejectedError, ConditioningSettings, condition
from glitchflow_plugin.signal.continuous import conditioned, whitened_window
from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.signal.slow import SHARE, SlowScale, find_scale, low_passed, slow_motion
from glitchflow_plugin.signal.whitening import whitening_filter

T0 = 1_264_000_000.0
SETTINGS = ConditioningSettings()
SCALE = SlowScale(location=3.0, scale=0.5, highest=4.0)


def swing(rate, frequency=0.7, amplitude=0.8, duration=16):
    """A slow swing about 3, in noise."""
    time = np.arange(int(duration * rate)) / rate
    noise = 0.005 * np.random.default_rng(0).normal(size=time.size)
    return 3.0 + amplitude * np.sin(2 * np.pi * frequency * time) + noise


@pytest.mark.parametrize("rate", [16.0, 256.0, 2048.0])
def test_slow_motion_is_what_moved_whatever_the_rate(rate):
    times = T0 + np.linspace(5.0, 11.0, 600)
    found = slow_motion(swing(rate), rate, T0, times, SCALE)
    expected = 0.8 / 0.5 * np.sin(2 * np.pi * 0.7 * (times - T0))
    # a straight line between samples that lie 1/16 s apart misses up to 1 - cos(0.7 π / 16)
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_what_is_in_the_band_is_no_slow_motion():
    time = np.arange(16 * 1024) / 1024
    found = low_passed(5.0 + np.sin(2 * np.pi * 16 * time), 1024.0, 4.0)
    np.testing.assert_allclose(found[2048:-2048], 5.0, atol=1e-3)


def test_the_scale_is_of_large_motions_and_does_not_depend_on_a_few_events():
    motions = [low_passed(swing(64.0, amplitude=a), 64.0, 4.0) for a in np.linspace(0.2, 1.0, 20)]
    scale = find_scale(motions, 8.0)
    assert scale is not None
    assert scale.highest == 4.0
    assert 0.25 <= scale.scale <= 1.0
    assert abs(scale.location - 3.0) <= scale.scale / 2
    assert find_scale([*motions[3:], 1e6 + motions[0]], 8.0) == scale
    assert find_scale([np.full(100, 3.0)] * 4, 8.0) is None
    assert find_scale([], 8.0) is None


def test_conditioning_keeps_a_share_of_slow_motion_beside_the_band():
    series = swing(1024.0)
    plain, start = condition(series, 1024.0, T0, T0 + 8.3, SETTINGS)
    crop, again = condition(series, 1024.0, T0, T0 + 8.3, SETTINGS, slow=SCALE)
    assert start == again
    times = start + np.arange(SETTINGS.num_samples) / 1024
    np.testing.assert_allclose((crop - plain) / SHARE, 1.6 * np.sin(2 * np.pi * 0.7 * (times - T0)), atol=0.05)


def test_a_channel_below_the_band_has_noise_within_it_and_its_motion():
    series = swing(10.0)
    crop, start = condition(series, 10.0, T0, T0 + 8.0, SETTINGS, slow=SCALE)
    assert crop.dtype == np.float32
    assert crop.std() == pytest.approx(np.sqrt(392 / 512), rel=0.05)
    motion = low_passed(crop, 1024.0, 3.0) / SHARE
    times = start + np.arange(SETTINGS.num_samples) / 1024
    middle = slice(1024, -1024)
    expected = 1.6 * np.sin(2 * np.pi * 0.7 * (times - T0))
    np.testing.assert_allclose(motion[middle], expected[middle], atol=0.3)
    np.testing.assert_array_equal(condition(series, 10.0, T0, T0 + 8.0, SETTINGS, slow=SCALE)[0], crop)


def test_a_stream_keeps_the_same_slow_motion():
    series, rate = swing(512.0, duration=24), 512.0
    series[1500:1600] = np.nan
    span = (round(T0 * 1024), round((T0 + 24) * 1024))
    plain, kept = (conditioned(series, rate, T0, span, SETTINGS, name="V1:A", slow=given) for given in (None, SCALE))
    taps = whitening_filter(Psd(np.full(2, 2 / 512), 512.0), 1024.0, 2.0, plain.band)
    start = round((T0 + 10) * 1024)
    windows = [whitened_window(one, taps, start, 4096) for one in (plain, kept)]
    times = 10 + np.arange(4096) / 1024
    expected = 1.6 * np.sin(2 * np.pi * 0.7 * times)
    np.testing.assert_allclose((windows[1] - windows[0]) / SHARE, expected, atol=0.05)


@pytest.mark.parametrize(("damage", "reason"), [(np.nan, "nan"), (3.0, "constant")])
def test_a_slow_channel_with_a_hole_is_refused_as_any_other(damage, reason):
    series = swing(10.0)
    series[70:100] = damage
    with pytest.raises(ChannelRejectedError) as caught:
        condition(series, 10.0, T0, T0 + 8.0, SETTINGS, slow=SCALE)
    assert caught.value.reason == reason


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"highest": 0.0}, {"location": np.inf}])
def test_a_scale_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="scale > 0"):
        SlowScale(**{"location": 0.0, "scale": 1.0, "highest": 4.0, **wrong})
