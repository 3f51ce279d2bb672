"""Frames in, clean frames out: the same bytes whoever interrupts it, and what it says of what never came."""

import ctypes
import errno
import json
import os
import resource
import shutil
import signal
import struct
import sys
import time
from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest
from tests import _warm
from tests.data._replayer import PATIENCE, Replayer
from tests.streaming import _streams as data

from glitchflow_plugin.cli import main
from glitchflow_plugin.data import files
from glitchflow_plugin.data.files import sha256
from glitchflow_plugin.data.frame_intake import FrameIntake, IntakeSettings
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.products.folder import (
    RECORDS,
    BlockRecord,
    SeenGain,
    parts_of,
    read_manifest,
    record_path,
    total,
    write_block_record,
    write_manifest,
)
from glitchflow_plugin.products.folder_check import flaws
from glitchflow_plugin.products.folder_lookup import said_by_folder
from glitchflow_plugin.streaming import online_run
from glitchflow_plugin.streaming.loop import watch
from glitchflow_plugin.streaming.online import OnlineSettings, OnlineTwin
from glitchflow_plugin.streaming.online_run import (
    LOOP_NAME,
    STATE_NAME,
    STATUS_NAME,
    Latency,
    OnlineRun,
    OnlineRunSettings,
    expected_channels,
    last_written,
    part_name,
    read_records,
)
from glitchflow_plugin.streaming.run import ProductSettings, StreamJob

SETTINGS = OnlineSettings(1.0, replace(data.SETTINGS, stride=1.0))
PROVENANCE = {"glitchflow_model": "twin", "glitchflow_model_version": "7"}


def _job(folder):
    return StreamJob(folder, data.model(), SETTINGS.stream, ProductSettings(ranks=None), PROVENANCE)


def online(folder, frames, **changed):
    job = _job(folder)
    intake = FrameIntake([frames], expected_channels(job), 1.0, IntakeSettings(poll=0.01, patience=0.2))
    run = OnlineRun(job, OnlineTwin(job.model, SETTINGS), intake, OnlineRunSettings(idle=0.3, **changed))
    run.run()
    return run


def sums(folder):
    return {path.name: sha256(path) for path in sorted(folder.glob("*-*/[!.]*.h5"))}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return data.write_files(tmp_path_factory.mktemp("frames"), length=4.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory, frames):
    folder = tmp_path_factory.mktemp("made")
    return folder, online(folder, frames, checkpoint=16.0, folder_length=64)


def test_clean_frames_come_a_stride_each_and_lack_the_glitches(made):
    folder, run = made
    assert run.made == 95
    starts = [one.start for part in parts_of(folder) for one in read_records(part)]
    assert starts == [data.GPS + second for second in range(95)]
    for part in parts_of(folder):
        assert list(flaws(part)) == []
    seconds = total(one.seconds for part in parts_of(folder) for one in read_records(part))
    # what has not come yet is no noise to compare with
    assert seconds["NO_SIGNAL_SUSPECTED"] > 0.9 * seconds["ANALYSED"] > 60
    told = json.loads((folder / STATUS_NAME).read_text())
    assert told["gps"] == data.GPS + 95
    assert told["latency"]["all"]["p50"] > 0
    assert any(one.vetoed for part in parts_of(folder) for one in read_records(part))


def test_the_whole_run_is_checked_at_once_while_it_goes_on(made, tmp_path, capsys):
    folder = shutil.copytree(made[0], tmp_path / "run")
    first, last = parts_of(folder)
    whole = read_manifest(last)
    write_manifest(last, replace(whole, blocks=whole.blocks[:-3]))
    assert main(["products", str(folder)]) == 0
    assert capsys.readouterr().out.count("coverage") == 2
    path = last / whole.blocks[-1].files[0].name
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["products", str(folder)]) == 1
    assert f"ERROR  {path.name}: its checksum is another" in capsys.readouterr().out
    (last / "products.json").unlink()
    assert main(["products", str(folder)]) == 0
    assert "not written yet" in capsys.readouterr().out
    (first / "products.json").unlink()
    assert main(["products", str(folder)]) == 1


