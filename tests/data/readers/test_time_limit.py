import threading
import time
from concurrent.futures import Future

import pytest

from glitchflow_plugin.data.readers import time_limit
from glitchflow_plugin.data.readers.time_limit import within


def _fail():
    raise TimeoutError("the call's own")


def test_a_call_in_time_gives_what_it_gives_and_raises_what_it_raises():
    assert within(60.0, lambda: "answer") == "answer"
    with pytest.raises(TimeoutError, match="the call's own"):
        within(60.0, _fail)
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda: 1 / 0)


def test_a_late_call_is_left_behind():
    ended = threading.Event()
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        within(0.05, ended.wait)
    assert time.monotonic() - begun < 10
    (left,) = (one for one in threading.enumerate() if one.name == "within a time limit")
    assert left.daemon  # it does not hold up the end of the program
    ended.set()
    left.join(10)


def test_an_answer_at_the_last_moment_counts(monkeypatch):
    class LastMoment(Future):
        def result(self, timeout=None):
            found = super().result(60)
            if timeout is not None:
                raise TimeoutError
            return found

    monkeypatch.setattr(time_limit, "Future", LastMoment)
    assert within(1.0, lambda: "answer") == "answer"
