from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, signal
from tests.streaming import _streams as data

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.rank_channels import RANK_RATE
from glitchflow_plugin.signal import filters
from glitchflow_plugin.streaming.belief import BELIEF_EDGE, ask, belief, snr_in_time
from glitchflow_plugin.streaming.ranks import MARGIN, within_block
from glitchflow_plugin.streaming.subtraction import subtract, window_weight
from glitchflow_plugin.streaming.windows import StreamSettings, reach

SPAN = (data.GPS, data.GPS + data.LENGTH)
MIDDLE = slice(10 * 2048, 86 * 2048)
"""Samples of the strain away from where data end."""


@pytest.fixture(scope="module")
def recorded():
    return data.recordings()


@pytest.fixture(scope="module")
def found(recorded):
    return subtract(recorded, data.model(), SPAN, SPAN, data.SETTINGS)


def _in_noise(difference):
    """Root mean square of a difference of strain within the band, over that of the noise there."""
    band = 2 * (data.CONDITIONING.high - data.CONDITIONING.low) / data.RATES[data.STRAIN]
    return np.sqrt(np.mean(np.square(difference[MIDDLE]))) / (data.LEVEL * band**0.5)


def test_the_glitches_come_back_at_the_strains_own_rate_and_time(found):
    true = data.LEVEL * filters.band_pass(data.glitch(2048.0), 2048.0, 10.0, 200.0)[0]
    for gps in data.GLITCHES:
        near = slice(round((gps - 0.2) * 2048), round((gps + 0.2) * 2048))
        part, expected = found.glitch[near], true[near]
        assert part @ expected / (expected @ expected) == pytest.approx(1, abs=0.1)
        lags = signal.correlate(part, expected, "same")
        assert np.argmax(lags) == len(lags) // 2  # not a sample early or late
    assert _in_noise(found.glitch) > 0.4
    assert _in_noise(found.glitch - true) < 0.15  # the guide's own noise, and that of the spectra


def test_where_nothing_is_believed_the_strain_stays_as_it_is_to_the_last_bit(found):
    touched = np.flatnonzero(found.glitch) / 2048.0
    assert np.min(np.abs(touched[:, None] - data.GLITCHES), axis=1).max() < 3.0
    assert np.mean(found.glitch == 0) > 0.8


def test_without_a_glitch_nothing_is_taken():
    quiet = {**data.recordings(), **{name: one for name, one in data.recordings(seed=2).items() if name == data.OTHER}}
    guide = quiet[data.GUIDE]
    quiet[data.GUIDE] = replace(guide, series=np.random.default_rng(0).standard_normal(len(guide.series)))
    assert not subtract(quiet, data.model(), SPAN, SPAN, data.SETTINGS).glitch.any()


def test_two_shifted_windowings_agree_within_a_thousandth_of_the_noise(recorded, found):
    for stride in (1.25, 0.75):
        other = subtract(recorded, data.model(), SPAN, SPAN, replace(data.SETTINGS, stride=stride))
        assert _in_noise(other.glitch - found.glitch) < 1e-3


def test_blocks_have_no_seam(recorded, found):
    """A block is made from what lies around it alone: the second glitch is on the seam."""
    parts = _in_blocks(recorded)
    assert _in_noise(_joined(parts, "glitch") - found.glitch) < 1e-6
    assert np.array_equal(_joined(parts, "analysed"), found.analysed)
    energies = np.concatenate([within_block(one.energy) for one in parts])
    np.testing.assert_allclose(energies, within_block(found.energy), rtol=1e-4, atol=1e-4)
    beside = parts[1].energy[: 2 * round(MARGIN * RANK_RATE)]  # a block knows what its neighbours know beside it
    np.testing.assert_allclose(beside, parts[0].energy[-len(beside) :], rtol=1e-4, atol=1e-4)


def _in_blocks(recorded):
    around = reach(data.model(), data.SETTINGS)
    parts = []
    for start in (0.0, 25.0, 50.0, 75.0):
        block = (data.GPS + start, data.GPS + min(start + 25.0, data.LENGTH))
        read = {name: _between(one, block[0] - around, block[1] + around) for name, one in recorded.items()}
        parts.append(subtract(read, data.model(), block, SPAN, data.SETTINGS))
    return parts


