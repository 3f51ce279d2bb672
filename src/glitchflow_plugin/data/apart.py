"""Files from elsewhere are read in a process apart, which may hang, crash or run out of memory in the run's place.

A damaged file can keep HDF5 busy for ever, or end the process that reads it, and nothing within that process can stop
either. So functions that open such a file are marked with `apart`: a companion process runs them one after the other,
and the kernel ends it when the file's time is over. Whatever a file throws comes back as a `FormatError`.
"""

import atexit
import importlib
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, TypeVar, cast

from glitchflow_plugin.errors import DataError, FormatError, GlitchflowError

Args = ParamSpec("Args")
Result = TypeVar("Result")

_PATIENCE = 30.0
"""Seconds for any file."""
_SLOWEST = 4e6
"""Bytes a second of the slowest storage: a large file gets more time."""
_GRACE = 30.0
"""Seconds after which a companion is given up that the kernel has not ended; it may have to import first."""
_MEMORY = 8 * 1024**3
"""Bytes of address space for the companion: more than any event needs."""
_TOO_MUCH = "it asks for more memory than any data need"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Threads that have nothing to do reserve address space, on a large machine all that is allowed."""
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that say nothing about the file."""

_within = False


def apart(function: Callable[Args, Result]) -> Callable[Args, Result]:
    """Mark a function whose first argument is the path of a file from elsewhere: it is run in the companion process.

    The function must be one of a module that other processes can import; arguments and result travel between them.

    Raises:
        FormatError: (the marked function) The path is no regular file, or the file cannot be read: it is damaged, took
            too long, crashed the library or asked for too much memory.
        DataError: The companion was ended from outside.
    """

    @wraps(function)
    def run(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        if _within:
            return function(*args, **kwargs)
        path = Path(cast("str | Path", args[0]))
        require_regular(path)
        return _companion.ask(path, (function.__module__, function.__qualname__, args, kwargs))

    return run


def require_regular(path: Path | str) -> None:
    """Refuse what would be waited for for ever, or has no end: pipes, sockets, devices.

    Raises:
        FormatError: The path is missing or no regular file.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError as error:
        raise FormatError(f"{shown(path)} does not exist.") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(f"{shown(path)} cannot be opened ({error}).") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise FormatError(
            f"{shown(path)} is {kinds.get(stat.S_IFMT(mode), 'a device')}, expected a regular file. Take it out of the "
            "data, or correct `path`."
        )


def shown(text: object) -> str:
    r"""Text that can be written anywhere: bytes that are not UTF-8 stand there as \xff.

    >>> shown(b"\xb5m")
    '\\xb5m'
    """
    if isinstance(text, bytes):
        return text.decode("utf-8", "backslashreplace")
    try:
        return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


class _Companion:
    """The process that reads, started when it is first needed and again after it has died; one a process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._given_up: dict[tuple[str, int, int], str] = {}  # nobody waits for the same file twice

    def ask(self, path: Path, call: tuple[str, str, tuple[Any, ...], dict[str, Any]]) -> Any:
        """Have a function run, and hand on what it returns or raises."""
        state = path.stat()
        limit = _PATIENCE + state.st_blocks * 512 / _SLOWEST
        version = (str(path.absolute()), state.st_size, state.st_mtime_ns)
        with self._lock:
            if version in self._given_up:
                raise FormatError(self._given_up[version])
            process, connection = self._started()
            try:
                connection.send((limit, Path.cwd(), call))  # a path may be relative
                # not even the kernel can end a process that waits for a dead file server
                if not connection.poll(limit + _GRACE):
                    raise TimeoutError
                done, value = connection.recv()
            except (EOFError, ConnectionError, TimeoutError) as ended:
                status = -signal.SIGALRM if isinstance(ended, TimeoutError) else process.wait()
                self.close()
                error = _ended(path, status, limit)
                if isinstance(error, FormatError):
                    self._given_up[version] = str(error)
                raise error from None
            except BaseException:  # interrupted: the answer that is still to come belongs to nobody
                self.close()
                raise
        if done:
            return value
        raise value

    def _started(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self._owner != os.getpid():  # a fork has the parent's, which it must leave alone
            self._process = self._connection = None
            self._owner = os.getpid()
        if self._process is None or self._connection is None or self._process.poll() is not None:
            self.close()
            self._connection, theirs = Pipe()
            paths = [str(Path(entry or ".").absolute()) for entry in sys.path]
            program = f"from {__name__} import serve; serve({theirs.fileno()})"
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  # our own module
                    [sys.executable, "-P", "-c", program],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(paths)},
                )
        return self._process, self._connection

    def close(self) -> None:
        """End the process."""
        if self._owner != os.getpid():
            return
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self._process = self._connection = None


_companion = _Companion()
atexit.register(_companion.close)


def _ended(path: Path, status: int, limit: float) -> GlitchflowError:
    """What the end of the companion says about the file."""
    name = shown(path)
    if status == -signal.SIGALRM:
        return FormatError(f"{name} was not read within {limit:.0f} s: it is damaged, or its storage does not answer.")
    if -status in _FROM_OUTSIDE:
        return DataError(
            f"The process that reads {name} was killed (out of memory, or from outside). What is finished is kept: run "
            "again, with fewer workers if memory was short."
        )
    return FormatError(f"{name} cannot be read: it ended the process that reads it (status {status}). It is damaged.")


def serve(descriptor: int) -> None:
    """What the companion does, until the process that it works for is gone."""
    global _within  # noqa: PLW0603  # says which of the two processes this is
    _within = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends this one
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(
            resource.RLIMIT_AS, (_MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard), hard)
        )
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(descriptor)
    while True:
        try:
            limit, folder, (module, name, args, kwargs) = connection.recv()
        except (EOFError, OSError):
            return
        with suppress(OSError):
            os.chdir(folder)
        function = getattr(importlib.import_module(module), name)
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            with explained(f"{shown(args[0])} cannot be read"):
                answer = (True, function(*args, **kwargs))
        except GlitchflowError as error:
            answer = (False, error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            connection.send(answer)
        except ConnectionError:
            return
        except MemoryError:
            connection.send((False, FormatError(f"{shown(args[0])} cannot be read: {_TOO_MUCH}.")))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever a file makes a library raise into a `FormatError` that says what cannot be done, and why.

    Raises:
        FormatError: Something was raised that no part of this package raises on purpose.
    """
    try:
        yield
    except GlitchflowError:
        raise
    except MemoryError as error:
        raise FormatError(f"{what}: {_TOO_MUCH}.") from error
    except Exception as error:
        reason = shown(" ".join(str(error).split()).rstrip(".")) or type(error).__name__
        raise FormatError(f"{what} ({reason}). It may be truncated or damaged.") from error
