import os
import pickle
import re

import h5py
import numpy as np
import pytest

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.readers import frames, hdf5, remote
from glitchflow_plugin.data.readers.continuous import StoredChannel, StoredFile, span_in_name
from glitchflow_plugin.data.sources import open_datasets
from glitchflow_plugin.errors import (
    ChannelMismatchError,
    ConfigurationError,
    ConnectionFailedError,
    FormatError,
    MissingDependencyError,
    NoEventsError,
)

T0 = 1_264_000_000.0
TARGET = "V1:STRAIN"


def reasons(problems):
    """Without the details that follow the reason."""
    return {name: why.partition(": ")[0] for name, why in problems.items()}


def event_file(folder, number, channels=(TARGET, "V1:A"), rate=16.0, unit="m", *, group=""):
    gps = T0 + 100 * number
    held = {name: Channel(name, np.arange(32.0) + number, gps - 1, rate, unit) for name in channels}
    write_event(folder / f"event-{number:02d}.h5", RawEvent(f"event-{number:02d}", gps, held, group))


def continuous_file(folder, start, duration, names, rate=16.0):
    path = folder / f"V-TEST-{start:.0f}-{duration}.h5"
    series = np.arange((start - T0) * rate, (start - T0 + duration) * rate)
    hdf5.write(path, {name: Channel(name, series, start, rate, "m") for name in names})
    return path


def test_event_files_are_sorted_ranged_and_read_where_they_are_sent(tmp_path):
    for number in (3, 1, 2, 0):
        event_file(tmp_path, number)
    entry = {"path": str(tmp_path), "target": TARGET, "events": {"min": 1, "max": 3}}
    catalogue = open_datasets([entry])
    assert [event.event_id for event in catalogue.events] == ["event-01", "event-02"]
    assert list(catalogue.channels) == [TARGET, "V1:A"]
    assert catalogue.channels["V1:A"].sample_rate == 16
    assert catalogue.channels["V1:A"].unit == "m"
    sent = pickle.loads(pickle.dumps(catalogue.events[0]))  # noqa: S301  # our own bytes
    loaded = sent.load([TARGET])
    assert list(loaded.event.channels) == [TARGET]
    assert loaded.event.gps_event == T0 + 100
    assert not loaded.problems


def labels(path, rows):
    path.write_text("event_id,group\n" + "".join(f"{name},{label}\n" for name, label in rows.items()))
    return str(path)


def test_groups_come_from_event_files_and_from_a_table(tmp_path, caplog):
    for number, group in enumerate(("blip 1", "", "", "")):
        event_file(tmp_path, number, group=group)
    table = labels(tmp_path / "labels.csv", {"event-01": "blip 1", "event-02": "tomte", "event-77": "x", "e": "x"})
    entry = {"path": str(tmp_path), "target": TARGET}
    plain = open_datasets([entry])
    assert [event.group for event in plain.events] == ["blip 1", "", "", ""]
    catalogue = open_datasets([{**entry, "groups": table}])
    assert [event.group for event in catalogue.events] == ["blip 1", "blip 1", "tomte", ""]
    assert catalogue.events[1].load().event.group == "blip 1"
    assert "2 id(s) of which the data set has no event, for instance e, event-77" in caplog.text
    assert "1 event(s) that get no label, for instance event-03" in caplog.text
    assert catalogue.fingerprint != plain.fingerprint


def test_groups_survive_the_merging_of_data_sets(tmp_path):
    for name, channels, group in (("one", (TARGET,), ""), ("two", ("V1:A",), "blip 1")):
        (tmp_path / name).mkdir()
        event_file(tmp_path / name, 0, channels, group=group)
    entries = [{"path": str(tmp_path / "one"), "target": TARGET}, {"path": str(tmp_path / "two")}]
    assert open_datasets(entries).events[0].group == "blip 1"
    entries[0]["groups"] = labels(tmp_path / "labels.csv", {"event-00": "blip 2"})
    with pytest.raises(FormatError, match=r"the data sets.*event-00 is of 'blip 2' and of 'blip 1'"):
        open_datasets(entries)


