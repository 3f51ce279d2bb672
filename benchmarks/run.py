"""All benchmarks: one table, the same as JSON, and a picture of how the cost grows.

    python benchmarks/run.py [--only qtransform,scan] [--rounds 7] [--quick]

benchmarks/README.md explains the columns.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads that spin slow the next candidate

import torch
from tqdm import tqdm

import growth
import harness
import machine

SUBJECTS = ("qtransform", "best_q", "inverse", "whitening", "scan", "reading", "frames", "stream", "training")
GROWTH = {"channels": [8, 16, 32, 64, 128], "events": [2, 4, 8, 16, 32], "length": [4, 8, 16, 32, 64]}
QUICK_GROWTH = {"channels": [4, 8], "events": [2, 4], "length": [4, 8]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(SUBJECTS), help=f"subjects, of {', '.join(SUBJECTS)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small sizes and two rounds: shows only that it works")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--picture", type=Path, default=Path("build/bench-growth.png"))
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := sorted(set(chosen) - set(SUBJECTS)):
        parser.error(f"--only: {', '.join(unknown)} is not among {', '.join(SUBJECTS)}")
    rounds = 2 if arguments.quick else arguments.rounds
    if rounds < 1:
        parser.error(f"--rounds must be at least 1, got {rounds}")

    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates = machine.Rates(device)
    rows, notes = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for subject in tqdm(chosen, desc="Benchmarks"):
            found, notes[subject] = compared(subject, folder, rates, rounds, quick=arguments.quick)
            rows += found
        curves = growth.measured(QUICK_GROWTH if arguments.quick else GROWTH, folder, device)
    described = rates.describe()
    print_table(rows, notes, described)
    for path in (arguments.json, arguments.picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": described, "rounds": rounds, "rows": rows, "notes": notes, "growth": curves}
    arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    growth.picture(curves).savefig(arguments.picture, dpi=120)
    print(f"\n{arguments.json}\n{arguments.picture}")


def compared(
    name: str, folder: Path, rates: machine.Rates, rounds: int, *, quick: bool
) -> tuple[list[dict[str, object]], list[str]]:
    """A row for each peer of a subject, and remarks."""
    subject = harness.load(name, folder, rates.device, quick=quick)
    ours, *peers = subject.candidates
    times = harness.race(subject.candidates, rounds, machine.synchroniser(rates.device))
    peaks = {
        one.name: harness.in_fresh_process(_peak, name, one.name, folder, rates.device, quick)
        for one in subject.candidates
    }
    floor = subject.work.floor(rates)
    rows: list[dict[str, object]] = []
    for peer in peers:
        ratio, low, high = times.ratio(peer.name, ours.name)
        rows.append(
            {
                "subject": name,
                "item": subject.item,
                "peer": peer.name,
                "ours_ms": 1e3 * times.typical(ours.name),
                "peer_ms": 1e3 * times.typical(peer.name),
                "ratio": ratio,
                "ratio_low": low,
                "ratio_high": high,
                "ours_peak_mib": peaks[ours.name] / 2**20,
                "peer_peak_mib": peaks[peer.name] / 2**20,
                "peer_items": peer.items,
                "floor_ms": 1e3 * floor,
                "over_floor": times.typical(ours.name) / floor,
                "bandwidth_share": subject.work.bytes / times.typical(ours.name) / rates.bandwidth,
            }
        )
    return rows, [f"{subject.setting}.", *subject.notes]


def _peak(name: str, candidate: str, folder: Path, device: str, quick: bool) -> float:
    return harness.peak_memory(name, candidate, folder, device, quick=quick)


def print_table(rows: list[dict[str, object]], notes: dict[str, list[str]], described: dict[str, object]) -> None:
    print(
        f"{described['device']}, {described['threads']} threads, load {described['load']:.1f}; "
        f"products {described['matmul_gflops']:.0f} GFLOP/s, memory {described['bandwidth_gb_s']:.1f} GB/s\n"
    )
    head = ("ours ms", "peer ms", "peer/ours", "range", "ours MiB", "peer MiB", "floor ms", "x floor", "memory %")
    print(f"{'subject':<11}{'peer':<15}" + "".join(f"{word:>{14 if word == 'range' else 10}}" for word in head))
    for row in rows:
        spread = f"{row['ratio_low']:.3g}-{row['ratio_high']:.3g}"
        print(
            f"{row['subject']:<11}{row['peer']:<15}{row['ours_ms']:>10.3f}{row['peer_ms']:>10.3f}{row['ratio']:>10.3g}"
            f"{spread:>14}{row['ours_peak_mib']:>10.1f}{row['peer_peak_mib']:>10.1f}{row['floor_ms']:>10.3f}"
            f"{row['over_floor']:>10.1f}{100 * row['bandwidth_share']:>10.1f}"
        )
    for subject, remarks in notes.items():
        print(f"\n{subject}: {' '.join(remarks)}", end="")
    print()


if __name__ == "__main__":
    main()
