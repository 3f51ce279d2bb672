"""Training by two processes for real: the same as by one, and never without end when one of them is lost."""

import json
import signal

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from tests import _warm
from tests._networks import NETWORKS
from tests.pipelines import _two_processes

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.data.window_dataset import WindowDataset
from glitchflow_plugin.data.window_order import WindowOrder
from glitchflow_plugin.products.summary import read_summary

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]

WAYS = ("exit", "kill", "error", "hang")
#: The default network, with whatever is drawn at random in its training; and one whose learning is ours alone.
COUPLING = {"name": "coupling", **NETWORKS["coupling"], "channel_dropout": 0.3}
UNET = {"name": "unet", "base": 4, "depth": 2, "attention_heads": 2}


@pytest.fixture
def training_set(make_coupled_maps, tmp_path):
    maps = make_coupled_maps(24, num_times=128)
    folder = str(tmp_path / "training")
    split = Splitter({"block_length": 100.0}, str(maps.folder), folder).execute(maps)
    found = Processor({}, str(maps.folder), folder).execute(split)
    assert len(found.part("train")) % 2 == 0, "an odd window is visited twice by two processes"
    return found


@pytest.mark.parametrize(("strategy", "model"), [("ddp", COUPLING), ("deepspeed", UNET)])
def test_two_processes_learn_what_one_learns(make_coupled_events, make_registry, tmp_path, strategy, model):
    if strategy == "deepspeed":
        pytest.importorskip("deepspeed")
    training_set, events = make_coupled_events(24, recipe={"duration": 3.0, "sample_rate": 1024.0})
    arguments = {
        "folder": str(training_set.folder),
        "model": model,
        "events": str(events.folder),
        "config": {"batch_size": 8, "precision": "float32"},
        "epochs": 2,
        "random_seed": 1,
        "device": "cpu",
        "disable_tqdm": True,
        "pictures_every": 0,
    }
    alone = Trainer(**arguments, checkpoints=str(tmp_path / "alone"))
    alone.execute()
    expected = read_summary(training_set.folder)

    _warm.run(tmp_path, "glitchflow", "init", tmp_path / "run")
    uri = make_registry(tmp_path / "run")
    settings = {f"model.{key}": value for key, value in model.items() if key != "name"} | {
        "conf/model": model["name"],
        "run_name": "two",
        "saveconf.events": events.folder,
        "saveconf.training": training_set.folder,
        "training.strategy": strategy,
        "training.epochs": 2,
        "training.random_seed": 1,
        "training.pictures_every": 0,
        "training.disable_tqdm": "true",
        # half of the other's: the batch of both together is as large
        "training.config.batch_size": 4,
        "training.config.precision": "float32",
        "training.config.optim_lr": alone.config.optim_lr,
        "training.config.gradient_clip": alone.config.gradient_clip,
        "training.config.lr_scheduler_patience": alone.config.lr_scheduler_patience,
        "training.config.warmup_epochs": alone.config.warmup_epochs,
        "training.config.ema": "null",
    }
    words = [
        "itwinai",
        "exec-pipeline",
        "+pipe_steps=[Trainer]",
        *(f"{key}={value}" for key, value in settings.items()),
    ]
    log = tmp_path / "said.txt"
    process = _warm.start(_two_processes.run_program, words, folder=tmp_path / "run", output=log)
    assert process.wait(240) == 0, log.read_text()[-4000:]

    checkpoints = tmp_path / "run/temp/two/checkpoints"
    for name in ("last", "best_model"):
        one = torch.load(tmp_path / "alone" / name / "model.pt", weights_only=True)
        two = torch.load(checkpoints / name / "model.pt", weights_only=True)
        assert set(one) == set(two)
        moved = 2 * alone.config.optim_lr
        for key, value in one.items():
            # rounding, which Adam magnifies where a gradient is all but zero; a step moves a weight by the rate
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=0.02 * moved, msg=lambda m, k=key: f"{k}: {m}")

    # figures of both processes' windows, and only one of them has told them
    found = read_summary(training_set.folder)
    assert found.metrics["validation_loss"].value == pytest.approx(expected.metrics["validation_loss"].value, rel=1e-4)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("glitchflow")
    runs = client.search_runs([experiment.experiment_id])
    # one run for both processes, under the name of the training
    assert [(each.info.run_name, each.info.status) for each in runs] == [("two", "FINISHED")]
    assert [point.step for point in client.get_metric_history(runs[0].info.run_id, "validation_loss")] == [0, 1]
    assert len(client.search_model_versions("name='glitchflow-two'")) == 1

    # one process goes on from what two have left, here to no further epoch
    single = Trainer(**arguments, checkpoints=str(checkpoints), from_checkpoint=str(checkpoints / "last"))
    single.execute()
    best = torch.load(checkpoints / "best_model/model.pt", weights_only=True)
    assert set(best) == set(single.model.state_dict())
    assert all(torch.equal(value, single.model.state_dict()[key]) for key, value in best.items())


@pytest.fixture
def ended(training_set, tmp_path):
    """Folder of what was left by two processes, of which one came to its end in each of several ways."""
    folder, log = tmp_path / "ends", tmp_path / "said.txt"
    process = _warm.start(_two_processes.end_in_each_way, str(training_set.folder), folder, WAYS, output=log)
    assert process.wait(300) == 0, log.read_text()[-4000:]
    return folder


def test_a_rank_that_is_lost_ends_the_others_with_a_message(ended, training_set):
    failed = {way: json.loads((ended / way / "ended.json").read_text()) for way in WAYS}
    # torchrun names the rank and how it ended, and ends the other, unless that one has noticed first and says so itself
    for way, code in (("exit", 3), ("kill", -signal.SIGKILL)):
        assert failed[way]
        assert failed[way].get("1", code) == code
        assert "1" in failed[way] or (ended / way / "said-0.txt").exists()
    assert "the disk is full" in (ended / "error/said-1.txt").read_text()
    # nobody ends the other of one that hangs: it tells itself
    assert list(failed["hang"]) == ["0"]
    assert "has not answered for 5 s" in (ended / "hang/said-0.txt").read_text()
    for way in WAYS:
        assert (ended / way / "checkpoints/last/model.pt").exists(), way

    # the windows of one process, eight at a time, are those of two, four at a time
    order = WindowOrder(WindowDataset(training_set, "train").places, seed=1)(0)
    visited = [np.loadtxt(ended / "exit" / f"visited-{rank}.txt", dtype=int) for rank in (0, 1)]
    for first in range(0, len(order) // 8 * 4, 4):
        both = np.concatenate([indices[first : first + 4] for indices in visited])
        np.testing.assert_array_equal(np.sort(both), np.sort(order[2 * first : 2 * first + 8]))
