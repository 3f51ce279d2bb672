from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, NoEventsError
from glitchflow_plugin.preprocessing.scan import ScanSettings, scan_channels
from glitchflow_plugin.preprocessing.spectrograms import batch_maps, event_transform
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


def test_finds_the_true_witnesses_and_nothing_else(make_event_set):
    ranking = scan_channels(make_event_set(detector()), SETTINGS, progress=False)
    assert ranking.selected == ("WITNESS_1", "WITNESS_2")
    assert ranking.target == "STRAIN"
    by_name = dict(zip(ranking.channels, ranking.correlation, strict=True))
    assert by_name["WITNESS_1"] > 0.95
    assert 0.5 < by_name["WITNESS_2"] < 0.9
    assert by_name["WITNESS_6"] == 0.0


def test_unsafe_channels_are_ranked_but_never_selected(make_event_set):
    ranking = scan_channels(make_event_set(detector()), replace(SETTINGS, unsafe=["*_1"]), progress=False)
    assert ranking.channels[0] == "WITNESS_1"
    assert ranking.correlation[0] > 0.95
    assert ranking.selected == ("WITNESS_2",)


def test_busy_channel_is_above_the_thresholds_by_chance_alone(make_event_set):
    events = make_event_set(detector())
    ranking = scan_channels(events, SETTINGS, progress=False)
    row = ranking.channels.index("WITNESS_3")
    assert ranking.correlation[row] > SETTINGS.threshold_corr
    assert ranking.iou[row] > 0.02
    assert ranking.chance[row] == pytest.approx(ranking.correlation[row], abs=0.2)
    naive = replace(SETTINGS, num_slides=0, significance=1.0, threshold_iou=0.02)
    assert "WITNESS_3" in scan_channels(events, naive, progress=False).selected


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
    ranking = scan_channels(events, low, progress=False)
    shared = dict(zip(ranking.channels, ranking.shared_spikes.tolist(), strict=True))
    assert shared == {"WITNESS_1": 10, "WITNESS_2": 1, "WITNESS_3": 0}
    assert ranking.chance[ranking.channels.index("WITNESS_2")] == 0.0
    assert ranking.selected == ("WITNESS_1",)
    for free in ({"significance": 1.0}, {"num_slides": 0}):
        assert scan_channels(events, replace(low, **free), progress=False).selected == ("WITNESS_1", "WITNESS_2")


def test_channel_that_is_never_valid_gives_no_information(make_event_set):
    series = detector()
    valid = np.ones(series.shape[:2], dtype=bool)
    valid[:, 1] = False
    ranking = scan_channels(make_event_set(series, valid), SETTINGS, progress=False)
    assert ranking.channels[-1] == "WITNESS_1"
    assert np.isnan(ranking.correlation[-1])
    assert np.isnan(ranking.iou[-1])
    assert ranking.events[-1] == 0
    assert "WITNESS_1" not in ranking.selected


def test_quiet_strain_gives_no_information_at_all(make_event_set):
    series = detector()
    series[:, 0] = np.random.default_rng(9).standard_normal(series[:, 0].shape) * 0
    ranking = scan_channels(make_event_set(series), SETTINGS, progress=False)
    assert np.isnan(ranking.correlation).all()
    assert ranking.selected == ()


