import os
import signal
import threading

import pytest

from glitchflow_plugin.training.interruption import Interrupted, requests_noticed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noticed_and_nothing_dies(number):
    before = signal.getsignal(number)
    with requests_noticed() as request:
        assert request.name is None
        os.kill(os.getpid(), number)
        assert request.name == number.name
    assert signal.getsignal(number) is before


def test_other_threads_notice_nothing():
    found = []

    def run():
        with requests_noticed() as request:
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