def test_a_table_that_contradicts_the_event_files_is_refused(tmp_path):
    event_file(tmp_path, 0, group="blip 1")
    table = labels(tmp_path / "labels.csv", {"event-00": "blip 2"})
    with pytest.raises(FormatError, match=r"labels.csv and .*expected one group an event.*'blip 1' and of 'blip 2'"):
        open_datasets([{"path": str(tmp_path), "target": TARGET, "groups": table}])


def test_cut_events_get_groups_from_a_table(tmp_path):
    continuous_file(tmp_path, T0, 64, (TARGET, "V1:A"))
    triggers = tmp_path / "triggers.csv"
    triggers.write_text(f"event_id,time\na,{T0 + 20:.1f}\nb,{T0 + 40:.1f}\n")
    entry = {"path": str(tmp_path), "format": "hdf5", "target": TARGET, "triggers": str(triggers), "segment": 8}
    entry |= {"groups": labels(tmp_path / "labels.csv", {"a": "one", "b": "one"}), "processing": {"len": 4}}
    assert [event.group for event in open_datasets([entry]).events] == ["one", "one"]


def test_cut_events_get_groups_from_a_column_of_their_triggers(tmp_path):
    continuous_file(tmp_path, T0, 64, (TARGET, "V1:A"))
    triggers = tmp_path / "triggers.csv"
    triggers.write_text(f"event_id,time,wave\na,{T0 + 20:.1f},blip 1\nb,{T0 + 40:.1f},\n")
    entry = {"path": str(tmp_path), "format": "hdf5", "target": TARGET, "segment": 8, "processing": {"len": 4}}
    entry["triggers"] = {"path": str(triggers), "group_column": "wave"}
    assert [event.group for event in open_datasets([entry]).events] == ["blip 1", ""]
    added = {"groups": labels(tmp_path / "labels.csv", {"b": "tomte"})}
    assert [event.group for event in open_datasets([{**entry, **added}]).events] == ["blip 1", "tomte"]
    torn = {"groups": labels(tmp_path / "labels.csv", {"a": "tomte"})}
    with pytest.raises(FormatError, match="'blip 1' and of 'tomte'"):
        open_datasets([{**entry, **torn}])


def test_one_id_for_two_times_in_two_data_sets_is_refused(tmp_path):
    continuous_file(tmp_path, T0, 64, (TARGET, "V1:A"))
    entries = [
        {"path": str(tmp_path), "format": "hdf5", "target": TARGET, "segment": 8, "processing": {"len": 4}}
        | {"triggers": {"path": str(tmp_path / f"{name}.csv")}}
        for name in ("strain", "witness")
    ]
    (tmp_path / "strain.csv").write_text(f"event_id,time\na,{T0 + 20:.1f}\n")
    (tmp_path / "witness.csv").write_text(f"event_id,time\na,{T0 + 20.2:.1f}\n")
    assert [event.gps_event for event in open_datasets(entries).events] == [T0 + 20]
    (tmp_path / "witness.csv").write_text(f"event_id,time\na,{T0 + 40:.1f}\n")
    with pytest.raises(
        FormatError, match=r"1 event id\(s\) stand for other times.* a is at GPS .*20\.000 and .*40\.000"
    ):
        open_datasets(entries)


def test_data_sets_merge_on_the_event_id(tmp_path):
    strain, witnesses = tmp_path / "strain", tmp_path / "witnesses"
    for number in (0, 1):
        event_file(strain, number, (TARGET,))
    for number in (1, 2):
        event_file(witnesses, number, ("V1:A", "V1:B"))
    catalogue = open_datasets(
        [
            {"path": str(strain), "target": TARGET},
            {"path": str(witnesses), "channels": {"exclude": ["*:B"]}, "processing": {"minf": 2.0}},
        ]
    )
    assert list(catalogue.channels) == [TARGET, "V1:A"]
    assert (catalogue.channels[TARGET].processing.minf, catalogue.channels["V1:A"].processing.minf) == (8.0, 2.0)
    held = {event.event_id: set(event.load().event.channels) for event in catalogue.events}
    assert held == {"event-00": {TARGET}, "event-01": {TARGET, "V1:A"}, "event-02": {"V1:A"}}