def _joined(parts, name):
    return np.concatenate([getattr(one, name) for one in parts])


def _between(channel, start, stop):
    first = max(round((start - channel.t0) * channel.sample_rate), 0)
    last = round((stop - channel.t0) * channel.sample_rate)
    return replace(channel, series=channel.series[first:last], t0=channel.t0 + first / channel.sample_rate)


def test_what_the_strain_does_not_hold_is_not_taken_from_it(recorded):
    """A witness of the other sign foretells all and is wrong; without the strain's word the glitch would be doubled."""
    guide = recorded[data.GUIDE]
    reversed_ = {**recorded, data.GUIDE: replace(guide, series=-guide.series)}
    seen = subtract(reversed_, data.model(), SPAN, SPAN, data.SETTINGS)
    assert not seen.glitch.any()
    assert [(one.record.reason, one.share) for one in seen.stretches] == [("refused", 0.0)] * 3
    assert [one.peak - data.GPS for one in seen.stretches] == pytest.approx(data.GLITCHES, abs=0.05)
    assert not any(seen.agreed[round(one * 512)] for one in data.GLITCHES)
    assert subtract(reversed_, data.model(), SPAN, SPAN, replace(data.SETTINGS, agreement=False)).glitch.any()


def test_an_octave_that_the_strain_does_not_hold_stays_whatever_the_blocks_and_the_windows(recorded, found):
    """The guide sees with each glitch a burst at 170 Hz that is not in the strain; the second is on a seam."""
    both = data.changed(recorded, 0.6 * data.glitch(1024.0, frequency=170.0))
    seen = subtract(both, data.model(), SPAN, SPAN, data.SETTINGS)
    assert [one.record.reason for one in seen.stretches] == ["partly"] * 3
    high = signal.butter(4, 120, "high", fs=2048, output="sos")
    for gps in data.GLITCHES:
        near = slice(round((gps - 0.2) * 2048), round((gps + 0.2) * 2048))
        part, right = seen.glitch[near], found.glitch[near]
        assert part @ right / (right @ right) == pytest.approx(1, abs=0.1)
        loudest = np.abs(signal.sosfiltfilt(high, seen.glitch)[near]).max()
        assert loudest < 0.1 * np.abs(right).max()
    assert _in_noise(_joined(_in_blocks(both), "glitch") - seen.glitch) < 1e-6
    shifted = subtract(both, data.model(), SPAN, SPAN, replace(data.SETTINGS, stride=1.25))
    assert _in_noise(shifted.glitch - seen.glitch) < 2e-3


def test_samples_between_those_of_the_common_grid_keep_their_time():
    inner = (data.GPS + 1, data.GPS + data.LENGTH - 1)
    shifted = subtract(data.recordings(first=0.0037), data.model(), inner, SPAN, data.SETTINGS).glitch
    # of a second less at either end the first sample is number 2041, since they begin 7.6 samples late
    true, late = (
        data.LEVEL * filters.band_pass(data.glitch(2048.0, first), 2048.0, 10.0, 200.0)[0][2041 : 2041 + len(shifted)]
        for first in (0.0037, 0.0)
    )
    assert len(shifted) == 94 * 2048
    assert _in_noise(shifted - true) < 0.15
    assert _in_noise(shifted - late) > 0.5


def test_a_missing_witness_is_told_and_a_gap_in_it_is_as_good_as_missing(recorded):
    without = subtract(
        {name: recorded[name] for name in (data.STRAIN, data.GUIDE)}, data.model(), SPAN, SPAN, data.SETTINGS
    )
    assert without.glitch.any()
    assert not without.complete.any()
    assert without.missing.keys() == {data.OTHER}
    guide = recorded[data.GUIDE]
    holey = guide.series.copy()
    holey[(47 * 1024) : (48 * 1024)] = np.nan
    gap = subtract({**recorded, data.GUIDE: replace(guide, series=holey)}, data.model(), SPAN, SPAN, data.SETTINGS)
    assert not gap.complete[49 * 512]
    assert gap.complete[30 * 512]
    assert not gap.glitch[round(49.9 * 2048) : round(50.1 * 2048)].any()  # the witness does not see that one


