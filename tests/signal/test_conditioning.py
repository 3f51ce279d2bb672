import pickle

import numpy as np
import pytest
from scipy import signal as scipy_signal
from scipy import stats as scipy_stats

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal import filters
from glitchflow_plugin.signal.conditioning import (
    ChannelRejectedError,
    ConditioningSettings,
    Recorded,
    condition,
    condition_together,
    crop_start,
    jittered_crop_start,
    needed_length,
)
from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.signal.whitening import WhiteningSettings, whitening_filter

T0 = 1_264_000_000.0
SETTINGS = ConditioningSettings()
PLAIN = ConditioningSettings(whiten=False)


def noise(rate, duration=16, seed=0):
    return np.random.default_rng(seed).normal(size=int(duration * rate))


def reason(series, rate=1024.0, settings=SETTINGS, t0=T0, gps_event=T0 + 8):
    with pytest.raises(ChannelRejectedError) as caught:
        condition(series, rate, t0, gps_event, settings)
    assert isinstance(caught.value, DataError)
    return caught.value.reason


@pytest.mark.parametrize("rate", [256.0, 500.0, 1024.0, 4096.0, 16384.0])
@pytest.mark.parametrize("scale", [1.0, 1e-23, 1e9])
def test_white_noise_of_any_rate_and_unit_has_unit_density_after_whitening(rate, scale):
    crop, gps_start = condition(scale * noise(rate), rate, T0, T0 + 8.2, SETTINGS)
    assert crop.shape == (6144,)
    assert crop.dtype == np.float32
    assert gps_start == pytest.approx(T0 + 5.2, abs=1 / 2048)
    # the estimated spectrum scatters, which biases the variance up by a few per cent
    assert crop.std() == pytest.approx(np.sqrt(392 / 512), rel=0.08)


@pytest.mark.parametrize("rate", [512.0, 1000.0, 4096.0])
def test_a_click_stays_at_its_time_whatever_the_rate(rate):
    series = 1e-3 * noise(rate)
    index = int(8.0 * rate)
    series[index] += 100
    crop, gps_start = condition(series, rate, T0, T0 + 8.1, SETTINGS)
    assert gps_start + np.abs(crop).argmax() / 1024 == pytest.approx(T0 + index / rate, abs=0.6 / 1024)


def test_channels_between_the_common_samples_are_shifted_there():
    def series(t0):
        return np.sin(2 * np.pi * 100.0 * (t0 - T0 + np.arange(16 * 1024) / 1024))

    settings = ConditioningSettings(whiten=False)
    on, start = condition(series(T0), 1024.0, T0, T0 + 8, settings)
    off, start_off = condition(series(T0 + 0.0004), 1024.0, T0 + 0.0004, T0 + 8, settings)
    assert start == start_off
    np.testing.assert_allclose(off, on, atol=2e-3)


def test_without_whitening_the_unit_is_kept_in_float64():
    rate = 4096.0
    line = 3.0 * np.sin(2 * np.pi * 60 * np.arange(16 * 4096) / rate)
    crop, _ = condition(line, rate, T0, T0 + 8, PLAIN)
    assert crop.dtype == np.float64
    assert crop.std() == pytest.approx(3 / np.sqrt(2), rel=1e-3)


def test_the_filters_ends_are_cut_so_that_the_crop_does_not_depend_on_where_the_data_end():
    rate = 1024.0
    series = noise(rate, 40) + 1e4 * np.sin(2 * np.pi * 0.2 * np.arange(40 * 1024) / rate)
    psd = Psd(np.full(513, 2 / rate), 1.0)
    long, _ = condition(series, rate, T0, T0 + 20, SETTINGS, psd=psd)
    short, _ = condition(series[12 * 1024 : 28 * 1024], rate, T0 + 12, T0 + 20, SETTINGS, psd=psd)
    assert np.abs(long - short).max() < 0.02 * long.std()