def test_a_channel_in_two_data_sets_comes_from_the_first(tmp_path):
    event_file(tmp_path / "first", 0, (TARGET, "V1:A"), rate=16.0)
    event_file(tmp_path / "second", 0, (TARGET, "V1:A"), rate=32.0)
    entries = [{"path": str(tmp_path / name), "target": TARGET} for name in ("first", "second")]
    assert open_datasets(entries).events[0].load().event.channels["V1:A"].sample_rate == 16


def test_a_channel_that_a_later_data_set_delivers_is_no_problem(tmp_path):
    event_file(tmp_path / "first", 0)
    event_file(tmp_path / "second", 0)
    with h5py.File(tmp_path / "first" / "event-00.h5", "r+") as file:
        del file["event-00/V1:A"].attrs["sample_rate"]
    entries = [{"path": str(tmp_path / name), "target": TARGET} for name in ("first", "second")]
    alone = open_datasets(entries[:1]).events[0].load()
    assert reasons(alone.problems) == {"V1:A": "unreadable"}
    both = open_datasets(entries).events[0].load()
    assert set(both.event.channels) == {TARGET, "V1:A"}
    assert not both.problems


def test_what_most_files_say_is_the_usual_rate_and_unit(tmp_path):
    for number in range(5):
        event_file(tmp_path, number, rate=32.0 if number == 2 else 16.0, unit="V" if number == 3 else "m")
    origin = open_datasets([{"path": str(tmp_path), "target": TARGET}]).channels["V1:A"]
    assert (origin.sample_rate, origin.unit) == (16.0, "m")


def test_a_truncated_file_is_listed_as_unreadable(tmp_path):
    for number in (0, 1):
        event_file(tmp_path, number)
    path = tmp_path / "event-01.h5"
    path.write_bytes(path.read_bytes()[:1000])
    catalogue = open_datasets([{"path": str(tmp_path), "target": TARGET}])
    assert [event.event_id for event in catalogue.events] == ["event-00"]
    assert list(catalogue.unreadable) == ["event-01"]
    assert re.search(r"event-01\.h5 cannot be read as HDF5 .*truncated", catalogue.unreadable["event-01"])


def test_continuous_files_are_cut_at_trigger_times(tmp_path):
    for offset in (0, 10, 30):
        continuous_file(tmp_path, T0 + offset, 10, (TARGET, "V1:A"))
    entry = {
        "path": str(tmp_path),
        "target": TARGET,
        "segment": 8.0,
        "triggers": [T0 + 10.5, T0 + 28.0],
        "processing": {"len": 2.0},
    }
    catalogue = open_datasets([entry])
    joined, gapped = (event.load() for event in catalogue.events)
    assert joined.event.event_id == f"{T0 + 10.5:.6f}"
    np.testing.assert_array_equal(joined.event.channels["V1:A"].series, np.arange(6.5 * 16, 14.5 * 16))
    assert gapped.event.channels["V1:A"].t0 == T0 + 30  # the files start within the cut
    table = tmp_path / "triggers.csv"
    table.write_text(f"event_id,time\nb,{T0 + 5}\na,{T0 + 15}\n")
    catalogue = open_datasets([entry | {"path": str(tmp_path / "*.h5"), "triggers": str(table)}])
    assert {event.event_id: event.gps_event for event in catalogue.events} == {"a": T0 + 15, "b": T0 + 5}


def test_a_gap_in_the_cut_is_named(tmp_path):
    for offset in (0, 12):
        continuous_file(tmp_path, T0 + offset, 10, (TARGET,))
    entry = {"path": str(tmp_path), "target": TARGET, "segment": 8.0, "triggers": [T0 + 11], "processing": {"len": 2.0}}
    loaded = open_datasets([entry]).events[0].load()
    assert loaded.problems == {TARGET: "gap"}
    assert np.isnan(loaded.event.channels[TARGET].series).sum() == 32


