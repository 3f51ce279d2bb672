"""One test for each fault of itwinai 0.4.2 that SoundTorchTrainer mends."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from glitchflow_plugin.components._configuration import StrictConfiguration
from glitchflow_plugin.components._torch_trainer import SoundTorchTrainer, unwrapped
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.training import checkpoints


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


def test_the_test_set_cannot_be_looked_at_during_training(make):
    with pytest.raises(ConfigurationError, match="test_every"):
        make(test_every=1)


def test_the_device_is_the_one_that_was_chosen(make):
    trainer = make()
    trainer.strategy.init()
    assert trainer.device == "cpu"
    with pytest.raises(ConfigurationError, match="auto"):
        make(device="gpu")
