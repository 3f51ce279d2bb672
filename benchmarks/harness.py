"""What every benchmark shares: candidates, timing them in turn, peak memory, and the floor that a machine sets."""

import importlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

import machine

SHORTEST = 0.05
"""A candidate is repeated within its turn until it has run about this long (s)."""


@dataclass(frozen=True)
class Candidate:
    """One way to do the work.

    Attributes:
        name: Who does it.
        call: Does all of it once.
        items: How many items that is.
    """

    name: str
    call: Callable[[], object]
    items: int


@dataclass(frozen=True)
class Work:
    """What no exact method can do without, for one item.

    Attributes:
        ffts: (length, how many, real or complex) for each length.
        multiplications: Multiply-add pairs of matrix products and interpolations.
        bytes: Read and written once.
        dtype: In which precision the transforms are timed.
    """

    ffts: tuple[tuple[int, int, bool], ...] = ()
    multiplications: float = 0.0
    bytes: float = 0.0
    dtype: torch.dtype = torch.float32

    def floor(self, rates: machine.Rates) -> float:
        """Seconds an item: each part at the rate measured on this machine."""
        transforms = sum(
            count * machine.fft_flops(length, real=real) / rates.fft(length, real=real, dtype=self.dtype)
            for length, count, real in self.ffts
        )
        return transforms + 2 * self.multiplications / rates.matmul + self.bytes / rates.bandwidth


@dataclass(frozen=True)
class Subject:
    """A benchmark: our way first, then the peers'.

    Attributes:
        item: What is counted.
        setting: Sizes, in words.
        candidates: The first is ours.
        work: For the floor.
        notes: What a reader of the ratios must know.
    """

    item: str
    setting: str
    candidates: tuple[Candidate, ...]
    work: Work
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Times:
    """Seconds an item by candidate and round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def typical(self, name: str) -> float:
        """Median over the rounds."""
        return median(self.seconds[name])

    def ratio(self, peer: str, ours: str) -> tuple[float, float, float]:
        """Peer over ours, round by round: median, smallest, largest. Above 1: ours is faster."""
        ratios = [a / b for a, b in zip(self.seconds[peer], self.seconds[ours], strict=True)]
        return median(ratios), min(ratios), max(ratios)


def load(name: str, folder: Path, device: str, *, quick: bool) -> Subject:
    """Prepare a subject; `folder` is for its files."""
    return importlib.import_module(f"subjects.{name}").subject(folder, device, quick=quick)


def race(candidates: Sequence[Candidate], rounds: int, synchronise: Callable[[], None]) -> Times:
    """Time candidates in turn in one process, so that what else the machine does meets all of them alike.

    The first round fills caches, the next tells how often to repeat; both are thrown away. The order turns round every
    time.
    """
    for one in candidates:
        one.call()
    synchronise()
    repeats = {one.name: max(1, round(SHORTEST / _timed(one.call, 1, synchronise))) for one in candidates}
    times = Times({one.name: [] for one in candidates})
    for turn in range(rounds):
        for one in candidates[:: -1 if turn % 2 else 1]:
            spent = _timed(one.call, repeats[one.name], synchronise)
            times.seconds[one.name].append(spent / repeats[one.name] / one.items)
    return times


def _timed(call: Callable[[], object], repeats: int, synchronise: Callable[[], None]) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronise()
    return time.perf_counter() - start


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process that has done nothing but import the libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "scipy.signal", "gwpy.timeseries", "ml4gw.transforms"])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(send, torch.get_num_threads(), function, arguments))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError as error:
        process.join()
        raise RuntimeError(f"a benchmark's process ended with code {process.exitcode} before it answered") from error
    finally:
        process.join()


def _answer(send: Any, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    send.send(function(*arguments))


def peak_memory(name: str, candidate: str, folder: Path, device: str, *, quick: bool) -> float:
    """Memory (bytes) that one call of a candidate needs beyond its input, its own tables included.

    To be run in a fresh process. On a GPU it is what the allocator held at most.
    """
    subject = load(name, folder, device, quick=quick)
    (chosen,) = (one for one in subject.candidates if one.name == candidate)
    return peak_of(chosen.call, device)


def peak_of(call: Callable[[], object], device: str) -> float:
    """Growth of the largest resident (or allocated) memory during a call, bytes."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)
    before = machine.resident()
    call()
    return float(max(machine.largest_resident() - before, 0))