def test_triggers_outside_the_data_are_told_with_both_ranges(tmp_path, caplog):
    continuous_file(tmp_path, T0, 10, (TARGET,))
    entry = {"path": str(tmp_path), "target": TARGET, "segment": 8.0, "processing": {"len": 2.0}}
    some = entry | {"triggers": [T0 + 5, T0 + 500, T0 + 1000.25]}
    words = (
        "{} of {} triggers lie outside the data. The triggers reach from GPS {:.3f} to {:.3f}, the data from {:.3f} to"
    )
    events = {event.gps_event: event for event in open_datasets([some]).events}
    assert words.format(2, 3, T0 + 5, T0 + 1000.25, T0) in caplog.text
    assert events[T0 + 500].load().problems == {TARGET: "outside the data"}
    assert not events[T0 + 5].load().problems
    none = entry | {"triggers": [T0 - 500, T0 + 500]}
    with pytest.raises(NoEventsError) as error:
        open_datasets([none])
    assert words.format(2, 2, T0 - 500, T0 + 500, T0) in str(error.value)
    # of two data sets one may lie elsewhere
    assert len(open_datasets([none, some]).events) == 4


def test_frame_files_of_a_cache_are_cut_and_a_truncated_one_is_survived(tmp_path):
    pytest.importorskip("gwpy")
    try:
        frames.require_backend()
    except MissingDependencyError:
        pytest.skip("no frame library")
    paths = [tmp_path / f"V-TEST-{T0 + offset:.0f}-10.gwf" for offset in (0, 10, 20)]
    for path, offset in zip(paths, (0, 10, 20), strict=True):
        series = np.arange(offset * 16.0, offset * 16 + 160)
        frames.write(path, {name: Channel(name, series, T0 + offset, 16.0, "m") for name in (TARGET, "V1:A")})
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    cache = tmp_path / "files.lcf"
    cache.write_text("\n".join(f"V TEST {path.name.split('-')[2]} 10 file://localhost{path}" for path in paths))
    entry = {"path": str(cache), "target": TARGET, "segment": 8.0, "processing": {"len": 2.0}}
    catalogue = open_datasets([entry | {"triggers": [T0 + 10, T0 + 19.5]}])
    joined, spoilt = (event.load() for event in catalogue.events)
    np.testing.assert_array_equal(joined.event.channels["V1:A"].series, np.arange(6 * 16, 14 * 16))
    assert not joined.problems
    assert reasons(spoilt.problems) == {TARGET: "unreadable", "V1:A": "unreadable"}


def test_frame_files_are_opened_once_a_description(tmp_path, monkeypatch):
    described = []

    def describe(path):
        described.append(path.name)
        if path.name == f"V-HREC-{T0:.0f}-10.gwf":
            raise FormatError("truncated")
        names = (TARGET,) if "HREC" in path.name else ("V1:A", "V1:B")
        return StoredFile(path, *span_in_name(path), {name: StoredChannel() for name in names})

    def read(path, channels, start, stop):
        names = [name for name in channels if name in describe(path).channels]
        return {name: Channel(name, np.zeros(round((stop - start) * 16)), start, 16.0, "m") for name in names}

    monkeypatch.setattr(frames, "describe", describe)
    monkeypatch.setattr(frames, "read", read)
    for description in ("HREC", "raw"):
        for offset in range(0, 50, 10):
            (tmp_path / f"V-{description}-{T0 + offset:.0f}-10.gwf").touch()
    entry = {"path": str(tmp_path), "target": TARGET, "segment": 8.0, "processing": {"len": 2.0}}
    catalogue = open_datasets([entry | {"triggers": [T0 + 20]}])
    assert list(catalogue.channels) == [TARGET, "V1:A", "V1:B"]
    assert described == [f"V-HREC-{T0:.0f}-10.gwf", f"V-HREC-{T0 + 10:.0f}-10.gwf", f"V-raw-{T0:.0f}-10.gwf"]
    loaded = catalogue.events[0].load()
    assert {name: len(one.series) for name, one in loaded.event.channels.items()} == dict.fromkeys(
        (TARGET, "V1:A", "V1:B"), 8 * 16
    )
    assert not loaded.problems


