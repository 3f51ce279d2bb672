"""Ending in good order when the scheduler of a cluster asks for it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from glitchflow_plugin.data.parent import end_with_parent

#: SIGTERM: the time is over; SIGUSR1: it will soon be (`#SBATCH --signal=USR1@300`).
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Interrupted(SystemExit):
    """The run was asked to end and can go on later: exit code 75 (EX_TEMPFAIL)."""

    def __init__(self, message: str) -> None:
        super().__init__(os.EX_TEMPFAIL)
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass
class Request:
    """Whether somebody asked the run to end.

    Attributes:
        name: Of the signal that came; None: none.
    """

    name: str | None = None


@contextmanager
def requests_noticed() -> Iterator[Request]:
    """Notice signals in place of dying of them. Only the main thread can; in another one nothing is noticed."""
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def notice(number: int, _: Any) -> None:
        request.name = signal.Signals(number).name

    before = {number: signal.signal(number, notice) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stay_deaf(_worker: int = 0) -> None:
    """Let a loader worker ignore the signals, which clusters send to all processes; it ends with the one it serves."""
    end_with_parent()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
