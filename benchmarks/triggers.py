"""Channel-seconds that the trigger finder searches in a second, beside a search by gwpy's Q-transform.

    python benchmarks/triggers.py                          # one core, a channel at 4096 Hz and one at 512 Hz
    python benchmarks/triggers.py --rates 16384 --device cuda

Both whiten windows of 24 s, 16 s of which count, by the median spectrum about them, transform them in Q planes as close
as a mismatch of 0.2 asks for, between 10 Hz and 2048 Hz or what the rate leaves, and list the tiles above SNR 5.5; gwpy
does so by `TimeSeries.whiten`, `QTiling` and `QGram.table`, with the same spectrum for all windows. Noise is white and
Gaussian with a sine-Gaussian of SNR 20 every 8 s. They take turns in one process; gwpy's turn is on the CPU.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import numpy as np
import torch
from gwpy.signal.qtransform import QTiling
from gwpy.timeseries import TimeSeries

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.signal.tile_clusters import LoudTiles, cluster_tiles
from glitchflow_plugin.streaming.trigger_search import SearchSettings, search_channel
from harness import Candidate, race
from machine import synchroniser

START = 1_400_000_000


def recorded(seconds: int, rate: float) -> np.ndarray:
    """White noise of unit variance with sine-Gaussians of Q 10 and SNR 20, every 8 s at another frequency."""
    rng = np.random.default_rng(0)
    times = np.arange(round(seconds * rate)) / rate
    series = rng.standard_normal(len(times))
    for at in np.arange(4.0, seconds, 8.0):
        since, frequency = times - at, rng.uniform(20.0, 0.2 * rate)
        wave = np.exp(-((2 * np.pi * frequency * since / 10.0) ** 2)) * np.sin(2 * np.pi * frequency * since)
        series += 20.0 * wave / np.sqrt(np.sum(wave**2))
    return series


def ours(series: np.ndarray, rate: float, device: str) -> int:
    """Triggers of our finder, clusters of its tiles."""
    settings, seconds = SearchSettings(), round(len(series) / rate)
    found = [
        LoudTiles(origin + np.round(one.times * 1e9).astype(np.int64), one.frequencies, one.qs, one.snrs, one.snrs)
        for origin, one in search_channel(
            Channel("X", series, float(START), rate), (START, START + seconds), settings, device
        )
    ]
    return len(cluster_tiles(LoudTiles.joined(found), settings.cluster_gap))


def gwpys(series: np.ndarray, rate: float) -> int:
    """Tiles above the threshold by gwpy's Q-transform; they are not clustered."""
    settings, seconds = SearchSettings(), len(series) / rate
    whole = TimeSeries(series, sample_rate=rate, t0=START)
    asd = whole.asd(settings.fft_length, settings.fft_length / 2, method="median")
    length = settings.stride + 2 * settings.margin
    low, high = settings.band
    tiling = QTiling(length, rate, qrange=settings.q, frange=(low, min(high, rate / 2 / (1 + 11**0.5 / settings.q[0]))))
    found = 0
    for start in np.arange(0.0, seconds - length + 1, settings.stride):
        window = whole.crop(START + start, START + start + length).whiten(asd=asd, fduration=settings.fft_length)
        spectrum = window.fft().value
        for plane in tiling:
            # over the mean of its row, as an SNR is told
            table = plane.transform(spectrum, norm="mean", epoch=START + start).table(snrthresh=settings.snr)
            found += len(table)
    return found


def main() -> None:
    """Race them, for each rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[512.0, 4096.0], help="Hz")
    parser.add_argument("--seconds", type=int, default=72, help="of each channel; windows of 16 s with 4 s beside them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path("build/triggers.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    told = []
    print(f"{'rate Hz':>8}{'ours':>10}{'gwpy':>10}   channel-seconds a second; ours over gwpy (range); triggers, tiles")
    for rate in arguments.rates:
        series, windows = recorded(arguments.seconds, rate), (arguments.seconds - 8) // 16
        candidates = (
            Candidate("ours", lambda series=series, rate=rate: ours(series, rate, arguments.device), arguments.seconds),
            Candidate("gwpy", lambda series=series, rate=rate: gwpys(series, rate), 16 * windows),
        )
        times = race(candidates, arguments.rounds, synchroniser(arguments.device))
        ratio = times.ratio("gwpy", "ours")
        found = ours(series, rate, arguments.device), gwpys(series, rate)
        speed = {name: 1 / median(seconds) for name, seconds in times.seconds.items()}
        spread = f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"
        print(f"{rate:>8g}{speed['ours']:>10.1f}{speed['gwpy']:>10.1f}   {spread}; {found[0]}, {found[1]}")
        told.append({"rate": rate, "device": arguments.device, "speed": speed, "ratio": ratio, "found": found})
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