def test_services_are_asked_when_the_event_is_read(monkeypatch):
    asked = []

    def fetch(kind, settings, channels, start, stop):
        asked.append((kind, settings.detectors, tuple(channels), start, stop))
        if start > T0 + 50:
            raise FormatError("no data then")
        return {name: Channel(name, np.zeros(64), start, 4.0) for name in channels}

    monkeypatch.setattr(remote, "fetch", fetch)
    name = "H1:GWOSC-4KHZ_R1_STRAIN"
    entry = {"format": "open_data", "target": name, "remote": {"detectors": ["H1"]}, "triggers": [T0, T0 + 100]}
    first, second = open_datasets([entry]).events
    assert not asked
    assert first.load().event.channels[name].t0 == T0 - 8
    assert asked == [("open_data", ("H1",), (name,), T0 - 8, T0 + 8)]
    assert reasons(second.load().problems) == {name: "unreadable"}

    def unreachable(*_):
        raise ConnectionFailedError("no network")

    monkeypatch.setattr(remote, "fetch", unreachable)
    with pytest.raises(ConnectionFailedError):
        first.load()


def test_a_channel_that_a_service_lacks_does_not_take_the_others_with_it(monkeypatch):
    asked = []

    def fetch(_kind, _settings, channels, start, _stop):
        asked.append(tuple(channels))
        if "V1:ABSENT" in channels:
            raise FormatError("no such channel")
        return {name: Channel(name, np.zeros(64), start, 4.0) for name in channels}

    monkeypatch.setattr(remote, "fetch", fetch)
    names = ["V1:A", "V1:B", "V1:ABSENT", "V1:C"]
    entry = {"format": "nds2", "target": TARGET, "ch_list": names, "triggers": [T0]}
    loaded = open_datasets([entry]).events[0].load()
    assert set(loaded.event.channels) == {TARGET, "V1:A", "V1:B", "V1:C"}
    assert reasons(loaded.problems) == {"V1:ABSENT": "unreadable"}
    assert asked.count(("V1:ABSENT",)) == 1


def test_without_triggers_each_stretch_is_one_event(tmp_path):
    continuous_file(tmp_path, T0, 20, (TARGET,))
    catalogue = open_datasets([{"path": str(tmp_path), "target": TARGET}])
    assert [event.gps_event for event in catalogue.events] == [T0 + 10]


def test_the_channels_of_a_model_are_all_there_or_the_lacking_ones_are_listed(tmp_path):
    event_file(tmp_path, 0, (TARGET, "V1:A", "V1:B"))
    entry = {"path": str(tmp_path), "target": "V1:OTHER"}
    catalogue = open_datasets([entry], target=TARGET, needed=[TARGET, "V1:B", "V1:A"])
    assert list(catalogue.channels) == [TARGET, "V1:B", "V1:A"]
    with pytest.raises(ChannelMismatchError, match="V1:B"):
        open_datasets([entry | {"channels": {"exclude": ["*:B"]}}], target=TARGET, needed=[TARGET, "V1:B", "V1:A"])
    with pytest.raises(ChannelMismatchError, match=r"2 channel.*V1:X.*V1:Y"):
        open_datasets([entry], target=TARGET, needed=[TARGET, "V1:X", "V1:A", "V1:Y"])


def test_channels_asked_for_in_vain_are_refused_with_what_is_near_or_reported_where_that_is_allowed(tmp_path):
    event_file(tmp_path, 0)
    entry = {"path": str(tmp_path), "target": TARGET, "ch_list": ["V1:A", "V1:GONE"]}
    with pytest.raises(ConfigurationError, match=r"V1:GONE.*allow_missing"):
        open_datasets([entry])
    with pytest.raises(ConfigurationError, match=r"V1:AA\. Nearest: V1:A"):
        open_datasets([entry | {"ch_list": ["V1:AA", "V1:A"]}])
    with pytest.raises(ConfigurationError, match=r"V1:C\*"):
        open_datasets([entry | {"ch_list": None, "channels": {"include": ["V1:A*", "V1:C*"]}}])
    catalogue = open_datasets([entry | {"allow_missing": True}])
    assert list(catalogue.channels) == [TARGET, "V1:A"]
    assert catalogue.missing == ("V1:GONE",)


