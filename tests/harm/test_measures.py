from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.streaming import _streams as data

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.harm.injections import (
    HarmSettings,
    check_power,
    distance_to,
    draw_pass,
    draw_source,
)
from glitchflow_plugin.harm.measures import BlockFound, added, judge_block
from glitchflow_plugin.harm.report import (
    harm_metrics,
    harm_table,
    harm_warnings,
    injection_table,
    safety_table,
)
from glitchflow_plugin.harm.run import HarmJob, HarmRecord
from glitchflow_plugin.harm.ways import believed
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.models.wiener import WienerFilter

SPAN = (data.GPS, data.GPS + data.LENGTH)
SETTINGS = HarmSettings(
    kinds=("sine_gaussian",), passes=2, snr=(10.0, 30.0), band=(30.0, 110.0), near=0.1, seed=3, replicates=200
)
STREAM = replace(data.SETTINGS, stride=2.0)
BAND = (10.0, 200.0)


def judge(channels, model, settings=SETTINGS):
    return judge_block(channels, model, (SPAN, SPAN), STREAM, settings)


def record(found):
    return HarmRecord(*SPAN, "", found, {})


@pytest.fixture(scope="module")
def found():
    return judge(data.recordings(), data.model())


def of(found, place):
    table = injection_table([record(found)], SETTINGS)
    return table[table["place"] == place]


def test_the_glitches_are_found_in_the_strain(found):
    assert np.array(found.glitches) - data.GPS == pytest.approx(data.GLITCHES, abs=0.1)


def test_far_from_glitches_signals_are_recovered_as_theory_says_and_stay_as_they_are(found):
    quiet = of(found, "quiet")
    assert len(quiet) > 25
    # in noise the SNR scatters by 1 about the optimal one
    away = quiet["snr_before"] - quiet["snr"]
    assert away.std() == pytest.approx(1.0, abs=0.3)
    assert abs(away.mean()) < 0.5
    assert quiet["chi_squared_before"].mean() == pytest.approx(1.0, abs=0.2)
    assert (quiet["snr_after"] / quiet["snr_before"] - 1).abs().max() < 0.01
    assert quiet["match"].min() > 0.999
    assert not quiet["lost"].any()


def test_at_a_glitch_cleaning_brings_the_snr_nearer_to_the_truth_and_its_rivals_do_not(found):
    hit = injection_table([record(found)], SETTINGS)
    hit = hit[hit["empty_before"] > 5]
    assert len(hit) >= 2
    error = {
        way: (hit[f"snr_{way}"] / hit["snr"] - 1).abs().mean() for way in ("before", "after", "gated", "elsewhere")
    }
    assert error["after"] < 0.5 * error["before"]
    assert error["after"] < 0.5 * error["gated"]
    assert error["after"] < 0.5 * error["elsewhere"]
    assert hit["empty_after"].mean() < 0.2 * hit["empty_before"].mean()


def test_a_model_that_predicts_nothing_changes_nothing():
    network = WienerFilter(2, filter_size=33)
    with torch.no_grad():
        network.filters.zero_()
    idle = replace(data.model(), twin=WaveformTwin(network).eval())
    for one in judge(data.recordings(), idle, replace(SETTINGS, passes=1)).judged:
        assert len(set(one.found.values())) == 1
        assert (one.match, one.kept) == pytest.approx((1.0, 1.0))


def leaking():
    """Recordings in which the guide holds the strain, and a model that believes the guide."""
    recorded = data.recordings()
    guide = recorded[data.GUIDE]
    copy = recorded[data.STRAIN].series[::2] / data.LEVEL
    noise = np.random.default_rng(9).standard_normal(len(copy))
    recorded[data.GUIDE] = replace(guide, series=3.0 * copy + 0.3 * noise)
    network = WienerFilter(2, filter_size=33)
    with torch.no_grad():
        network.filters[0, 16] = 0.5
    return recorded, replace(data.model(), twin=WaveformTwin(network).eval())


def test_a_witness_that_holds_the_strain_is_named_unsafe_with_what_is_lost():
    unsafe = judge(*leaking(), replace(SETTINGS, passes=1))
    assert [one.name for one in unsafe.followers] == [data.GUIDE]
    assert unsafe.followers[0].coherent > 0.9
    # both are whitened; of what the guide holds a half is strain above 512 Hz, folded
    assert unsafe.followers[0].gain == pytest.approx(0.5**0.5, abs=0.05)
    # the model takes a half of what the guide holds of it: without a trace there nothing
    table = injection_table([record(unsafe)], SETTINGS)
    safety = safety_table(table, [record(unsafe)], SETTINGS)
    assert safety["witness"].tolist() == [data.GUIDE]
    assert safety["lost"][0] == pytest.approx(0.5**1.5, abs=0.03)
    assert table[table["witness"] == ""]["kept"].median() > 0.99
    [warning] = [one for one in harm_warnings(table, safety, [record(unsafe)], SETTINGS) if "unsafe" in one]
    assert data.GUIDE in warning
    assert "scan.unsafe" in warning


def test_witnesses_that_do_not_hold_the_strain_are_not_suspected(found):
    assert not found.followers
    table = injection_table([record(found)], SETTINGS)
    assert not len(safety_table(table, [record(found)], SETTINGS))
    assert not harm_warnings(table, safety_table(table, [record(found)], SETTINGS), [record(found)], SETTINGS)


