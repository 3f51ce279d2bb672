from collections import Counter
from dataclasses import replace
from functools import cache

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation.instrument import Detector
from glitchflow_plugin.simulation.noise import advirgo_asd, optimal_snr
from glitchflow_plugin.simulation.settings import SimulationSettings, default_families, known_families

QUIET = {"no_glitch_fraction": 0.0, "no_witness_fraction": 0.0, "witness_transient_rate": 0.0, "distractor_rate": 0.0}
QUIET |= {"mergers": {"fraction": 0.0}, "gap_fraction": 0.0, "duration": 8.0}


def event_of(index=0, **settings):
    return Detector(built(SimulationSettings, {**QUIET, **settings}, "simulate")).event(index)


@pytest.fixture(scope="module")
def many():
    """Events of the embedded default, without signals (which need torch)."""
    detector = Detector(built(SimulationSettings, {"mergers": {"fraction": 0.0}, "duration": 8.0}, "simulate"))
    return detector, [detector.event(index) for index in range(60)]


def test_events_have_the_channels_rates_and_times_they_should(many):
    detector, events = many
    event, truth = events[3]
    assert set(event.channels) == {detector.target, *detector.roles}
    assert event.event_id == truth.event_id == "V1-1400000196"
    assert event.gps_event == 1_400_000_196.0
    for channel in event.channels.values():
        assert channel.t0 == truth.gps_start == 1_400_000_192.0
        assert channel.series.size == 8 * channel.sample_rate
    assert {channel.sample_rate for channel in event.channels.values()} == {256.0, 1024.0, 2048.0, 4096.0}
    assert event.channels[detector.target].series.dtype == np.float64


def test_the_dead_channel_is_constant_and_no_other(many):
    _, events = many
    event, _ = events[0]
    flat = [name for name, channel in event.channels.items() if np.nanmin(channel.series) == np.nanmax(channel.series)]
    assert flat == ["V1:ENV-MAG_DEAD"]


@pytest.mark.parametrize("family", sorted(known_families()))
def test_a_glitch_has_the_snr_the_truth_says(family):
    _, truth = event_of(families={family: {}})
    (glitch,) = truth.glitches
    low, high = known_families()[family].snr
    assert low <= glitch.snr <= high
    # calculated anew: Riemann sum over the zero-padded waveform of the truth
    size = 2**17
    frequency = np.fft.rfftfreq(size, 1.0 / 4096.0)
    spectrum = np.fft.rfft(glitch.waveform, size) / 4096.0
    band = (frequency > 10.0) & (frequency < 1843.0)
    power = np.abs(spectrum[band]) ** 2 / advirgo_asd(frequency[band]) ** 2
    assert np.sqrt(4.0 * power.sum() * frequency[1]) == pytest.approx(glitch.snr, rel=0.01)


@pytest.mark.parametrize("family", sorted(known_families()))
def test_the_strain_is_noise_plus_glitch_and_zero_coupling_leaves_the_noise(family):
    event, truth = event_of(families={family: {}})
    bare, bare_truth = event_of(families={family: {}}, coupling=0.0)
    strain, noise = (one.channels["V1:Hrec_hoft"].series for one in (event, bare))
    added = truth.glitch_strain(4096.0)
    assert added.any()
    np.testing.assert_allclose(strain - noise, added, atol=2e-4 * np.abs(added).max())
    assert bare_truth.glitches == ()
    assert {one.reason for one in bare_truth.transients} == {"coupling is zero"}
    alone, _ = event_of(families={}, no_glitch_fraction=1.0)
    np.testing.assert_array_equal(alone.channels["V1:Hrec_hoft"].series, noise)


@pytest.mark.parametrize("family", sorted(known_families()))
def test_the_witnesses_see_the_glitch_with_the_snr_the_truth_says(family):
    event, truth = event_of(families={family: {}})
    alone, _ = event_of(families={family: {}}, no_glitch_fraction=1.0)
    (glitch,) = truth.glitches
    assert len(glitch.witnesses) == (2 if family == "acoustic" else 1)
    changed = {
        name
        for name, channel in event.channels.items()
        if not np.array_equal(channel.series, alone.channels[name].series)
    }
    assert set(glitch.witnesses) <= changed
    causes = {"V1:SUS-SB_DISP", "V1:ENV-SEIS_SB", "V1:ASC-BEAM_POS", "V1:ASC-SPOT_POS"}
    assert changed <= {*glitch.witnesses, *causes, "V1:Hrec_hoft", "V1:LSC-DARM_PICKOFF"}
    for name in glitch.witnesses:
        assert glitch.witness_snr[name] > 5.0
        seen = event.channels[name].series.astype(float) - alone.channels[name].series
        rate = event.channels[name].sample_rate
        frequency, density = signal.welch(alone.channels[name].series.astype(float), rate, nperseg=int(rate))
        grid = np.fft.rfftfreq(seen.size, 1.0 / rate)
        power = np.abs(np.fft.rfft(seen) / rate) ** 2 / np.interp(grid, frequency, density)
        band = (grid > 8.0) & (grid < 0.45 * rate) & (np.abs(grid - 50.0) > 2.0)
        assert np.sqrt(4.0 * power[band].sum() / 8.0) == pytest.approx(glitch.witness_snr[name], rel=0.25)