def test_no_more_and_no_less_than_the_filters_corrupt_is_cut():
    rate, psd = 1024.0, Psd(np.full(513, 2 / 1024.0), 1.0)
    series = noise(rate, 24)
    crop, gps_start = condition(series, rate, T0, T0 + 12, SETTINGS, psd=psd)
    edge = filters.band_pass(series, rate, SETTINGS.low, SETTINGS.high)[1]
    edge += len(whitening_filter(psd, rate, SETTINGS.whitening.filter_length, (8.0, 400.0))) // 2
    start = round((gps_start - T0) * rate)
    first, last = start - edge, start + SETTINGS.num_samples + edge
    other = 1e3 * noise(rate, 24, seed=1)
    other[first:last] = series[first:last]
    changed, _ = condition(other, rate, T0, T0 + 12, SETTINGS, psd=psd)
    # An infinite response never ends: it counts as settled at 1e-6 of what has been there.
    assert np.abs(changed - crop).max() < 1e-2 * 1e3 * 1e-3
    short, _ = condition(series[first:last], rate, T0 + first / rate, T0 + 12, SETTINGS, psd=psd)
    assert short.shape == crop.shape
    assert reason(series[first + 1 : last], t0=T0 + (first + 1) / rate, gps_event=T0 + 12) == "too short"
    assert reason(series[first : last - 1], t0=T0 + first / rate, gps_event=T0 + 12) == "too short"


def test_the_event_does_not_whiten_itself():
    series = noise(1024.0)
    quiet, _ = condition(series, 1024.0, T0, T0 + 8, SETTINGS)
    burst = (
        50
        * np.exp(-(((np.arange(16 * 1024) / 1024 - 8) / 0.05) ** 2))
        * np.sin(2 * np.pi * 100 * np.arange(16384) / 1024)
    )
    loud, _ = condition(series + burst, 1024.0, T0, T0 + 8, SETTINGS)
    np.testing.assert_allclose(loud[:1024], quiet[:1024], atol=1e-3)  # away from the burst nothing changes
    assert np.abs(loud).max() > 30


def test_a_given_spectrum_is_used():
    series = noise(4096.0)
    given = Psd(np.full(2049, 2 / 4096.0), 1.0)
    crop, _ = condition(series, 4096.0, T0, T0 + 8, SETTINGS, psd=given)
    # white noise at 4096 Hz keeps its density: unit density at 1024 Hz means variance 1 a sample in the full band
    assert crop.std() == pytest.approx(np.sqrt(392 / 512), rel=0.03)
    louder, _ = condition(series, 4096.0, T0, T0 + 8, SETTINGS, psd=Psd(given.values * 4, 1.0))
    np.testing.assert_allclose(louder * 2, crop, atol=1e-4)


def test_slow_channels_say_nothing_above_their_range():
    series = noise(256.0)
    crop, _ = condition(series, 256.0, T0, T0 + 8, SETTINGS)
    again, _ = condition(series, 256.0, T0, T0 + 8, SETTINGS)
    np.testing.assert_array_equal(crop, again)
    frequencies, density = scipy_signal.welch(crop, 1024, nperseg=1024)
    above = density[(frequencies > 130) & (frequencies < 390)]
    assert above.mean() == pytest.approx(2 / 1024, rel=0.1)
    bare = ConditioningSettings(whitening=WhiteningSettings(fill=False))
    empty, _ = condition(series, 256.0, T0, T0 + 8, bare)
    _, density = scipy_signal.welch(empty, 1024, nperseg=1024)
    assert density[(frequencies > 130) & (frequencies < 390)].mean() < 1e-4 * 2 / 1024


