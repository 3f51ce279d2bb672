"""Sets of triggers streamed out of a store: triggers a second beside the disk and pyarrow's own scan, and memory.

    python benchmarks/trigger_stream.py                                  # 10^6 triggers of a day, about a minute
    python benchmarks/trigger_stream.py --days 100 --folder /big/disk    # 10^8 of them: 5 GB, minutes to make once

Triggers and labels are simulated. Three candidates take turns in one process, each over another `--share` of the store
a turn: the disk gives the bytes of the files, which the system was told to forget; pyarrow scans the columns that a set
is made of; the stream gives batches of sets in shuffled order. A fresh process then goes through a whole epoch, counts
the examples and is watched: its own memory and that of its workers, shared pages once.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glitchflow_plugin.data.triggers.labels import LabelSettings, label_times
from glitchflow_plugin.data.triggers.store import DAY, TRUTH_NAME, open_triggers, read_manifest
from glitchflow_plugin.simulation.trigger_level import TriggerLevelSettings, simulate_triggers
from scan_memory import peak_memory

if TYPE_CHECKING:
    from glitchflow_plugin.data.triggers.stream import TriggerStream

PIECE = 10
"""Days that are labelled at once."""


def make(folder: Path, days: int) -> None:
    """Forty channels with 12 triggers a second together, and labelled times beside them."""
    begin = 1_400_000_000 // DAY * DAY
    detector = TriggerLevelSettings(
        duration=float(days * DAY), gps_start=begin, seed=1, chance_rate=0.3, num_distractors=30
    )
    if not (folder / "store" / "triggers.json").is_file():
        simulate_triggers(detector, folder / "store")
    truth = pq.read_table(folder / "store" / TRUTH_NAME)
    kinds, parts = sorted(set(truth["kind"].unique().to_pylist())), []
    for first in range(0, days, PIECE):
        low, high = begin + first * DAY, begin + min(first + PIECE, days) * DAY
        within = (pc.field("time") >= low * 10**9) & (pc.field("time") < high * 10**9)
        own = within & (pc.field("channel") == detector.strain)
        strain = open_triggers(folder / "store").to_table(filter=own, columns=["time", "snr"]).sort_by("time")
        times = strain["time"].to_numpy()
        true = truth.filter(within)
        place = np.searchsorted(true["time"].to_numpy(), times).clip(max=len(true) - 1)
        known = true["time"].to_numpy()[place] == times
        kind = np.where(known, true["kind"].to_numpy()[place].astype(str), "")
        live = np.array([[low, high]], dtype=np.float64)
        parts.append(
            label_times(
                times, strain["snr"].to_numpy(), kind, live, LabelSettings(times="strain", quiet=1.0, seed=first)
            )
        )
    columns = {
        name: np.concatenate([getattr(one, name) for one in parts]) for name in ("time", "glitch", "kind", "snr")
    }
    kind = np.array([kinds.index(one) if one else -1 for one in columns["kind"].tolist()])
    np.savez(folder / "times.npz", **{**columns, "kind": kind, "kinds": np.array(kinds), "strain": detector.strain})


def stream(folder: Path, workers: int, memory: float, stretch_rows: int) -> "TriggerStream":
    """The stream over all times."""
    import torch  # noqa: PLC0415  # not in the process that watches

    from glitchflow_plugin.data.triggers.sets import SetSettings, Vocabulary  # noqa: PLC0415
    from glitchflow_plugin.data.triggers.stream import StreamSettings, TriggerStream  # noqa: PLC0415
    from glitchflow_plugin.types.triggers import TriggerLabels  # noqa: PLC0415

    torch.set_num_threads(1)
    with np.load(folder / "times.npz") as held:
        times, glitch, kind, snr = (held[name] for name in ("time", "glitch", "kind", "snr"))
        kinds, target = tuple(held["kinds"].tolist()), str(held["strain"])
    channels = tuple(sorted(set(read_manifest(folder / "store").channels) - {target}))
    labels = TriggerLabels(
        torch.from_numpy(glitch).float(),
        torch.from_numpy(kind),
        torch.from_numpy(np.log1p(snr)).float(),
        torch.full((len(times),), -1),
        torch.ones(len(times)),
    )
    given = StreamSettings(memory=memory, stretch_rows=stretch_rows)
    return TriggerStream(
        folder / "store",
        times,
        labels,
        Vocabulary(channels, kinds),
        target=target,
        sets=SetSettings(),
        settings=given,
        workers=workers,
    )


def candidates(folder: Path, arguments: argparse.Namespace) -> dict[str, Iterator[int]]:
    """Each gives the triggers that it has gone over, a turn's worth at a time."""
    manifest = read_manifest(folder / "store")
    rows = {folder / "store" / one.file: one.rows for one in manifest.files}
    from glitchflow_plugin.data.triggers.sets import COLUMNS  # noqa: PLC0415

    def over(work: Callable[[Path], object]) -> Iterator[int]:
        share, done = manifest.rows * arguments.share, 0
        while True:
            for path in sorted(rows, key=lambda one: int(one.stem.split("-")[-2])):
                _forget(path)
                work(path)
                done += rows[path]
                if done >= share:
                    yield done
                    done = 0

    def scan(path: Path) -> None:
        dataset = open_triggers(path)
        for _ in dataset.scanner(columns=list(COLUMNS), use_threads=False).to_batches():
            pass

    def batches() -> Iterator[int]:
        made = stream(folder, arguments.workers, arguments.memory, arguments.stretch_rows)
        share, done, epoch = len(made.times) * arguments.share, 0, 0
        while True:
            for path in rows:
                _forget(path)
            for _, labels in made(epoch):
                done += len(labels)
                if done >= share:
                    yield round(done * manifest.rows / len(made.times))
                    done = 0
            epoch += 1

    return {"disk": over(lambda path: path.read_bytes()), "pyarrow": over(scan), "stream": batches()}


