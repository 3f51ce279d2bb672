from dataclasses import replace

import numpy as np
import pytest
from tests.streaming import _streams as data

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal import filters
from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.streaming import online, ranks
from glitchflow_plugin.streaming.online import OnlineSettings, OnlineTwin, Stride
from glitchflow_plugin.streaming.ranks import window_columns, within_block
from glitchflow_plugin.streaming.subtraction import subtract, summed_glitch

SPAN = (data.GPS, data.GPS + data.LENGTH)
SETTINGS = replace(data.SETTINGS, spectrum=replace(data.SETTINGS.spectrum, length=16.0, stride=8.0))


@pytest.fixture(scope="module")
def recorded():
    return data.recordings()


def _stride(recorded, number, length=1.0, lacking=()):
    """What came of all channels in a second."""
    start = number * length
    parts = {}
    for name, one in recorded.items():
        first, last = (round(edge * one.sample_rate) for edge in (start, start + length))
        if name not in lacking:
            parts[name] = replace(one, series=one.series[first:last], t0=data.GPS + start)
    return Stride(data.GPS + start, parts)


def _online(recorded, lookahead, *, lacking=lambda _: (), last=96, model=None):
    """The twin after all strides, and its outputs by number of the second that they are about."""
    twin = OnlineTwin(model or data.model(), OnlineSettings(lookahead, SETTINGS))
    outputs = [twin.push(_stride(recorded, number, lacking=lacking(number))) for number in range(last)]
    return twin, {round(one.span[0] - data.GPS): one for one in outputs}


@pytest.fixture(scope="module")
def run(recorded):
    return _online(recorded, 1.0)


def _same(one, other):
    """Whether two outputs are the same to the last bit."""
    assert one.span == other.span
    for name in ("glitch", "analysed", "complete", "familiar", "accounted", "quiet", "agreed", "energy", "band"):
        np.testing.assert_array_equal(getattr(one.found, name), getattr(other.found, name))
    assert one.found.gains == other.found.gains
    assert [one.record for one in one.found.stretches] == [one.record for one in other.found.stretches]


def _glitches(outputs):
    series = np.zeros(round(data.LENGTH * data.RATES[data.STRAIN]))
    for number, one in outputs.items():
        if one.found is not None:
            series[number * 2048 :][:2048] = one.found.glitch
    return series


def _near(gps):
    return slice(round((gps - 0.3) * 2048), round((gps + 0.3) * 2048))


def test_a_second_behind_the_newest_sample_the_true_glitches_are_taken_on_a_seam_too(run):
    true = data.LEVEL * filters.band_pass(data.glitch(2048.0), 2048.0, 10.0, 200.0)[0]
    for gps in data.GLITCHES[1:]:
        near = _near(gps)
        left = np.square(_glitches(run[1]) - true)[near].sum() / np.square(true)[near].sum()
        assert left < 0.02  # the guide's own noise, and that of the spectra


