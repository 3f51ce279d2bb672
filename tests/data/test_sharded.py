import multiprocessing
import os
import pickle
import signal
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data import sharded
from glitchflow_plugin.data.files import atomic_path, new_hdf5, read_json, sha256, write_json
from glitchflow_plugin.data.manifest import MANIFEST_NAME, ROWS_NAME
from glitchflow_plugin.data.records import EventBatch, SpectrogramBatch
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.errors import ChannelMismatchError, DataError, FormatError, NoEventsError

CHANNELS = ("V1:STRAIN", "V1:A", "V1:B")


def make_writer(folder, num_events=7, shard_size=3, recipe=None, **changes):
    settings_ = {
        "folder": folder,
        "kind": "events",
        "target": CHANNELS[0],
        "channels": CHANNELS,
        "axes": {"sample_rate": 16.0, "num_samples": 8},
        "units": "1",
        "recipe": recipe or {"low": 8.0},
        "event_ids": tuple(f"e{i}" for i in range(num_events)),
        "shard_size": shard_size,
    }
    return ShardedWriter(**{**settings_, **changes})


def make_batch(event_ids, seed=0):
    rng = np.random.default_rng([seed, *[int(event_id[1:]) for event_id in event_ids]])
    number = len(event_ids)
    gps = np.array([1262304000.0 + 10 * int(event_id[1:]) + 1 / 3 for event_id in event_ids])
    series = rng.normal(size=(number, len(CHANNELS), 8)).astype(np.float32)
    return EventBatch(tuple(event_ids), gps, gps + 1, series, np.ones((number, len(CHANNELS)), bool))


def fill(writer, rejected=()):
    for plan in writer.pending():
        kept = [event_id for event_id in plan.event_ids if event_id not in rejected]
        bad = {event_id: "target constant" for event_id in plan.event_ids if event_id in rejected}
        writer.write(plan, make_batch(kept) if kept else None, bad)
    return writer.finish()


def test_round_trip_keeps_values_gps_and_order(tmp_path):
    events = fill(make_writer(tmp_path))
    assert events.event_ids == tuple(f"e{i}" for i in range(7))
    assert events.gps_start.dtype == np.float64
    assert events.gps_start[4] == 1262304040.0 + 1 / 3
    np.testing.assert_array_equal(events.read([3, 4, 5]).series, make_batch(["e3", "e4", "e5"]).series)
    assert events.duration == 0.5


def grouped(event_ids):
    return replace(make_batch(event_ids), groups=tuple(f"wave {int(event_id[1:]) % 2}" for event_id in event_ids))


def test_groups_travel_with_their_events(tmp_path):
    writer = make_writer(tmp_path)
    for plan in writer.pending():
        kept = [event_id for event_id in plan.event_ids if event_id != "e4"]
        writer.write(plan, grouped(kept), {"e4": "target constant"} if len(kept) < len(plan.event_ids) else None)
    writer.finish()
    events = EventSet.open(tmp_path)
    assert events.groups == ("wave 0", "wave 1", "wave 0", "wave 1", "wave 1", "wave 0")
    assert events.read([3, 0]).groups == ("wave 1", "wave 0")
    assert [label for batch in events.batches(2) for label in batch.groups] == list(events.groups)


def test_a_set_of_an_earlier_version_has_unknown_groups(tmp_path):
    fill(make_writer(tmp_path))
    manifest = read_json(tmp_path / "manifest.json")
    for shard in manifest["shards"]:
        del shard["groups"]
        with h5py.File(tmp_path / shard["file"]) as now, new_hdf5(tmp_path / shard["file"]) as earlier:
            earlier.attrs.update(now.attrs)
            for name in now.keys() - {"group"}:
                now.copy(name, earlier)
        shard["num_bytes"] = (tmp_path / shard["file"]).stat().st_size
        shard["sha256"] = sha256(tmp_path / shard["file"])
    write_json(tmp_path / "manifest.json", manifest)
    events = EventSet.open(tmp_path)
    assert events.groups == ("",) * 7
    assert events.read([1]).groups == ("",)
    (tmp_path / "manifest.json").unlink()  # its run was cut off, and this version goes on
    assert not make_writer(tmp_path).pending()
    assert make_writer(tmp_path).finish().groups == ("",) * 7


def test_groups_of_another_number_of_events_are_refused(tmp_path):
    with pytest.raises(FormatError, match="groups has shape"):
        replace(make_batch(["e0", "e1"]), groups=("a",))
    fill(make_writer(tmp_path))
    manifest = read_json(tmp_path / "manifest.json")
    manifest["shards"][0]["groups"] = ["a"]
    write_json(tmp_path / "manifest.json", manifest)
    with pytest.raises(FormatError, match="expected a group for each of 3, got 1"):
        EventSet.open(tmp_path)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True), flip=st.booleans())