def test_a_channel_or_pattern_that_one_of_several_data_sets_has_is_not_asked_for_in_vain(tmp_path, caplog):
    for folder, channel in (("one", "V1:A"), ("two", "V1:B")):
        (tmp_path / folder).mkdir()
        event_file(tmp_path / folder, 0, (TARGET, channel))
    entries = [{"path": str(tmp_path / folder), "target": TARGET} for folder in ("one", "two")]
    both = [entry | {"ch_list": ["V1:A", "V1:B"]} for entry in entries]
    assert list(open_datasets(both).channels) == [TARGET, "V1:A", "V1:B"]
    with pytest.raises(ConfigurationError, match=r"1 of what .* V1:C\."):
        open_datasets([entry | {"ch_list": ["V1:A", "V1:B", "V1:C"]} for entry in entries])
    patterns = {"include": ["V1:*", "V1:A*"], "exclude": ["V1:X*"]}
    assert list(open_datasets([entry | {"channels": patterns} for entry in entries]).channels) == [
        TARGET,
        "V1:A",
        "V1:B",
    ]
    assert "V1:X* matches no channel" in caplog.text


def test_changed_input_changes_the_fingerprint(tmp_path):
    event_file(tmp_path, 0)
    entry = {"path": str(tmp_path), "target": TARGET}
    before = open_datasets([entry]).fingerprint
    assert open_datasets([entry]).fingerprint == before
    event_file(tmp_path, 0, rate=32.0)
    assert open_datasets([entry]).fingerprint != before


def test_moved_triggers_change_the_fingerprint(tmp_path):
    continuous_file(tmp_path, T0, 100, (TARGET,))
    table = tmp_path / "triggers.csv"
    entry = {"path": str(tmp_path), "target": TARGET, "triggers": str(table)}
    table.write_text(f"event_id,time\na,{T0 + 20}\nb,{T0 + 40}\n")
    before = open_datasets([entry]).fingerprint
    table.write_text(f"event_id,time\nb,{T0 + 40}\na,{T0 + 20}\n")
    assert open_datasets([entry]).fingerprint == before
    table.write_text(f"event_id,time\na,{T0 + 20.5}\nb,{T0 + 40}\n")
    assert open_datasets([entry]).fingerprint != before


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ([], "empty"),
        (["data"], r"datasets\[0\]: expected a mapping"),
        ([{"path": "x", "targt": "y"}], r"datasets\[0\]: unknown key.*targt"),
        ([{"path": "x", "processing": {"fmin": 8}}], r"datasets\[0\]\.processing: unknown key.*fmin"),
        ([{"path": "x", "format": "root"}], "format must be one of"),
        ([{"format": "hdf5"}], "needs a `path`"),
        ([{"path": "x", "segment": 5.0}], "longer than processing.len"),
        ([{"path": "x"}], "one `target`"),
        ([{"path": "x", "target": "a"}, {"path": "y", "target": "b"}], "one `target`"),
        ([{"path": "x", "target": "a"}, {"path": "y", "processing": {"sr": 2048.0}}], "agree on the sample rate"),
        ([{"path": "x", "target": "a"}, {"path": "y", "processing": {"len": 4.0}}], "agree on the length"),
        ([{"path": "nowhere", "target": "a"}], "names no file"),
        (
            [{"path": "x", "target": "a", "triggers": 1126259462.4}],
            r"datasets\[0\]\.?.*triggers.*a list of GPS seconds",
        ),
        ([{"path": "x", "target": "a", "triggers": {"times": 1126259462.4}}], "triggers.*a list of GPS seconds"),
        ([{"path": "x", "target": "a", "triggers": {"times": "1126259462.4"}}], "triggers.*a list of GPS seconds"),
        ([{"path": "x", "target": "a", "triggers": {"times": {"a": 1}}}], "triggers.*a list of GPS seconds"),
        ([{"path": "x", "target": "a", "triggers": ["1126259462,4"]}], "triggers.*decimal point"),
        ([{"path": "x", "target": "a", "triggers": ["1.12626e9"]}], "triggers.*rounded"),
        ([{"path": "x", "target": "a", "triggers": [True]}], "triggers.*double precision"),
        ([{"path": "x", "target": "a", "triggers": [[1e9, 2e9]]}], "triggers.*expected GPS seconds"),
        ([{"path": "x", "target": "a", "triggers": {"path": ["a.csv", "b.csv"]}}], "triggers.*one table"),
        ([{"format": "nds2", "target": "a"}], "needs `triggers`"),
        ([{"format": "nds2", "target": "a", "triggers": [1e9]}], "needs `ch_list`"),
        ([{"format": "open_data", "target": "a", "triggers": [1e9]}], r"remote\.detectors"),
    ],
)
def test_mistakes_are_explained(entries, match):
    with pytest.raises(ConfigurationError, match=match):
        open_datasets(entries)


