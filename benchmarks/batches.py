"""Maps of series by their number in one call: ours and ml4gw's in turn, one Q, best of four, with gradients.

    python benchmarks/batches.py                      36, 360 and 3600 series; the GPU where there is one
    python benchmarks/batches.py --numbers 4 --rounds 1

On a GPU the goal is 4 microseconds a series at 3600 and 20 at 36, and 8 times ml4gw at 360 and above.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads that spin slow the next candidate

import ml4gw.transforms
import torch

import harness
import machine
from glitchflow_plugin import signal
from harness import Candidate
from subjects import best_q
from subjects.qtransform import BAND, DURATION, SAMPLE_RATE, SHAPE, noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[36, 360, 3600], help="series in one call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("build/batches.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{machine.Rates(device).describe()['device']}: microseconds a series, and ml4gw's time over ours (range)\n")
    rows = []
    for number in arguments.numbers:
        series = noise(number, device)[:, None]
        for what, (ours, peer) in ways(device, series).items():
            candidates = [Candidate("ours", ours, number), Candidate("ml4gw", peer, number)]
            times = harness.race(candidates, arguments.rounds, machine.synchroniser(device))
            ratio, low, high = times.ratio("ml4gw", "ours")
            ours_us, peer_us = (1e6 * times.typical(one.name) for one in candidates)
            rows.append({"series": number, "what": what, "ours_us": ours_us, "ml4gw_us": peer_us, "ratio": ratio})
            print(f"{number:>6}  {what:<12}{ours_us:>10.2f}{peer_us:>10.2f}{ratio:>8.2f} ({low:.2f}-{high:.2f})")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"device": device, "rows": rows}, indent=2) + "\n")


def ways(device: str, series: torch.Tensor) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """What is done, and how by us and by ml4gw; both have their default, bicubic maps."""
    sizes = DURATION, SAMPLE_RATE, SHAPE
    singles = (signal.SingleQTransform, ml4gw.transforms.SingleQTransform)
    scans = (signal.QScan, ml4gw.transforms.QScan)
    own, peer = (one(*sizes, q=12, frange=list(BAND)).to(device) for one in singles)
    own_scan, peer_scan = (one(*sizes, qrange=list(best_q.QS), frange=list(best_q.BAND)).to(device) for one in scans)
    return {
        "one Q": (lambda: own(series), lambda: peer(series)),
        "best of four": (lambda: own_scan(series), lambda: peer_scan(series)),
        "gradients": (lambda: _gradient(own, series), lambda: _gradient(peer, series)),
    }


def _gradient(transform: torch.nn.Module, series: torch.Tensor) -> torch.Tensor | None:
    leaf = series.clone().requires_grad_()
    transform(leaf).sum().backward()
    return leaf.grad


if __name__ == "__main__":
    main()
