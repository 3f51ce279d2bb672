import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests._configuration import section

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, NoEventsError
from glitchflow_plugin.preprocessing import spectrograms
from glitchflow_plugin.preprocessing.map_settings import MapSettings
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.preprocessing.spectrograms import (
    ProcessSettings,
    event_transform,
    make_spectrograms,
)
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.qtransform import QTransformSettings, q_transform

SMALL = QTransformSettings(num_frequencies=16, num_times=33, frequency_high=300.0)


@pytest.fixture
def series():
    return np.random.default_rng(0).standard_normal((6, 4, 4096)).astype(np.float32)


def test_groups_come_from_the_event_set_without_the_events_that_are_left_out(make_event_set, series, tmp_path):
    valid = np.ones(series.shape[:2], dtype=bool)
    valid[1, 0] = False
    events = make_event_set(series, valid=valid, groups=[f"wave {row}" for row in range(6)])
    made = make_spectrograms(events, ("WITNESS_2",), SMALL, tmp_path / "maps", batch_size=4)
    assert made.groups == ("wave 0", "wave 2", "wave 3", "wave 4", "wave 5")


def test_default_maps_are_64_by_257_with_axes_and_recipe(make_event_set, series, tmp_path):
    events = make_event_set(series[:2])
    made = make_spectrograms(
        events,
        ("WITNESS_2",),
        event_transform(events, ProcessSettings()),
        tmp_path / "maps",
        selection={"channels": "scan"},
    )
    batch = made.read()
    assert batch.maps.shape == (2, 2, 64, 257)
    assert batch.maps.dtype == np.float32
    assert made.channels == ("STRAIN", "WITNESS_2")
    assert (made.frequencies[0], made.frequencies[-1]) == (8.0, 400.0)
    assert made.times[-1] == pytest.approx(4.0 * 256 / 257)
    assert made.recipe["events"] == events.recipe
    assert made.recipe["selection"] == {"channels": "scan"}
    assert QTransformSettings(**made.recipe["qtransform"]) == QTransformSettings()
    assert made.manifest.units == "SNR^2"
    np.testing.assert_array_equal(batch.gps_start, events.gps_start)
    np.testing.assert_array_equal(batch.gps_event, events.gps_event)


def test_each_map_belongs_to_its_event_and_channel(make_event_set, series, tmp_path):
    events = make_event_set(series)
    made = make_spectrograms(events, ("WITNESS_3", "WITNESS_1"), SMALL, tmp_path / "maps", batch_size=2)
    assert made.event_ids == events.event_ids
    for row in (0, 3, 5):
        expected = q_transform(torch.from_numpy(series[row, [0, 3, 1]]), 1024.0, SMALL).numpy()
        np.testing.assert_allclose(made.read([row]).maps[0], expected, rtol=1e-4, atol=1e-4)


def test_channels_that_are_not_valid_stay_zero(make_event_set, series, tmp_path):
    valid = np.ones((6, 4), dtype=bool)
    valid[2, 1] = False
    made = make_spectrograms(make_event_set(series, valid), ("WITNESS_1",), SMALL, tmp_path / "maps")
    batch = made.read()
    assert not batch.valid[2, 1]
    assert (batch.maps[2, 1] == 0).all()
    assert batch.maps[1, 1].max() > 1


def test_events_without_valid_target_are_left_out_and_listed(make_event_set, series, tmp_path):
    valid = np.ones((6, 4), dtype=bool)
    valid[2, 0] = False
    events = make_event_set(series, valid)
    made = make_spectrograms(events, ("WITNESS_1",), SMALL, tmp_path / "maps")
    assert len(made) == 5
    assert made.manifest.rejected == {"event-002": "target not valid"}
    valid[:, 0] = False
    none = make_event_set(series, valid, name="none")
    with pytest.raises(NoEventsError):
        make_spectrograms(none, ("WITNESS_1",), SMALL, tmp_path / "none-maps")


def test_witnesses_alone_are_enough_where_the_target_is_not_required(make_event_set, series, tmp_path):
    valid = np.ones((6, 4), dtype=bool)
    valid[:, 0] = False
    events = make_event_set(series, valid)
    made = make_spectrograms(events, ("WITNESS_1",), SMALL, tmp_path / "maps", require_target=False)
    batch = made.read()
    assert len(made) == 6
    assert not batch.valid[:, 0].any()
    assert (batch.maps[:, 0] == 0).all()
    assert batch.maps[:, 1].max(axis=(1, 2)).min() > 1