def test_a_file_is_no_folder_of_products(made, capsys):
    part = parts_of(made[0])[0]
    path = next(part.glob("*.h5"))
    assert main(["products", str(path)]) != 0
    assert f"glitchflow products {part}" in capsys.readouterr().err


def test_triggers_are_asked_about_in_the_whole_run(made):
    folder, _ = made
    times = data.GPS + np.arange(0.25, 95.0, 0.5)
    whole = said_by_folder(folder, times)
    first, last = (said_by_folder(part, times) for part in parts_of(folder))
    assert first.known.any()
    assert last.known.any()
    assert whole.decision.tolist() == np.where(first.known, first.decision, last.decision).tolist()
    assert set(whole.decision) > {"pass", "unknown"}


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_a_run_that_was_killed_goes_on_with_the_same_bytes(made, frames, tmp_path, state):
    folder, _ = made
    source = tmp_path / "frames"
    shutil.copytree(frames, source)
    for path in sorted(source.glob("*.h5"))[13:]:
        path.rename(path.with_suffix(".later"))
    killed = tmp_path / "run"
    online(killed, source, checkpoint=16.0, folder_length=64)
    before = {path: path.stat().st_mtime_ns for path in killed.glob("*-*/*.h5")}
    # killed between the files of a stride and its record
    (parts_of(killed)[-1] / "records" / f"{(last_written(killed) or 0) - 1:.0f}-1.json").unlink()
    if state == "lost":
        (killed / STATE_NAME).unlink()
    for path in source.glob("*.later"):
        path.rename(path.with_suffix(".h5"))
    online(killed, source, checkpoint=16.0, folder_length=64)
    assert sums(killed) == sums(folder)
    assert sum(path.stat().st_mtime_ns != when for path, when in before.items()) == 1


def test_without_the_frames_of_before_it_goes_on_from_the_state(made, frames, tmp_path):
    folder, _ = made
    source = tmp_path / "frames"
    source.mkdir()
    every = sorted(frames.glob("*.h5"))
    for path in every[:12]:
        shutil.copy(path, source)
    killed = tmp_path / "run"
    online(killed, source, checkpoint=16.0, folder_length=64)
    for path in source.glob("*.h5"):
        path.unlink()
    for path in every[12:]:
        shutil.copy(path, source)
    online(killed, source, checkpoint=16.0, folder_length=64)
    assert sums(killed) == sums(folder)


def test_what_a_killed_run_left_is_listed_though_all_that_follows_lies_in_another_folder(made, frames, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "run")
    first, last = parts_of(folder)
    whole = read_manifest(first)
    write_manifest(first, replace(whole, blocks=whole.blocks[:-3]))
    shutil.rmtree(last)
    online(folder, frames, checkpoint=16.0, folder_length=64)
    assert read_manifest(first) == whole
    assert sums(folder) == sums(made[0])


def test_with_neither_frames_nor_state_what_is_lost_is_told(frames, tmp_path, caplog):
    source, killed = tmp_path / "frames", tmp_path / "run"
    source.mkdir()
    every = sorted(frames.glob("*.h5"))
    for path in every[:5]:
        shutil.copy(path, source)
    online(killed, source)
    (killed / STATE_NAME).unlink()
    shutil.rmtree(source)
    source.mkdir()
    for path in every[6:10]:
        shutil.copy(path, source)
    online(killed, source)
    assert "are gone and no state was kept" in caplog.text
    starts = [one.start - data.GPS for part in parts_of(killed) for one in read_records(part)]
    assert starts == [*range(19), *range(24, 39)]


FOLLOWED_NO_MORE = [SeenGain(data.GUIDE, one, one + 4.0, -1.0, 0.01, 1e3, 0.0) for one in 6.0 * np.arange(8)]
"""Gains of the guide by the seconds after some time, of glitches in which the strain no longer follows it."""


def followed_no_more(folder, gps):
    """Records of strides, from a GPS time on, that end with the guide stopped; returns their gains."""
    gains = [replace(one, start=gps + one.start, stop=gps + one.stop) for one in FOLLOWED_NO_MORE]
    for one in gains:
        record = BlockRecord(one.start + 2, one.start + 3, "made before", gains=(one,))
        write_block_record(folder / part_name(one.start, 4096), record)
    return gains


