"""Functions in a forked process, with a limit of memory and of time for each.

One process runs them in turn, and is forked anew after one that went wrong: forking costs more than most functions do.
`tests._limits` forks one that has only imported, for what must not share this one's memory.
"""

import multiprocessing
import resource
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from glitchflow_plugin.errors import GlitchflowError


class RefusedError(GlitchflowError):
    """The function raised an error of this package; the message is its own."""


class Limited:
    """A process under limits, within a `with`.

    Args:
        mib: Memory that it may take beside what this process has, MiB.
        seconds: How long a function may take.
    """

    def __init__(self, mib: int = 1024, seconds: float = 30.0) -> None:
        self.mib, self.seconds = mib, seconds

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._connection, self.mib), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns; all of it can be pickled.

        Raises:
            RefusedError: It raised an error of this package.
            AssertionError: It raised anything else, died, or went beyond a limit.
        """
        kind, found = "died", f"still at work after {self.seconds:g} s"
        try:
            self._connection.send((function, arguments))
            if self._connection.poll(self.seconds):
                kind, found = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            found = f"exit code {self._process.exitcode}"
        if kind == "refused":
            raise RefusedError(found)
        if kind != "returned":
            self.__exit__()
            self.__enter__()
        assert kind == "returned", f"{function.__name__}: {kind}: {found}"
        return found


def _serve(connection: Connection, theirs: Connection, mib: int) -> None:
    theirs.close()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        function, arguments = connection.recv()
        try:
            answer = "returned", function(*arguments)
        except GlitchflowError as error:
            answer = "refused", f"{type(error).__name__}: {error}"
        except BaseException as error:  # whatever it is, the test shall say it
            answer = f"raised {type(error).__name__}", f"{error}\n{traceback.format_exc()[-1500:]}"
        connection.send(answer)
