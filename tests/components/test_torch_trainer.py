"""Faults of itwinai 0.4.2 that the Trainer mends; those of its loop are in tests/training/test_loop.py."""

import pytest

from glitchflow_plugin.components._configuration import StrictConfiguration
from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.errors import ConfigurationError, FormatError


@pytest.fixture
def make(tmp_path):
    def make_trainer(**changes):
        keywords = {"folder": str(tmp_path), "model": {"name": "unet"}, "epochs": 2, "device": "cpu"}
        return Trainer(**keywords | {"checkpoints": str(tmp_path / "checkpoints")} | changes)

    return make_trainer


def test_a_misspelt_key_raises():
    with pytest.raises(ConfigurationError, match="optim_lrr"):
        StrictConfiguration.checked({"optim_lrr": 5})
    with pytest.raises(ConfigurationError, match=r"batch_size.*integer"):
        StrictConfiguration.checked({"batch_size": "many"})
    assert StrictConfiguration.checked(None).optim_lr == 1e-4


def test_a_misspelt_key_of_a_search_space_raises():
    config = StrictConfiguration.checked({"batch_size": 7})
    with pytest.raises(ConfigurationError, match="optim_lrr"):
        config.changed({"optim_lrr": 5})
    changed = config.changed({"optim_lr": 5})
    assert (changed.optim_lr, changed.batch_size) == (5, 7)


def test_an_unusable_checkpoint_is_named(make, tmp_path):
    best, broken = tmp_path / "checkpoints" / "best_model", tmp_path / "broken"
    for folder in (best, broken):
        folder.mkdir(parents=True)
        (folder / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigurationError, match="best_model"):
        make(from_checkpoint=tmp_path / "checkpoints" / "lst")
    with pytest.raises(FormatError, match="not a usable checkpoint"):
        make(from_checkpoint=broken).load_checkpoint()


def test_the_test_set_cannot_be_looked_at_during_training(make):
    with pytest.raises(TypeError, match="test_every"):
        make(test_every=1)


def test_the_device_is_the_one_that_was_chosen(make):
    trainer = make()
    trainer.strategy.init()
    assert trainer.device == "cpu"
    with pytest.raises(ConfigurationError, match="auto"):
        make(device="gpu")
