"""Run a function in a process of its own, under a limit of memory and of time: what is read must end, whatever it is.

    ran = run_limited("tests.data._mutants:ingest_all", str(folder), seconds=120, gib=6)
    assert ran.failure is None, ran.failure
    ran.result  # what the function returned, through JSON

The function is one of a module below the root of the repository; its arguments and its result are JSON.
"""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_GIB = 1024**3
_MARK = "\x1eresult "


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


def run_limited(function: str, *args: Any, seconds: float = 120, gib: float = 6, environment=None) -> Ran:
    """Call `module:function` with the arguments in a new process.

    Args:
        function: Importable from the root of the repository.
        args: JSON types.
        seconds: After which the process and all that it started are killed.
        gib: Address space of each process, GiB. Libraries alone reserve one or two.
        environment: Variables to add.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests._limits", function, json.dumps(args), str(int(gib * _GIB))],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        return Ran(None, "time", said, 0.0)
    said, _, answer = said.partition(_MARK)
    if process.returncode < 0:
        return Ran(None, f"signal {-process.returncode}", said, 0.0)
    if process.returncode or not answer:
        return Ran(None, said[-4000:] or f"status {process.returncode}", said, 0.0)
    content = json.loads(answer.splitlines()[0])
    return Ran(content["result"], None, said, content["peak"])


def _main(function: str, args: str, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    module, name = function.split(":")
    result = getattr(importlib.import_module(module), name)(*json.loads(args))
    used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    sys.stdout.write(f"{_MARK}{json.dumps({'result': result, 'peak': max(used) / 1024**2})}\n")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