def _forget(path: Path) -> None:
    """Have the system read a file from the disk the next time."""
    opened = os.open(path, os.O_RDONLY)
    os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(opened)


def race(found: dict[str, Iterator[int]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Triggers a second of wall time, and a CPU second of this process, round by round; the first is thrown away."""
    told: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in found}
    for turn in range(rounds + 1):
        for name in list(found)[:: -1 if turn % 2 else 1]:
            wall, cpu = time.perf_counter(), time.process_time()
            rows = next(found[name])
            if turn:
                told[name]["wall"].append(rows / (time.perf_counter() - wall))
                told[name]["cpu"].append(rows / max(time.process_time() - cpu, 1e-9))
    return told


def epoch(folder: Path, workers: int, memory: float, stretch_rows: int, answer: "multiprocessing.Queue") -> None:
    """One whole epoch: examples, seconds, CPU seconds, stretches and how many are mixed."""
    made = stream(folder, workers, memory, stretch_rows)
    wall, cpu, seen = time.perf_counter(), time.process_time(), 0
    for _, labels in made(0):
        seen += len(labels)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    answer.put((seen, len(made.times), *spent, len(np.unique(made.order.stretch)), made.order.mixed))


def main() -> None:
    """Make, race, watch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=1, help="of about 10^6 triggers")
    parser.add_argument("--folder", type=Path, help="where the store is made, or was; a temporary folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.1, help="of the store that a turn goes over")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--memory", type=float, default=1.0, help="GiB for triggers")
    parser.add_argument("--stretch-rows", type=int, default=262_144)
    parser.add_argument("--json", type=Path, default=Path("build/trigger_stream.json"))
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        if not (folder / "times.npz").is_file():
            maker = context.Process(target=make, args=(folder, arguments.days))
            maker.start()
            maker.join()
        rows = read_manifest(folder / "store").rows
        answer = context.Queue()
        given = (folder, arguments.workers, arguments.memory, arguments.stretch_rows, answer)
        process = context.Process(target=epoch, args=given)
        process.start()
        _, together = peak_memory(process)
        seen, examples, wall, cpu, stretches, mixed = answer.get(timeout=5)
        whole = {
            "triggers": rows,
            "examples": examples,
            "seen": seen,
            "stretches": stretches,
            "mixed": mixed,
            "workers": arguments.workers,
            "epoch_s": round(wall, 1),
            "epoch_cpu_s": round(cpu, 1),
            "triggers_per_s": round(rows / wall),
            "sets_per_s": round(seen / wall),
            "peak_pss_mib": round(together),
        }
        for key, value in whole.items():
            print(f"{key:>16} {value}", flush=True)
        told = race(candidates(folder, arguments), arguments.rounds)
    print(f"{'':>16}{'10^6/s':>10}{'10^6/CPU s':>12}{'stream over it by CPU time (range)':>36}")
    for name, one in told.items():
        ratio = np.array(told["stream"]["cpu"]) / np.array(one["cpu"])
        spread = f"{np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f})"
        print(f"{name:>16}{np.median(one['wall']) / 1e6:>10.2f}{np.median(one['cpu']) / 1e6:>12.2f}{spread:>36}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"epoch": whole, "race": told}, indent=2) + "\n")


if __name__ == "__main__":
    main()
