"""Trainings by two processes of torchrun's agent, each a fork of the process that calls it."""

import json
import os
import signal
import time
import traceback

from tests import _warm
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.data.window_dataset import WindowDataset
from glitchflow_plugin.training.loop import Loop

PATIENCE = 5.0


def raise_an_error():
    raise ValueError("the disk is full")


ENDS = {
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "error": raise_an_error,
    "hang": lambda: time.sleep(1000),
}


def train(training_set, folder, way):
    """One rank: notes the windows that it visits; rank 1 ends in its own way."""
    rank = int(os.environ["RANK"])
    visited = (folder / f"visited-{rank}.txt").open("w", buffering=1)
    read = WindowDataset.__getitem__

    def noted(self, index):
        if self.name == "train":
            visited.write(f"{index}\n")
        return read(self, index)

    WindowDataset.__getitem__ = noted  # type: ignore[method-assign]

    train_epoch = Loop.train_epoch

    def ending(self):
        if self.state.epoch == 1 and rank == 1:
            ENDS[way]()
        return train_epoch(self)

    Loop.train_epoch = ending  # type: ignore[method-assign]

    try:
        Trainer(
            folder=training_set,
            model={"name": "unet", "base": 4, "depth": 2, "attention_heads": 2},
            config={"batch_size": 4, "dist_timeout": PATIENCE},
            epochs=2,
            strategy="ddp",
            device="cpu",
            random_seed=1,
            checkpoints=str(folder / "checkpoints"),
            disable_tqdm=True,
            pictures_every=0,
        ).execute()
    except BaseException:
        (folder / f"said-{rank}.txt").write_text(traceback.format_exc())
        raise


def end_in_each_way(training_set, results, ways):
    """In each of some trainings, one rank comes to its end in the second epoch.

    results/WAY/ gets what each rank visited and said, and `ended.json`.
    """
    for way in ways:
        folder = results / way
        folder.mkdir(parents=True)
        failed = {}
        try:
            elastic_launch(_settings(way), train)(training_set, folder, way)
        except ChildFailedError as error:
            failed = {str(rank): failure.exitcode for rank, failure in error.failures.items()}
        (folder / "ended.json").write_text(json.dumps(failed))


def run_program(words):
    """`torchrun --standalone --nproc_per_node=2 --no-python` with these words.

    Raises:
        ChildFailedError: A rank failed.
    """
    elastic_launch(_settings("program"), _warm.program)(words)


def _settings(name):
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        run_id=name,
        max_restarts=0,
        start_method="fork",
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(),
    )
