from dataclasses import replace

import numpy as np
import pytest
from tests._configuration import section

from glitchflow_plugin.data.readers.triggers import write_triggers
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, NoEventsError
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.ranking import selected_witnesses
from glitchflow_plugin.preprocessing.scan import _Scan, coincidence_examples, overlap_warning, scan_channels
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.preprocessing.spectrograms import batch_maps, event_transform
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.clusters import find_spikes
from glitchflow_plugin.signal.qtransform import axes

RATE, SAMPLES = 1024.0, 4096
TIME = np.arange(SAMPLES) / RATE
SETTINGS = ScanSettings(num_f_bins=32, num_t_bins=129)


def burst(centre, frequency=60.0, amplitude=4.0):
    return (
        amplitude
        * np.exp(-((2 * np.pi * frequency * (TIME - centre) / 12) ** 2))
        * np.sin(2 * np.pi * frequency * TIME)
    )


def detector(num_events=24, seed=0):
    """STRAIN; 1 sees all glitches, 2 most of them, 3 is busy, 4 and 5 are quiet, 6 is dead and not marked so."""
    rng = np.random.default_rng(seed)
    series = rng.standard_normal((num_events, 7, SAMPLES))
    for event in series:
        centre = rng.uniform(1.2, 2.8)
        event[0] += burst(centre)
        event[1] += burst(centre + 0.05)
        if rng.random() < 0.7:
            event[2] += burst(centre - 0.05, 30.0, 5.0)
        for _ in range(6):
            event[3] += burst(rng.uniform(0, 4))
    series[:, 6] = 0
    return series


def overlapping(per_glitch, num_glitches=16, seed=3, spread=0.05):
    """Series and left edges of events, some for each glitch; witness 1 sees all glitches, 2 is busy, 3 is quiet."""
    rng, length = np.random.default_rng(seed), SAMPLES + 2048
    time = np.arange(length) / RATE
    series, starts = [], []
    for glitch in range(num_glitches):
        stream = rng.standard_normal((4, length))
        for channel, centres in enumerate([[3.0], [3.05], rng.uniform(0, 6, 8), []]):
            for centre in centres:
                phase = 2 * np.pi * 60.0 * (time - centre)
                stream[channel] += 5.0 * np.exp(-((phase / 12) ** 2)) * np.sin(phase)
        # the first is the event of a single trigger
        first = 1024 - rng.integers(0, round(spread * RATE), per_glitch)
        first[0] = 1024
        series += [stream[:, begin : begin + SAMPLES] for begin in first]
        starts += [1_200_000_000.0 + 100.0 * glitch + begin / RATE for begin in first]
    return np.array(series), np.array(starts)


@pytest.mark.parametrize("per_glitch", [2, 5])
def test_several_triggers_a_glitch_tell_what_one_tells(make_event_set, per_glitch):
    found = {}
    for number in (1, per_glitch):
        series, starts = overlapping(per_glitch)
        rows = np.arange(0, len(series), per_glitch) if number == 1 else np.arange(len(series))[::-1]
        events = make_event_set(series[rows], starts=starts[rows], name=f"events{number}")
        found[number] = scan_channels(events, SETTINGS).table().set_index("channel")
        warning = overlap_warning(events, SETTINGS)
        assert (warning is None) == (number == 1)
        if warning:
            assert f"{16 * per_glitch} of {16 * per_glitch} events overlap" in warning
            assert "16 independent stretches" in warning
            assert "triggers.cluster" in warning
    one, several = found[1], found[per_glitch]
    assert (several["events"] == 16 * per_glitch).all()
    assert abs(several["strain_spikes"]["WITNESS_1"] - one["strain_spikes"]["WITNESS_1"]) <= 1
    assert abs(several["shared_spikes"]["WITNESS_1"] - one["shared_spikes"]["WITNESS_1"]) <= 1
    for name in ("correlation", "iou", "efficiency", "deadtime"):
        np.testing.assert_allclose(several[name], one[name], atol=0.1, err_msg=name)
    # not by taking accidents several times
    assert several["p_value"]["WITNESS_1"] < 1e-6
    assert several["p_value"]["WITNESS_2"] > 1e-3
    assert abs(np.log10(several["p_value"]["WITNESS_1"] / one["p_value"]["WITNESS_1"])) < 3