def test_an_empty_selection_of_events_is_an_error(tmp_path):
    event_file(tmp_path, 0)
    with pytest.raises((NoEventsError, ConfigurationError)):
        open_datasets([{"path": str(tmp_path), "target": TARGET, "events": {"min": 5}}])
    with pytest.raises(ConfigurationError, match="V1:NONE is in none"):
        open_datasets([{"path": str(tmp_path), "target": "V1:NONE"}])


def test_settings_pass_through():
    settings = DatasetSettings(path="x", target="a")
    assert DatasetSettings.from_mapping(settings) is settings


@pytest.mark.parametrize("kind", ["auto", "events", "hdf5", "gwosc"])
def test_where_no_file_can_be_read_the_message_says_so_and_why(tmp_path, kind):
    for number in range(5):
        (tmp_path / f"file-{number}.h5").write_bytes(b"no HDF5")
    with pytest.raises(
        (NoEventsError, ConfigurationError), match=r"none of 5 file\(s\).*file-0\.h5.*file-2\.h5"
    ) as caught:
        open_datasets([{"path": str(tmp_path), "format": kind, "target": TARGET}])
    assert "ch_list" not in str(caught.value)


def test_where_no_frame_file_can_be_read_the_message_says_so_and_why(tmp_path):
    pytest.importorskip("lalframe")
    for start in (1264000000, 1264000010):
        (tmp_path / f"V-TEST-{start}-10.gwf").write_bytes(b"IGWD\0 cut off")
    with pytest.raises(NoEventsError, match=r"none of 2 file\(s\) can be read.*no frame file") as caught:
        open_datasets([{"path": str(tmp_path), "target": TARGET, "triggers": [T0 + 5]}])
    assert "ch_list" not in str(caught.value)


def test_a_channel_that_may_be_in_a_closed_file_is_not_said_to_be_missing_alone(tmp_path):
    event_file(tmp_path, 0, ("V1:A",))
    (tmp_path / "event-01.h5").write_bytes(b"no HDF5")
    with pytest.raises(ConfigurationError, match=r"1 file\(s\) cannot be read"):
        open_datasets([{"path": str(tmp_path), "target": TARGET}])
    with pytest.raises(ChannelMismatchError, match=r"1 file\(s\) cannot be read"):
        open_datasets([{"path": str(tmp_path)}], target="V1:A", needed=["V1:A", "V1:B"])


