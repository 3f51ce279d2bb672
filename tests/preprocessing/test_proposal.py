"""What is proposed is accepted by what ingestion itself asks of data and settings."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data.datasets import DatasetSettings, ProcessingSettings
from glitchflow_plugin.errors import ConfigurationError, NoEventsError
from glitchflow_plugin.preprocessing.fit import Reach, find_fit
from glitchflow_plugin.preprocessing.inspection import SeenChannel, SeenData
from glitchflow_plugin.preprocessing.proposal import propose
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.preprocessing.survey import Survey
from glitchflow_plugin.preprocessing.target import find_target
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.conditioning import ConditioningSettings, condition, needed_length
from glitchflow_plugin.signal.qtransform import QTransformSettings, check_settings
from glitchflow_plugin.signal.whitening import WhiteningSettings

GPS = 1_264_000_000.0
RATES = (16.0, 32.0, 50.0, 64.0, 100.0, 128.0, 256.0, 500.0, 512.0, 1000.0, 1024.0, 2048.0, 4096.0, 10000.0, 16384.0)


def seen(rate, length=20.0, events=30, **more):
    return SeenChannel(rate, more.pop("unit", "m"), np.full(events, float(length)), **more)


def survey(channels, events=30, **more):
    times = {f"e{number:03d}": GPS + 300.0 * number for number in range(events)}
    return Survey((SeenData("/data", "events", (), channels, events=times, looked=events),), **more)


reaches = st.builds(
    Reach, name=st.just("V1:X"), sample_rate=st.sampled_from(RATES), length=st.floats(1, 30).map(lambda x: round(x, 3))
)


@settings(max_examples=25, deadline=None)
@given(target=reaches, witnesses=st.lists(reaches, max_size=4), phase=st.floats(0, 1))
def test_whatever_fits_is_accepted_by_ingestion(target, witnesses, phase):
    named = [Reach(f"V1:W{row}", one.sample_rate, one.length) for row, one in enumerate(witnesses)]
    strain = Reach("V1:STRAIN", target.sample_rate, target.length)
    try:
        fit = find_fit(strain, named)
    except NoEventsError:
        assume(False)  # what is refused is another test's
    chosen = fit.settings
    band = ProcessingSettings(chosen.low, chosen.high, chosen.sample_rate, chosen.duration)
    DatasetSettings(path="/data", segment=max(fit.needed.values()), processing=band)
    q = QTransformSettings(ScanSettings.q, *fit.frange)
    check_settings(chosen.num_samples, chosen.sample_rate, q)
    assert chosen.low <= fit.frange[0] < fit.frange[1] <= chosen.high
    assert set(fit.bands) | set(fit.left_out) == {strain.name, *(one.name for one in named)}
    generator = np.random.default_rng(0)
    for one in (strain, *named):
        if one.name not in fit.bands:
            continue
        # the least there may be of a series of that length, wherever its samples and the trigger lie between the grid's
        series = generator.standard_normal(int(fit.needed[one.name] * one.sample_rate))
        gps = GPS + phase
        crop, _ = condition(series, one.sample_rate, gps - len(series) / one.sample_rate / 2, gps, chosen)
        assert crop.shape == (chosen.num_samples,)


def test_the_usual_settings_are_kept_where_they_fit():
    fit = find_fit(Reach("S", 16384.0, 14.0), [Reach("W", 64.0, 14.0)])
    assert fit.settings == ConditioningSettings()
    assert fit.frange == ScanSettings.frange
    assert fit.left_out == {}


def test_short_events_get_a_shorter_crop_and_the_slow_channel_is_left_out_with_figures():
    fit = find_fit(
        Reach("S", 16384.0, 8.0), [Reach("A", 4096.0, 8.0), Reach("B", 512.0, 8.0), Reach("SLOW", 64.0, 8.0)]
    )
    assert fit.settings.duration == 4.0
    assert set(fit.bands) == {"S", "A", "B"}
    needed = needed_length(fit.settings, 64.0, aligned=False)
    assert f"{needed:.2f} s in all" in fit.left_out["SLOW"]
    assert "8.00 s about the trigger" in fit.left_out["SLOW"]
    assert "64 Hz" in fit.left_out["SLOW"]


def test_a_channel_without_a_band_is_left_out_with_its_nyquist_frequency():
    fit = find_fit(Reach("S", 4096.0, 20.0), [Reach("A", 1024.0, 20.0), Reach("SLOW", 16.0, 20.0)])
    assert "Nyquist frequency 8 Hz" in fit.left_out["SLOW"]


def test_a_slow_channel_alone_is_worth_a_compromise():
    many = [Reach(f"W{row}", 4096.0, 12.0) for row in range(50)]
    assert "SLOW" in find_fit(Reach("S", 4096.0, 12.0), [*many, Reach("SLOW", 64.0, 12.0)]).left_out
    assert "SLOW" in find_fit(Reach("S", 4096.0, 12.0), [Reach("SLOW", 64.0, 12.0)]).bands


@pytest.mark.parametrize(
    ("rate", "length", "words"),
    [
        (4096.0, 1.0, "too short.*1.00 s.*least"),
        (20.0, 60.0, "cannot be used.*20 Hz"),
        (5000.7, 60.0, "cannot be used.*common multiple"),
    ],
)
def test_a_target_that_nothing_fits_is_refused_with_figures(rate, length, words):
    with pytest.raises(NoEventsError, match=words):
        find_fit(Reach("S", rate, length), [])


@pytest.mark.parametrize(
    "name",
    [
        "V1:Hrec_hoft_16384Hz",
        "L1:GDS-CALIB_STRAIN",
        "H1:DCS-CALIB_STRAIN_C01",
        "H1:GWOSC-4KHZ_R1_STRAIN",
        "H1:LOSC-STRAIN",
        "K1:CAL-CS_PROC_C00_STRAIN",
        "X1:STRAIN",
        "h_t",
    ],
)
def test_the_strain_is_told_by_its_name(name):
    channels = {name: seen(4096.0), "V1:ENV_MIC": seen(4096.0), "V1:STRAINGAUGE": seen(64.0)}
    assert find_target(channels) == name


def test_the_strain_is_told_by_its_unit_last():
    assert find_target({"A": seen(4096.0, unit="strain"), "B": seen(4096.0)}) == "A"


def test_several_candidates_are_listed_and_none_lists_what_there_is():
    channels = {"H1:GDS-CALIB_STRAIN": seen(4096.0), "L1:GDS-CALIB_STRAIN": seen(4096.0), "H1:MIC": seen(64.0)}
    with pytest.raises(ConfigurationError, match=r"2 channels.*H1:GDS.*4096 Hz.*L1:GDS.*--target"):
        find_target(channels)
    assert find_target(channels, "L1:GDS-CALIB_STRAIN") == "L1:GDS-CALIB_STRAIN"
    with pytest.raises(ConfigurationError, match=r"H1:MIC.*--target CHANNEL"):
        find_target({"H1:MIC": seen(64.0)})
    with pytest.raises(ConfigurationError, match=r"GDS-CALIB_STRAN.*GDS-CALIB_STRAIN"):
        find_target(channels, "L1:GDS-CALIB_STRAN")


def test_what_sees_the_strain_itself_is_named_unsafe():
    channels = {
        "V1:Hrec_hoft_16384Hz": seen(16384.0),
        "V1:Hrec_hoft_raw": seen(16384.0),
        "V1:LSC-DARM_ERR": seen(4096.0),
        "V1:ENV_MIC": seen(4096.0),
        "L1:GDS-CALIB_STRAIN": seen(4096.0),
    }
    proposal = propose(survey(channels), "V1:Hrec_hoft_16384Hz")
    assert proposal.unsafe == ("V1:Hrec_hoft_raw", "V1:LSC-DARM_ERR")
    assert proposal.changes["scan"]["unsafe"] == list(proposal.unsafe)


def test_a_key_with_the_strain_as_its_alias_is_called_by_it():
    channels = {"strain": seen(4096.0, alias="H1:GDS-CALIB_STRAIN"), "H1:MIC": seen(4096.0)}
    proposal = propose(survey(channels))
    assert proposal.target == "H1:GDS-CALIB_STRAIN"
    assert proposal.data[0].channels == ("H1:GDS-CALIB_STRAIN", "H1:MIC")


def test_nothing_beside_the_strain_is_refused_with_the_reasons():
    with pytest.raises(NoEventsError, match=r"no witness.*V1:T: .*Nyquist"):
        propose(survey({"V1:Hrec_hoft": seen(4096.0), "V1:T": seen(1.0)}))


def test_a_target_without_data_is_refused():
    channels = {"V1:Hrec_hoft": seen(None, problem="t0: stored as float32"), "V1:A": seen(4096.0)}
    with pytest.raises(NoEventsError, match="float32"):
        propose(survey(channels))


def test_few_short_events_do_not_decide_and_are_told():
    lengths = np.full(30, 20.0)
    lengths[:2] = 3.0
    channels = {"V1:Hrec_hoft": SeenChannel(4096.0, "strain", lengths), "V1:A": seen(4096.0)}
    proposal = propose(survey(channels))
    assert proposal.fit.settings == ConditioningSettings()
    assert any("2 of 30 events have less" in remark for remark in proposal.remarks)


def test_many_channels_make_small_shards_and_few_blocks_small_ones():
    channels = {f"V1:W{row:04d}": seen(4096.0) for row in range(2000)} | {"V1:Hrec_hoft": seen(4096.0)}
    assert propose(survey(channels)).batch == 2
    close = {f"e{number:03d}": GPS + 40.0 * number for number in range(30)}
    data = SeenData("/d", "events", (), {"V1:Hrec_hoft": seen(4096.0), "V1:A": seen(4096.0)}, events=close, looked=30)
    assert propose(Survey((data,))).changes["split"] == {"block_length": 32.0}


def test_settings_that_change_are_those_of_the_other_files():
    channels = {"V1:Hrec_hoft": seen(4096.0, 6.0), "V1:A": seen(4096.0, 6.0)}
    proposal = propose(survey(channels))
    assert set(proposal.changes) <= {"whiten", "maps", "scan", "split"}
    WhiteningSettings(**proposal.changes["whiten"])
    assert propose(survey(channels)).fit == proposal.fit  # the same again


@pytest.mark.parametrize(("events", "few"), [(1, True), (2, True), (3, False), (30, False)])
def test_too_few_events_for_a_test_against_chance_are_scanned_without(events, few):
    channels = {name: seen(4096.0, events=events) for name in ("V1:Hrec_hoft", "V1:A")}
    proposal = propose(survey(channels, events))
    assert proposal.few == few
    assert ("num_slides" in proposal.changes.get("scan", {})) == few
    assert any("cannot tell coincidence from chance" in remark for remark in proposal.remarks) == few
    built(ScanSettings, proposal.changes.get("scan", {}), "scan")
