"""Q-transform maps: this package against ml4gw and gwpy, timed alternately in one process.

    python benchmarks/bench_qtransform.py [--series 36] [--rounds 7] [--json build/bench_qtransform.json]

Prints milliseconds a series (median over the rounds) and the peer's time over ours, round by round (median, range).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from gwpy.timeseries import TimeSeries
from ml4gw.transforms import SingleQTransform

from glitchflow_plugin.signal.qtransform import QTransformSettings, q_transform

SAMPLE_RATE, DURATION = 1024.0, 6.0


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, default=Path("build/bench_qtransform.json"))
    arguments = parser.parse_args()

    settings = QTransformSettings()
    torch.manual_seed(0)
    series = torch.randn(arguments.series, round(SAMPLE_RATE * DURATION))
    shape = (settings.num_frequencies, settings.num_times)
    band = [settings.frequency_low, settings.frequency_high]
    peer = SingleQTransform(DURATION, SAMPLE_RATE, shape, q=12, frange=band)
    single = TimeSeries(series[0].double().numpy(), sample_rate=SAMPLE_RATE)

    def gwpy() -> None:
        rows = np.diff(band)[0] / settings.num_frequencies
        columns = DURATION / settings.num_times
        single.q_transform(qrange=(12, 12), frange=band, tres=columns, fres=rows, whiten=False)

    candidates = {
        "glitchflow_plugin": (lambda: q_transform(series, SAMPLE_RATE, settings), arguments.series),
        "ml4gw": (lambda: peer(series[:, None]), arguments.series),
        "gwpy": (gwpy, 1),
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(arguments.rounds + 1):
        for name, (function, number) in candidates.items():
            spent = timed(function) / number * 1e3
            if turn:  # the first round fills caches
                times[name].append(spent)

    print(
        f"{arguments.series} series of {DURATION:g} s at {SAMPLE_RATE:g} Hz, {shape[0]} x {shape[1]} maps, Q 12, "
        f"{band[0]:g}-{band[1]:g} Hz, {torch.get_num_threads()} threads"
    )
    print(f"{'':20}{'ms a series':>12}{'peer / ours':>14}   range")
    table = {}
    for name, spent in times.items():
        ratios = [theirs / ours for theirs, ours in zip(spent, times["glitchflow_plugin"], strict=True)]
        table[name] = {"ms": median(spent), "ratio": median(ratios), "low": min(ratios), "high": max(ratios)}
        print(f"{name:20}{median(spent):12.3f}{median(ratios):14.2f}   {min(ratios):.2f}-{max(ratios):.2f}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