def test_examples_and_injections_of_overlapping_events(make_event_set, tmp_path):
    series, starts = overlapping(3, num_glitches=8)
    events = make_event_set(series, starts=starts)
    ranking = scan_channels(events, SETTINGS, tmp_path / "spikes")
    examples, _, times = coincidence_examples(events, ranking, SETTINGS, tmp_path / "spikes")
    example = examples[0]
    assert example.channel == "WITNESS_1"
    assert (example.gps_start + example.shared) % 100 == pytest.approx(3.0, abs=0.1)
    column = np.abs(times - example.shared).argmin()
    assert example.maps[0, :, column].max() > SETTINGS.threshold
    # one injection, which three events show, is one
    injected = replace(SETTINGS, injections=(1_200_000_003.0 + 100.0 * np.arange(8)).tolist())
    assert scan_channels(events, injected, tmp_path / "spikes").safety_p_value.min() > 1e-10
    assert _Scan(events, injected).injections.event.tolist() == list(range(8))


def test_finds_the_true_witnesses_and_nothing_else(make_event_set):
    ranking = scan_channels(make_event_set(detector()), SETTINGS)
    assert ranking.selected == ("WITNESS_1", "WITNESS_2")
    assert ranking.target == "STRAIN"
    by_name = dict(zip(ranking.channels, ranking.correlation, strict=True))
    assert by_name["WITNESS_1"] > 0.95
    assert 0.5 < by_name["WITNESS_2"] < 0.9
    assert by_name["WITNESS_6"] == 0.0


def test_unsafe_channels_are_ranked_but_never_selected(make_event_set):
    ranking = scan_channels(make_event_set(detector()), replace(SETTINGS, unsafe=["*_1"]))
    assert ranking.channels[0] == "WITNESS_1"
    assert ranking.correlation[0] > 0.95
    assert ranking.selected == ("WITNESS_2",)


def test_busy_channel_would_pass_any_sensible_threshold_by_chance_alone(make_event_set):
    events = make_event_set(detector())
    ranking = scan_channels(events, SETTINGS)
    row = ranking.channels.index("WITNESS_3")
    assert ranking.correlation[row] > 0.17
    assert ranking.iou[row] > 0.02
    assert ranking.chance[row] == pytest.approx(ranking.correlation[row], abs=0.2)
    naive = replace(SETTINGS, num_slides=0, threshold_corr=0.17, threshold_iou=0.02)
    assert "WITNESS_3" in scan_channels(events, naive).selected


def test_single_accident_of_a_rare_witness_is_not_significant(make_event_set):
    rng = np.random.default_rng(5)
    series = rng.standard_normal((25, 4, SAMPLES))
    for row, event in enumerate(series):
        centre = rng.uniform(1.2, 2.8)
        event[0] += burst(centre, amplitude=6.0)
        if row < 10:
            event[1] += burst(centre, amplitude=6.0)
        if row == 0:
            event[2] += burst(centre + 0.1, amplitude=6.0)
    events = make_event_set(series)
    # Quiet noise and loud bursts, and thresholds that one pair in 25 reaches: significance alone decides.
    low = replace(SETTINGS, threshold=35.0, threshold_corr=0.03, threshold_iou=0.03)
    assert scan_channels(events, replace(SETTINGS, threshold=35.0)).selected == ("WITNESS_1",)
    ranking = scan_channels(events, low)
    shared = dict(zip(ranking.channels, ranking.shared_spikes.tolist(), strict=True))
    assert shared == {"WITNESS_1": 10, "WITNESS_2": 1, "WITNESS_3": 0}
    assert ranking.chance[ranking.channels.index("WITNESS_2")] == 0.0
    assert ranking.selected == ("WITNESS_1",)
    for free in ({"fdr": 1.0}, {"num_slides": 0}):
        assert scan_channels(events, replace(low, **free)).selected == ("WITNESS_1", "WITNESS_2")