def test_strain_that_is_not_there_is_not_analysed_and_stays_missing(recorded):
    strain = recorded[data.STRAIN]
    holey = strain.series.copy()
    holey[(70 * 2048) : (72 * 2048)] = np.nan
    gap = subtract({**recorded, data.STRAIN: replace(strain, series=holey)}, data.model(), SPAN, SPAN, data.SETTINGS)
    assert not gap.analysed[71 * 512]
    assert gap.analysed[50 * 512]
    assert not gap.glitch[(70 * 2048) : (72 * 2048)].any()


def test_what_no_witness_sees_is_suspected_to_be_a_signal_and_stays(recorded, found):
    strain = recorded[data.STRAIN]
    time = np.arange(len(strain.series)) / 2048.0 - 35.0
    signal_alone = 10 * data.LEVEL * np.exp(-((time / 0.05) ** 2)) * np.sin(2 * np.pi * 90 * time)
    both = {**recorded, data.STRAIN: replace(strain, series=strain.series + signal_alone)}
    seen = subtract(both, data.model(), SPAN, SPAN, data.SETTINGS)
    assert not seen.accounted[35 * 512]
    assert np.mean(found.accounted[10 * 512 : 86 * 512]) > 0.95  # cleaned glitches are no signals
    near = slice(33 * 2048, 37 * 2048)
    assert np.array_equal(seen.glitch[near], np.zeros(4 * 2048))


def test_the_weights_of_windows_add_up_to_one():
    summed = np.zeros(20 * 512)
    for start in range(0, 16 * 512, 512):
        summed[start : start + 2048] += window_weight(2048, 512.0, 1.0)
    np.testing.assert_allclose(summed[3 * 512 : -5 * 512], 1.0, atol=1e-12)


def test_belief_grows_with_snr_and_is_exactly_nothing_far_away():
    burst = np.zeros(8 * 512)
    burst[2048] = 1.0
    for snr, expected in ((1.9, 0.0), (3.0, 0.5), (8.0, 1.0)):
        trusted = belief(snr_in_time(snr * burst, 512.0), 512.0, (2.0, 4.0))
        assert trusted[2048] == pytest.approx(expected, abs=1e-6)
        assert not trusted[: 2 * 512].any()


def test_windows_that_do_not_cover_all_times_are_refused():
    with pytest.raises(ConfigurationError, match="stride"):
        subtract({}, data.model(), SPAN, SPAN, replace(data.SETTINGS, stride=3.0))
    with pytest.raises(ConfigurationError, match="stride"):
        StreamSettings(stride=0.3)


def test_a_long_stretch_is_divided_by_gps_time_and_its_parts_add_up():
    trusted = np.zeros(30 * 512)
    trusted[2 * 512 : 17 * 512] = 1.0
    trusted[20 * 512 : 23 * 512] = 0.5
    rng = np.random.default_rng(5)
    predicted = 0.2 * rng.standard_normal(len(trusted))
    measured = rng.standard_normal(len(trusted))
    measured[: 8 * 512] += predicted[: 8 * 512]
    parts = ask(predicted, measured, trusted, 1_000_000 * 512, 512.0)
    assert [one.span[0] - 1_000_000 for one in parts] == pytest.approx([2.0, 3.75, 7.75, 11.75, 20.0])
    assert [one.share > 0.9 for one in parts] == [True, True, False, False, False]
    together = np.zeros(len(trusted))
    for one in parts:
        together[one.first - 1_000_000 * 512 :][: len(one.weight)] += one.weight
    np.testing.assert_allclose(together, trusted, atol=1e-12)


def test_belief_is_softened_as_by_a_convolution_of_the_whole():
    rate, size = 128.0, 4000
    snr = np.zeros(size)
    for place, loud in ((0, 5.0), (900, 3.0), (1010, 9.0), (2500, 2.5), (3999, 4.0)):
        snr[place] = loud
    edge = round(BELIEF_EDGE * rate)
    reached = ndimage.maximum_filter1d(np.clip((snr - 2) / 2, 0, 1), 4 * edge + 1, mode="constant")
    window = signal.windows.hann(2 * edge + 1)
    expected = np.minimum(np.convolve(reached, window / window.sum(), mode="same"), 1)
    np.testing.assert_allclose(belief(snr, rate, (2.0, 4.0)), expected, atol=1e-12)
