"""Runs in processes of their own, and a real Ray cluster of two workers."""

import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from tests import _commands, _warm
from tests.preprocessing import _runs
from tests.streaming import _streams

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def raw_events(tmp_path_factory):
    """Folder of seven event files; beside it are continuous ones, in `frames`."""
    folder = tmp_path_factory.mktemp("raw")
    _runs.write_events(folder, 7)
    _streams.write_files(folder.with_name("frames"))
    return folder


@pytest.fixture(scope="session")
def run_engine(tmp_path_factory):
    """Call a function of _runs.py in a process of its own.

    Whoever gives variables gets a fresh interpreter: those of Ray and of threads are read while things are imported.
    """
    log = tmp_path_factory.mktemp("said") / "log.txt"

    def run(what, source, folder, engine, **environment):
        arguments = what, str(source), str(folder), json.dumps(engine)
        if environment:
            environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path[1:]])
            command = [sys.executable, "-m", "tests.preprocessing._runs", *arguments]
            return _commands.run(ROOT, *command, code=None, timeout=300, **environment)
        log.unlink(missing_ok=True)
        status = _warm.start(_runs.main, *arguments, output=log).wait(300)
        return subprocess.CompletedProcess(arguments, status, stderr=log.read_text())

    return run


@pytest.fixture(scope="session")
def reference(run_engine, raw_events, tmp_path_factory):
    """Event set and spectrogram set of the raw events as one process with two threads makes them."""
    folder = tmp_path_factory.mktemp("reference")
    made = run_engine("all_sets", raw_events, folder, {"workers": 1}, OMP_NUM_THREADS="2")
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def checksums():
    """Of all files below a folder, by name."""

    def compute(folder):
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return compute


def _of_session(session):
    """Processes of a session, from /proc."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            yield int(entry.parent.name)


@pytest.fixture(scope="session")
def ray_cluster():
    """Address of a cluster of two processors that asks for a token, and the environment that has it."""
    program = shutil.which("ray", path=str(Path(sys.executable).parent))
    if program is None or not Path("/proc/self/stat").exists():
        pytest.skip("needs ray, and /proc to end it")
    folder = Path(tempfile.mkdtemp(prefix="gf-ray-", dir="/tmp"))  # a socket's path has at most 107 bytes
    (folder / "token").write_text(secrets.token_hex(32))
    (folder / "token").chmod(0o600)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    options = ["--port=0", "--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}"]
    starting = subprocess.Popen(
        [program, "start", "--head", *options, "--object-store-memory=100000000"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = starting.communicate(timeout=120)
        assert starting.returncode == 0, said
        yield (folder / "ray_current_cluster").read_text().strip(), environment
    finally:
        while left := list(_of_session(starting.pid)):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder)
