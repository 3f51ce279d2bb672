"""A training with all that follows it, on any device: real in tests/gpu, pretended in tests/test_devices.py."""

import numpy as np
from mlflow import MlflowClient

from glitchflow_plugin.components.generate import GenerateGlitches
from glitchflow_plugin.components.make_inference import MakeInference
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.products.summary import read_summary
from glitchflow_plugin.tracking.registry import load


def rehearse(make_trainer, coupled, uri, folder, device):
    """Train the default network in bf16, resume, calibrate, judge, register; then infer and generate from the registry.

    Args:
        make_trainer: Fixture `make_coupled_trainer`.
        coupled: Fixture `coupled`.
        uri: Of a registry with nothing in it.
        folder: An empty one.
        device: Where all of it is computed.
    """
    training_set, events = coupled
    ways = {
        "config": {"batch_size": 4, "precision": "bf16", "ema": 0.9, "warmup_epochs": 0.5},
        "registry": {
            "tracking_uri": uri,
            "artifacts": str(folder / "artifacts"),
            "name": "twin",
            "outbox": str(folder / "outbox"),
            "system_metrics": False,
            "gate": {"min_groups": 5, "min_quiet": 1, "injections": 0},
        },
        "tensorboard": str(folder / "tensorboard"),
    }
    make_trainer("coupling", device, epochs=1, pictures_every=0, **ways).execute()
    trainer = make_trainer("coupling", device, resume=True, **ways)
    trainer.execute()
    assert trainer.current_epoch == 1
    kept = [*trainer.twin.parameters(), *trainer.twin.buffers(), *trainer.loop.model.average.module.parameters()]
    assert {tensor.device for tensor in kept} == {device}

    versions = MlflowClient(uri).search_model_versions("name='twin'")
    assert len(versions) == 2
    assert "registered model" in read_summary(training_set.folder).outputs
    latest = max(int(version.version) for version in versions)
    bundle = load("twin", latest, uri)
    for name, values in bundle.twin.state_dict().items():
        assert values.device.type == "cpu"
        np.testing.assert_array_equal(values.numpy(), trainer.twin.state_dict()[name].cpu().numpy())

    given = {
        "model": {"name": "twin", "version": latest},
        "tracking_uri": uri,
        "spectrograms": str(training_set.open_spectrograms().folder),
        "events": str(events.folder),
        "device": str(device),
        "tensorboard": str(folder / "tensorboard"),
    }
    inference = MakeInference({"batch_events": 5, "replicates": 5, "examples": 1}, str(folder / "inference"), **given)
    inference.execute()
    generated = GenerateGlitches({"examples": 1}, str(folder / "generated"), **given).execute()
    for made in (SpectrogramSet.open(inference.place / "maps"), generated):
        assert np.isfinite(made.read().maps).all()
