"""Workers that end with their parent, however that ends: killed, it can tell them nothing."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

ENDING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
"""What asks a run to end: its time is over or soon will be (`#SBATCH --signal=USR1@300`), Ctrl-C, a closed terminal."""

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


def serve_quietly(_worker: int = 0) -> None:
    """Let a loader worker ignore what asks all processes of a job to end; it ends with the one that it serves."""
    end_with_parent()
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def clean_start() -> BaseContext:
    """How workers of `multiprocessing` are started: light, and without the locks that a fork would copy.

    A thread of whatever this process has loaded may hold one, and what waits for it in the fork waits for ever.
    """
    return multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    )


@contextmanager
def starting_workers() -> Iterator[list[BaseProcess]]:
    """Start processes of `multiprocessing` that do not hear Ctrl-C, which comes to all processes of a terminal.

    The one that wants them hears it, once they are started, and ends them (`end_at_once`).

    Yields:
        A list that holds the processes when the block is left.
    """
    workers: list[BaseProcess] = []
    others = multiprocessing.active_children()
    # blocked, not ignored: what comes meanwhile is not lost; a process inherits the mask of the one that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield workers
    finally:
        workers += [each for each in multiprocessing.active_children() if each not in others]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def end_at_once(workers: list[BaseProcess]) -> Iterator[None]:
    """End worker processes in the middle of their work when the user presses Ctrl-C, and not only after it."""
    try:
        yield
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
        raise


def _watch_starter() -> None:
    starter = os.getppid()
    while os.getppid() == starter:
        time.sleep(_PAUSE)


def _outlive(watch: Callable[[], object]) -> None:
    watch()
    os._exit(1)