@pytest.mark.parametrize("settings", [SETTINGS, PLAIN])
def test_damaged_input_is_named(settings):
    series = noise(1024.0)
    holed = series.copy()
    holed[8 * 1024] = np.nan
    assert reason(holed, settings=settings) == "nan"
    assert reason(np.full(16384, 3.0), settings=settings) == "constant"
    assert reason(np.full(16384, np.inf), settings=settings) == "nan"
    flat = series.copy()
    flat[7 * 1024 : 9 * 1024] = 0
    assert reason(flat, settings=settings) == "constant"
    assert reason(series[: 4 * 1024], settings=settings) == "too short"
    assert reason(series[5 * 1024 : 11 * 1024], t0=T0 + 5, settings=settings) == "too short"
    assert reason(np.empty(0), settings=settings) == "too short"
    assert reason(noise(16.0), rate=16.0, settings=settings) == "band above nyquist"
    assert reason(noise(1000.0), rate=1000.00012345, settings=settings) == "sample rate"


def test_nan_outside_the_crop_costs_nothing_but_noise():
    series = noise(1024.0)
    series[:1024] = np.nan
    series[-700:] = np.nan
    crop, gps_start = condition(series, 1024.0, T0, T0 + 8, SETTINGS)
    assert gps_start == T0 + 5
    assert crop.std() == pytest.approx(np.sqrt(392 / 512), rel=0.1)


def test_all_channels_of_an_event_start_on_the_same_grid():
    assert crop_start(1_264_000_008.123456, SETTINGS) * 1024 == round(crop_start(1_264_000_008.123456, SETTINGS) * 1024)


def test_settings_refuse_nonsense_and_errors_travel():
    for wrong in ({"low": 0.0}, {"low": 500.0, "high": 400.0}, {"low": 600.0, "high": 700.0}, {"duration": 0.0}):
        with pytest.raises(ConfigurationError):
            ConditioningSettings(**wrong)
    error = pickle.loads(pickle.dumps(ChannelRejectedError("nan", "3 samples")))  # noqa: S301  # our own bytes
    assert (error.reason, error.detail) == ("nan", "3 samples")


@pytest.mark.parametrize("rate", [512.0, 4096.0])
def test_parts_of_a_channel_go_through_its_own_filters(rate):
    generator, length = np.random.default_rng(3), int(16 * rate)
    noise_part = np.cumsum(generator.normal(size=length)) + 1e-3 * generator.normal(size=length)
    seconds = np.arange(length) / rate
    glitch = 5 * np.exp(-(((seconds - 8) / 0.05) ** 2)) * np.sin(2 * np.pi * 60 * seconds)
    measured = noise_part + glitch
    measured[: int(0.5 * rate)] = np.nan  # the stretch that the filters see begins later, for the parts too
    t0, settings = T0 + 0.0003, ConditioningSettings(whitening=WhiteningSettings(fill=False))
    crops, gps_start = condition_together((measured, glitch, noise_part), rate, t0, T0 + 8, settings)
    alone, alone_start = condition(measured, rate, t0, T0 + 8, settings)
    assert np.array_equal(crops[0], alone)
    assert gps_start == alone_start
    np.testing.assert_allclose(crops[1] + crops[2], crops[0], atol=1e-4)
    # the parts are whitened by the measured spectrum: twice the glitch alone gives twice the crop
    doubled, _ = condition_together((measured, 2 * glitch), rate, t0, T0 + 8, settings)
    np.testing.assert_allclose(doubled[1], 2 * crops[1], rtol=1e-5, atol=1e-6)


def test_a_part_holds_none_of_the_noise_that_fills_a_slow_channel():
    series = noise(256.0)
    crops, _ = condition_together((series, np.zeros_like(series)), 256.0, T0, T0 + 8, SETTINGS)
    assert np.array_equal(crops[0], condition(series, 256.0, T0, T0 + 8, SETTINGS)[0])
    assert not crops[1].any()


def test_parts_of_another_length_are_refused():
    with pytest.raises(DataError, match=r"\[16384, 16000\]"):
        condition_together((noise(1024.0), np.zeros(16000)), 1024.0, T0, T0 + 8, SETTINGS)


JITTERED = ConditioningSettings(crop_jitter=0.5)