def test_batches_do_not_change_the_result(make_event_set):
    events = make_event_set(detector(10))
    one = scan_channels(events, replace(SETTINGS, num_batch=1, num_chan=1), progress=False)
    all_ = scan_channels(events, replace(SETTINGS, num_batch=100, num_chan=100), progress=False)
    assert one.channels == all_.channels
    for name in ("correlation", "iou", "chance", "events", "strain_spikes", "witness_spikes", "shared_spikes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(all_, name))


def test_no_more_than_the_batch_is_read_at_a_time(make_event_set, monkeypatch):
    events = make_event_set(detector(6))
    shapes = []
    read = type(events).read

    def spy(self, rows=None, channels=None):
        batch = read(self, rows, channels)
        shapes.append(batch.series.shape[:2])
        return batch

    monkeypatch.setattr(type(events), "read", spy)
    scan_channels(events, replace(SETTINGS, num_batch=2, num_chan=3), progress=False)
    assert max(rows for rows, _ in shapes) == 2
    assert max(columns for _, columns in shapes) == 3
    assert sum(rows for rows, columns in shapes if columns == 1) == 6  # the reference once an event


def test_events_without_valid_strain_do_not_count(make_event_set):
    series = detector(8)
    valid = np.ones(series.shape[:2], dtype=bool)
    valid[:5, 0] = False
    ranking = scan_channels(make_event_set(series, valid), SETTINGS, progress=False)
    assert ranking.events.max() == 3
    valid[:, 0] = False
    with pytest.raises(NoEventsError, match="STRAIN is valid in none"):
        scan_channels(make_event_set(series, valid, name="none"), SETTINGS, progress=False)


def test_spikes_outside_the_time_window_do_not_count(make_event_set):
    rng = np.random.default_rng(3)
    series = rng.standard_normal((8, 2, SAMPLES))
    for event in series:
        event[:] += burst(0.5)  # far from the event's time, 2 s
    events = make_event_set(series)
    assert scan_channels(events, SETTINGS, progress=False).correlation[0] == 1.0
    near = scan_channels(events, replace(SETTINGS, time_window=1.0), progress=False)
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
    ranking = scan_channels(events, SETTINGS, progress=False)
    assert (ranking.strain_spikes[0], ranking.witness_spikes[0], ranking.shared_spikes[0]) == (4, 4, 4)


def test_frequency_counts_unless_time_only(make_event_set):
    rng = np.random.default_rng(4)
    series = rng.standard_normal((8, 2, SAMPLES))
    for event in series:
        event[0] += burst(2.0, 40.0, 5.0)
        event[1] += burst(2.0, 160.0, 8.0)
    events = make_event_set(series)
    assert scan_channels(events, SETTINGS, progress=False).correlation[0] == 1.0
    strict = scan_channels(events, replace(SETTINGS, time_only_mode=False), progress=False)
    assert strict.correlation[0] == 0.0
    wide = replace(SETTINGS, time_only_mode=False, tolerance_distance=[0.25, 3.0])
    assert scan_channels(events, wide, progress=False).correlation[0] == 1.0


def test_another_reference_channel(make_event_set):
    ranking = scan_channels(make_event_set(detector()), replace(SETTINGS, refchan="WITNESS_2"), progress=False)
    assert ranking.target == "WITNESS_2"
    assert not {"STRAIN", "WITNESS_2"} & set(ranking.channels)
    assert ranking.selected == ("WITNESS_1",)


def test_reference_that_is_missing_or_alone_is_refused(make_event_set):
    events = make_event_set(detector(2))
    with pytest.raises(ChannelMismatchError, match="refchan NOPE"):
        scan_channels(events, replace(SETTINGS, refchan="NOPE"), progress=False)
    with pytest.raises(ChannelMismatchError, match="nothing to scan"):
        scan_channels(make_event_set(detector(2)[:, :1], name="alone"), SETTINGS, progress=False)


def test_frequency_past_nyquist_is_refused_before_any_work(make_event_set):
    with pytest.raises(ConfigurationError, match="highest frequency that fits"):
        scan_channels(make_event_set(detector(2)), replace(SETTINGS, frange=[8, 500]), progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_only_mode": "False"},
        {"logf": 1},
        {"qtile": True},
        {"threshold": 0},
        {"threshold": "20"},
        {"num_batch": 0},
        {"num_chan": 2.5},
        {"time_window": -1.0},
        {"tolerance_distance": [0.1, 0.2, 0.3]},
        {"tolerance_distance": "0.1"},
        {"threshold_corr": 17},
        {"num_slides": -1},
        {"unsafe": "V1:*"},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        ScanSettings(**wrong)


def test_configuration_file_holds_the_defaults_and_only_known_keys():
    content = yaml.safe_load((Path(__file__).parents[2] / "conf" / "scan.yaml").read_text())
    settings = ScanSettings(**content)
    assert replace(settings, frange=(8.0, 400.0)) == ScanSettings()
    assert set(content) == set(ScanSettings.__dataclass_fields__)
    with pytest.raises(TypeError, match="treshold"):
        ScanSettings(treshold=20)