def test_killed_run_goes_on_at_the_missing_shard(make_event_set, series, tmp_path, monkeypatch):
    events = make_event_set(series)

    def make():
        return make_spectrograms(events, ("WITNESS_1",), SMALL, tmp_path / "maps", largest_shard=2)

    calls = []
    transform = spectrograms.q_transform

    def third_fails(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return transform(*args)

    monkeypatch.setattr(spectrograms, "q_transform", third_fails)
    with pytest.raises(KeyboardInterrupt):
        make()
    assert len(list((tmp_path / "maps").glob("shard-*.h5"))) == 2
    assert len(make()) == 6
    assert len(calls) == 4  # only the missing shard was transformed again
    make()
    assert len(calls) == 4
    whole = make_spectrograms(events, ("WITNESS_1",), SMALL, tmp_path / "whole")
    np.testing.assert_array_equal(SpectrogramSet.open(tmp_path / "maps").read().maps, whole.read().maps)


def test_other_settings_replace_the_set(make_event_set, series, tmp_path):
    events = make_event_set(series)
    make_spectrograms(events, ("WITNESS_1",), SMALL, tmp_path / "maps")
    made = make_spectrograms(events, ("WITNESS_1",), replace(SMALL, q=20.0), tmp_path / "maps")
    assert made.recipe["qtransform"]["q"] == 20.0


def test_event_set_is_never_overwritten(make_event_set, series):
    events = make_event_set(series)
    with pytest.raises(ConfigurationError, match="event set"):
        make_spectrograms(events, ("WITNESS_1",), SMALL, events.folder)
    events.verify()


def test_missing_channel_is_named(make_event_set, series, tmp_path):
    with pytest.raises(ChannelMismatchError, match="NOPE"):
        make_spectrograms(make_event_set(series), ("NOPE",), SMALL, tmp_path / "maps")


def test_resolutions_replace_the_numbers_of_bins():
    settings = MapSettings(fres=8.0, tres=0.05).transform(6.0)
    assert (settings.num_frequencies, settings.num_times) == (50, 120)
    with pytest.raises(ConfigurationError, match="tres"):
        MapSettings(tres=10.0).transform(6.0)


def test_several_q_and_one_q():
    assert MapSettings(q=[12, 24]).transform(6.0).q == (12.0, 24.0)
    assert MapSettings(q=[12]).transform(6.0).q == 12.0


@pytest.mark.parametrize("settings", [MapSettings, ProcessSettings, ScanSettings])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"q": "12"}, "expected a number, or a list"),
        ({"q": []}, "at least sqrt"),
        ({"q": [12, math.nan]}, "at least sqrt"),
        ({"frange": [8]}, r"frange: expected a pair \[lowest, highest\]"),
        ({"frange": [8, math.inf]}, r"frange\[1\]: expected a pair \[lowest, highest\]"),
        ({"frange": [400, 8]}, "Correct `frange`"),
        ({"fres": 0}, "fres"),
        ({"fres": 500}, "between 0 and 392 Hz"),
        ({"fres": 8, "logf": True}, "linear frequency axis"),
        ({"tres": -1}, "tres"),
        ({"tres": math.inf}, "tres"),
        ({"num_t_bins": 1}, "at least 2 rows and 2 columns"),
    ],
)
def test_maps_that_no_event_has_are_refused_wherever_they_are_asked_for(settings, wrong, words):
    with pytest.raises(ConfigurationError, match=words):
        settings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"logf": "False"}, "true or false without quotes"),
        ({"shuffle": "False"}, "keep the order"),
        ({"shuffle": True}, "keep the order"),
        ({"qtile": True}, "interpolated"),
        ({"psd": "psd.h5"}, "Data-processor"),
        ({"energy_mode": False}, "energies"),
        ({"phase_mode": True}, "no phases"),
        ({"window_param": 0.5}, "bisquare"),
        ({"tau": 2}, "whole event"),
        ({"beta": 8.6}, "bisquare"),
        ({"qslicemin": 4}, "`q`"),
        ({"qslicemax": 64}, "`q`"),
        ({"num_batch": 0}, "num_batch"),
        ({"logf": "yes"}, "logf"),
    ],
)
def test_what_is_not_available_is_refused(wrong, words):
    with pytest.raises(ConfigurationError, match=words):
        built(ProcessSettings, wrong, "process")


def test_configuration_file_holds_the_defaults_and_only_known_keys():
    content = section("process")
    assert replace(ProcessSettings(**content), frange=(8.0, 400.0)) == ProcessSettings()
    assert set(content) == set(ProcessSettings.__dataclass_fields__)


def test_gw150914_shows_its_chirp(real_data, tmp_path):
    from glitchflow_plugin.preprocessing.ingest import ingest

    entry = {
        "format": "gwosc",
        "segment": 32.0,
        "triggers": [1126259462.4],
        "processing": {"minf": 8.0, "maxf": 400.0, "sr": 1024.0, "len": 6.0, "whiten": True},
    }
    files = [str(real_data / "gwosc" / f"{name}_GWOSC_16KHZ_R1-1126259447-32.hdf5") for name in ("H-H1", "L-L1")]
    datasets = [{**entry, "path": path, "target": "H1:GWOSC-16KHZ_R1_STRAIN"} for path in files]
    events = ingest(datasets, {}, tmp_path / "events")
    transform = event_transform(events, ProcessSettings(logf=True))
    made = make_spectrograms(events, events.channels[1:], transform, tmp_path / "maps")
    batch = made.read()
    since = made.times + (batch.gps_start[0] - 1126259462.42)  # end of the signal as seen in Hanford
    hanford = batch.maps[0, 0]
    row, column = np.unravel_index(hanford.argmax(), hanford.shape)
    assert hanford.max() > 50
    assert 30 < made.frequencies[row] < 250
    assert abs(since[column]) < 0.1
    # The track: the loudest column of each row comes later the higher the row.
    rows = [int(np.abs(made.frequencies - frequency).argmin()) for frequency in (35.0, 60.0, 150.0)]
    near = np.abs(since) < 0.4
    track = [since[near][hanford[row][near].argmax()] for row in rows]
    assert track[0] < track[1] < track[2]
    assert batch.maps[0, 1].max() > 20


@pytest.mark.parametrize("band", [{"minf": 15.0, "maxf": 400.0}, {"minf": 8.0, "maxf": 300.0}])
def test_rows_outside_the_band_of_the_data_are_refused(make_event_set, series, band):
    recipe = {"channels": {"STRAIN": {"minf": 5.0, "maxf": 450.0}, "WITNESS_1": band}}
    events = make_event_set(series[:1], recipe=recipe)
    with pytest.raises(ConfigurationError, match=r"frange \[8, 400\] Hz reaches outside the band"):
        event_transform(events, ProcessSettings())
    inside = event_transform(events, ProcessSettings(frange=[15, 300]))
    assert (inside.frequency_low, inside.frequency_high) == (15.0, 300.0)
