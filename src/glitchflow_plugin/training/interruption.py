"""Ending in good order when a user (Ctrl-C), a terminal that closes or the scheduler of a cluster asks for it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from glitchflow_plugin.data.parent import ENDING

#: nohup and shells that start something in the background ignore these on its behalf.
_MAY_BE_IGNORED = (signal.SIGINT, signal.SIGHUP)


class Interrupted(SystemExit):
    """The run was asked to end and can go on later.

    Args:
        message: What has happened and how to go on.
        code: Exit code; 75 (EX_TEMPFAIL) where a checkpoint was written.
    """

    def __init__(self, message: str, code: int = os.EX_TEMPFAIL) -> None:
        super().__init__(code)
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass
class Request:
    """Whether somebody asked the run to end.

    Attributes:
        name: Name of the signal that came first; None: none has.
    """

    name: str | None = None


@contextmanager
def stop_requests() -> Iterator[Request]:
    """Notice signals, however many come, in place of dying of them.

    Only the main thread can; in another one nothing is noticed. SIGINT and SIGHUP that are ignored stay so.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def notice(number: int, _: Any) -> None:
        request.name = request.name or signal.Signals(number).name
        if number == signal.SIGHUP:
            _say_no_more(terminals)

    ignored = [number for number in _MAY_BE_IGNORED if signal.getsignal(number) == signal.SIG_IGN]
    before = {number: signal.signal(number, notice) for number in ENDING if number not in ignored}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_workers(*loaders: Any) -> None:
    """End the workers of data loaders in the middle of an epoch; a loader without any is left alone."""
    for loader in loaders:
        iterator = getattr(loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()


def _say_no_more(terminals: list[int]) -> None:
    """Let what is still said vanish: writing to a terminal that is gone is an error, and would cost the checkpoint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in terminals:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
