"""Memory and threads that stay, for the compiled loops of the Q-transform."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

#: Operations below which waking a thread takes longer than the work.
_WORTH_A_THREAD = 2**17

_kept = threading.local()


def workspace(name: str, size: int, dtype: torch.dtype) -> Tensor:
    """Memory that stays with the calling thread: asking the system for it anew would take as long as the transform."""
    held: Tensor | None = getattr(_kept, name, None)
    if held is None or len(held) < size:
        held = torch.empty(size, dtype=dtype)
        setattr(_kept, name, held)
    return held[:size]


def in_threads(work: Callable[[slice], None], number: int, *, operations: int) -> None:
    """Do the work on even parts of 0..number, on as many threads as PyTorch uses; the first part in this one."""
    threads = 1 if operations < _WORTH_A_THREAD else min(torch.get_num_threads(), number)
    edges = [number * part // threads for part in range(threads + 1)]
    own, *others = [slice(*pair) for pair in pairwise(edges)]
    waiting = [_pool(threads, os.getpid()).submit(work, part) for part in others]
    work(own)
    for one in waiting:
        one.result()


@lru_cache(maxsize=4)
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; those of a parent process do not exist in a forked child, hence its number."""
    return ThreadPoolExecutor(threads, thread_name_prefix="q-transform")
