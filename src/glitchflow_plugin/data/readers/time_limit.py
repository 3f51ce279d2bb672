"""A limit for what may never come: calls of clients that wait for a silent server without end."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call gives, if it gives it in time.

    A time limit of a socket is met by a server that sends a byte now and then, and some clients set none. So the call
    runs in a thread of its own, which is left behind if it is late: it holds up neither the caller nor the end of the
    program.

    Args:
        seconds: By the clock.
        call: What it raises is raised here.

    Raises:
        TimeoutError: It took longer.

    >>> within(5.0, lambda: 3)
    3
    """
    answer: Future[T] = Future()

    def _run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # handed to the caller, whatever it is
            answer.set_exception(error)

    threading.Thread(target=_run, daemon=True, name="within a time limit").start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.done():  # the call's own limit, or an answer at the last moment
            return answer.result()
        raise TimeoutError(f"no whole answer within {seconds:g} s (`remote.timeout`)") from None