def test_figures_are_those_of_the_table(found):
    table = injection_table([record(found)], SETTINGS)
    metrics = harm_metrics(table, SETTINGS)
    quiet = table[table["place"] == "quiet"]
    change = (quiet["snr_after"] / quiet["snr_before"] - 1).abs()
    assert metrics["snr_change_quiet"].value == pytest.approx(change.median())
    assert metrics["snr_change_quiet"].low <= change.median() <= metrics["snr_change_quiet"].high
    assert metrics["lost_quiet"].value == 0
    assert metrics["injections_quiet"].value == len(quiet)
    assert set(metrics["snr_error_near"].baseline) == {"nothing", "gates", "elsewhere"}
    rows = harm_table(table, SETTINGS)
    assert rows[(rows["place"] == "quiet") & (rows["snr"] == "all")]["injections"].sum() == len(quiet)
    assert rows[rows["snr"] != "all"]["injections"].sum() == len(table)


def test_a_signal_that_cleaning_hides_is_counted_as_lost(found):
    first = next(one for one in found.judged if one.distance and one.distance > 4)
    hidden = replace(first, found={**first.found, "before": 8.1, "after": 7.9})
    table = injection_table([record(BlockFound((hidden,)))], SETTINGS)
    assert harm_metrics(table, SETTINGS)["lost_quiet"].value == 1
    safety = safety_table(table, [], SETTINGS)
    assert any("1 of 1 signals fell below SNR 8" in one for one in harm_warnings(table, safety, [], SETTINGS))


def test_a_gap_holds_no_signal():
    recorded = data.recordings()
    strain = recorded[data.STRAIN]
    series = strain.series.copy()
    series[40 * 2048 : 60 * 2048] = np.nan
    gappy = judge({**recorded, data.STRAIN: replace(strain, series=series)}, data.model(), replace(SETTINGS, passes=1))
    times = np.array([one.gps for one in gappy.judged]) - data.GPS
    assert len(times) > 5
    assert not ((times > 36) & (times < 64)).any()
    short = series.copy()
    short[5 * 2048 :] = np.nan
    nothing = judge({**recorded, data.STRAIN: replace(strain, series=short)}, data.model())
    assert "measured" in nothing.problem


def test_signals_lie_apart_and_where_they_are_wanted():
    glitches = np.arange(20.0, 400.0, 20.0)
    settings = HarmSettings(kinds=("binary", "sine_gaussian"), spacing=3.0)
    drawn = draw_pass(
        settings.kinds, [(0.0, 150.0), (200.0, 400.0)], glitches, np.random.default_rng(0), settings, band=BAND
    )
    spans = np.array([one.span for one in drawn])
    assert (spans[1:, 0] - spans[:-1, 1] >= 3.0).all()
    assert not ((spans[:, 1] > 150) & (spans[:, 0] < 200)).any()
    gps = np.array([one.gps for one in drawn])
    away = distance_to(glitches, gps, gps)
    assert ((away <= settings.near) | (away >= settings.quiet)).all()
    assert 0.2 < (away <= settings.near).mean() < 0.8
    assert {one.source.kind for one in drawn} == set(settings.kinds)
    assert all(8 <= one.snr <= 40 for one in drawn)
    other = draw_pass(settings.kinds, [(0.0, 150.0)], glitches, np.random.default_rng(1), settings, band=BAND)
    assert {one.gps for one in other}.isdisjoint(gps)
    assert not draw_pass(["long"], [(0.0, 30.0)], glitches, np.random.default_rng(0), settings, band=BAND)


def test_neutron_stars_take_a_minute_and_more():
    lengths = [draw_source("long", np.random.default_rng(seed), HarmSettings(), BAND).before for seed in range(20)]
    assert min(lengths) > 50
    assert max(lengths) < 140


def test_bands_without_power_and_outside_of_the_model_are_refused():
    check_power("binary", 10.0, 20.0, BAND)
    with pytest.raises(ConfigurationError, match=r"kind binary has 2 % of its SNR.*harm\.settings\.band"):
        check_power("binary", 0.4, 20.0, (180.0, 200.0))
    with pytest.raises(ConfigurationError, match=r"harm\.settings\.band must lie within.*10 to 200 Hz"):
        HarmJob(".", data.model(), data.SETTINGS, HarmSettings(band=(100.0, 300.0)), {})
    with pytest.raises(ConfigurationError, match="near"):
        HarmSettings(near=4.0, quiet=2.0)


def test_what_is_believed_is_what_is_subtracted_without_its_ringing():
    series = np.zeros(20 * 64)
    series[5 * 64 : 12 * 64] = 1.0
    series[8 * 64] = 0.0
    assert believed(Channel("V1:X", series, 100.0, 64.0)) == pytest.approx(np.array([[106.5, 110.5]]))
    assert not len(believed(Channel("V1:X", np.zeros(64), 100.0, 64.0)))


def test_what_is_added_lies_where_it_should_and_leaves_gaps():
    recorded = Channel("V1:X", np.array([1.0, np.nan, 1.0, 1.0], dtype=np.float32), 10.0, 1.0)
    summed = added(recorded, Channel("V1:X", np.full(4, 2.0), 8.0, 1.0))
    np.testing.assert_array_equal(summed.series, [3.0, np.nan, 1.0, 1.0])
