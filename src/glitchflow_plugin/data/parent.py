"""Workers that end with their parent, however that ends: killed, it can tell them nothing."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable

_PAUSE = 1.0


def end_with_parent() -> None:
    """Let this process end as soon as its parent is gone, without any further word to files that it writes.

    Half-written files have temporary names and are removed by the next run. Workers of `multiprocessing` know the
    process that wanted them, which need not be the one that started them (forkserver); other processes watch the one
    that started them.
    """
    parent = multiprocessing.parent_process()
    watch = _watch_starter if parent is None else parent.join
    threading.Thread(target=_outlive, args=(watch,), name="ends with its parent", daemon=True).start()


def _watch_starter() -> None:
    starter = os.getppid()
    while os.getppid() == starter:
        time.sleep(_PAUSE)


def _outlive(watch: Callable[[], object]) -> None:
    watch()
    os._exit(1)
