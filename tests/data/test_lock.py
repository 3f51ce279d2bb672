import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import pytest

from glitchflow_plugin.data import lock
from glitchflow_plugin.data.lock import LOCK_NAME, at_work, in_use, take
from glitchflow_plugin.errors import BusyError, DataError

HOLD = """
import sys
from glitchflow_plugin.data.lock import at_work, in_use
with {}:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(expression):
    """Another process at work."""
    command = [sys.executable, "-c", HOLD.format(expression)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_is_at_work_and_a_killed_one_holds_nothing(tmp_path):
    with another(f"at_work({str(tmp_path)!r}, 'Trainer')") as process:
        with pytest.raises(BusyError) as raised, at_work(tmp_path, "Trainer"):
            pass
        told = str(raised.value)
        assert f"Trainer, process {process.pid} on {os.uname().nodename}, since 20" in told
        assert str(tmp_path) in told
        assert "run_name" in told
        with pytest.raises(BusyError), in_use(tmp_path, "Processor"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with at_work(tmp_path, "Trainer"):
            assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert (tmp_path / LOCK_NAME).read_text() == ""


def test_those_with_the_same_settings_share_and_others_do_not(tmp_path):
    with another(f"at_work({str(tmp_path)!r}, 'Data-processor', shared='one')") as process:
        with at_work(tmp_path, "Data-processor", shared="one"):
            first, second = (json.loads(line)["pid"] for line in (tmp_path / LOCK_NAME).read_text().splitlines())
            assert (first, second) == (process.pid, os.getpid())
        for different in ("two", None):
            with pytest.raises(BusyError, match=f"process {process.pid}"):
                take(tmp_path / LOCK_NAME, "Data-processor", shared=different, patience=0.3)
    with at_work(tmp_path, "Data-processor", shared="two"):
        pass


def test_many_who_start_at_once_all_share(tmp_path):
    code = HOLD.format(f"at_work({str(tmp_path)!r}, 'Data-processor', shared='one')")
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(6)
    ]
    assert [process.stdout.readline() for process in processes] == [b"held\n"] * 6
    for process in processes:
        process.communicate()


def test_readers_keep_writers_out_and_need_no_right_to_write(tmp_path):
    second = in_use(tmp_path, "Hyperparameter-search")
    with in_use(tmp_path, "Trainer"), second, pytest.raises(BusyError, match="Trainer"), at_work(tmp_path, "Splitter"):
        pass
    with in_use(tmp_path / "not there", "Trainer"):
        pass
    assert not (tmp_path / "not there").exists()


def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    hold = take(tmp_path / LOCK_NAME, "Trainer")
    worker = os.fork()
    if not worker:
        time.sleep(60)
        os._exit(0)
    # as the kernel does when the parent is killed
    os.close(hold.file.fileno())
    hold.file = open(os.devnull)  # noqa: SIM115, PTH123
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                take(tmp_path / LOCK_NAME, "Trainer").close()
                break
            except BusyError:
                assert time.monotonic() < deadline
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_a_folder_that_was_removed_meanwhile_is_locked_anew(tmp_path):
    folder = tmp_path / "run"
    with closing(take(folder / LOCK_NAME, "Trainer")):
        (folder / LOCK_NAME).unlink()
        folder.rmdir()
        with closing(take(folder / LOCK_NAME, "Trainer")), pytest.raises(BusyError):
            take(folder / LOCK_NAME, "Trainer")


def test_half_written_files_go_but_for_those_of_others(tmp_path):
    left = [tmp_path / ".corr-a1b2c3d4.tmp.png", tmp_path / "pictures" / ".event-01-zzzzzzz_.tmp.png"]
    kept = [tmp_path / ".notes.tmp", tmp_path / "a-a1b2c3d4.tmp.png", tmp_path / "data" / ".x-a1b2c3d4.tmp.json"]
    for path in (*left, *kept, tmp_path / "data" / LOCK_NAME):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with at_work(tmp_path, "Make-inference", shared="one"):
        assert all(path.exists() for path in left)
    with at_work(tmp_path, "Make-inference"):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="Cannot write"), at_work(tmp_path / "file" / "below", "Trainer"):
        pass


def test_without_locks_the_work_goes_on(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with at_work(tmp_path, "Trainer"):
        pass
    assert "cannot be locked" in caplog.text


def test_a_full_disk_hinders_who_writes_and_not_who_reads(tmp_path, caplog):
    (tmp_path / LOCK_NAME).symlink_to("/dev/full")
    with pytest.raises(DataError, match="No space left"), at_work(tmp_path, "Trainer"):
        pass
    with in_use(tmp_path, "Processor"):
        assert "read without a lock" in caplog.text


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"null\n", b'{"host": "%s", "pid": %d}', b'{"host": "%s", "pid": []}']
)
def test_who_is_busy_is_told_whatever_the_lock_says(tmp_path, content):
    with closing(take(tmp_path / LOCK_NAME, "Trainer")):
        holder = content.replace(b"%s", os.uname().nodename.encode()).replace(b"%d", b"9" * 30)
        (tmp_path / LOCK_NAME).write_bytes(holder)
        with pytest.raises(BusyError, match="another run is at work"), at_work(tmp_path, "Trainer"):
            pass