def test_thresholds_are_asked_beside_the_test(make_event_set):
    events = make_event_set(detector())
    ranking = scan_channels(events, SETTINGS)
    assert ranking.requirements == "a false-discovery rate <= 0.01"
    iou = ranking.iou[ranking.channels.index("WITNESS_2")]
    for limits in ({"threshold_corr": 0.9}, {"threshold_iou": iou + 0.01}):
        # alone of the rounds: a second one would see other spikes
        strict = scan_channels(events, replace(SETTINGS, max_rounds=1, **limits))
        assert strict.selected == ("WITNESS_1",), limits
    assert strict.requirements == f"a false-discovery rate <= 0.01 and an IoU >= {iou + 0.01:g}"


def test_a_faint_witness_that_passes_the_test_is_selected(make_event_set):
    rng = np.random.default_rng(8)
    series = rng.standard_normal((60, 3, SAMPLES))
    for row, event in enumerate(series):
        centre = rng.uniform(1.2, 2.8)
        event[0] += burst(centre, amplitude=6.0)
        if row < 7:
            event[1] += burst(centre, amplitude=6.0)
    ranking = scan_channels(make_event_set(series), replace(SETTINGS, threshold=35.0))
    assert ranking.selected == ("WITNESS_1",)
    assert ranking.correlation[0] < 0.147


def test_channel_that_is_never_valid_gives_no_information(make_event_set):
    series = detector()
    valid = np.ones(series.shape[:2], dtype=bool)
    valid[:, 1] = False
    ranking = scan_channels(make_event_set(series, valid), SETTINGS)
    assert ranking.channels[-1] == "WITNESS_1"
    assert np.isnan(ranking.correlation[-1])
    assert np.isnan(ranking.iou[-1])
    assert ranking.events[-1] == 0
    assert "WITNESS_1" not in ranking.selected


def test_quiet_strain_gives_no_information_at_all(make_event_set):
    series = detector()
    series[:, 0] = np.random.default_rng(9).standard_normal(series[:, 0].shape) * 0
    ranking = scan_channels(make_event_set(series), SETTINGS)
    assert np.isnan(ranking.correlation).all()
    assert ranking.selected == ()


def test_batches_and_workers_do_not_change_the_result(make_event_set):
    events = make_event_set(detector(10))
    one = scan_channels(events, replace(SETTINGS, num_batch=1, num_chan=1))
    for changes, workers in (({"num_batch": 100, "num_chan": 100}, 1), ({"memory": 1.0}, 1), ({}, 2)):
        other = scan_channels(events, replace(SETTINGS, **changes), engine=EngineSettings(workers=workers))
        assert one.table().equals(other.table())


def test_events_without_valid_strain_do_not_count(make_event_set):
    series = detector(8)
    valid = np.ones(series.shape[:2], dtype=bool)
    valid[:5, 0] = False
    ranking = scan_channels(make_event_set(series, valid), SETTINGS)
    assert ranking.events.max() == 3
    valid[:, 0] = False
    with pytest.raises(NoEventsError, match="STRAIN is valid in none"):
        scan_channels(make_event_set(series, valid, name="none"), SETTINGS)


def test_spikes_outside_the_time_window_do_not_count(make_event_set):
    rng = np.random.default_rng(3)
    series = rng.standard_normal((8, 2, SAMPLES))
    for event in series:
        event[:] += burst(0.5)  # far from the event's time, 2 s
    events = make_event_set(series)
    assert scan_channels(events, SETTINGS).correlation[0] == 1.0
    near = scan_channels(events, replace(SETTINGS, time_window=1.0))
    assert np.isnan(near.correlation[0])


def test_transient_cut_at_one_edge_makes_no_spike_at_the_other(make_event_set):
    rng = np.random.default_rng(6)
    time = np.arange(6144) / RATE
    series = 0.1 * rng.standard_normal((4, 2, 6144))
    cut = np.exp(-((2 * np.pi * 12 * (time - 0.05) / 12) ** 2)) * np.sin(2 * np.pi * 12 * time)
    whole = np.exp(-((2 * np.pi * 60 * (time - 3.0) / 12) ** 2)) * np.sin(2 * np.pi * 60 * time)
    series[:, 0] += cut + whole
    series[:, 1] += np.roll(cut, 6042) + whole  # 5.95 s: the joined edges would make it a witness of `cut`
    events = make_event_set(series)
    transform = event_transform(events, SETTINGS)
    frequencies, times = axes(events.duration, transform)
    maps = batch_maps(events.read(), RATE, transform)
    bare = find_spikes(maps, SETTINGS.threshold, frequencies, times, time_only=True)
    assert (bare.time[bare.channel == 0] > 5.8).any()  # the fault is there to be dropped
    ranking = scan_channels(events, SETTINGS)
    assert (ranking.strain_spikes[0], ranking.witness_spikes[0], ranking.shared_spikes[0]) == (4, 4, 4)