def watched(folder, frames, ended=lambda: False, **changed):
    model = replace(data.model(), reference=data.REFERENCE)
    job = StreamJob(folder, model, SETTINGS.stream, ProductSettings(ranks=None), PROVENANCE)
    intake = FrameIntake([frames], expected_channels(job), 1.0, IntakeSettings(poll=0.01, patience=0.2))
    run = OnlineRun(job, OnlineTwin(model, SETTINGS), intake, OnlineRunSettings(**changed), ended)
    run.run()
    return run


def test_the_closed_loop_says_of_records_one_by_one_what_it_says_of_all(tmp_path):
    gains = followed_no_more(tmp_path, data.GPS)
    (tmp_path / "frames").mkdir()
    run = watched(tmp_path, tmp_path / "frames", lambda: True)
    (found,) = run.stops
    (stop,) = watch(gains, data.REFERENCE, SETTINGS.stream.closed_loop).stops
    # the stride whose record told it was made with the guide, up to the newest sample of then
    (told,) = [one.start + 3 for one in gains if one.stop == stop.since]
    assert found == replace(stop, since=told + SETTINGS.lookahead)
    assert run.status()["stopped"] == [data.GUIDE]


def test_what_the_closed_loop_has_seen_is_not_read_again(tmp_path, monkeypatch):
    gains = followed_no_more(tmp_path, data.GPS)
    later = replace(gains[-1], start=gains[-1].start + 6, stop=gains[-1].stop + 6)
    (tmp_path / "frames").mkdir()
    first = watched(tmp_path, tmp_path / "frames", lambda: True)
    read = []
    real = online_run.read_block_record
    monkeypatch.setattr(online_run, "read_block_record", lambda *which: read.append(which) or real(*which))
    again = watched(tmp_path, tmp_path / "frames", lambda: True)
    assert (again.stops, again._watched) == (first.stops, first._watched)
    assert len(read) == 1  # the last, which says where to go on
    read.clear()
    record = BlockRecord(later.start + 2, later.start + 3, "later", gains=(later,))
    write_block_record(tmp_path / part_name(later.start, 4096), record)
    after = watched(tmp_path, tmp_path / "frames", lambda: True)
    assert len(read) == 2
    (tmp_path / LOOP_NAME).unlink()
    assert watched(tmp_path, tmp_path / "frames", lambda: True)._watched == after._watched != first._watched
    # a record that is gone is made, and its gains are seen, again
    record_path(tmp_path / part_name(later.start, 4096), record.start, record.stop).unlink()
    assert watched(tmp_path, tmp_path / "frames", lambda: True)._watched == first._watched


def test_files_say_which_witness_was_stopped(frames, tmp_path):
    followed_no_more(tmp_path, data.GPS - 48)
    run = watched(tmp_path, frames, until=data.GPS + 4)
    (path, *_) = sorted(tmp_path.glob("*-*/*.h5"))
    with h5py.File(path) as file:
        assert json.loads(file.attrs["glitchflow_stopped"]) == [asdict(one) for one in run.stops]
    assert [one.part for one in run.stops] == [data.GUIDE]


def test_figures_of_strides_hold_no_others():
    latency = Latency()
    latency.add({"reading": 0.25, "network": 0.5})
    latency.keeping(4.0)
    told = latency.told()
    assert set(told) == {"reading", "network", "all", "keeping"}
    assert {name: one["max"] for name, one in told.items()} == {
        "reading": 0.25,
        "network": 0.5,
        "all": 0.75,
        "keeping": 4.0,
    }


def test_what_never_came_is_not_written_and_what_follows_is(frames, tmp_path):
    source = tmp_path / "frames"
    shutil.copytree(frames, source)
    for path in sorted(source.glob("*.h5"))[15:17]:
        path.unlink()
    run = online(tmp_path / "run", source)
    starts = [one.start - data.GPS for part in parts_of(run.job.folder) for one in read_records(part)]
    assert starts == [*range(60), *range(68, 95)]


