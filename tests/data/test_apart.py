import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.data import _misbehaving

from glitchflow_plugin.data import apart
from glitchflow_plugin.errors import DataError, FormatError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "data.h5"
    path.write_bytes(b"some")
    return path


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("hang", r"data\.h5 was not read within 2 s"),
        ("spin", r"data\.h5 was not read within 1 s of computing"),
        ("crash", r"data\.h5 cannot be read: it ended the process"),
        ("abort", r"data\.h5 cannot be read: it ended the process"),
        ("memory", r"data\.h5 cannot be read: it asks for more memory"),
        ("large", r"data\.h5 cannot be read: it asks for more memory"),
        ("raise", r"data\.h5 cannot be read \('odd'\)"),
        ("deep", r"data\.h5 cannot be read \(maximum recursion"),
    ],
)
def test_whatever_a_file_does_is_a_format_error_and_the_next_is_read(tmp_path, path, what, match):
    other = tmp_path / "other.h5"
    other.write_bytes(b"")
    patience = apart.Patience(1.0, 2.0 if what == "hang" else 100.0)
    with apart.waiting(patience), pytest.raises(FormatError, match=match):
        _misbehaving.read(path, what)
    assert _misbehaving.read(other, "") != os.getpid()


def test_a_file_is_waited_for_once(path):
    with apart.waiting(apart.Patience(1.0, 2.0)), pytest.raises(FormatError, match="within 2 s"):
        _misbehaving.read(path, "hang")
    with pytest.raises(FormatError, match="within 2 s"):
        _misbehaving.read(path, "hang")
    path.write_bytes(b"another file")
    assert _misbehaving.read(path, "")


def test_of_many_files_those_that_end_the_companion_or_are_missing_take_no_other_along(tmp_path):
    names = ["good", "hang", "gone", "raise", "crash", "crash", "large", "good"]
    paths = [tmp_path / f"{number}-{name}.h5" for number, name in enumerate(names)]
    for path in paths:
        if "gone" not in path.name:
            path.write_bytes(b"some")
    with apart.waiting(apart.Patience(1.0, 2.0)):
        both = [apart.each(_misbehaving.read_by_name, paths) for _ in range(2)]
    for answers in both:
        found = [answer if isinstance(answer, str) else str(answer) for answer in answers]
        assert [answer if isinstance(answer, str) else type(answer) for answer in answers] == [
            "0-good",
            *[FormatError] * 6,
            "7-good",
        ]
        for path, said, match in zip(
            paths,
            found,
            ["", "within 2 s", "not exist", "odd", "ended the", "ended the", "more memory", ""],
            strict=True,
        ):
            assert path.stem in said
            assert match in said
    assert apart.each(_misbehaving.read_by_name, []) == []


def test_arrays_come_as_they_were_and_are_the_callers_own(path):
    for what in ("arrays", "more arrays than fit"):
        kept, again = _misbehaving.read(path, what), _misbehaving.read(path, what)
        assert [array.dtype.str for array in kept] == ["<f8", ">i2", "|b1", "<f4", "<f8"]
        assert [array.shape for array in kept] == [(1000,), (3,), (0,), (2, 3), (1 << 20,)] or "more" in what
        kept[0][:] = 7
        np.testing.assert_array_equal(again[0], np.arange(len(again[0])))
        for array in kept[1:]:
            np.testing.assert_array_equal(array, np.arange(array.size, dtype=array.dtype).reshape(array.shape))


def test_who_waits_in_another_thread_can_be_interrupted(path):
    _misbehaving.read(path, "")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_misbehaving.read, path, "spin")
        while not waiting.running():
            time.sleep(0.01)
        time.sleep(0.2)
        apart.interrupt()
        with pytest.raises(DataError, match="was killed"):
            waiting.result(20)
    assert _misbehaving.read(path, "")


def test_who_kills_the_companion_says_nothing_about_the_file(path):
    with pytest.raises(DataError, match="was killed") as caught:
        _misbehaving.read(path, "killed")
    assert not isinstance(caught.value, FormatError)
    assert _misbehaving.read(path, "")


def test_an_interrupted_wait_leaves_no_answer_for_the_next(path):
    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    _misbehaving.read(path, "")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            _misbehaving.read(path, "spin")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert isinstance(_misbehaving.read(path, ""), int)


def test_the_companion_ends_with_its_process(path):
    program = f"from tests.data import _misbehaving as m; print(m.read({str(path)!r}, ''), flush=True); import os; "
    program += "os.kill(os.getpid(), 9)"
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    companion = int(ran.stdout)
    for _ in range(100):
        try:
            os.kill(companion, 0)
        except ProcessLookupError:
            return
        stat = Path(f"/proc/{companion}/stat")
        if stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the companion outlives its process")


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
    Path("folder").mkdir()
    Path("circle").symlink_to("circle")
    for name, match in (
        ("pipe", "a pipe"),
        ("socket", "a socket"),
        ("folder", "a folder"),
        ("/dev/zero", "a device"),
        ("circle", "cannot be opened"),
        ("nothing", "does not exist"),
        ("a\0b", "cannot be opened"),
    ):
        with pytest.raises(FormatError, match=match):
            _misbehaving.read(name, "")


def test_what_is_shown_can_be_written_anywhere():
    for text, shown in ((b"\xb5m", "\\xb5m"), ("µm", "µm"), ("a\udcff", "a\\xff"), ("\ud800", "\\ud800")):
        assert apart.shown(text) == shown
        shown.encode()


FORKS = """
import os
import signal
import sys
import time
from threading import Thread

from tests.data import _misbehaving

path = sys.argv[1]
Thread(target=_misbehaving.read, args=(path, "slow"), daemon=True).start()
time.sleep(1)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(_misbehaving.read(path, "") == os.getpid())
_, status = os.waitpid(child, 0)
sys.exit(status != 0)
"""


def test_a_fork_reads_while_another_thread_of_its_parent_does(path):
    subprocess.run([sys.executable, "-c", FORKS, str(path)], check=True, cwd=Path(__file__).parents[2], timeout=60)