def test_any_rows_and_channels_come_in_the_order_asked(tmp_path_factory, rows, flip):
    folder = tmp_path_factory.mktemp("set")
    events = fill(make_writer(folder))
    names = list(CHANNELS[::-1]) if flip else list(CHANNELS[1:])
    batch = events.read(rows, channels=names)
    whole = events.read()
    assert batch.event_ids == tuple(whole.event_ids[row] for row in rows)
    np.testing.assert_array_equal(batch.series, whole.series[rows][:, [CHANNELS.index(name) for name in names]])


@settings(max_examples=20, deadline=None)
@given(num_events=st.integers(1, 9), shard_size=st.integers(1, 5), max_events=st.integers(1, 6))
def test_batches_visit_each_event_once_in_order(tmp_path_factory, num_events, shard_size, max_events):
    events = fill(make_writer(tmp_path_factory.mktemp("set"), num_events, shard_size))
    batches = list(events.batches(max_events))
    assert [event_id for batch in batches for event_id in batch.event_ids] == list(events.event_ids)
    assert max(map(len, batches)) <= max_events


def test_rejected_events_are_counted_with_their_reason(tmp_path):
    events = fill(make_writer(tmp_path), rejected={"e0", "e4"})
    assert "e4" not in events.event_ids
    assert events.manifest.rejected == {"e0": "target constant", "e4": "target constant"}


def test_no_event_left_is_an_error_with_reasons(tmp_path):
    with pytest.raises(NoEventsError, match="target constant"):
        fill(make_writer(tmp_path, num_events=2), rejected={"e0", "e1"})


def test_resumed_set_has_the_bytes_of_an_uninterrupted_one(tmp_path):
    whole = fill(make_writer(tmp_path / "whole"))
    writer = make_writer(tmp_path / "resumed")
    writer.write(writer.pending()[1], make_batch(["e3", "e4", "e5"]))
    assert [plan.index for plan in writer.pending()] == [0, 2]
    resumed = fill(make_writer(tmp_path / "resumed"))
    assert resumed.manifest == whole.manifest
    assert (tmp_path / "whole" / MANIFEST_NAME).read_bytes() == (tmp_path / "resumed" / MANIFEST_NAME).read_bytes()


def test_unfinished_set_cannot_be_opened(tmp_path):
    writer = make_writer(tmp_path)
    writer.write(writer.pending()[0], make_batch(["e0", "e1", "e2"]))
    with pytest.raises(FormatError, match="no finished events set"):
        EventSet.open(tmp_path)
    with pytest.raises(FormatError, match=r"shards \[1, 2\] are missing"):
        writer.finish()


def test_another_recipe_replaces_the_old_set(tmp_path):
    fill(make_writer(tmp_path))
    assert not make_writer(tmp_path).pending()
    other = make_writer(tmp_path, num_events=4, recipe={"low": 9.0})
    assert len(other.pending()) == 2
    other.write(other.pending()[0], make_batch(["e0", "e1", "e2"]))
    with pytest.raises(FormatError, match="no finished events set"):  # part of it is old, part new
        EventSet.open(tmp_path)
    (tmp_path / ".shard-00001-xyz.tmp.h5").write_bytes(b"half")  # left by a killed run
    fill(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        MANIFEST_NAME,
        ROWS_NAME,
        "shard-00000.h5",
        "shard-00001.h5",
    ]


def test_processes_that_write_one_set_remove_nothing_of_each_other(tmp_path):
    fill(make_writer(tmp_path, recipe={"low": 9.0}))  # an old set, which both replace
    first, second = make_writer(tmp_path), make_writer(tmp_path)
    begun = second.pending()
    for plan in first.pending()[:2]:
        first.write(plan, make_batch(plan.event_ids))
    assert second.pending() == begun[2:]  # the old third shard counts as missing; what the first wrote stays
    second.write(begun[2], make_batch(begun[2].event_ids))
    first.finish()
    content = (tmp_path / MANIFEST_NAME).read_bytes()
    second.finish().verify()
    assert (tmp_path / MANIFEST_NAME).read_bytes() == content


def test_changed_bytes_and_truncation_are_noticed(tmp_path):
    events = fill(make_writer(tmp_path))
    events.verify()
    path = tmp_path / "shard-00001.h5"
    with h5py.File(path, "r+") as file:
        file["data"][0, 0, 0] = 42
    with pytest.raises(FormatError, match="checksum"):
        EventSet.open(tmp_path).verify()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"shard-00001.h5: expected \d+ bytes"):
        EventSet.open(tmp_path)