def shift(event_id, settings=JITTERED, channels=(), gps_event=T0 + 8.2):
    return jittered_crop_start(event_id, gps_event, settings, channels) - crop_start(gps_event, settings)


def test_the_trigger_lies_anywhere_within_the_jitter_and_each_event_has_its_own_place():
    shifts = np.array([shift(f"V1-{number}") for number in range(2000)])
    assert scipy_stats.kstest(shifts, scipy_stats.uniform(-0.5, 1.0).cdf).pvalue > 0.01
    # whoever makes the event, and whenever
    assert [shift(f"V1-{number}") for number in (7, 3)] == [shifts[7], shifts[3]]
    assert abs(np.corrcoef(shifts[:-1], shifts[1:])[0, 1]) < 0.1
    other = np.array(
        [shift(f"V1-{number}", ConditioningSettings(crop_jitter=0.5, crop_seed=1)) for number in range(99)]
    )
    assert abs(np.corrcoef(shifts[:99], other)[0, 1]) < 0.3


def test_without_jitter_the_trigger_is_in_the_middle():
    assert shift("V1-1", SETTINGS) == 0


@pytest.mark.parametrize("rate", [256.0, 1000.0, 4096.0])
@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize(("before", "after"), [(0.0, 0.0), (0.02, 5.0), (5.0, 0.2), (5.0, 5.0)])
def test_a_channel_that_can_be_used_about_the_trigger_can_be_used_wherever_the_crop_lies(rate, whiten, before, after):
    settings = ConditioningSettings(crop_jitter=1.0, whiten=whiten)
    half = needed_length(settings, rate, aligned=False) / 2
    first, last = round((half + before) * rate), round((half + after) * rate)
    series, t0 = noise(rate, 64)[: first + last], T0 - first / rate
    condition(series, rate, t0, T0, settings)
    moved = []
    for number in range(4):
        start = jittered_crop_start(f"event-{number}", T0, settings, [Recorded(series, rate, t0, settings)])
        _, given = condition(series, rate, t0, T0, settings, gps_start=start)
        assert given == start
        moved.append(start - crop_start(T0, settings))
    assert max(np.abs(moved)) <= 1.0
    assert np.ptp(moved) > 0.1 or max(before, after) == 0.0


def test_a_gap_beside_the_crop_keeps_the_crop_away_and_one_within_it_does_not_matter():
    series = noise(1024.0, 16)
    series[round(13.1 * 1024) :] = np.nan
    held = [Recorded(series, 1024.0, T0, JITTERED)]
    shifts = [shift(f"V1-{number}", channels=held) for number in range(99)]
    assert -0.5 <= min(shifts) < -0.4
    assert max(shifts) < 0.2
    for number in range(20):
        start = jittered_crop_start(f"V1-{number}", T0 + 8.2, JITTERED, held)
        condition(series, 1024.0, T0, T0 + 8.2, JITTERED, gps_start=start)
    lost = noise(1024.0, 16)
    lost[8 * 1024] = np.nan
    assert shift("V1-1", channels=[Recorded(lost, 1024.0, T0, JITTERED)]) == shift("V1-1")


def test_the_same_samples_wherever_the_crop_begins():
    """The spectrum leaves out the trigger's surroundings, so moving the crop changes no sample."""
    series, start = noise(4096.0), crop_start(T0 + 8, SETTINGS)
    middle, _ = condition(series, 4096.0, T0, T0 + 8, SETTINGS)
    later, given = condition(series, 4096.0, T0, T0 + 8, SETTINGS, gps_start=start + 0.25)
    assert given == start + 0.25
    np.testing.assert_array_equal(later[:-256], middle[256:])


@pytest.mark.parametrize("wrong", [-0.1, 3.5])
def test_a_jitter_that_could_cut_the_trigger_off_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"crop_jitter must be between 0 and half of len \(3 s\)"):
        ConditioningSettings(crop_jitter=wrong)
