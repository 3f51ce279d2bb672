"""A function in a forked process, with a limit of memory and of time: milliseconds a case, so that each has its own.

`tests._limits` starts a new interpreter instead, for what must not share this one.
"""

import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glitchflow_plugin.errors import GlitchflowError


class RefusedError(GlitchflowError):
    """The function raised an error of this package; the message is its own."""


def limited(function: Callable[..., Any], *arguments: Any, mib: int = 1024, seconds: float = 30.0) -> Any:
    """What the function returns.

    Args:
        function: To be called.
        arguments: For it.
        mib: Memory that it may take beside what this process has, MiB.
        seconds: How long it may take.

    Raises:
        RefusedError: It raised an error of this package.
        AssertionError: It raised anything else, died, or went beyond a limit.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, mib, function, arguments))
    process.start()
    sender.close()
    kind, found = "died", f"still at work after {seconds:g} s"
    try:
        if receiver.poll(seconds):
            kind, found = receiver.recv()
    except EOFError:
        process.join()
        found = f"exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()
        receiver.close()
    if kind == "refused":
        raise RefusedError(found)
    assert kind == "returned", f"{function.__name__}: {kind}: {found}"
    return found


def _run(sender: Any, mib: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        answer = "returned", function(*arguments)
    except GlitchflowError as error:
        answer = "refused", f"{type(error).__name__}: {error}"
    except BaseException as error:  # whatever it is, the test shall say it
        import traceback

        answer = f"raised {type(error).__name__}", f"{error}\n{traceback.format_exc()[-1500:]}"
    sender.send(answer)
