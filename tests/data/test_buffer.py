import numpy as np
import pytest

from glitchflow_plugin.data.buffer import buffered_events, pin_events
from glitchflow_plugin.data.event_files import Channel, RawEvent, list_event_files, read_event, write_event
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import DataError


def fill(folder, times):
    for name, gps in times.items():
        channel = Channel("STRAIN", np.full(16, gps), gps - 1, 8.0)
        write_event(folder / f"{name}.h5", RawEvent(name, gps, {"STRAIN": channel}))


def test_the_latest_by_time_are_pinned_and_outlive_the_buffer(tmp_path):
    buffer, pinned = tmp_path / "buffer", tmp_path / "pinned"
    # the name says nothing about the time
    fill(buffer, {"c": 100.0, "a": 300.0, "b": 200.0})
    (buffer / "broken.h5").write_bytes(b"is being written")
    assert buffered_events(buffer, 2) == [("b", 200.0), ("a", 300.0)]
    pin_events(buffer, pinned, 2)
    fill(buffer, {"d": 400.0})
    for path in list_event_files(buffer):
        path.unlink()
    assert [path.stem for path in list_event_files(pinned)] == ["a", "b"]
    assert read_event(pinned / "a.h5").gps_event == 300.0
    # pinned anew, nothing of the old is left
    fill(buffer, {"e": 500.0})
    pin_events(buffer, pinned, 2)
    assert [path.stem for path in list_event_files(pinned)] == ["e"]


def test_of_an_event_set_the_latest_are_copied(make_event_set, tmp_path):
    groups = [f"wave {row % 4}" for row in range(10)]
    whole = make_event_set(np.random.default_rng(0).normal(size=(10, 2, 64)), recipe={"kept": True}, groups=groups)
    assert buffered_events(whole.folder, 3) == [(f"event-00{row}", whole.gps_event[row]) for row in (7, 8, 9)]
    part = EventSet.open(pin_events(whole.folder, tmp_path / "pinned", 3))
    assert part.event_ids == whole.event_ids[7:]
    assert part.groups == ("wave 3", "wave 0", "wave 1")
    assert part.recipe == whole.recipe
    np.testing.assert_array_equal(part.read().series, whole.read([7, 8, 9]).series)


def test_a_buffer_that_is_not_there_says_so(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        buffered_events(tmp_path / "nowhere", 3)
