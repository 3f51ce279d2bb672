"""How long a stride takes from when its frames are there until its clean frame is: by stage, over an hour of seconds.

    python benchmarks/online.py --witnesses 10 --seconds 3600

Strain at 16384 Hz and witnesses at 256 to 2048 Hz come a file a second, as fast as they are taken; the default network
and settings, files from and to a memory disk.
"""

import argparse
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.frame_intake import FrameIntake
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.streaming import online, online_run
from glitchflow_plugin.streaming.online import OnlineSettings, OnlineTwin
from glitchflow_plugin.streaming.online_run import OnlineRun, OnlineRunSettings, expected_channels
from subjects.stream import GPS, RATE, SPACING, STRAIN, WITNESS_RATES, coupling, job

KEPT = 8
"""Frames that lie in the folder at a time."""

WARM = 100
"""Strides until spectra are of their whole length; as often memory is looked at."""


def frame(second: int, witnesses: int) -> dict[str, Channel]:
    """A second of noise, with a glitch in the strain and in every fourth witness now and then."""
    rng, found = np.random.default_rng(second), {}
    rates = {STRAIN: RATE} | {f"V1:WITNESS_{row:02d}": WITNESS_RATES[row % 4] for row in range(witnesses)}
    for name, rate in rates.items():
        series = rng.standard_normal(round(rate)) * (rate / 2048.0) ** 0.5
        if name == STRAIN or rate == WITNESS_RATES[-1]:
            away = (second + np.arange(len(series)) / rate) % SPACING - SPACING / 2
            series += 8 * np.exp(-((away / 0.05) ** 2)) * np.sin(2 * np.pi * 100 * away)
        unit = 1e-21 if name == STRAIN else 1.0
        found[name] = Channel(name, unit * series, GPS + second, rate, "strain" if name == STRAIN else "V")
    return found


def appearing(folder: Path, seconds: int, witnesses: int) -> Callable[[], bool]:
    """What makes the next frame appear in a folder, and the oldest vanish, each time it is called; true at the end."""
    store, numbers = folder.with_name("store"), iter(range(seconds + KEPT))

    def step() -> bool:
        number = next(numbers, None)
        if number is None:
            return True
        if number < seconds:
            name = f"V-SIM-{GPS + number:.0f}-1.h5"
            hdf5.write(store / name, frame(number, witnesses))
            (store / name).rename(folder / name)
        (folder / f"V-SIM-{GPS + number - KEPT:.0f}-1.h5").unlink(missing_ok=True)
        return False

    folder.mkdir()
    store.mkdir()
    return step


class Spent:
    """Processor time of this process, stride by stride, and that of the one that reads its files; memory of both."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.resident: list[float] = []
        self._before = self._warm = 0.0

    def begin(self) -> None:
        """A stride begins: its files are there."""
        self._before = time.process_time()

    def end(self) -> None:
        """It is over."""
        self.seconds.append(time.process_time() - self._before)
        if len(self.seconds) % WARM == 0:
            ticks, pages = zip(*map(_ticks_and_pages, ("self", *_children())), strict=True)
            self.resident.append(sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20)
            self._warm = self._warm or sum(ticks[1:]) / os.sysconf("SC_CLK_TCK")

    def reading(self) -> float:
        """Processor time that reading took a stride once all was warm, s."""
        now = sum(_ticks_and_pages(one)[0] for one in _children()) / os.sysconf("SC_CLK_TCK")
        return (now - self._warm) / max(len(self.seconds) - WARM, 1)


def _children() -> list[str]:
    return [one for path in Path("/proc/self/task").glob("*/children") for one in path.read_text().split()]


def _ticks_and_pages(process: str) -> tuple[int, int]:
    """Ticks of processor time that a process has used, and pages of memory that it holds (proc_pid_stat(5))."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12]), int(words[21])


def by_processor_time() -> None:
    """Let stages be told in processor time: on a machine that others use as well, the clock tells of these."""
    online.perf_counter = time.process_time
    online_run.time = SimpleNamespace(perf_counter=time.process_time, sleep=time.sleep)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--witnesses", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--limit", type=float, default=math.inf, help="end after so many seconds by the clock")
    parser.add_argument("--threads", type=int, default=1, help="of the network and of maps")
    parser.add_argument("--processor", action="store_true", help="stages in processor time, not by the clock")
    options = parser.parse_args()
    if options.processor:
        by_processor_time()
    torch.set_num_threads(options.threads)
    memory, spent = Path("/dev/shm"), Spent()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        frames, out = Path(place) / "frames", Path(place) / "out"
        one = job(out, coupling(options.witnesses), options.witnesses)
        settings = OnlineSettings()
        one = replace(one, settings=settings.stream)
        step, begun = appearing(frames, options.seconds, options.witnesses), time.perf_counter()

        def between() -> bool:
            """After each stride: what it took, and the next file."""
            spent.end()
            over = step() or time.perf_counter() - begun > options.limit
            spent.begin()
            return over

        intake = FrameIntake([frames], expected_channels(one), settings.stream.stride)
        run = OnlineRun(one, OnlineTwin(one.model, settings), intake, OnlineRunSettings(), between)
        run.run()
        reading = spent.reading()
        shutil.rmtree(out)
    print(
        f"{run.made} strides of {settings.stream.stride:g} s, {options.witnesses} witnesses, "
        f"{options.threads} thread(s)"
    )
    print(f"load of the machine {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors")
    print("processor time by stage" if options.processor else "by the clock")
    print("stage          p50 ms   p99 ms   max ms")
    for stage, told in run.latency.told().items():
        print(f"{stage:13}" + "".join(f"{1e3 * told[key]:9.1f}" for key in ("p50", "p99", "max")))
    own = np.array(spent.seconds[WARM:] or spent.seconds)
    mean = float(own.mean()) + reading
    p50, p99, most = (1e3 * float(one) for one in np.quantile(own, (0.5, 0.99, 1.0)))
    print(
        f"processor time a stride: p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f}, mean {1e3 * own.mean():.1f} ms", end=""
    )
    print(f"; and {1e3 * reading:.1f} ms of the process that reads")
    print(f"real-time factor: {settings.stream.stride / mean:.1f} on a processor of its own", end=", ")
    if not options.processor:
        spent_on = [list(run.latency.seconds[one]) for one in ("all", "keeping") if one in run.latency.seconds]
        each = sum(sum(one) for one in spent_on) / len(spent_on[0])
        print(f"{settings.stream.stride / each:.1f} by the clock of the strides", end=", ")
    whole = run.made * settings.stream.stride / (time.perf_counter() - begun)
    print(f"{whole:.1f} by that of all, frames made included")
    print(f"memory after each {WARM} strides, MiB:", *(f"{one:.0f}" for one in spent.resident))


if __name__ == "__main__":
    main()
