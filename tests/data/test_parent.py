import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ENGINE = """
import os, sys, time
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.preprocessing.engine import EngineSettings, map_shards
from tests.data.test_parent import linger
if __name__ == "__main__":
    map_shards(linger, [ShardPlan(i, (str(i),)) for i in range(2)], EngineSettings(workers=2))
"""
LOADER = """
import os, time
from torch.utils.data import DataLoader
from glitchflow_plugin.data.parent import serve_quietly
from tests.data.test_parent import linger
class Slow:
    def __len__(self): return 8
    def __getitem__(self, row): return linger(row)
if __name__ == "__main__":
    list(DataLoader(Slow(), num_workers=2, worker_init_fn=serve_quietly))
"""
STARTER = """
import subprocess, sys
code = "from glitchflow_plugin.data.parent import *; end_with_parent(); from tests.data.test_parent import *; linger(0)"
subprocess.run([sys.executable, "-c", code])
"""


def linger(_):
    """Work for a minute, in a file for each process that says it lives."""
    place = os.environ["LINGER"]
    with open(f"{place}/{os.getpid()}", "w"):  # noqa: PTH123
        time.sleep(60)


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc"), reason="no /proc")  # noqa: PTH110
@pytest.mark.parametrize(
    ("code", "workers"), [(ENGINE, 2), (STARTER, 1), pytest.param(LOADER, 2, marks=pytest.mark.slow)]
)
def test_workers_end_when_their_parent_is_killed(tmp_path, code, workers):
    script, place = tmp_path / "script.py", tmp_path / "alive"
    script.write_text(code)
    place.mkdir()
    environment = {
        **os.environ,
        "LINGER": str(place),
        "PYTHONPATH": f"{Path.cwd()}:{os.environ.get('PYTHONPATH', '')}",
    }
    with subprocess.Popen([sys.executable, script], env=environment) as parent:
        wait_for(place, workers, parent)
        parent.send_signal(signal.SIGKILL)
    expect_all_gone(place)


def test_ctrl_c_ends_workers_in_the_middle_and_they_say_nothing(tmp_path):
    script, place = tmp_path / "script.py", tmp_path / "alive"
    script.write_text(f"try:\n{textwrap.indent(ENGINE, '    ')}\nexcept KeyboardInterrupt:\n    print('ended')\n")
    place.mkdir()
    environment = {
        **os.environ,
        "LINGER": str(place),
        "PYTHONPATH": f"{Path.cwd()}:{os.environ.get('PYTHONPATH', '')}",
    }
    command = [sys.executable, script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as parent:
        wait_for(place, 2, parent)
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        said, errors = parent.communicate(timeout=30)  # they would linger for a minute
    assert (said, parent.returncode) == ("ended\n", 0)
    assert "Traceback" not in errors
    expect_all_gone(place)


def wait_for(place, workers, parent):
    deadline = time.monotonic() + 60
    while len(list(place.iterdir())) < workers:
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def expect_all_gone(place):
    pids = [int(path.name) for path in place.iterdir()]
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if lives(pid)]:
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"{len(left)} of {len(pids)} workers live on")
        time.sleep(0.1)
