"""Training steps of the field's first configuration and of ours, in turn: speed, and quality in equal time.

    python benchmarks/training.py                                   the CPU, and the GPU where there is one
    python benchmarks/training.py --quality temp/demo/training      validation loss of each after 5 minutes of steps

benchmarks/README.md explains the columns.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads that spin slow the next candidate

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

import harness
import machine
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.window_dataset import WindowDataset
from glitchflow_plugin.models.blocks import SelfAttention
from glitchflow_plugin.models.build import build_model
from glitchflow_plugin.models.twins import EnergyTwin
from glitchflow_plugin.training.losses import LossSettings, map_loss

FAST = {"name": "unet", "base": 8, "depth": 3}
"""Ours: in minutes on a few cores a small network learns more than a wide one, for it sees more windows."""

LOSS = LossSettings()


@dataclass(frozen=True)
class Configuration:
    """One way to train.

    Attributes:
        name: Shown.
        network: Builds the network for a number of witnesses.
        rate: Learning rate.
        clip: Largest norm of the gradient.
        tuned: Channels last, fused optimiser, bfloat16 where the device computes in it, no wait for the device.
        compiled: torch.compile of the network.
    """

    name: str
    network: Callable[[int], nn.Module]
    rate: float
    clip: float
    tuned: bool = True
    compiled: bool = False

    def precision(self, device: str) -> torch.dtype:
        """In which the products are computed."""
        return torch.bfloat16 if self.tuned and native_bfloat16(device) else torch.float32


def configurations(*, quick: bool = False, compiled: bool = False) -> tuple[Configuration, ...]:
    """Ours, the wide U-Net with our way to train, and the field's first configuration."""
    small = {"base": 8} if quick else {}
    return (
        Configuration(
            "ours", lambda witnesses: build_model(in_channels=witnesses, **FAST | small), 1e-3, 1.0, compiled=compiled
        ),
        Configuration(
            "wide",
            lambda witnesses: build_model("unet", in_channels=witnesses, **small),
            1e-4,
            5.0,
            compiled=compiled,
        ),
        Configuration("plain", lambda witnesses: full_attention(witnesses, **small), 1e-4, 5.0, tuned=False),
    )


def full_attention(channels: int, base: int = 64) -> nn.Module:
    """The U-Net of base 64 with self-attention over all 4096 pixels of the window at full resolution."""
    network = build_model("unet", in_channels=channels, base=base, attention_heads=0)
    encoders = network.get_submodule("encoders")
    encoders[0] = nn.Sequential(encoders[0], SelfAttention(base, heads=1))  # type: ignore[index, operator]
    return network


def native_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware; emulated, they are slower than float32."""
    if device != "cpu":
        return torch.cuda.get_device_capability() >= (8, 0)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


class Learning:
    """A network on its way.

    Attributes:
        seen: Windows so far.
        seconds: Wall time of the steps so far.
    """

    def __init__(self, configuration: Configuration, channels: int, device: str) -> None:
        torch.manual_seed(0)
        self.configuration, self.device = configuration, device
        self.layout = torch.channels_last if configuration.tuned else torch.contiguous_format
        self.network = configuration.network(channels).to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        self.call = torch.compile(self.network) if configuration.compiled else self.network
        # foreach is torch's own choice on GPUs where nothing is asked for
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=configuration.rate, fused=configuration.tuned or None
        )
        self.loss = torch.zeros((), device=device)
        self.seen, self.seconds = 0, 0.0

    def predict(self, witnesses: Tensor) -> Tensor:
        """Scaled strain of scaled witnesses, float32."""
        precision = self.configuration.precision(self.device)
        context = nullcontext() if precision == torch.float32 else torch.autocast(self.device, precision)
        with context:
            return self.call(witnesses.to(memory_format=self.layout)).float()

    def step(self, witnesses: Tensor, strain: Tensor) -> None:
        """One step on scaled windows that are on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = map_loss(self.predict(witnesses), strain, LOSS)
        losses.mean().backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.configuration.clip)
        self.optimizer.step()
        self.loss += losses.detach().mean()
        if not self.configuration.tuned:
            self.loss.item()
        self.seen += len(witnesses)


