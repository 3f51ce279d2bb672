"""Workers killed, disks full, files cut off: what a run says, what it keeps, and that nothing is counted twice."""

import os
import shutil
import subprocess

import pytest
from tests.preprocessing import _runs

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.preprocessing import spectrograms
from glitchflow_plugin.preprocessing.engine import EngineSettings, ShardError, ShareDone
from glitchflow_plugin.signal.qtransform import QTransformSettings

pytestmark = pytest.mark.slow
TWO = {"workers": 2}


def shards(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.glob("shard-*.h5"))}


def test_a_worker_killed_in_the_middle_of_a_file(run_engine, raw_events, tmp_path, reference, checksums):
    killed = run_engine("dying", raw_events, tmp_path / "events", TWO)
    assert killed.returncode == 1
    assert "ShardError: Data-processor: a worker process was killed" in killed.stderr
    assert list((tmp_path / "events").glob(".shard-00002-*.tmp.h5"))
    assert not (tmp_path / "events" / "manifest.json").exists()
    finished = shards(tmp_path / "events")
    assert len(finished) < 7
    again = run_engine("all_sets", raw_events, tmp_path, TWO)
    assert again.returncode == 0, again.stderr
    assert shards(tmp_path / "events").items() >= finished.items()
    assert checksums(tmp_path) == checksums(reference)  # nothing half-written is left, nothing counted twice


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=220k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(run_engine, raw_events, small_disk, reference, checksums):
    full = run_engine("events", raw_events, small_disk / "events", TWO)
    assert full.returncode == 1
    assert "failed: DataError: No space left while writing" in full.stderr
    finished = shards(small_disk / "events")
    assert 1 <= len(finished) < 7
    assert set(small_disk.rglob("*")) == {small_disk / "events", *finished}
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = run_engine("events", raw_events, small_disk / "events", TWO)
    assert again.returncode == 0, again.stderr
    assert shards(small_disk / "events").items() >= finished.items()
    assert checksums(small_disk / "events") == checksums(reference / "events")


def test_a_truncated_input_is_named_and_the_mended_one_completes_the_set(tmp_path, reference, checksums):
    source = tmp_path / "events"
    shutil.copytree(reference / "events", source)
    damaged = source / "shard-00003.h5"
    whole = damaged.read_bytes()

    def make(events):
        return spectrograms.make_spectrograms(
            events, (_runs.WITNESS,), QTransformSettings(), tmp_path / "maps", batch_size=1, largest_shard=2
        )

    opened = EventSet.open(source)
    assert opened.valid.any()
    assert opened.gps_start[0] < opened.gps_event[0]  # read, so that the damage comes after the beginning
    damaged.write_bytes(whole[:-1000])
    with pytest.raises(ShardError, match=r"shard 1 \(events event-02 to event-03\).*shard-00003.h5 does not match its"):
        make(opened)
    finished = shards(tmp_path / "maps")
    assert len(finished) == 1
    with pytest.raises(FormatError, match=r"shard-00003.h5: expected \d+ bytes.*only that shard is remade"):
        EventSet.open(source)
    damaged.write_bytes(whole)
    make(EventSet.open(source))
    assert shards(tmp_path / "maps").items() >= finished.items()
    assert checksums(tmp_path / "maps") == checksums(reference / "maps")


def test_a_truncated_shard_is_made_again_and_nothing_else(raw_events, tmp_path, reference, checksums):
    shutil.copytree(reference / "events", tmp_path / "events")
    before = shards(tmp_path / "events")
    for index, kept in ((1, 3000), (4, 0)):
        os.truncate(tmp_path / "events" / f"shard-{index:05d}.h5", kept)
    _runs.events(raw_events, tmp_path / "events", EngineSettings(workers=1))
    changed = [path.name for path, when in shards(tmp_path / "events").items() if before[path] != when]
    assert changed == ["shard-00001.h5", "shard-00004.h5"]
    assert checksums(tmp_path / "events") == checksums(reference / "events")


def test_a_changed_bit_is_found_by_the_next_run_and_not_taken_over(raw_events, tmp_path, reference, checksums):
    shutil.copytree(reference / "events", tmp_path / "events")
    for damaged in (tmp_path / "events" / "shard-00002.h5", tmp_path / "events" / "shard-00004.h5"):
        content = bytearray(damaged.read_bytes())
        content[-5000] ^= 1
        damaged.write_bytes(content)
    before = shards(tmp_path / "events")
    assert EventSet.open(tmp_path / "events").manifest  # nothing is read yet
    # A run that ends after the first of them has taken the manifest away: the next must still know the second.
    with pytest.raises(ShareDone):
        _runs.events(
            raw_events, tmp_path / "events", EngineSettings("slurm-array", workers=1, share_index=2, share_count=7)
        )
    assert not (tmp_path / "events" / "manifest.json").exists()
    _runs.events(raw_events, tmp_path / "events", EngineSettings(workers=1))
    changed = [path.name for path, when in shards(tmp_path / "events").items() if before[path] != when]
    assert changed == ["shard-00002.h5", "shard-00004.h5"]
    assert checksums(tmp_path / "events") == checksums(reference / "events")


def test_tasks_of_an_array_make_every_shard_once(raw_events, tmp_path, reference, checksums):
    folder = tmp_path / "events"

    def share(index):
        return _runs.events(
            raw_events, folder, EngineSettings("slurm-array", workers=1, share_index=index, share_count=3)
        )

    with pytest.raises(ShareDone, match="share 2 of 3 is done") as done:
        share(1)
    assert done.value.code == 0
    assert [path.name for path in shards(folder)] == ["shard-00001.h5", "shard-00004.h5"]
    assert not (folder / "manifest.json").exists()
    with pytest.raises(ShareDone, match=r"share 1 of 3 is done \(3 shard\(s\) made\).*still 2 to make"):
        share(0)
    before = shards(folder)
    assert len(share(2)) == 6
    assert shards(folder).items() >= before.items()
    assert checksums(folder) == checksums(reference / "events")
    # Submitted once more, the first task alone does the rest of the step.
    with pytest.raises(ShareDone, match="all is there"):
        share(1)
    assert len(share(0)) == 6
    spikes = tmp_path / "spikes"
    for index in (1, 0):
        engine = EngineSettings("slurm-array", workers=1, share_index=index, share_count=2)
        if index:
            with pytest.raises(ShareDone, match="Annalisa-scan: share 2 of 2"):
                _runs.spikes(folder, spikes, engine)
        else:
            assert len(_runs.spikes(folder, spikes, engine))
    assert checksums(spikes) == checksums(reference / "spikes")
