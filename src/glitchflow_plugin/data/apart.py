"""Files from elsewhere are read in a process apart, which may hang, crash or run out of memory in the run's place.

A damaged file can keep HDF5 busy for ever, or end the process that reads it, and nothing within that process can stop
either. So functions that open such a file are marked with `apart`: a companion process runs them one after the other,
and the kernel ends it when the file's time is over. Whatever a file throws comes back as a `FormatError`.

Samples come through memory that both processes see; `each` asks about many files at once.
"""

import atexit
import importlib
import mmap
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, ParamSpec, Self, TypeVar, cast

from glitchflow_plugin.errors import DataError, FormatError, GlitchflowError

Args = ParamSpec("Args")
Result = TypeVar("Result")

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

_SHARED = 1 << 26
"""Bytes that both processes see; pages exist once they are used, and what does not fit goes through the pipe."""

_within = False


@dataclass(frozen=True)
class Patience:
    """How long a file may take.

    Attributes:
        computing: Seconds of computing for any file; a large one gets more.
        shared_with: So many times longer it may take by the clock: others use the processors and the storage as well.
    """

    computing: float = 30.0
    shared_with: float = 10.0


_patience = ContextVar("_patience", default=Patience())  # noqa: B039  # it cannot be changed


@contextmanager
def waiting(patience: Patience) -> Iterator[None]:
    """Give the files that are asked about meanwhile another time, for instance where storage is slow."""
    before = _patience.set(patience)
    try:
        yield
    finally:
        _patience.reset(before)


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
        [answer] = _companion.ask([_Call.of(function, args, kwargs)])
        if isinstance(answer, GlitchflowError):
            raise answer
        return answer

    return run


def each(function: Callable[[Path], Result], paths: Sequence[Path]) -> list[Result | FormatError]:
    """What a function that is marked with `apart` says of each of many files, or why it says nothing.

    They are asked about in one go, for answers that are small. The limits are those of one file, and a file that ends
    the companion takes no other with it.

    Raises:
        DataError: The companion was ended from outside.
    """
    calls: list[_Call | FormatError] = []
    for path in paths:
        try:
            calls.append(_Call.of(function, (path,), {}))
        except FormatError as error:
            calls.append(error)
    answers = iter(_companion.ask([call for call in calls if isinstance(call, _Call)]))
    found = [call if isinstance(call, FormatError) else next(answers) for call in calls]
    for answer in found:
        if isinstance(answer, GlitchflowError) and not isinstance(answer, FormatError):
            raise answer
    return found


def interrupt() -> None:
    """End what another thread of this process waits for: it gets a `DataError`."""
    _companion.end()


def require_regular(path: Path | str) -> os.stat_result:
    """Refuse what would be waited for for ever, or has no end: pipes, sockets, devices.

    Returns:
        What the system tells of the file.

    Raises:
        FormatError: The path is missing or no regular file.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  # asked of thousands of files, and a Path takes longer than the system
    except FileNotFoundError as error:
        raise FormatError(f"{shown(path)} does not exist.") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(f"{shown(path)} cannot be opened ({error}).") from error
    mode = found.st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise FormatError(
            f"{shown(path)} is {kinds.get(stat.S_IFMT(mode), 'a device')}, expected a regular file. Take it out of the "
            "data, or correct `path`."
        )
    return found


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


@dataclass(frozen=True)
class _Call:
    """What to run, the file that it reads, as long as that stays the same, and how long it may compute and take (s)."""

    module: str
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, object]
    version: tuple[str, int, int]
    limit: float
    wait: float

    @classmethod
    def of(cls, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, object]) -> Self:
        """The call of a function whose first argument is a path.

        Raises:
            FormatError: The path is missing or no regular file.
        """
        state = require_regular(args[0])
        version = (os.path.abspath(args[0]), state.st_size, state.st_mtime_ns)  # noqa: PTH100  # as above
        patience = _patience.get()
        limit = patience.computing + state.st_blocks * 512 / _SLOWEST
        wait = limit * patience.shared_with
        return cls(function.__module__, function.__qualname__, args, kwargs, version, limit, wait)


class _Companion:
    """The process that reads, started when it is first needed and again after it has died; one a process."""

    def __init__(self) -> None:
        self.begin()
        self._given_up: dict[tuple[str, int, int], str] = {}  # nobody waits for the same file twice

    def begin(self) -> None:
        """Know of no process; a fork has the parent's, and its lock as another thread held it: it leaves them alone."""
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._memory: mmap.mmap | None = None

    def ask(self, calls: Sequence[_Call]) -> list[Any]:
        """Have functions run one after the other: what each returns, or the error that it raises.

        Raises:
            DataError: The process was ended from outside.
        """
        answers: dict[int, object] = {}
        with self._lock:
            while len(answers) < len(calls):
                waiting = []
                for position, call in enumerate(calls):
                    if call.version in self._given_up:
                        answers.setdefault(position, FormatError(self._given_up[call.version]))
                    elif position not in answers:
                        waiting.append(position)
                found = self._run([calls[position] for position in waiting]) if waiting else []
                answers |= zip(waiting, found, strict=False)
        return [answers[position] for position in range(len(calls))]

    def _run(self, calls: Sequence[_Call]) -> list[object]:
        """The answers before a call that ends the process; that one's file is given up."""
        answers: list[object] = []
        process, connection = self._started()
        try:
            connection.send((Path.cwd(), calls))  # a path may be relative
            for call in calls:
                # not even the kernel can end a process that waits for a dead file server
                if not connection.poll(call.wait + _GRACE):
                    raise TimeoutError
                answers.append(self._received(connection))
        except (EOFError, ConnectionError, TimeoutError) as ended:
            call = calls[len(answers)]
            status = -signal.SIGALRM if isinstance(ended, TimeoutError) else process.wait()
            self.close()
            error = _ended(call, status)
            if not isinstance(error, FormatError):
                raise error from None
            self._given_up[call.version] = str(error)
        except BaseException:  # interrupted: the answer that is still to come belongs to nobody
            self.close()
            raise
        return answers

    def _received(self, connection: Connection) -> object:
        """An answer, its arrays copied out of the memory, which the next answer uses again."""
        content, sizes = connection.recv()
        buffers, start = [], 0
        with memoryview(self._memory or b"") as memory:
            for size in sizes:
                buffers.append(bytearray(memory[start : start + size]))
                start += _aligned(size)
        return pickle.loads(content, buffers=buffers)  # noqa: S301  # from our own process

    def _started(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self._process is None or self._connection is None or self._process.poll() is not None:
            self.close()
            self._connection, theirs = Pipe()
            paths = [str(Path(entry or ".").absolute()) for entry in sys.path]
            with theirs, _memory_file() as memory:
                self._memory = mmap.mmap(memory.fileno(), _SHARED)
                handles = theirs.fileno(), memory.fileno()
                program = f"from {__name__} import serve; serve{handles}"
                self._process = subprocess.Popen(  # noqa: S603  # our own module
                    [sys.executable, "-P", "-c", program],
                    pass_fds=handles,
                    stdin=subprocess.DEVNULL,
                    env=os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(paths)},
                )
        return self._process, self._connection

    def end(self) -> None:
        """End the process; whoever waits for it notices."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process, and forget it."""
        self.end()
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self._process = self._connection = self._memory = None