def test_a_channel_that_lacks_at_the_end_holds_nothing_back(frames, tmp_path):
    source, first = tmp_path / "frames", sorted(frames.glob("*.h5"))[0]
    source.mkdir()
    held = hdf5.read(first, list(data.RATES), data.GPS, data.GPS + 4)
    for name in data.RATES:
        seconds = 3 if name == data.OTHER else 4
        one = replace(held[name], series=held[name].series[: round(seconds * data.RATES[name])])
        hdf5.write(source / f"V-{name.split(':')[1]}-{data.GPS:.0f}-{seconds}.h5", {name: one})
    run = online(tmp_path / "run", source)
    assert run.made == 3
    assert json.loads((tmp_path / "run" / STATUS_NAME).read_text())["frames"]["missing"] == 1
    # what comes later goes on behind it
    shutil.copy(sorted(frames.glob("*.h5"))[1], source)
    assert online(tmp_path / "run", source).made == 4


@pytest.mark.parametrize("length", [64, 8])
def test_folders_of_another_length_are_refused_before_anything_is_made(made, frames, length):
    folder = made[0]
    before = sorted(folder.rglob("*"))
    with pytest.raises(ConfigurationError, match=rf"expected folders of {2 * length} s .* got .*-64. Set it back"):
        online(folder, frames, checkpoint=16.0, folder_length=2 * length)
    assert sorted(folder.rglob("*")) == before


def test_a_folder_of_another_name_is_refused_with_words(tmp_path, frames):
    (tmp_path / "run" / "kept-aside" / RECORDS).mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"got kept-aside.*take that folder elsewhere"):
        online(tmp_path / "run", frames)


