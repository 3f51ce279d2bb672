"""The channel scan against the number of channels and events: time, and peak memory of all its processes.

    python benchmarks/scan_memory.py                                              # small, about a minute
    python benchmarks/scan_memory.py --channels 1000 --events 200 --workers 2     # 6.6 GB of disk

Each size is an event set of its own (white noise with bursts, 8 s at 1024 Hz), scanned by a fresh process. Prints
milliseconds a map (one event of one channel) and the peak memory of its processes, counted in two ways.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.records import EventBatch
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter

SAMPLE_RATE, DURATION = 1024.0, 8.0
TRUE_WITNESSES = 5


def make_events(folder: Path, num_channels: int, num_events: int, seed: int = 0) -> EventSet:
    """White noise; the strain has a burst an event, one of five witnesses sees it, the other channels burst at will."""
    rng = np.random.default_rng(seed)
    time_axis = np.arange(round(SAMPLE_RATE * DURATION)) / SAMPLE_RATE
    ids = tuple(f"event-{row:05d}" for row in range(num_events))
    writer = ShardedWriter(
        folder=folder,
        kind="events",
        target="STRAIN",
        channels=("STRAIN", *(f"AUX_{row:04d}" for row in range(1, num_channels))),
        axes={"sample_rate": SAMPLE_RATE, "num_samples": len(time_axis)},
        units="whitened",
        recipe={"made": "for a benchmark", "seed": seed},
        event_ids=ids,
        shard_size=4,
    )

    def burst(centre: float) -> np.ndarray:
        phase = 2 * np.pi * rng.uniform(30.0, 200.0) * (time_axis - centre)
        return (5.0 * np.exp(-((phase / 12.0) ** 2)) * np.sin(phase)).astype(np.float32)

    for plan in writer.pending():
        series = rng.standard_normal((len(plan.event_ids), num_channels, len(time_axis)), dtype=np.float32)
        for event in series:
            centre = rng.uniform(3.0, 5.0)
            event[0] += burst(centre)
            event[rng.integers(1, TRUE_WITNESSES + 1)] += burst(centre + 0.02)
            for channel in np.flatnonzero(rng.random(num_channels) < 0.5)[1:]:
                event[channel] += burst(rng.uniform(0.5, DURATION - 0.5))
        starts = 1.4e9 + 100.0 * (plan.index * 4 + np.arange(len(plan.event_ids)))
        valid = np.ones(series.shape[:2], dtype=bool)
        writer.write(plan, EventBatch(plan.event_ids, starts, starts + DURATION / 2, series, valid))
    return EventSet.open(writer.finish().folder)


def scan(events: Path, spikes: Path, workers: int, memory: float, answer: "multiprocessing.Queue") -> None:
    """Scan in this process, and tell how long the two parts took."""
    from glitchflow_plugin.preprocessing.engine import EngineSettings  # noqa: PLC0415
    from glitchflow_plugin.preprocessing.scan import scan_channels  # noqa: PLC0415  # torch: not in the parent
    from glitchflow_plugin.preprocessing.scan_settings import ScanSettings  # noqa: PLC0415

    settings = ScanSettings(memory=memory, threshold_corr=0.05, threshold_iou=0.03)
    started = time.perf_counter()
    scan_channels(EventSet.open(events), settings, spikes, engine=EngineSettings(workers=workers))
    found = time.perf_counter()
    ranking = scan_channels(EventSet.open(events), settings, spikes)  # the spikes are there: statistics alone
    answer.put((found - started, time.perf_counter() - found, ranking.selected))


def peak_memory(process: multiprocessing.Process) -> tuple[float, float]:
    """Memory of a process and its descendants until it ends, MiB.

    Returns:
        The sum of their peaks (VmHWM), which counts shared libraries in each, and the peak of the sum of their shares
        (PSS, sampled), which counts them once.
    """
    peaks: dict[int, int] = {}
    together = 0
    while process.is_alive():
        shares = 0
        for pid in _family(process.pid or 0):
            try:
                peaks[pid] = max(peaks.get(pid, 0), _kilobytes(pid, "status", "VmHWM:"))
                shares += _kilobytes(pid, "smaps_rollup", "Pss:")
            except OSError:
                continue
        together = max(together, shares)
        time.sleep(0.05)
    return sum(peaks.values()) / 1024, together / 1024


def _kilobytes(pid: int, file: str, key: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)


def _family(pid: int) -> list[int]:
    found, parents = [pid], {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--events", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory", type=float, default=128.0, help="the key of scan.yaml, MiB")
    parser.add_argument("--folder", type=Path, help="where event sets are made (and removed); a temporary folder")
    parser.add_argument("--json", type=Path, default=Path("build/scan_memory.json"))
    arguments = parser.parse_args()

    print(f"{arguments.workers} worker(s), memory: {arguments.memory:g} MiB each")
    headings = ("channels", "events", "s", "ms a map", "statistics s", "VmHWM MiB", "PSS MiB", "selected")
    print("".join(f"{heading:>13}" for heading in headings))
    table = []
    context = multiprocessing.get_context("spawn")
    for num_channels in arguments.channels:
        for num_events in arguments.events:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                events, answer = Path(folder) / "events", context.Queue()
                make_events(events, num_channels, num_events)
                given = (events, Path(folder) / "spikes", arguments.workers, arguments.memory, answer)
                process = context.Process(target=scan, args=given)
                process.start()
                peak, together = peak_memory(process)
                process.join()
                spent, statistics, selected = answer.get(timeout=5)
            row = {
                "channels": num_channels,
                "events": num_events,
                "s": round(spent, 2),
                "ms_a_map": round(1e3 * spent / (num_channels * num_events), 3),
                "statistics_s": round(statistics, 2),
                "vmhwm_mib": round(peak),
                "pss_mib": round(together),
                "selected": len(selected),
            }
            print("".join(f"{value:>13}" for value in row.values()), flush=True)
            table.append(row)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
