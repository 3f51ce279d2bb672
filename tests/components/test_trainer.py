import logging

import numpy as np
import pytest
import torch

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.summary import read_summary
from glitchflow_plugin.tracking.registry import load


@pytest.fixture
def training_set(make_coupled_maps, tmp_path):
    maps = make_coupled_maps(32)
    folder = str(tmp_path / "training")
    split = Splitter({"block_length": 100.0}, str(maps.folder), folder).execute(maps)
    return Processor({}, str(maps.folder), folder).execute(split)


@pytest.fixture
def make_trainer(training_set, tmp_path):
    def make(**changes):
        keywords = {
            "folder": str(training_set.folder),
            "model": {"name": "unet", "base": 4, "depth": 2, "attention_heads": 2},
            "config": {"optim_lr": 3e-3, "batch_size": 16},
            "epochs": 3,
            "random_seed": 1,
            "checkpoints": str(tmp_path / "checkpoints"),
            "device": "cpu",
            "disable_tqdm": True,
            "run_name": "test",
            "pictures_every": 2,
        }
        keywords.update(changes)
        return Trainer(**keywords)

    return make


def test_trains_judges_and_registers_a_twin(make_trainer, training_set, tmp_path, caplog):
    registry = {
        "tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "experiment": "trial",
        "artifacts": str(tmp_path / "artifacts"),
        "name": "twin",
        "alias": "champion",
    }
    caplog.set_level(logging.INFO)
    trainer = make_trainer(registry=registry, epochs=12, tensorboard=str(tmp_path / "tensorboard"))
    version = trainer.execute(training_set)
    assert version.version == 1
    assert version.promoted
    summary = read_summary(training_set.folder)
    print(summary.metrics)
    bundle = load("twin", "champion", registry["tracking_uri"])
    assert bundle.witnesses == ("GUIDE", "BYSTANDER")
