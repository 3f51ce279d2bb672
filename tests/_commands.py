"""Programs of this environment as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def environment():
    """Variables for a program of this environment: one thread, and the commands that belong to it."""
    known = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return known | {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def run(folder, *command, code=0, timeout=500, **variables):
    """Run a command in a folder; unless `code` is None, that is the exit status it must have."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert code is None or done.returncode == code, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done
