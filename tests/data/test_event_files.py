from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glitchflow_plugin.data.event_files import (
    Channel,
    RawEvent,
    list_event_files,
    read_event,
    read_event_header,
    read_event_spans,
    write_event,
)
from glitchflow_plugin.errors import DataError, FormatError

channels = st.builds(
    Channel,
    name=st.text("ABCXYZ_-:0123456789", min_size=1, max_size=20),
    series=hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int32]), st.integers(1, 50), elements=st.integers(-1000, 1000)
    ),
    t0=st.floats(8e8, 2e9),
    sample_rate=st.sampled_from([1.0, 16.0, 500.0, 16384.0]),
    unit=st.sampled_from(["", "m", "strain", "V"]),
)


@settings(max_examples=30, deadline=None)
@given(found=st.lists(channels, min_size=1, max_size=4, unique_by=lambda c: c.name), gps=st.floats(8e8, 2e9))
def test_round_trip_is_exact(tmp_path_factory, found, gps):
    path = tmp_path_factory.mktemp("events") / "event-1.h5"
    write_event(path, RawEvent("1", gps, {channel.name: channel for channel in found}))
    event = read_event(path)
    assert event.event_id == "1"
    assert event.gps_event == gps
    assert set(event.channels) == {channel.name for channel in found}
    for channel in found:
        other = event.channels[channel.name]
        assert (other.t0, other.sample_rate, other.unit) == (channel.t0, channel.sample_rate, channel.unit)
        assert other.series.dtype == channel.series.dtype
        np.testing.assert_array_equal(other.series, channel.series)


def make_event(rate=16.0, **extra):
    return RawEvent("e7", 1_262_304_005.25, {"A": Channel("A", np.arange(80.0), 1_262_304_000.0, rate), **extra})


def test_header_and_part_of_the_channels(tmp_path):
    path = tmp_path / "event-e7.h5"
    write_event(path, make_event(B=Channel("B", np.zeros(5), 1_262_304_000.0, 1.0, "m")))
    assert read_event_header(path).channels == ("A", "B")
    assert set(read_event(path, ["B", "missing"]).channels) == {"B"}


def test_the_group_comes_back_and_is_empty_where_none_was_given(tmp_path):
    path = tmp_path / "event-e7.h5"
    write_event(path, replace(make_event(), group="H1/Blip/0"))
    assert read_event(path).group == "H1/Blip/0"
    assert read_event_header(path).group == "H1/Blip/0"
    assert read_event_spans(path)[0].group == "H1/Blip/0"
    write_event(path, make_event())
    assert (read_event(path).group, read_event_header(path).group) == ("", "")
    with h5py.File(path, "r+") as file:
        assert "group" not in file["e7"].attrs
    for stored, expected in ((np.bytes_(b" blip 7 "), "blip 7"), ("7", "7"), (7, "7"), (np.array([7]), "7"), ("", "")):
        with h5py.File(path, "r+") as file:
            file["e7"].attrs["group"] = stored
        assert read_event_header(path).group == expected
    with h5py.File(path, "r+") as file:
        file["e7"].attrs["group"] = ["a", "b"]
    with pytest.raises(FormatError, match=r"e7.h5: group: expected one value, got 2"):
        read_event_header(path)


def test_without_trigger_time_the_middle_of_the_longest_channel_is_taken(tmp_path):
    path = tmp_path / "event-e7.h5"
    write_event(path, make_event())
    with h5py.File(path, "r+") as file:
        del file["e7"].attrs["gps_event"]
    assert read_event_header(path).gps_event == 1_262_304_002.5


def test_files_are_sorted_and_the_truth_file_left_out(tmp_path):
    for name in ("event-2.h5", "event-10.hdf5", "event-1.h5", "truth.h5", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_event_files(tmp_path)] == ["event-1.h5", "event-10.hdf5", "event-2.h5"]
    with pytest.raises(DataError, match="not a folder"):
        list_event_files(tmp_path / "none")


@pytest.mark.parametrize(
    ("damage", "message"), [("truncate", "truncated"), ("text", "cannot be read"), ("t0", "lacks the attribute t0")]
)
def test_damaged_files_are_named(tmp_path, damage, message):
    path = tmp_path / "event-e7.h5"
    write_event(path, make_event())
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "text":
        path.write_text("no HDF5")
    else:
        with h5py.File(path, "r+") as file:
            del file["e7/A"].attrs["t0"]
    with pytest.raises(FormatError, match=message):
        read_event(path)


@pytest.mark.parametrize(
    ("t0", "known"),
    [("1.264e9", False), (b"1.264E+09", False), ("1.2640000005e9", True), ("1264000000.5", True), ("1264000000", True)],
)
def test_a_time_in_text_has_all_its_digits(tmp_path, t0, known):
    path = tmp_path / "event-e7.h5"
    write_event(path, make_event())
    with h5py.File(path, "r+") as file:
        file["e7/A"].attrs["t0"] = t0
    if known:
        assert int(read_event(path).channels["A"].t0) == 1_264_000_000
    else:
        with pytest.raises(FormatError, match=r"t0: the time 1\.264.*is rounded to whole seconds or worse"):
            read_event(path)


def test_two_events_in_a_file_and_bad_rates_are_refused(tmp_path):
    path = tmp_path / "event-e7.h5"
    write_event(path, make_event())
    with h5py.File(path, "r+") as file:
        file.create_group("other")
    with pytest.raises(FormatError, match="one top-level group"):
        read_event(path)
    with pytest.raises(FormatError, match="sample_rate"):
        make_event(rate=0.0)


def test_a_file_that_another_process_writes_is_not_called_damaged(tmp_path):
    path = tmp_path / "e.h5"
    with h5py.File(path, "w"), pytest.raises(FormatError, match="Another process writes to it") as refused:
        read_event_header(path)
    assert "damaged" not in str(refused.value)
