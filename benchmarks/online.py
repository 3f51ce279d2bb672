"""How long a stride takes from when its frames are there until its clean frame is: by stage, over an hour of seconds.

    python benchmarks/online.py --witnesses 10 --seconds 3600

Strain at 16384 Hz and witnesses at 256 to 2048 Hz come a file a second, as fast as they are taken; the default network
and settings, files from and to a memory disk.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.frame_intake import FrameIntake
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.streaming.online import OnlineSettings, OnlineTwin
from glitchflow_plugin.streaming.online_run import OnlineRun, OnlineRunSettings, expected_channels
from subjects.stream import GPS, RATE, SPACING, STRAIN, WITNESS_RATES, coupling, job

KEPT = 8
"""Frames that lie in the folder at a time."""


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


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--witnesses", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=3600)
    options = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        frames, out = Path(place) / "frames", Path(place) / "out"
        one = job(out, coupling(options.witnesses), options.witnesses)
        settings = OnlineSettings()
        one = replace(one, settings=settings.stream)
        step = appearing(frames, options.seconds, options.witnesses)
        intake = FrameIntake([frames], expected_channels(one), settings.stream.stride)
        run = OnlineRun(one, OnlineTwin(one.model, settings), intake, OnlineRunSettings(), step)
        begun, spent = time.perf_counter(), time.process_time()
        run.run()
        print(f"{run.made} strides of {settings.stream.stride:g} s, {options.witnesses} witnesses")
        clock, processor = time.perf_counter() - begun, time.process_time() - spent
        print(f"frames made included: {clock:.0f} s by the clock, {processor:.0f} s of processor time")
        print("stage          p50 ms   p99 ms   max ms")
        for stage, told in run.latency.told().items():
            print(f"{stage:13}" + "".join(f"{1e3 * told[key]:9.1f}" for key in ("p50", "p99", "max")))
        taken = run.latency.seconds["all"]
        print(f"real-time factor {len(taken) * settings.stream.stride / sum(taken):.1f}")
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