def test_what_the_first_file_needs_is_imported_before_frames_are_looked_for(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(online_run, "load_writers", lambda formats: order.append(tuple(formats)))
    monkeypatch.setattr(FrameIntake, "next", lambda _: order.append("next"))
    (tmp_path / "frames").mkdir()
    watched(tmp_path / "run", tmp_path / "frames", idle=0.01)
    assert order[:2] == [("hdf5",), "next"]


def _without_permission(folder, frames):
    """A run, of somebody who may not write where it is not allowed, whose folder cannot be written for a while."""
    _obey_permissions()
    folder.mkdir()
    job, looks = _job(folder), iter(range(1000))

    def ended():
        number = next(looks)
        if number == 6:
            for path in (folder, *folder.glob("*-*"), *folder.glob("*-*/records")):
                path.chmod(0o500)
            with pytest.raises(PermissionError):
                (folder / "mine").touch()
        if number == 9:
            for path in (folder, *folder.glob("*-*"), *folder.glob("*-*/records")):
                path.chmod(0o700)
        return False

    intake = FrameIntake([frames], expected_channels(job), 1.0, IntakeSettings(poll=0.01, patience=0.2))
    run = OnlineRun(job, OnlineTwin(job.model, SETTINGS), intake, OnlineRunSettings(idle=0.3, folder_length=64), ended)
    run.run()
    assert next(looks) > 9


def _obey_permissions():
    """Give up what lets the superuser write anywhere (capset(2), version 3): permissions hold from then on."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *[0] * 6)
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_permission_that_is_taken_away_for_a_while_costs_no_byte(made, frames, tmp_path):
    source = tmp_path / "frames"
    source.mkdir()
    for path in sorted(frames.glob("*.h5"))[:3]:
        shutil.copy(path, source)
    status = _warm.start(_without_permission, tmp_path / "run", source, output=tmp_path / "said").wait()
    said = (tmp_path / "said").read_text()
    assert status == 0, said[-2000:]
    assert said.count("It is tried again until it can be done") == 1
    assert len(sums(tmp_path / "run")) == 11
    assert sums(tmp_path / "run").items() <= sums(made[0]).items()


def _killed_at(number, folder, frames):
    """The run in a process of its own, which dies when it has something flushed to the disk for the n-th time."""
    flush, left = files.flush, iter(range(number))

    def counted(path):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    files.flush = counted
    online(folder, frames, checkpoint=16.0, folder_length=64)


@pytest.mark.slow
def test_kill_minus_nine_loses_nothing_wherever_it_comes(made, frames, tmp_path):
    """Each file is flushed before it is renamed and its folder after that: between any two of these a run may end."""
    killed, source, rng, written = tmp_path / "run", tmp_path / "frames", np.random.default_rng(0), {}
    source.mkdir()
    for path in sorted(frames.glob("*.h5"))[:11]:
        shutil.copy(path, source)
    status, kills = -signal.SIGKILL, 0
    while status == -signal.SIGKILL:
        number = int(rng.integers(2, 50)) if kills < 6 else 10**6
        status = _warm.start(_killed_at, number, killed, source, output=tmp_path / "said").wait()
        kills += status == -signal.SIGKILL
        for path in killed.glob("*-*/[!.]*.h5"):
            identity = path.stat().st_ino, path.stat().st_mtime_ns
            record = path.parent / "records" / "-".join(path.stem.split("-")[-2:])
            if record.with_suffix(".json").exists():
                assert written.setdefault(path, identity) == identity
    assert (status, kills) == (0, 6), (tmp_path / "said").read_text()[-2000:]
    assert len(sums(killed)) == 43
    assert sums(killed).items() <= sums(made[0]).items()
    for part in parts_of(killed):
        assert list(flaws(part)) == []


def test_faults_on_the_way_change_no_byte(made, frames, tmp_path, caplog):
    """Files late, half-written, there twice, folders that vanish; a disk that is full now and then."""
    folder, seen = tmp_path / "frames", []
    folder.mkdir()
    every = sorted(frames.glob("*.h5"))
    replayer = Replayer(every[:11], folder, seed=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def goes_on():
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        more = replayer.step()
        full = 20 < replayer.now < 24
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if full else before[0], before[1]))
        seen.append(full)
        return not (more or run.intake.idle() < 2 * PATIENCE)

    intake = FrameIntake(
        [folder], expected_channels(_job(tmp_path)), 1.0, IntakeSettings(poll=0.001, patience=PATIENCE), replayer.clock
    )
    run = OnlineRun(
        _job(tmp_path / "run"),
        OnlineTwin(data.model(), SETTINGS),
        intake,
        OnlineRunSettings(checkpoint=16.0, folder_length=64),
        goes_on,
    )
    try:
        run.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert any(seen)
    assert run.made == 43
    assert sums(tmp_path / "run").items() <= sums(made[0]).items()
    assert len(sums(tmp_path / "run")) == 43
    assert caplog.text.count("It is tried again until it can be done") == 1
    assert main(["products", str(tmp_path / "run")]) == 0


def test_a_full_disk_ends_a_run_that_shall_end(frames, tmp_path):
    asked = iter([False] * 3)
    job = _job(tmp_path / "run")
    intake = FrameIntake([frames], expected_channels(job), 1.0, IntakeSettings(poll=0.001))
    run = OnlineRun(job, OnlineTwin(job.model, SETTINGS), intake, OnlineRunSettings(), lambda: next(asked, True))
    (tmp_path / "run").write_text("a file is in the place of the folder")
    with pytest.raises(DataError, match=r"Cannot write .*Check the folder"):
        run.run()


def test_a_full_disk_is_waited_for_at_the_end_too(tmp_path, monkeypatch):
    (tmp_path / "frames").mkdir()
    faults, write = [OSError(errno.ENOSPC, "full")], online_run.write_json

    def full_at_first(path, content):
        if faults:
            raise DataError("Cannot write it.") from faults.pop()
        write(path, content)

    monkeypatch.setattr(online_run, "write_json", full_at_first)
    assert watched(tmp_path / "run", tmp_path / "frames", idle=0.1).made == 0
    assert (tmp_path / "run" / STATUS_NAME).exists()


@pytest.mark.parametrize(("settings", "least"), [({"idle": 0.5}, 0.5), ({"idle": 0.1, "awaited": 0.6}, 0.6)])
def test_an_empty_folder_is_waited_for(tmp_path, settings, least):
    (tmp_path / "frames").mkdir()
    begun = time.monotonic()
    assert watched(tmp_path / "run", tmp_path / "frames", **settings).made == 0
    assert time.monotonic() - begun > least