def test_the_strain_follows_the_witness_by_the_delay():
    event, truth = event_of(families={"blip": {"snr": [60.0, 60.0], "gain_spread": 0.0}})
    alone, _ = event_of(no_glitch_fraction=1.0)
    name = "V1:PSL-POWER_MON"
    seen = event.channels[name].series.astype(float) - alone.channels[name].series
    rate = event.channels[name].sample_rate
    at = truth.gps_start + np.sum(np.arange(seen.size) * seen**2) / np.sum(seen**2) / rate
    added = truth.glitch_strain(4096.0)
    arrived = truth.gps_start + np.sum(np.arange(added.size) * added**2) / np.sum(added**2) / 4096.0
    assert arrived - at == pytest.approx(0.008, abs=0.001)


def test_louder_in_the_witness_is_louder_in_the_strain_by_the_law():
    settings = {"gain_spread": 0.0}
    (loud,) = event_of(families={"whistle": {**settings, "snr": [80.0, 80.0]}})[1].glitches
    (soft,) = event_of(families={"whistle": {**settings, "snr": [20.0, 20.0]}})[1].glitches
    gain = {one.snr: one.coupling["gain"] * one.parameters["amplitude"] ** 2 for one in (loud, soft)}
    assert gain[loud.snr] / gain[soft.snr] == pytest.approx(4.0, rel=1e-6)


def test_a_glitch_lies_within_its_segment_near_the_middle(many):
    _, events = many
    for _, truth in events:
        for glitch in truth.glitches:
            low, high = glitch.segment
            assert low < glitch.gps_time + 0.5
            assert high > glitch.gps_time - 0.5
            assert abs(glitch.gps_time - truth.gps_event) < 1.1
            assert truth.gps_start < low < high < truth.gps_start + truth.duration


def test_shares_and_families_are_as_configured(many):
    _, events = many
    counts = Counter(truth.glitches[0].label if truth.glitches else "none" for _, truth in events)
    assert set(counts) == {"none", *default_families()}
    assert 4 <= counts["none"] <= 22  # a fifth of 60, within 3 standard deviations


def test_further_distractors_leave_the_other_channels_as_they_are():
    (few, _), (many, truth) = (
        event_of(3, families={"blip": {}}, distractor_rate=2.0, num_distractors=n) for n in (0, 6)
    )
    further = set(many.channels) - set(few.channels)
    assert further == {
        f"V1:{name}"
        for name in (
            "ENV-MAG_EXT_001",
            "ENV-MIC_EXT_001",
            "ENV-SEIS_EXT_001",
            "INF-PUMP_ACC_001",
            "ENV-MAG_EXT_002",
            "ENV-MIC_EXT_002",
        )
    }
    for name in set(few.channels) - {"V1:ASC-BEAM_POS"}:  # which wanders by the noise's random numbers
        np.testing.assert_array_equal(many.channels[name].series, few.channels[name].series)
    assert {one.channel for one in truth.transients} & further


def test_distractors_know_nothing_of_the_glitch(many):
    detector, events = many
    distractors = [name for name, role in detector.roles.items() if role == "distractor"]
    assert len(distractors) == 4
    glitches = [glitch for _, truth in events for glitch in truth.glitches]
    assert not {name for glitch in glitches for name in glitch.witnesses} & set(distractors)
    # loudness of the distractor at the glitch's time, with and without the glitch, is the same channel
    with_glitch, without = (
        event_of(5, families={"blip": {}}, distractor_rate=1.0, no_glitch_fraction=share)[0] for share in (0.0, 1.0)
    )
    for name in distractors:
        np.testing.assert_array_equal(with_glitch.channels[name].series, without.channels[name].series)
    busy = Counter(one.channel for _, truth in events for one in truth.transients if one.reason == "distractor")
    assert set(busy) == set(distractors)


def test_witness_transients_leave_the_strain_alone(many):
    _, events = many
    bystanders = [one for _, truth in events for one in truth.transients if one.reason != "distractor"]
    assert {one.reason for one in bystanders} == {"out of band", "below threshold"}
    assert max(one.strain_snr for one in bystanders) < 4.0
    assert min(one.snr for one in bystanders) > 4.0