def named_file(folder, number, start=T0, **names):
    """A continuous file of 20 s: key to what gwpy calls it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"V-{number}-{start:.0f}-20.h5"
    with h5py.File(path, "w") as file:
        for position, (key, name) in enumerate(names.items()):
            dataset = file.create_dataset(key, data=np.arange(320.0) + 1000 * position)
            dataset.attrs.update({"x0": start, "dx": 1 / 16} | ({"name": name} if name else {}))
    return {"path": str(folder), "segment": 8.0, "processing": {"len": 2.0}}


def test_a_channel_that_is_asked_for_by_its_alias_is_there_once(tmp_path):
    entry = named_file(tmp_path, 0, strain=TARGET, other="V1:OTHER")
    catalogue = open_datasets([entry | {"target": TARGET}])
    assert list(catalogue.channels) == [TARGET, "other"]
    assert set(catalogue.events[0].load().event.channels) == {TARGET, "other"}
    listed = open_datasets([entry | {"target": TARGET, "ch_list": ["V1:OTHER"]}])
    assert list(listed.channels) == [TARGET, "V1:OTHER"]
    assert listed.events[0].load().event.channels["V1:OTHER"].series[0] >= 1000
    assert list(open_datasets([entry | {"target": "strain"}]).channels) == ["strain", "other"]


def test_a_name_that_two_channels_have_is_explained(tmp_path):
    entry = named_file(tmp_path, 0, H1="Strain", L1="Strain")
    with pytest.raises(ConfigurationError, match=r"target Strain is in none.*\['H1', 'L1'\]"):
        open_datasets([entry | {"target": "Strain"}])


def test_a_key_that_is_another_channel_in_each_file_is_not_mixed(tmp_path, caplog):
    named_file(tmp_path, 0, Strain="H1:STRAIN")
    entry = named_file(tmp_path, 1, Strain="L1:STRAIN")
    catalogue = open_datasets([entry | {"target": "H1:STRAIN"}])
    assert list(catalogue.channels) == ["H1:STRAIN", "L1:STRAIN"]
    assert "Strain is another channel in each of the files" in caplog.text
    with pytest.raises(ConfigurationError, match=r"target Strain is in none.*\['H1:STRAIN', 'L1:STRAIN'\]"):
        open_datasets([entry | {"target": "Strain"}])


def test_odd_files_among_continuous_ones_are_listed_with_the_reason(tmp_path):
    entry = named_file(tmp_path, 0, **{TARGET: None, "V1:A": None})
    named_file(tmp_path, 1, T0 + 20, **{TARGET: None, "V1:A": None})
    os.mkfifo(tmp_path / f"V-2-{T0 + 40:.0f}-20.h5")
    (tmp_path / f"V-3-{T0 + 60:.0f}-20.h5").write_text("nothing")
    with h5py.File(tmp_path / f"V-1-{T0 + 20:.0f}-20.h5", "r+") as file:
        file["V1:A"].attrs["dx"] = 0.0
    catalogue = open_datasets([entry | {"target": TARGET, "triggers": [T0 + 10, T0 + 30]}])
    assert "is a pipe" in next(iter(catalogue.unreadable.values()))
    assert len(catalogue.unreadable) == 2
    good, spoilt = (event.load() for event in catalogue.events)
    assert not good.problems
    assert set(spoilt.event.channels) == {TARGET}
    assert "dx must be positive" in spoilt.problems["V1:A"]


def test_a_link_to_a_witness_that_leads_nowhere_is_not_left_out_in_silence(tmp_path):
    for number in (0, 1):
        event_file(tmp_path, number)
    with h5py.File(tmp_path / "event-01.h5", "r+") as file:
        file["event-01/V1:LINK"] = h5py.SoftLink("/nowhere")
    catalogue = open_datasets([{"path": str(tmp_path), "target": TARGET}])
    assert list(catalogue.channels) == [TARGET, "V1:A", "V1:LINK"]
    assert "lead nowhere" in catalogue.events[1].load().problems["V1:LINK"]


def test_an_event_in_two_files_is_taken_once(tmp_path):
    for number in (0, 1):
        event_file(tmp_path, number)
    (tmp_path / "copy.h5").write_bytes((tmp_path / "event-01.h5").read_bytes())
    catalogue = open_datasets([{"path": str(tmp_path), "target": TARGET}])
    assert [event.event_id for event in catalogue.events] == ["event-00", "event-01"]
    assert "event-01.h5: the event event-01 is in another file too" in catalogue.unreadable["event-01"]


def test_the_odd_one_among_the_first_files_does_not_decide_on_the_format(tmp_path):
    for number in (1, 2, 3):
        event_file(tmp_path, number)
    hdf5.write(tmp_path / "a.h5", {TARGET: Channel(TARGET, np.zeros(160), T0, 16.0)})
    event_file(tmp_path, 0)
    with h5py.File(tmp_path / "event-00.h5", "r+") as file:
        file["event-00"].attrs["gps_event"] = np.float32(T0)
    catalogue = open_datasets([{"path": str(tmp_path), "target": TARGET}])
    assert [event.event_id for event in catalogue.events] == ["event-01", "event-02", "event-03"]
    assert set(catalogue.unreadable) == {"a", "event-00"}