def operations(configuration: Configuration, channels: int) -> float:
    """Operations of a training step for one window, forward and backward, without optimiser; nothing is computed."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = configuration.network(channels)
        map_loss(network(torch.empty(2, channels, 64, 64)), torch.empty(2, 1, 64, 64), LOSS).mean().backward()
    return counter.get_total_flops() / 2


def candidates(
    chosen: tuple[Configuration, ...], channels: int, batch: int, device: str
) -> tuple[harness.Candidate, ...]:
    """Steps on random windows."""
    generator = torch.Generator().manual_seed(0)
    witnesses = torch.rand(batch, channels, 64, 64, generator=generator).to(device)
    strain = torch.rand(batch, 1, 64, 64, generator=generator).to(device)

    def candidate(one: Configuration) -> harness.Candidate:
        learning: list[Learning] = []

        def call() -> None:
            if not learning:  # a network takes memory only where it is used
                learning.append(Learning(one, channels, device))
            learning[0].step(witnesses, strain)

        return harness.Candidate(one.name, call, batch)

    return tuple(candidate(one) for one in chosen)


def speed(
    chosen: tuple[Configuration, ...], *, channels: int, batch: int, rounds: int, device: str
) -> list[dict[str, object]]:
    """A row for each configuration."""
    times = harness.race(candidates(chosen, channels, batch, device), rounds, machine.synchroniser(device))
    rates, rows = machine.Rates(device), []
    for one in chosen:
        cost, typical, precision = operations(one, channels), times.typical(one.name), one.precision(device)
        ratio, low, high = times.ratio(chosen[-1].name, one.name)
        rows.append(
            {
                "device": device,
                "configuration": one.name,
                "precision": str(precision).removeprefix("torch."),
                "parameters": sum(weight.numel() for weight in one.network(channels).parameters()),
                "windows_per_second": 1 / typical,
                "ratio": ratio,
                "ratio_low": low,
                "ratio_high": high,
                "gflop_per_window": cost / 1e9,
                "gflop_per_second": cost / typical / 1e9,
                "product_gflop_per_second": rates.product(precision) / 1e9,
                "share_of_product": cost / typical / rates.product(precision),
            }
        )
    return rows


def print_speed(rows: list[dict[str, object]]) -> None:
    head = ("windows/s", "x plain", "range", "Mparam", "GF/window", "GF/s", "product", "share %")
    print(f"{'device':<7}{'':<9}{'dtype':<10}" + "".join(f"{word:>{14 if word == 'range' else 11}}" for word in head))
    for row in rows:
        spread = f"{row['ratio_low']:.3g}-{row['ratio_high']:.3g}"
        print(
            f"{row['device']:<7}{row['configuration']:<9}{row['precision']:<10}{row['windows_per_second']:>11.2f}"
            f"{row['ratio']:>11.3g}{spread:>14}{row['parameters'] / 1e6:>11.2f}{row['gflop_per_window']:>11.2f}"
            f"{row['gflop_per_second']:>11.1f}{row['product_gflop_per_second']:>11.1f}"
            f"{100 * row['share_of_product']:>11.1f}"
        )


def quality(
    chosen: tuple[Configuration, ...], folder: Path, *, seconds: float, slices: int, batch: int, device: str
) -> list[dict[str, object]]:
    """Train each for the same wall time, in turn, and judge all on all validation windows after every slice.

    Validation and the building of the networks cost no time; what a step waits for does.
    """
    training, validation = (WindowDataset(TrainingSet.open(folder), part, 2048.0) for part in ("train", "validation"))
    scaling, channels = training.training_set.scaling, training.channels
    twin = EnergyTwin(
        nn.Identity(),
        clamp=scaling["clamp"],
        witness_scale=[scaling["scale"][channel] for channel in channels[1:]],
        target_scale=scaling["scale"][channels[0]],
        transform=scaling["transform"],
    ).to(device)

    def windows(dataset: WindowDataset, indices: list[int]) -> tuple[Tensor, Tensor]:
        witnesses, strain = default_collate([dataset[index] for index in indices])
        return twin.scale_witnesses(witnesses.to(device)), twin.scale_target(strain.to(device))

    def judge(learning: Learning) -> float:
        learning.network.eval()
        total = 0.0
        with torch.no_grad():
            for first in range(0, len(validation), batch):
                x, y = windows(validation, list(range(first, min(first + batch, len(validation)))))
                total += float(map_loss(learning.predict(x), y, LOSS).sum())
        learning.network.train()
        return total / len(validation)

    learnings = [Learning(one, len(channels) - 1, device) for one in chosen]
    orders: dict[str, list[int]] = {one.name: [] for one in chosen}
    generators = {one.name: torch.Generator().manual_seed(0) for one in chosen}
    wait = machine.synchroniser(device)
    rows: list[dict[str, object]] = []
    for turn in range(1, slices + 1):
        for learning in learnings:
            name, until = learning.configuration.name, seconds * turn / slices
            while learning.seconds < until:
                start = time.perf_counter()
                if len(orders[name]) < batch:  # all in the same order, the last few of an epoch left out
                    orders[name] = torch.randperm(len(training), generator=generators[name]).tolist()
                drawn, orders[name] = orders[name][:batch], orders[name][batch:]
                learning.step(*windows(training, drawn))
                wait()
                learning.seconds += time.perf_counter() - start
            row = {
                "configuration": name,
                "seconds": learning.seconds,
                "windows": learning.seen,
                "windows_per_second": learning.seen / learning.seconds,
                "validation_loss": judge(learning),
            }
            rows.append(row)
            print(
                f"{row['configuration']:<9}{row['seconds']:>8.0f} s{row['windows']:>9} windows"
                f"{row['windows_per_second']:>9.2f}/s   validation loss {row['validation_loss']:.4f}",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quality", type=Path, metavar="FOLDER", help="training set (of the Processor) to learn from")
    parser.add_argument("--minutes", type=float, default=5.0, help="wall time of each configuration with --quality")
    parser.add_argument("--slices", type=int, default=5, help="turns of each configuration with --quality")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile of our networks")
    parser.add_argument("--quick", action="store_true", help="small networks and two rounds: shows only that it works")
    parser.add_argument("--json", type=Path, default=Path("build/training.json"))
    arguments = parser.parse_args()
    if min(arguments.batch, arguments.rounds, arguments.threads, arguments.slices) < 1 or arguments.minutes <= 0:
        parser.error("--batch, --rounds, --threads, --slices and --minutes must be positive")

    torch.set_num_threads(arguments.threads)
    chosen = configurations(quick=arguments.quick, compiled=arguments.compile)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    record: dict[str, object] = {"load": os.getloadavg()[0], "threads": arguments.threads, "batch": arguments.batch}
    if arguments.quality:
        record["quality"] = quality(
            chosen,
            arguments.quality,
            seconds=60 * arguments.minutes,
            slices=arguments.slices,
            batch=arguments.batch,
            device=devices[-1],
        )
    else:
        rounds = 2 if arguments.quick else arguments.rounds
        record["speed"] = rows = [
            row
            for device in devices
            for row in speed(chosen, channels=7, batch=arguments.batch, rounds=rounds, device=device)
        ]
        print(f"{arguments.threads} threads, batches of {arguments.batch}, load {record['load']:.1f}")
        print_speed(rows)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    print(f"\n{arguments.json}")


if __name__ == "__main__":
    main()