_companion = _Companion()
atexit.register(_companion.close)
os.register_at_fork(after_in_child=_companion.begin)


def _memory_file() -> BinaryIO:
    """A file that is memory, where the system has such a thing, and that nobody else can find."""
    if hasattr(os, "memfd_create"):
        file = cast("BinaryIO", os.fdopen(os.memfd_create("glitchflow"), "w+b"))
    else:
        file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115  # closed by whoever asked for it
    file.truncate(_SHARED)
    return file


def _aligned(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _ended(call: _Call, status: int) -> GlitchflowError:
    """What the end of the companion says about the file."""
    name = shown(call.args[0])
    if status == -signal.SIGPROF:
        return FormatError(f"{name} was not read within {call.limit:.0f} s of computing: it is damaged.")
    if status == -signal.SIGALRM:
        return FormatError(
            f"{name} was not read within {call.wait:.0f} s: it is damaged, or its storage does not answer."
        )
    if -status in _FROM_OUTSIDE:
        return DataError(
            f"The process that reads {name} was killed (out of memory, or from outside). What is finished is kept: run "
            "again, with fewer workers if memory was short."
        )
    return FormatError(f"{name} cannot be read: it ended the process that reads it (status {status}). It is damaged.")


def serve(descriptor: int, memory_file: int) -> None:
    """What the companion does, until the process that it works for is gone."""
    global _within  # noqa: PLW0603  # says which of the two processes this is
    _within = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends this one
    for over in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(over, signal.SIG_DFL)
    with suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(
            resource.RLIMIT_AS, (_MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard), hard)
        )
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(descriptor)
    memory = mmap.mmap(memory_file, _SHARED)
    while True:
        try:
            folder, calls = connection.recv()
            with suppress(OSError):
                os.chdir(folder)
            for call in calls:
                try:
                    # the next answer must not overwrite one that may still be there
                    connection.send(_packed(_answer(call), memory if len(calls) == 1 else None))
                except MemoryError:
                    refused = FormatError(f"{shown(call.args[0])} cannot be read: {_TOO_MUCH}.")
                    connection.send(_packed(refused, None))
        except (EOFError, OSError):
            return


def _answer(call: _Call) -> object:
    """What a call returns, or the error that it raises."""
    function = getattr(importlib.import_module(call.module), call.function)
    _allow(call.limit, call.wait)
    try:
        with explained(f"{shown(call.args[0])} cannot be read"):
            return function(*call.args, **call.kwargs)
    except GlitchflowError as error:
        return error
    finally:
        _allow(0, 0)


def _allow(computing: float, waiting: float) -> None:
    """The kernel ends this process when it has computed, or waited, for so long (s); 0: never."""
    signal.setitimer(signal.ITIMER_PROF, computing)
    signal.setitimer(signal.ITIMER_REAL, waiting)


def _packed(answer: object, memory: mmap.mmap | None) -> tuple[bytes, list[int]]:
    """An answer, pickled without those of its arrays that were put into the memory, and the sizes of these, bytes."""
    sizes: list[int] = []
    used = 0

    def put(buffer: pickle.PickleBuffer) -> bool:
        nonlocal used
        raw = buffer.raw()
        if memory is None or used + raw.nbytes > len(memory):
            return True  # into the pickle
        memory[used : used + raw.nbytes] = raw
        sizes.append(raw.nbytes)
        used += _aligned(raw.nbytes)
        return False

    return pickle.dumps(answer, protocol=5, buffer_callback=put), sizes


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
