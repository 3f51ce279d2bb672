"""Run a function in a process of its own, under a limit of memory and of time: what is read must end, whatever it is.

    ran = run_limited("tests.data._mutants:ingest_mutants", str(folder), chosen, seconds=120, gib=6)
    assert ran.failure is None, ran.failure
    ran.result  # what the function returned

The function is one of a module below the root of the repository. Its process is a fork of one that has imported what is
needed and nothing else, least of all what the tests have: `tests._warm` imports everything, which reserves as much
address space as the limit leaves.
"""

import importlib
import os
import pickle
import resource
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import _commands, _warm

ROOT = Path(__file__).parents[1]
_GIB = 1024**3
#: What an ingest imports, in part when it first needs it.
_PRELOADED = (
    "astropy.units",
    "h5py",
    "numpy",
    "pandas",
    "scipy.signal",
    "glitchflow_plugin.data.event_files",
    "glitchflow_plugin.preprocessing.ingest",
    "tests.data._mutants",
)
_server: "_warm.Server | None" = None


@dataclass(frozen=True)
class Ran:
    """How a process ended.

    Attributes:
        result: What the function returned.
        failure: None, or what went wrong: `time`, `signal N`, or the traceback.
        said: What it wrote to both streams.
        peak: Largest resident memory of it and of any process that it waited for, GiB.
    """

    result: Any
    failure: str | None
    said: str
    peak: float


def run_limited(function: str, *args: Any, seconds: float = 120, gib: float = 6) -> Ran:
    """Call `module:function` with the arguments in a new process.

    Args:
        function: Importable from the root of the repository.
        args: What pickle takes.
        seconds: After which the process and all that it started are killed.
        gib: Address space of each process, GiB. Libraries alone reserve one or two.
    """
    global _server  # noqa: PLW0603  # one for all tests of this process
    _server = _server or _warm.Server(*_PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        log, answer = Path(folder, "said"), Path(folder, "answer")
        job = _main, (function, args, int(gib * _GIB), str(answer))
        process = _server.start(*job, str(ROOT), _commands.environment(), [str(log), str(log)])
        late = process.poll(seconds) is None
        if late:
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait(60)
        said = log.read_text(errors="backslashreplace")
        if late:
            return Ran(None, "time", said, 0.0)
        if status < 0:
            return Ran(None, f"signal {-status}", said, 0.0)
        if status:
            return Ran(None, said[-4000:] or f"status {status}", said, 0.0)
        result, peak = pickle.loads(answer.read_bytes())  # noqa: S301  # from our own process
        return Ran(result, None, said, peak)


def _main(function: str, args: tuple[Any, ...], memory: int, answer: str) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    module, name = function.split(":")
    result = getattr(importlib.import_module(module), name)(*args)
    used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    Path(answer).write_bytes(pickle.dumps((result, max(used) / 1024**2)))
