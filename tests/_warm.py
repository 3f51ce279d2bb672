"""Programs and functions in forks of a process that has imported everything: what takes seconds is done once.

    done = run(folder, "itwinai", "exec-pipeline", ...)    # as `tests._commands.run`, which starts a fresh interpreter
    process = start(train, arguments, output=log)          # as `subprocess.Popen`: it can be killed in the middle

A fork is a process like any other, with memory, locks and workers of its own. The one that is forked has done nothing
but import, so that no test finds traces of another. A fresh interpreter (`tests._commands`) remains where its beginning
matters: torchrun (in `test_callback`), SLURM and Ray start theirs, threads are counted by an import, and the demo and
`test_own_data` start as a user starts them.
"""

import atexit
import gc
import importlib
import os
import pkgutil
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests import _commands

import glitchflow_plugin

ROOT = Path(__file__).parents[1]
_everything: "Server | None" = None


class Process:
    """A fork at work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.pid: int = connection.recv()
        self.returncode: int | None = None

    def poll(self, seconds: float = 0.0) -> int | None:
        """Exit status, or minus the number of the signal that ended it; None while it is at work."""
        if self.returncode is None and self._connection.poll(seconds):
            self.returncode = os.waitstatus_to_exitcode(self._connection.recv())
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float = 500.0) -> int:
        """Exit status; after so many seconds the process is killed."""
        self.poll(seconds)
        late = self.returncode is None
        self.send_signal(signal.SIGKILL)
        self.poll(60)
        assert not late, f"still at work after {seconds:g} s"
        assert self.returncode is not None
        return self.returncode


def run(folder, *command, code=0, timeout=500, **environment):
    """Run `itwinai` or `glitchflow` in a folder; unless `code` is None, that is the exit status it must have."""
    words = [str(word) for word in command]
    said = [Path(folder).parent / f".{name}-{os.getpid()}" for name in ("stdout", "stderr")]
    try:
        status = start(program, words, folder=folder, output=said, **environment).wait(timeout)
        stdout, stderr = (path.read_text(errors="backslashreplace") for path in said)
    finally:
        for path in said:
            path.unlink(missing_ok=True)
    assert code is None or status == code, f"{stdout[-3000:]}\n{stderr[-5000:]}"
    return subprocess.CompletedProcess(words, status, stdout, stderr)


def start(function: Callable[..., Any], *arguments: Any, output, folder=ROOT, **environment) -> Process:
    """Call a function of a module in a process of its own, one at a time.

    Args:
        function: To be called there.
        arguments: For it, as pickle takes them.
        output: File for what it says; of two, the second is for stderr.
        folder: In which it works.
        environment: Variables to add to those of this process.
    """
    global _everything  # noqa: PLW0603  # one for all tests of this process
    _everything = _everything or Server()
    files = list(map(str, output)) if isinstance(output, list) else [str(output)] * 2
    return _everything.start(function, arguments, str(folder), _commands.environment() | environment, files)


class Server:
    """The process that is forked. It ends with this one.

    Args:
        modules: What it imports; without names, all of the package.
    """

    def __init__(self, *modules: str) -> None:
        ours, theirs = socket.socketpair()
        path = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        with theirs:
            command = [sys.executable, "-m", "tests._warm", str(theirs.fileno()), *modules]
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=_commands.environment() | path, pass_fds=[theirs.fileno()]
            )
        self._connection = Connection(ours.detach())
        self._last: Process | None = None
        atexit.register(self._end)

    def start(self, *job: Any) -> Process:
        if self._last is not None and self._last.poll() is None:  # of a test that failed
            self._last.send_signal(signal.SIGKILL)
            self._last.poll(60)
        self._connection.send(job)
        self._last = Process(self._connection)
        return self._last

    def _end(self) -> None:
        self._connection.close()
        self._process.wait(60)


def _serve(connection: Connection, modules: list[str]) -> None:
    every = pkgutil.walk_packages(glitchflow_plugin.__path__, f"{glitchflow_plugin.__name__}.")
    for module in modules or (found.name for found in every):
        importlib.import_module(module)
    gc.freeze()  # a fork that walks through all of it would copy its pages
    while True:
        try:
            job = connection.recv()
        except EOFError:
            os._exit(0)  # an interpreter takes a second to forget all that it knows
        pid = os.fork()
        if not pid:
            connection.close()
            _work(*job)
        connection.send(pid)
        connection.send(os.waitpid(pid, 0)[1])


def _work(
    function: Callable[..., Any], arguments: tuple[Any, ...], folder: str, environment: dict[str, str], files: list[str]
) -> None:
    """Do it and leave as an interpreter does, without a way back to the server."""
    status: Any = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        for number, path in enumerate(files, start=1):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(file, number)
            os.close(file)
        function(*arguments)
        status = 0
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def program(words: list[str]) -> None:
    """What the command of that name does, in an interpreter that has begun already."""
    path = shutil.which(words[0])
    assert path is not None, f"there is no {words[0]}"
    sys.argv = [path, *words[1:]]
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), sys.argv[2:])