def test_frequency_counts_unless_time_only(make_event_set):
    rng = np.random.default_rng(4)
    series = rng.standard_normal((8, 2, SAMPLES))
    for event in series:
        event[0] += burst(2.0, 40.0, 5.0)
        event[1] += burst(2.0, 160.0, 8.0)
    events = make_event_set(series)
    assert scan_channels(events, SETTINGS).correlation[0] == 1.0
    strict = scan_channels(events, replace(SETTINGS, time_only_mode=False))
    assert strict.correlation[0] == 0.0
    wide = replace(SETTINGS, time_only_mode=False, tolerance_distance=[0.25, 3.0])
    assert scan_channels(events, wide).correlation[0] == 1.0


def test_another_reference_channel(make_event_set):
    ranking = scan_channels(make_event_set(detector()), replace(SETTINGS, refchan="WITNESS_2"))
    assert ranking.target == "WITNESS_2"
    assert not {"STRAIN", "WITNESS_2"} & set(ranking.channels)
    assert ranking.selected == ("WITNESS_1",)


def test_reference_that_is_missing_or_alone_is_refused(make_event_set):
    events = make_event_set(detector(2))
    with pytest.raises(ChannelMismatchError, match="refchan NOPE"):
        scan_channels(events, replace(SETTINGS, refchan="NOPE"))
    with pytest.raises(ChannelMismatchError, match="nothing to scan"):
        scan_channels(make_event_set(detector(2)[:, :1], name="alone"), SETTINGS)


def test_frequency_past_nyquist_is_refused_before_any_work(make_event_set):
    with pytest.raises(ConfigurationError, match="highest frequency that fits"):
        scan_channels(make_event_set(detector(2)), replace(SETTINGS, frange=[8, 500]))


def read_maps(events, monkeypatch):
    """Count the maps that are asked for, by event and channel."""
    asked = []
    read = type(events).read

    def spy(self, rows=None, channels=None):
        batch = read(self, rows, channels)
        asked.extend((event, channel) for event in batch.event_ids for channel in channels)
        return batch

    monkeypatch.setattr(type(events), "read", spy)
    return asked


def test_every_map_is_computed_once_and_other_thresholds_need_none(make_event_set, tmp_path, monkeypatch):
    events = make_event_set(detector(6))
    asked = read_maps(events, monkeypatch)
    first = scan_channels(events, SETTINGS, tmp_path / "spikes")
    assert sorted(asked) == sorted((event, channel) for event in events.event_ids for channel in events.channels)
    asked.clear()
    cheap = replace(
        SETTINGS, threshold_corr=0.9, fdr=0.5, unsafe=["*_1"], time_window=1.5, tolerance_distance=0.1, num_slides=32
    )
    assert scan_channels(events, cheap, tmp_path / "spikes").selected != first.selected
    scan_channels(events, replace(SETTINGS, refchan="WITNESS_2"), tmp_path / "spikes")
    assert asked == []
    for dear in ({"threshold": 25.0}, {"q": 14.0}, {"frange": (10.0, 400.0)}, {"time_only_mode": False}):
        scan_channels(events, replace(SETTINGS, **dear), tmp_path / "spikes")
        assert len(asked) == 6 * 7
        asked.clear()


