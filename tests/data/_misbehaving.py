"""What damaged files make a library do, for tests: run in the companion, which imports this module."""

import ctypes
import os
import signal
import time

import numpy as np

from glitchflow_plugin.data.apart import apart


@apart
def read(path, what):
    if what == "hang":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        ctypes.CDLL(None).pause()  # within C, where no handler of Python's is run
    elif what == "spin":
        while True:
            pass
    elif what == "crash":
        ctypes.string_at(0)
    elif what == "abort":
        os.abort()
    elif what == "memory":
        return len(np.ones(1 << 38))
    elif what == "large":
        return bytes(5 << 30)  # reserved, and never written
    elif "arrays" in what:
        sizes = (1 << 23 if "more" in what else 1000, 3, 0, 6, 1 << 20)
        made = [np.arange(size, dtype=kind) for size, kind in zip(sizes, ("f8", ">i2", "?", "f4", "f8"), strict=True)]
        return [array.reshape(2, 3) if array.dtype == "f4" else array for array in made]
    elif what == "raise":
        raise KeyError("odd")
    elif what == "deep":
        return read(path, what)
    elif what == "slow":
        time.sleep(60)
    elif what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@apart
def read_by_name(path):
    """What the name says; the name, if it is good."""
    what = path.stem.partition("-")[2]
    return path.stem if what == "good" else read(path, what)