def test_unwitnessed_glitches_are_in_the_strain_alone():
    event, truth = event_of(families={"tomte": {}}, no_witness_fraction=1.0)
    alone, _ = event_of(no_glitch_fraction=1.0)
    assert truth.glitches[0].witnesses == ()
    changed = {
        name
        for name, channel in event.channels.items()
        if not np.array_equal(channel.series, alone.channels[name].series)
    }
    assert changed == {"V1:Hrec_hoft", "V1:LSC-DARM_PICKOFF"}


def test_gaps_are_where_the_truth_says():
    event, truth = event_of(gap_fraction=1.0)
    ((name, (start, end)),) = truth.gaps.items()
    channel = event.channels[name]
    holes = np.flatnonzero(np.isnan(channel.series))
    assert holes[0] == round((start - channel.t0) * channel.sample_rate)
    assert holes[-1] + 1 == round((end - channel.t0) * channel.sample_rate)
    others = [one for other, one in event.channels.items() if other != name]
    assert not any(np.isnan(one.series).any() for one in others)


def test_the_same_seed_and_number_give_the_same_event_and_others_do_not():
    first, again, other_seed, other_number = (
        event_of(index, seed=seed)[0] for seed, index in ((1, 4), (1, 4), (2, 4), (1, 5))
    )
    for name, channel in first.channels.items():
        np.testing.assert_array_equal(channel.series, again.channels[name].series)
    strain = first.channels["V1:Hrec_hoft"].series
    for other in (other_seed, other_number):
        assert abs(np.corrcoef(strain, other.channels["V1:Hrec_hoft"].series)[0, 1]) < 0.2


def test_aligo_and_60_hz():
    event, _ = event_of(ifo="H1", noise="aligo", mains=60.0)
    assert all(name.startswith("H1:") for name in event.channels)


@pytest.mark.slow
def test_the_unsafe_channel_sees_the_merger_and_the_witnesses_do_not():
    settings = {"no_glitch_fraction": 1.0, "mergers": {"fraction": 1.0, "snr": [30.0, 30.0]}}
    event, truth = event_of(2, **settings)
    alone, _ = event_of(2, **{**settings, "mergers": {"fraction": 0.0}})
    (merger,) = truth.signals
    assert merger.label == "merger"
    assert merger.snr == pytest.approx(30.0)
    changed = {
        name
        for name, channel in event.channels.items()
        if not np.array_equal(channel.series, alone.channels[name].series)
    }
    assert changed == {"V1:Hrec_hoft", "V1:LSC-DARM_PICKOFF"}
    added = truth.signal_strain(4096.0)
    difference = event.channels["V1:Hrec_hoft"].series - alone.channels["V1:Hrec_hoft"].series
    np.testing.assert_allclose(difference, added, atol=2e-4 * np.abs(added).max())
    # the largest strain of a merger is at its merger time
    assert truth.gps_start + np.abs(added).argmax() / 4096.0 == pytest.approx(merger.gps_time, abs=0.03)
    picked = event.channels["V1:LSC-DARM_PICKOFF"].series - alone.channels["V1:LSC-DARM_PICKOFF"].series
    assert np.corrcoef(picked, added[::2])[0, 1] > 0.95


# The samples of an event of the embedded default, each multiplied with cos(its number), as they were before there were
# further families.
_BEFORE = {
    "V1:Hrec_hoft": -3.710925987e-20,
    "V1:SUS-SB_STRAY_PD": 8.013788911e-07,
    "V1:PSL-FSS_VCO_FREQ": 6.433599331e01,
    "V1:ASC-ACT_DRIVE": -1.033808979e-04,
    "V1:PSL-POWER_MON": 1.005082645e01,
    "V1:ENV-MAG_CEB": -6.486758401e-10,
    "V1:ENV-MIC_DET": 8.569342999e-02,
    "V1:ENV-ACC_DET": -4.232112251e-03,
    "V1:SUS-SB_DISP": -2.149093015e-07,
    "V1:ENV-SEIS_SB": 4.917126127e-07,
    "V1:ASC-BEAM_POS": -3.405029237e-05,
    "V1:ENV-MAG_EXT": -1.671162380e-09,
    "V1:ENV-MIC_EXT": 1.020882010e-01,
    "V1:ENV-SEIS_EXT": -1.033077694e-06,
    "V1:INF-PUMP_ACC": -1.509764475e-02,
    "V1:LSC-DARM_PICKOFF": -5.609189664e-03,
    "V1:ENV-MAG_DEAD": -1.668904043e-05,
}


