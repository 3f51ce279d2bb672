"""How training scales with processes: time per epoch, speed-up, efficiency, and what limits it.

    python benchmarks/scalability.py [--processes 1,2] [--epochs 4] [--batch 16] [--training FOLDER] [--quick]

Trains the same epochs through itwinai with one thread a process and the same global batch, has itwinai draw its own
scalability report of them, and times single steps to say where the time goes. docs/distributed.md explains the table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mlflow import MlflowClient
from torch import nn

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.records import SpectrogramBatch
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.models.build import build_model
from glitchflow_plugin.training.losses import LossSettings, map_loss
from glitchflow_plugin.training.processes import choose_backend

STEPS, ROUNDS = 6, 5
CHANNELS = ("STRAIN", *(f"WITNESS_{row}" for row in range(1, 8)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", default="1,2", help="numbers of processes, 1 first")
    parser.add_argument("--epochs", type=int, default=4, help="the first of them is not counted")
    parser.add_argument("--batch", type=int, default=16, help="windows in a step of all processes together")
    parser.add_argument("--base", type=int, default=8, help="model.base")
    parser.add_argument("--events", type=int, default=96, help="of the data set that is made, where none is given")
    parser.add_argument("--training", type=Path, help="folder of a training set, for instance temp/demo/training")
    parser.add_argument("--folder", type=Path, default=Path("build/scalability"))
    parser.add_argument("--quick", action="store_true", help="small and short: shows only that it works")
    parser.add_argument("--steps-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps_of:
        time_steps(json.loads(arguments.steps_of))
        return
    if arguments.quick:
        arguments.epochs, arguments.base, arguments.events = 2, 4, 24
    processes = [int(number) for number in arguments.processes.split(",")]
    if arguments.epochs < 2 or processes[0] != 1 or any(arguments.batch % number for number in processes):
        parser.error("--epochs of at least 2, --processes that begin with 1, and a --batch that they divide expected")
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    training = arguments.training.resolve() if arguments.training else make_training_set(folder, arguments.events)
    shape = {"base": arguments.base, "depth": 3, "channels": num_witnesses(training)}
    stamp = int(time.time())
    names = {number: f"{number}-processes-{stamp}" for number in processes}
    epochs = {number: train(folder, training, number, names[number], arguments) for number in processes}
    steps = {number: steps_of(folder, number, arguments.batch, shape) for number in processes}
    itwinai_report(folder, list(names.values()))
    rows = [row(number, epochs, steps) for number in processes]
    print_rows(rows)
    (folder / "scalability.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\nitwinai's report: {folder / 'plots'}; this table: {folder / 'scalability.json'}")


# data


def make_training_set(folder: Path, num_events: int) -> Path:
    """Noise with a burst in the strain and one witness of most events; seven witnesses, as in the demo."""

    ids = tuple(f"event-{row:04d}" for row in range(num_events))
    times = np.linspace(0.0, 6.0, 257)
    writer = ShardedWriter(
        folder=folder / "maps",
        kind="spectrograms",
        target=CHANNELS[0],
        channels=CHANNELS,
        axes={"frequencies": np.linspace(8, 400, 64).tolist(), "times": times.tolist()},
        units="SNR²",
        recipe={"made": "for a benchmark", "q": 12.0},
        event_ids=ids,
        shard_size=16,
    )
    rows, columns = np.mgrid[0:64, 0:257]
    for plan in writer.pending():
        numbers = np.array([ids.index(event_id) for event_id in plan.event_ids])
        maps = np.empty((len(numbers), len(CHANNELS), 64, 257), dtype=np.float32)
        for place, number in enumerate(numbers):
            generator = np.random.default_rng(int(number))
            maps[place] = generator.exponential(1 / np.log(2), size=maps[place].shape)
            if number % 4:
                row, column = generator.uniform(10, 54), generator.uniform(60, 200)
                burst = 300 * np.exp(-0.5 * (((columns - column) / 4) ** 2 + ((rows - row) / 5) ** 2))
                maps[place, :2] += burst
        starts = 1_200_000_000.0 + 300.0 * numbers
        valid = np.ones(maps.shape[:2], dtype=bool)
        writer.write(plan, SpectrogramBatch(plan.event_ids, starts, starts + 3.0, maps, valid))
    found = writer.finish()
    place = str(folder / "training")
    Processor({}, str(found.folder), place).execute(Splitter({}, str(found.folder), place).execute(found))
    return Path(place)


def num_witnesses(training: Path) -> int:

    return len(TrainingSet.open(training).open_spectrograms().channels) - 1


# training through itwinai


def environment(**changes: str) -> dict[str, str]:
    # with one process, too, itwinai shall count the strategy as ddp, so that its report compares like with like
    return os.environ | {"OMP_NUM_THREADS": "1", "ITWINAI_FORCE_DIST": "1"} | changes


def train(folder: Path, training: Path, number: int, name: str, arguments: argparse.Namespace) -> list[float]:
    """Seconds of each epoch but the first."""

    run = folder / "run"
    if not (run / "config.yaml").exists():
        subprocess.run(["glitchflow", "init", run], check=True, capture_output=True)
    overrides = {
        "run_name": name,
        "saveconf.training": training,
        "training.strategy": "ddp",
        "training.epochs": arguments.epochs,
        "training.pictures_every": 0,
        "training.disable_tqdm": "true",
        "training.config.batch_size": arguments.batch // number,
        "conf/model": "unet",
        "model.base": arguments.base,
        "model.depth": 4,
    }
    command = [
        *launcher(number, no_python=True),
        *("itwinai", "exec-pipeline", "+pipe_steps=[Trainer]"),
        *(f"{key}={value}" for key, value in overrides.items()),
    ]
    done = subprocess.run(command, cwd=run, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"training with {number} process(es) failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    client = MlflowClient(tracking_uri(folder))
    experiment = client.get_experiment_by_name("glitchflow")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    (worker,) = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    history = client.get_metric_history(worker.info.run_id, "epoch_time_s")
    return [metric.value for metric in sorted(history, key=lambda each: each.step)][1:]


def launcher(number: int, *, no_python: bool) -> list[str]:
    return ["torchrun", "--standalone", f"--nproc_per_node={number}", *(["--no-python"] if no_python else [])]


def tracking_uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'run' / 'mlflow.db'}"


def itwinai_report(folder: Path, names: list[str]) -> None:
    command = ["itwinai", "generate-scalability-report", "--tracking-uri", tracking_uri(folder), "--no-warnings"]
    options = ["--experiment-name", "glitchflow", "--plot-dir", str(folder / "plots"), "--run-names", ",".join(names)]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)
    print(done.stdout if done.returncode == 0 else f"itwinai's report failed:\n{done.stderr[-2000:]}")


# single steps


def steps_of(folder: Path, number: int, batch: int, shape: dict[str, int]) -> dict[str, float]:
    """Milliseconds of a step of `number` processes, and of a step of each without exchange of gradients."""
    record = folder / f"steps-{number}.json"
    task = json.dumps({"batch": batch // number, "shape": shape, "record": str(record)})
    command = [*launcher(number, no_python=False), __file__, "--steps-of", task]
    subprocess.run(command, env=environment(), check=True)
    found = json.loads(record.read_text())
    if number > 1:
        # the same share of the batch while the other processors rest
        subprocess.run([*launcher(1, no_python=False), __file__, "--steps-of", task], env=environment(), check=True)
        found["alone"] = json.loads(record.read_text())["without"]
    return found


def time_steps(task: dict[str, Any]) -> None:
    """One of the processes: steps with and without the exchange take turns."""

    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    device = f"cuda:{os.environ['LOCAL_RANK']}" if gpu else "cpu"
    dist.init_process_group(choose_backend("auto"))
    shape = task["shape"]
    network = build_model(
        "unet", in_channels=shape["channels"], window_size=64, base=shape["base"], depth=shape["depth"]
    ).to(device)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    together = nn.parallel.DistributedDataParallel(network)
    optimiser = torch.optim.AdamW(together.parameters(), lr=1e-4)
    x = torch.rand(task["batch"], shape["channels"], 64, 64, device=device)
    y = torch.rand(task["batch"], 1, 64, 64, device=device)

    def steps(context: Callable[[], Any]) -> float:
        dist.barrier()
        started = time.perf_counter()
        for _ in range(STEPS):
            optimiser.zero_grad(set_to_none=True)
            with context():
                map_loss(together(x), y, LossSettings()).mean().backward()
            optimiser.step()
        if gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / STEPS * 1e3

    kinds = {"with": nullcontext, "without": together.no_sync}
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(ROUNDS + 1):
        for kind, context in kinds.items():
            milliseconds = steps(context)
            if turn:  # the first fills caches
                taken[kind].append(milliseconds)
    if dist.get_rank() == 0:
        Path(task["record"]).write_text(json.dumps({kind: statistics.median(each) for kind, each in taken.items()}))
    dist.barrier()
    dist.destroy_process_group()


# the table


def row(number: int, epochs: dict[int, list[float]], steps: dict[int, dict[str, float]]) -> dict[str, Any]:
    """Figures of one number of processes against one process; shares are of the time of a step."""
    seconds = statistics.median(epochs[number])
    found: dict[str, Any] = {
        "processes": number,
        "epoch_s": seconds,
        "speed_up": statistics.median(epochs[1]) / seconds,
        "step_ms": steps[number]["with"],
        "step_speed_up": steps[1]["without"] / steps[number]["with"],
    }
    found["efficiency"] = found["speed_up"] / number
    found["step_efficiency"] = found["step_speed_up"] / number
    if number > 1:
        step, quiet, alone = (steps[number][kind] for kind in ("with", "without", "alone"))
        lost = {
            "communication": step - quiet,  # gradients, and waiting for the slower one
            "contention": quiet - alone,  # caches, memory and clock shared with the other processes
            "small_batch": alone - steps[1]["without"] / number,  # a share of the batch takes more than its share
        }
        found["share"] = {name: milliseconds / step for name, milliseconds in lost.items()}
        found["limited_by"] = max(found["share"], key=lambda name: found["share"][name])
    return found


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(f"{'processes':>9} {'epoch s':>9} {'speed-up':>9} {'efficiency':>11} {'step ms':>9} {'its efficiency':>15}")
    for each in rows:
        print(
            f"{each['processes']:>9} {each['epoch_s']:>9.2f} {each['speed_up']:>9.2f} {each['efficiency']:>11.0%} "
            f"{each['step_ms']:>9.1f} {each['step_efficiency']:>15.0%}"
        )
    for each in rows[1:]:
        shares = ", ".join(f"{name.replace('_', ' ')} {value:.0%}" for name, value in each["share"].items())
        print(f"{each['processes']} processes lose of a step: {shares}. Most: {each['limited_by'].replace('_', ' ')}.")


if __name__ == "__main__":
    main()