def test_ranking_tells_rounds_families_lags_and_veto_figures(make_event_set):
    ranking = scan_channels(make_event_set(detector()), SETTINGS)
    table = ranking.table().set_index("channel")
    assert ranking.rounds[0].channel == "WITNESS_1"
    assert ranking.rounds[0].explained / ranking.rounds[0].remaining > 0.95
    assert table["round"]["WITNESS_1"] == 1
    # The second sees 0.7 of what the first sees: one cause.
    assert table["family"][["WITNESS_1", "WITNESS_2"]].tolist() == [1, 1]
    assert table["representative"][["WITNESS_1", "WITNESS_2"]].tolist() == [True, False]
    assert table["lag"]["WITNESS_1"] == pytest.approx(0.05, abs=0.03)
    assert table["lag"]["WITNESS_2"] == pytest.approx(-0.05, abs=0.05)
    assert table["efficiency"]["WITNESS_1"] > 0.95
    assert table["efficiency_over_deadtime"]["WITNESS_1"] > 5
    assert table["efficiency_over_deadtime"]["WITNESS_3"] < 2
    assert table["q_value"]["WITNESS_1"] < 1e-6 < table["p_value"]["WITNESS_3"]
    assert not table["family"][["WITNESS_3", "WITNESS_4", "WITNESS_5", "WITNESS_6"]].any()


def injected(num_events=24, seed=1):
    """`detector` with an injection a second before the middle of each event, which the strain and 2 see."""
    rng = np.random.default_rng(seed)
    series = detector(num_events, seed)
    for event in series:
        event[[0, 2]] += burst(0.8, 90.0, 5.0) * rng.uniform(0.9, 1.1)
    return series


def test_channel_that_sees_the_injections_is_unsafe(make_event_set):
    events = make_event_set(injected())
    times = (events.gps_start + 0.8).tolist()
    before = scan_channels(events, SETTINGS)
    assert before.selected == ("WITNESS_2", "WITNESS_1")
    ranking = scan_channels(events, replace(SETTINGS, injections=times))
    table = ranking.table().set_index("channel")
    assert ranking.selected == ("WITNESS_1",)
    assert list(ranking.unsafe) == ["WITNESS_2"]
    assert ranking.unsafe["WITNESS_2"].startswith("coincides with the injections, p = ")
    assert table["safety_p_value"]["WITNESS_2"] < 1e-6
    assert table["safety_p_value"]["WITNESS_1"] > 0.01
    assert np.isnan(table["safety_p_value"]["WITNESS_6"]) or table["safety_p_value"]["WITNESS_6"] == 1
    # The injections are no glitches: the strain's spikes at their times do not count.
    assert table["strain_spikes"]["WITNESS_1"] == before.strain_spikes[before.channels.index("WITNESS_1")] - 24
    allowed = scan_channels(events, replace(SETTINGS, injections=times, safe_override=["WITNESS_2"]))
    assert set(allowed.selected) == {"WITNESS_1", "WITNESS_2"}
    assert list(allowed.overridden) == ["WITNESS_2"]
    assert not allowed.unsafe


def test_injections_come_from_a_list_a_text_file_or_a_table(make_event_set, tmp_path):
    events = make_event_set(injected(12))
    times = (events.gps_start + 0.8).tolist()
    text, table = tmp_path / "times.txt", tmp_path / "table.csv"
    text.write_text("# injections\n" + "\n".join(f"{time:.3f}" for time in times))
    write_triggers(table, [(f"injection-{row}", time) for row, time in enumerate(times)])
    # as LIGO tables write times: whole seconds alone would acquit the unsafe channel
    apart = tmp_path / "apart.csv"
    rows = [f"{int(time)},{round(time % 1 * 1e9)}" for time in times]
    apart.write_text("\n".join(["peak_time,peak_time_ns", *rows]))
    found = [
        scan_channels(events, replace(SETTINGS, injections=given), tmp_path / "spikes")
        for given in (times, str(text), str(table), str(apart))
    ]
    for one in found:
        np.testing.assert_array_equal(one.safety_p_value, found[0].safety_p_value)
        assert "WITNESS_2" in one.unsafe


@pytest.mark.parametrize("wrong", [1126259462.4, ["a"], [True], [float("nan")]])
def test_injections_that_are_no_times_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"injections.*a list of GPS times"):
        replace(SETTINGS, injections=wrong)


def test_injections_elsewhere_and_unknown_names_are_refused_before_any_work(make_event_set, monkeypatch):
    events = make_event_set(detector(3))
    asked = read_maps(events, monkeypatch)
    with pytest.raises(ConfigurationError, match="none of the 1 injections lies in the analysed events"):
        scan_channels(events, replace(SETTINGS, injections=[1.0e9]))
    with pytest.raises(ChannelMismatchError, match="safe_override"):
        scan_channels(events, replace(SETTINGS, safe_override=["WITNESS_*"]))
    assert asked == []