def test_the_embedded_default_gives_the_events_it_always_gave():
    event, _ = Detector(built(SimulationSettings, {"mergers": {"fraction": 0.0}, "duration": 8.0}, "simulate")).event(5)
    assert list(event.channels) == list(_BEFORE)
    for name, expected in _BEFORE.items():
        series = event.channels[name].series.astype(float)
        assert series @ np.cos(np.arange(series.size)) == pytest.approx(expected, rel=1e-4, abs=0.0), name


def test_further_families_change_no_channel_of_the_others():
    few, _ = event_of(3, no_glitch_fraction=1.0)
    many, _ = event_of(3, no_glitch_fraction=1.0, families=dict.fromkeys(known_families()))
    assert len(set(many.channels) - set(few.channels)) == 7
    for name in set(few.channels) - {"V1:ASC-BEAM_POS"}:  # which wanders by the noise's random numbers
        np.testing.assert_array_equal(many.channels[name].series, few.channels[name].series)


def test_families_outside_the_networks_laws_are_listed_and_have_channels_of_their_own():
    assert Detector(SimulationSettings()).outside == ()
    detector = Detector(built(SimulationSettings, {"families": dict.fromkeys(known_families())}, "simulate"))
    assert set(detector.outside) == set(known_families()) - set(default_families())
    witnesses = [name for names in detector.witnesses_by_family.values() for name in names]
    assert len(set(witnesses)) == len(witnesses)
    assert {detector.roles[name] for name in witnesses} == {"witness"}
    assert detector.roles["V1:ASC-SPOT_POS"] == "cause"


def test_two_paths_differ_from_day_to_day_and_not_within_one():
    def echoes(seed, *days):
        settings = built(
            SimulationSettings, {**QUIET, "families": {"two_paths": {}}, "seed": seed, "spacing": 43200}, "simulate"
        )
        detector = Detector(settings)
        return [detector.event(2 * day + half)[1].glitches[0].coupling["echo"] for day in days for half in (0, 1)]

    one = echoes(1, 0, 1, 2)
    # the first event, at GPS 1 400 000 000, lies late on its day
    assert one[1::2] == [*one[2::2], one[5]]
    found = set(one)
    assert len(found) == 4
    assert all(0.5 <= abs(strength) <= 1.0 and 0.006 <= later <= 0.018 for strength, later in found)
    assert not found & set(echoes(2, 0, 1, 2))


def test_a_clipping_witness_never_shows_more_than_its_limit():
    detector = Detector(
        built(SimulationSettings, {**QUIET, "families": {"clipping": {"snr": [60.0, 60.0]}}}, "simulate")
    )
    (source,) = detector.sources
    seen = source.glitch(np.random.default_rng(2), detector.noises[0], 4.0).seen["LSC-POP_PD"]
    assert np.abs(seen).max() == source.limit
    assert (np.abs(seen) == source.limit).sum() > 20


def test_the_recorded_beam_spot_tells_the_gain_and_wanders_without_a_glitch_too():
    families = {"slow_gain": {"gain_spread": 0.0}}
    event, truth = event_of(families=families)
    drawn = truth.glitches[0].parameters
    spot = event.channels["V1:ASC-SPOT_POS"]
    time = truth.gps_start + np.arange(spot.series.size) / 256.0 - (truth.glitches[0].gps_time - 0.007)
    position = np.sin(2 * np.pi * drawn["spot_frequency"] * time + drawn["spot_phase"])
    assert np.corrcoef(spot.series, position)[0, 1] > 0.999
    alone, _ = event_of(families=families, no_glitch_fraction=1.0)
    assert np.ptp(alone.channels["V1:ASC-SPOT_POS"].series) > 1e-5


@given(
    family=st.sampled_from(sorted(known_families())),
    seed=st.integers(0, 2**32 - 1),
    snr=st.floats(4.0, 100.0),
    centre=st.floats(3.0, 5.0),
    day=st.integers(0, 30000),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_every_draw_has_the_snr_it_should_and_a_finite_amplitude(family, seed, snr, centre, day):
    detector = _detector_of(family)
    (source,) = detector.sources
    source.settings = replace(source.settings, snr=(snr, snr))
    glitch = source.glitch(np.random.default_rng(seed), detector.noises[0], centre, day)
    assert np.isfinite(glitch.strain).all()
    assert optimal_snr(glitch.strain, detector.noises[0].psd, 4096.0) == pytest.approx(snr, rel=1e-4)
    assert 0.0 < glitch.parameters["amplitude"] < 1e3 * source.typical
    assert 0.0 < glitch.coupling["gain"] < np.inf
    for series in glitch.seen.values():
        assert np.isfinite(series).all()
        assert series.any()


@cache
def _detector_of(family):
    return Detector(built(SimulationSettings, {**QUIET, "families": {family: {}}}, "simulate"))
