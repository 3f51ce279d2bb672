"""One test for each fault of itwinai 0.4.2 that SoundTorchTrainer mends."""

import os
from pathlib import Path

import itwinai.torch.trainer as itwinai_trainer
import pytest
import torch
from itwinai.torch.distributed import NonDistributedStrategy, TorchDDPStrategy
from torch import nn

import glitchflow_plugin.components._torch_trainer as ours
from glitchflow_plugin.components._torch_trainer import SoundTorchTrainer, StrictConfiguration, unwrapped
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError, GlitchflowError
from glitchflow_plugin.training import checkpoints

TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


@pytest.fixture
def make(tmp_path):
    def make_trainer(**changes):
        keywords = {
            "config": StrictConfiguration(),
            "epochs": 2,
            "strategy": None,
            "device": "cpu",
            "checkpoints_location": tmp_path / "checkpoints",
            "random_seed": 0,
        }
        keywords.update(changes)
        return SoundTorchTrainer(**keywords)

    return make_trainer


@pytest.fixture
def ready(make):
    """A trainer as it is in the middle of training."""
    trainer = make(checkpoint_every=1)
    trainer.strategy.init()
    trainer._set_seed()
    trainer.model = nn.Linear(2, 2)
    trainer._set_optimizer_from_config()
    return trainer


def test_a_misspelt_key_raises():
    with pytest.raises(ConfigurationError, match="optim_lrr"):
        StrictConfiguration.checked({"optim_lrr": 5})
    with pytest.raises(ConfigurationError, match=r"batch_size.*integer"):
        StrictConfiguration.checked({"batch_size": "many"})
    assert StrictConfiguration.checked(None).optim_lr == 1e-4


def test_a_misspelt_key_of_a_search_space_raises(make):
    trainer = make()
    with pytest.raises(ConfigurationError, match="optim_lrr"):
        trainer._override_config({"optim_lrr": 5})
    trainer._override_config({"optim_lr": 5})
    assert trainer.config.optim_lr == 5


def test_without_a_strategy_ray_is_not_asked(make, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("ray status was run")

    monkeypatch.setattr(ours, "ray_cluster_is_running", fail)
    monkeypatch.setattr(itwinai_trainer, "ray_cluster_is_running", fail)
    assert isinstance(make().strategy, NonDistributedStrategy)


def test_ddp_that_cannot_start_is_an_error(make, monkeypatch):
    monkeypatch.setattr(ours, "ray_cluster_is_running", lambda: False)
    with pytest.raises(ConfigurationError, match="torchrun"):
        make(strategy="ddp")
    monkeypatch.setenv("ITWINAI_FORCE_DIST", "1")
    with pytest.raises(ConfigurationError, match="RANK, WORLD_SIZE"):
        make(strategy="ddp")
    with pytest.raises(ConfigurationError, match="one of"):
        make(strategy="dpp")


def test_under_torchrun_ddp_talks_gloo_on_cpus(make, monkeypatch):
    for key, value in {**TORCHRUN, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    strategy = make(strategy="ddp").strategy
    assert isinstance(strategy, TorchDDPStrategy)
    assert strategy.backend == ("nccl" if torch.cuda.is_available() else "gloo")


def test_torchrun_with_one_process_has_nothing_to_distribute(make, monkeypatch):
    environment = {**TORCHRUN, "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x"}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert isinstance(make(strategy="ddp").strategy, NonDistributedStrategy)


@pytest.mark.skipif(torch.cuda.is_available(), reason="nccl is right on GPUs")
def test_nccl_without_gpus_is_an_error(make, monkeypatch):
    for key, value in {**TORCHRUN, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigurationError, match="nccl needs GPUs"):
        make(strategy="ddp", config=StrictConfiguration(dist_backend="nccl"))


def test_the_scheduler_does_not_step_before_the_first_epoch(ready):
    steps = []
    ready.lr_scheduler = type("Scheduler", (), {"step": lambda _: steps.append(1)})()
    ready.set_epoch()
    assert not steps


class Wrapper(nn.parallel.DistributedDataParallel):
    """Looks like the wrapper of distributed training, without a process group."""

    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module


def test_checkpoints_of_distributed_training_load_without_it(ready):
    network = ready.model
    ready.model = Wrapper(network)
    assert unwrapped(ready.model) is network
    folder = ready.save_checkpoint("best_model", torch.tensor(0.5), force=True)
    assert isinstance(ready.model, Wrapper)
    assert set(torch.load(f"{folder}/model.pt", weights_only=True)) == {"weight", "bias"}
    # and one that itwinai itself has written
    (Path(folder) / "checksums.json").unlink()
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, f"{folder}/model.pt")
    ready._load_checkpoint(folder)
    assert set(ready.model_state_dict) == {"weight", "bias"}


def test_weights_that_do_not_fit_are_refused(ready):
    with pytest.raises(ConfigurationError, match="another network"):
        ready.load_weights(nn.Linear(3, 2), ready.model.state_dict())
    other = nn.Linear(2, 2)
    ready.load_weights(other, {f"module.{key}": value for key, value in ready.model.state_dict().items()})
    assert torch.equal(other.weight, ready.model.weight)


def test_a_periodic_checkpoint_remembers_the_best(ready, make):
    ready.best_validation_metric = 0.25
    folder = ready.save_checkpoint("epoch_7")
    assert os.path.basename(folder) == "last"  # noqa: PTH119
    resumed = make(from_checkpoint=folder)
    resumed.load_checkpoint()
    assert resumed.best_validation_metric == 0.25
    assert resumed.current_epoch == ready.current_epoch + 1


def test_a_checkpoint_is_whole_or_the_old_one(ready, monkeypatch):
    folder = ready.save_checkpoint("best_model", torch.tensor(0.5), force=True)
    before = torch.load(f"{folder}/model.pt", weights_only=True)["weight"]
    with torch.no_grad():
        ready.model.weight.add_(1)
    monkeypatch.setattr(checkpoints, "write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(DataError, match="disk full"):
        ready.save_checkpoint("best_model", torch.tensor(0.4), force=True)
    assert torch.equal(torch.load(f"{folder}/model.pt", weights_only=True)["weight"], before)
    assert torch.load(f"{folder}/state.pt", weights_only=True)["best_validation_metric"] == 0.5


def test_an_unusable_checkpoint_is_named(ready, make, tmp_path):
    ready.save_checkpoint("best_model", torch.tensor(0.5), force=True)
    with pytest.raises(ConfigurationError, match="best_model"):
        make(from_checkpoint=tmp_path / "checkpoints" / "lst")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(FormatError, match="not a usable checkpoint"):
        make(from_checkpoint=broken).load_checkpoint()


def test_a_failed_ray_trial_is_an_error(make, monkeypatch):
    trainer = make()

    def run(self, *_, **__):
        errors = [ValueError("no memory")]
        self.tune_result_grid = type("Grid", (), {"num_errors": 1, "errors": errors})()

    monkeypatch.setattr(itwinai_trainer.TorchTrainer, "_execute_with_ray", run)
    with pytest.raises(GlitchflowError, match="no memory"):
        trainer._execute_with_ray(None)


def test_the_test_set_cannot_be_looked_at_during_training(make):
    with pytest.raises(ConfigurationError, match="test_every"):
        make(test_every=1)


def test_the_device_is_the_one_that_was_chosen(make):
    trainer = make()
    trainer.strategy.init()
    assert trainer.device == "cpu"
    with pytest.raises(ConfigurationError, match="auto"):
        make(device="gpu")