@pytest.mark.slow
def test_unsafe_channel_of_the_simulated_detector_is_caught_by_its_mergers(tmp_path):
    from glitchflow_plugin.preprocessing.ingest import ingest
    from glitchflow_plugin.simulation.detector import simulate
    from glitchflow_plugin.simulation.settings import SimulationSettings

    settings = built(
        SimulationSettings, {"num_events": 48, "mergers": {"fraction": 0.4}, "duration": 12.0, "seed": 5}, "simulate"
    )
    made = simulate(settings, tmp_path / "raw", workers=1)
    truth = made.truth()
    processing = {"minf": 8.0, "maxf": 400.0, "sr": 1024.0, "len": 6.0, "whiten": True}
    data = {"path": str(made.folder), "target": made.target, "processing": processing}
    events = ingest([data], {"fft_length": 1.0, "overlap": 0.5}, tmp_path / "events")
    signals = [signal.gps_time for event in truth.events.values() for signal in event.signals]
    ranking = scan_channels(events, ScanSettings(injections=signals))
    assert list(ranking.unsafe) == ["V1:LSC-DARM_PICKOFF"]
    assert ranking.selected
    assert set(ranking.selected) <= set(truth.true_witnesses)
    assert len(ranking.selected) >= len(truth.true_witnesses) - 2  # some see no more than three glitches here


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_only_mode": "False"},
        {"logf": 1},
        {"threshold": 0},
        {"threshold": "20"},
        {"num_batch": 0},
        {"num_chan": 2.5},
        {"time_window": -1.0},
        {"tolerance_distance": [0.1, 0.2, 0.3]},
        {"tolerance_distance": "0.1"},
        {"threshold_corr": 17},
        {"threshold_iou": True},
        {"num_slides": -1},
        {"memory": 0},
        {"fdr": 2},
        {"fdr_method": "bonferroni"},
        {"max_rounds": 0},
        {"injections": [1.0], "num_slides": 0},
        {"safe_override": "V1:X"},
        {"unsafe": "V1:*"},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        ScanSettings(**wrong)


@pytest.mark.parametrize("off", [{"num_slides": 0}, {"fdr": 1}])
def test_something_must_decide(off):
    with pytest.raises(ConfigurationError, match="nothing would decide which channels are witnesses"):
        ScanSettings(**off)
    assert ScanSettings(**off, threshold_corr=0.17).criteria.correlation == 0.17
    assert ScanSettings(**off, threshold_iou=0).criteria.iou == 0


def test_configuration_file_holds_the_defaults_and_only_known_keys():
    content = section("scan")
    settings = ScanSettings(**content)
    assert replace(settings, frange=(8.0, 400.0)) == ScanSettings()
    assert set(content) == set(ScanSettings.__dataclass_fields__)
    with pytest.raises(ConfigurationError, match=r"treshold.*Nearest: threshold"):
        built(ScanSettings, {"treshold": 20}, "scan")
    with pytest.raises(ConfigurationError, match="replaced by fdr"):
        built(ScanSettings, {"significance": 0.01}, "scan")


def test_channels_whose_slow_motion_counts_are_taken_whatever_a_scan_finds(make_event_set):
    slow = {"minf": 8.0, "maxf": 400.0, "slow": {"location": 0.0, "scale": 1.0, "highest": 4.0}}
    recipe = {"channels": {"WITNESS_1": slow, "WITNESS_4": slow, "WITNESS_5": slow}}
    valid = np.ones((24, 7), dtype=bool)
    valid[:, 5] = False
    events = make_event_set(detector(), valid, recipe=recipe)
    ranking = scan_channels(events, SETTINGS)
    assert selected_witnesses(ranking, events, "scan").channels == ("WITNESS_1", "WITNESS_2", "WITNESS_4")
    unsafe = scan_channels(events, replace(SETTINGS, unsafe=["*_4"]))
    assert selected_witnesses(unsafe, events, "scan").channels == ("WITNESS_1", "WITNESS_2")