def test_with_time_enough_it_agrees_with_the_stream_that_knows_the_future(recorded):
    """By given spectra: those that are measured are of the past here, and of both sides there."""
    model = data.model()
    levels = {data.STRAIN: data.LEVEL, data.GUIDE: (data.RATES[data.GUIDE] / data.RATES[data.STRAIN]) ** 0.5 / 20}
    known = [
        replace(one, psd=Psd(np.full(round(rate) // 2 + 1, 2 * levels.get(one.name, 1.0) ** 2 / rate), 1.0))
        for one, rate in ((one, one.sample_rate) for one in (model.target, *model.witnesses))
    ]
    model = replace(model, target=known[0], witnesses=tuple(known[1:]))
    offline = subtract(recorded, model, SPAN, SPAN, SETTINGS)
    _, outputs = _online(recorded, 4.0, model=model)
    taken = _glitches(outputs)
    for gps in data.GLITCHES:
        near = _near(gps)
        assert np.square(taken - offline.glitch)[near].sum() < 1e-10 * np.square(offline.glitch)[near].sum()
    energies = np.concatenate([within_block(outputs[one].found.energy) for one in range(10, 88)])
    known = within_block(offline.energy)[10 * 128 :][: len(energies)]
    np.testing.assert_allclose(energies, known, atol=1e-5 * known.max())


def test_the_last_seconds_decide_alone(recorded, run):
    memory = round(run[0].memory)
    assert memory < 60
    for last in (51, 72):  # at a glitch
        fresh = OnlineTwin(data.model(), OnlineSettings(1.0, SETTINGS))
        for number in range(last - memory, last):
            fresh.feed(_stride(recorded, number))
        _same(fresh.push(_stride(recorded, last)), run[1][last - 1])
    assert run[1][50].found.glitch.any()


def test_it_goes_on_after_an_interruption_as_if_there_had_been_none(recorded, run):
    twin, _ = _online(recorded, 1.0, last=51)
    held = {name: np.array(one) for name, one in twin.state().items()}
    fresh = OnlineTwin(data.model(), OnlineSettings(1.0, SETTINGS))
    fresh.restore(held)
    for number in range(51, 54):
        _same(fresh.push(_stride(recorded, number)), run[1][number - 1])
    assert sum(one.nbytes for one in held.values()) < 2**23


def test_nothing_is_kept_of_what_is_over(run):
    assert sum(one.nbytes for one in run[0].state().values()) < 2**23


def test_clean_and_glitch_add_up_and_where_nothing_is_predicted_nothing_is_touched(recorded, run):
    touched = np.flatnonzero(_glitches(run[1])) / 2048.0
    assert np.min(np.abs(touched[:, None] - data.GLITCHES), axis=1).max() < 3.0
    for number, one in run[1].items():
        if one.strain is not None:
            expected = recorded[data.STRAIN].series[number * 2048 :][:2048]
            assert np.array_equal(one.strain.series, expected)


def test_a_missing_witness_is_told_and_without_the_strain_nothing_is_analysed(recorded, run):
    lacking = {40: (data.GUIDE,), 60: (data.STRAIN,), 61: tuple(data.RATES)}
    _, outputs = _online(recorded, 1.0, lacking=lambda number: lacking.get(number, ()), last=75)
    assert outputs[35].found.complete.all()
    assert not outputs[40].found.complete.any()
    assert outputs[40].found.missing == {data.GUIDE: 1.0}
    assert outputs[50].found.analysed.all()
    _same(outputs[35], run[1][35])
    assert outputs[60].found is None
    assert outputs[61].found is None
    assert not outputs[62].found.analysed.any()
    assert not outputs[62].found.glitch.any()
    assert outputs[70].found.analysed.all()


def test_what_never_came_is_a_gap(recorded):
    twin, _ = _online(recorded, 1.0, last=35)
    outputs = list(twin.gap(data.GPS + 35, data.GPS + 37))
    assert [one.span[0] - data.GPS for one in outputs] == [34, 35]
    assert [one.found is None for one in outputs] == [False, True]
    assert not twin.push(_stride(recorded, 38 - 1)).found


def test_what_is_no_stride_is_refused(recorded):
    twin = OnlineTwin(data.model(), OnlineSettings(1.0, SETTINGS))
    twin.push(_stride(recorded, 0))
    with pytest.raises(DataError, match="expected the stride that begins at GPS 1400000001"):
        twin.push(_stride(recorded, 2))
    with pytest.raises(DataError, match="expected 1 s of V1:STRAIN"):
        twin.push(Stride(data.GPS + 1, _stride(recorded, 1, 2.0).channels))
    with pytest.raises(DataError, match="multiple of 1 s"):
        twin.push(_stride(recorded, 3, 0.5))
    with pytest.raises(ConfigurationError, match=r"online.settings.lookahead must be a multiple"):
        OnlineSettings(0.5, SETTINGS)
    with pytest.raises(ConfigurationError, match=r"online.settings.stream.stride must be at most two thirds"):
        OnlineTwin(data.model(), OnlineSettings(3.0, replace(SETTINGS, stride=3.0)))


def test_of_a_window_that_is_held_the_columns_are_made_once(run, monkeypatch):
    asked = []

    def counted(windows, model, stride):
        asked.extend(one.centre for one in windows)
        return window_columns(windows, model, stride)

    monkeypatch.setattr(ranks, "window_columns", counted)
    windows = [window for window, _ in run[0]._windows.values() if window.predicted][:3]
    remembered = ranks.RememberedColumns()
    for known in (windows[:2], windows):
        found = remembered(known, run[0].model, 1.0)
        np.testing.assert_array_equal(found, window_columns(known, run[0].model, 1.0))
    assert asked == [one.centre for one in windows]


def test_whether_stretches_far_from_what_is_read_are_asked_about_makes_no_difference(recorded, run, monkeypatch):
    asked = []

    def all_of_them(*args, read):
        asked.append(read)
        return summed_glitch(*args)

    monkeypatch.setattr(online, "summed_glitch", all_of_them)
    _, outputs = _online(recorded, 1.0, last=44)
    assert asked
    for number, one in outputs.items():
        if one.found is not None:
            _same(one, run[1][number])
    assert any(one.found.stretches for one in outputs.values() if one.found is not None)


def test_warmed_up_it_says_the_same(recorded, run):
    twin = OnlineTwin(data.model(), OnlineSettings(1.0, SETTINGS))
    twin.warm_up()
    outputs = [twin.push(_stride(recorded, number)) for number in range(24)]
    for one in outputs[20:]:
        _same(one, run[1][round(one.span[0] - data.GPS)])
