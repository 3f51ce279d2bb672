import os
import pty
import signal
import sys
import threading

import pytest

from glitchflow_plugin.data.parent import ENDING
from glitchflow_plugin.training.interruption import Interrupted, stop_requests


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_is_noticed_and_nothing_dies(number):
    before = signal.getsignal(number)
    with stop_requests() as request:
        assert request.name is None
        for _ in range(3):  # pressing Ctrl-C again must not cost the checkpoint
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.name == number.name
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_is_ignored_stays_ignored(number):
    """As nohup wants it, and shells that start something in the background."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), number)
            assert request.name is None
    finally:
        signal.signal(number, before)


HANGUP = """
import sys, time
from glitchflow_plugin.training.interruption import stop_requests
with stop_requests() as request:
    print("ready", flush=True)
    while request.name is None:
        time.sleep(0.01)
    print("still here", flush=True)
    print("still here", file=sys.stderr, flush=True)
open(sys.argv[1], "w").write(request.name)
"""


def test_a_terminal_that_closes_is_a_request_and_what_is_said_then_is_no_error(tmp_path):
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", HANGUP, str(tmp_path / "said")])  # noqa: S606  # no shell
    while b"ready" not in os.read(terminal, 1000):
        pass
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (tmp_path / "said").read_text() == "SIGHUP"


def test_other_threads_notice_nothing():
    found = []

    def run():
        with stop_requests() as request:
            found.append(request.name)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [None]


def test_the_exit_code_says_try_again():
    with pytest.raises(SystemExit) as caught:
        raise Interrupted("stopped in epoch 3")
    assert caught.value.code == 75
    assert "epoch 3" in str(caught.value)