def test_a_flipped_byte_is_noticed_on_read(tmp_path):
    fill(make_writer(tmp_path))
    path = tmp_path / "shard-00001.h5"
    content = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        content[file["data"].id.get_offset() + 5] ^= 1
    path.write_bytes(content)
    events = EventSet.open(tmp_path)
    assert events.read([0, 6]).event_ids == ("e0", "e6")
    for _ in range(2):  # not forgotten after the first refusal
        with pytest.raises(FormatError, match=r"shard-00001.h5 does not match its checksum"):
            events.read([0, 4])


def test_a_checksum_is_compared_once_a_handle(tmp_path, monkeypatch):
    events = fill(make_writer(tmp_path))
    compared = []

    def spy(path):
        compared.append(path.name)
        return sha256(path)

    monkeypatch.setattr(sharded, "sha256", spy)
    for row in (5, 0, 4, 1, 3):
        events.read([row])
    assert compared == ["shard-00001.h5", "shard-00000.h5"]
    copy = pickle.loads(pickle.dumps(events))  # noqa: S301  # as a worker of a loader gets it
    np.testing.assert_array_equal(copy.read([3]).series, events.read([3]).series)
    copy.read([6])
    assert compared == ["shard-00001.h5", "shard-00000.h5", "shard-00002.h5"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["V1:A", "V1:B"], slice(1, 3)),
        (["V1:B", "V1:A"], slice(1, 3)),
        (["V1:B", "V1:STRAIN"], [0, 2]),
        (["V1:B", "V1:B"], slice(2, 3)),
        (None, slice(None)),
    ],
)
def test_only_the_wanted_channels_are_read_from_disk(tmp_path, monkeypatch, names, expected):
    events = fill(make_writer(tmp_path))
    whole = events.read()
    asked = []
    get = h5py.Dataset.__getitem__

    def spy(dataset, key, *rest, **options):
        if dataset.name == "/data":
            asked.append(key)
        return get(dataset, key, *rest, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    batch = events.read([4], channels=names)
    assert asked == [(1, expected)]
    columns = [CHANNELS.index(name) for name in names or CHANNELS]
    np.testing.assert_array_equal(batch.series, whole.series[[4]][:, columns])


def test_wrong_kind_version_and_channel_are_named(tmp_path):
    events = fill(make_writer(tmp_path))
    with pytest.raises(FormatError, match="expected spectrograms"):
        SpectrogramSet.open(tmp_path)
    with pytest.raises(ChannelMismatchError, match="V1:C"):
        events.read(channels=["V1:C"])
    path = tmp_path / MANIFEST_NAME
    write_json(path, {**read_json(path), "format_version": 99})
    with pytest.raises(FormatError, match="format version 99"):
        EventSet.open(tmp_path)


def test_rows_that_do_not_belong_together_are_refused():
    good = make_batch(["e0", "e1"])
    with pytest.raises(FormatError, match="float64"):
        EventBatch(good.event_ids, good.gps_start.astype(np.float32), good.gps_event, good.series, good.valid)
    with pytest.raises(FormatError, match="valid has shape"):
        EventBatch(good.event_ids, good.gps_start, good.gps_event, good.series, good.valid[:1])
    with pytest.raises(FormatError, match="4 dimensions"):
        SpectrogramBatch(good.event_ids, good.gps_start, good.gps_event, good.series, good.valid)


def test_a_batch_that_is_not_the_planned_one_is_refused(tmp_path):
    writer = make_writer(tmp_path)
    with pytest.raises(FormatError, match="planned"):
        writer.write(writer.pending()[0], make_batch(["e0", "e1"]))


def _write_and_die(folder):
    with atomic_path(folder / "result.bin") as temporary:
        temporary.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "result.bin").write_bytes(b"old")
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "result.bin").read_bytes() == b"old"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_shard_is_whole_or_not_there_wherever_writing_fails(tmp_path, share):
    resource = pytest.importorskip("resource")
    fill(make_writer(tmp_path / "whole", num_events=3))
    limit = int(share * (tmp_path / "whole" / "shard-00000.h5").stat().st_size)
    writer = make_writer(tmp_path / "set", num_events=3)
    plan = writer.pending()[0]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(DataError, match=r"Cannot write .*shard-00000.h5: File too large"):
            writer.write(plan, make_batch(plan.event_ids))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "set").iterdir()) == []
    events = fill(writer)
    np.testing.assert_array_equal(events.read().series, make_batch(plan.event_ids).series)


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"), atomic_path(tmp_path / "x.bin") as temporary:
        temporary.write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []
