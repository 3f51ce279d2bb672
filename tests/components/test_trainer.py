import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from itwinai.loggers import MLFlowLogger
from mlflow import MlflowClient
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import glitchflow_plugin.training.energy as energy_module
from glitchflow_plugin.components._twin_trainer import TwinTrainer
from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.data.lock import at_work
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.errors import BusyError, ConfigurationError, ConnectionFailedError, DataError, RegistryError
from glitchflow_plugin.inference.rank_report import known_ranks
from glitchflow_plugin.inference.veto_rivals import Rivals
from glitchflow_plugin.plots.cleaning import plot_cleaning
from glitchflow_plugin.products.summary import read_summary
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.false_alarm import FalseAlarm
from glitchflow_plugin.tracking.card import FIGURES
from glitchflow_plugin.tracking.outbox import upload, waiting
from glitchflow_plugin.tracking.registry import load
from glitchflow_plugin.tracking.versions import find, promote
from glitchflow_plugin.training import judged_maps, registration
from glitchflow_plugin.training import run as training_run
from glitchflow_plugin.training.checkpoints import run_of
from glitchflow_plugin.training.gate import GateSettings
from glitchflow_plugin.training.interruption import Interrupted
from glitchflow_plugin.training.judged_events import Gate
from glitchflow_plugin.training.loop import Loop
from glitchflow_plugin.training.progress import Progress
from glitchflow_plugin.training.registration import RegistrySettings, warn_of_a_small_gate
from glitchflow_plugin.training.run import Conditions, describe, make_gate

SMALL = {"name": "unet", "base": 4, "depth": 2, "attention_heads": 2}


@pytest.fixture
def training_set(make_coupled_maps, tmp_path):
    maps = make_coupled_maps(16, num_times=128)
    folder = str(tmp_path / "training")
    split = Splitter({"block_length": 100.0, "seed": 1}, str(maps.folder), folder).execute(maps)
    return Processor({}, str(maps.folder), folder).execute(split)


@pytest.fixture
def make_trainer(training_set, tmp_path):
    def make(kind=Trainer, **changes):
        keywords = {
            "folder": str(training_set.folder),
            "model": SMALL,
            "config": {"optim_lr": 3e-3, "batch_size": 8},
            "epochs": 2,
            "random_seed": 1,
            "checkpoints": str(tmp_path / "checkpoints"),
            "device": "cpu",
            "disable_tqdm": True,
            "run_name": "test",
            **({"pictures_every": 0} if kind is Trainer else {}),
        }
        keywords.update(changes)
        return kind(**keywords)

    return make


@pytest.fixture
def make_unjudged(make_trainer):
    """What follows the last epoch takes longer than the epochs do, and leaves the weights alone."""
    return partial(make_trainer, TwinTrainer)


@pytest.fixture
def drawn():
    """For a test that looks at the pictures of a training."""


@pytest.fixture(autouse=True)
def _drawn_where_it_is_looked_at(request, monkeypatch):
    """Figures of the test events take a third of such a small training."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(training_run, "pictures", lambda *_, **__: {})


@pytest.fixture
def registry(make_registry, tmp_path):
    return {
        "tracking_uri": make_registry(tmp_path),
        "experiment": "trial",
        "artifacts": str(tmp_path / "artifacts"),
        "name": "twin",
        "alias": "champion",
        "outbox": str(tmp_path / "outbox"),
        # there is no event set of these maps
        "gate": {"min_groups": 5, "min_quiet": 1, "injections": 0},
    }


def runs_of(registry):
    client = MlflowClient(registry["tracking_uri"])
    return client.search_runs([client.get_experiment_by_name(registry["experiment"]).experiment_id])


def weights(folder):
    return torch.load(Path(folder) / "model.pt", weights_only=True)


def test_tells_before_training_that_nothing_will_be_promoted(training_set, registry, caplog):
    warn_of_a_small_gate(training_set.split, built(RegistrySettings, registry, "registry"))
    assert "with fewer than 5 (registry.gate.min_groups) nothing becomes champion by itself" in caplog.text


@pytest.mark.usefixtures("drawn")
def test_trains_judges_tracks_and_registers(make_trainer, training_set, registry, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.5")
    board = tmp_path / "tensorboard"
    trainer = make_trainer(registry=registry, tensorboard=str(board), pictures_every=1)
    version = trainer.execute()
    assert (version.version, version.promoted) == (1, False)
    assert "too few events to compare" in version.reason

    summary = read_summary(training_set.folder)
    for name in ("cleaned_share_snr2_16", "balanced_veto_accuracy_snr2_16", "veto_roc_auc", "net_power_removed"):
        assert set(summary.metrics[name].baseline) == {"linear", "zero"}
    assert "twin version 1" in summary.outputs["registered model"]
    assert "inference.model.version=1" in summary.outputs["to use it all the same"]

    bundle = load("twin", 1, registry["tracking_uri"])
    assert bundle.witnesses == ("GUIDE", "BYSTANDER")
    assert bundle.recipe == training_set.open_spectrograms().recipe
    assert bundle.scaling == training_set.scaling
    assert bundle.dataset == training_set.fingerprint
    # what was registered is what was judged
    windows = torch.rand(3, 2, 64, 64) * 50
    torch.testing.assert_close(bundle.twin(windows), trainer.twin.cpu()(windows), rtol=1e-4, atol=1e-4)

    client = MlflowClient(registry["tracking_uri"])
    run = client.get_run(version.run_id)
    assert run.data.params["dataset_fingerprint"] == training_set.fingerprint
    assert {"code_version", "git_commit", "python", "platform"} <= set(run.data.params)
    assert any(name.startswith("system/cpu") for name in run.data.metrics)
    packages = json.loads(next((tmp_path / "artifacts").rglob("environment.json")).read_text())["packages"]
    assert packages["torch"].startswith("2.")
    deadtime = "deadtime_snr2_16"
    expected = {"train_loss", "validation_loss", "learning_rate", f"validation_{deadtime}", f"test_{deadtime}"}
    assert expected | {f"test_linear_{deadtime}"} <= set(run.data.metrics)
    assert run.data.params["model_base"] == "4"
    assert run.info.status == "FINISHED"
    assert list((tmp_path / "artifacts").rglob("examples/0000.png"))
    events = EventAccumulator(str(board), size_guidance={"images": 0}).Reload()
    assert [point.step for point in events.Scalars("validation_loss")] == [0, 1]
    assert [picture.step for picture in events.Images("examples")] == [0, 1]
    assert {"pictures/examples", "pictures/roc", "pictures/accuracy"} < set(events.Tags()["images"])
    assert (tmp_path / "mlruns").exists() is False


def test_the_best_on_validation_is_taken_and_the_test_set_decides_nothing(make_trainer, training_set, monkeypatch):
    losses = iter([0.5, 0.3, 0.4])
    judged = []

    def validation_epoch(self):
        judged.append({key: value.clone() for key, value in self.model.twin.network.state_dict().items()})
        return next(losses), {}

    seen = []
    original = judged_maps.judge_events

    def watched(twin, maps, events, witnesses, **keywords):
        seen.append(set(events))
        return original(twin, maps, events, witnesses, **keywords)

    monkeypatch.setattr(Loop, "validation_epoch", validation_epoch)
    monkeypatch.setattr(judged_maps, "judge_events", watched)
    trainer = make_trainer(epochs=3)
    trainer.execute()
    for key, value in trainer.model.state_dict().items():
        assert torch.equal(value, judged[1][key])
    # once each for the network, the linear filter and nothing
    assert seen == [set(training_set.split.test.event_ids)] * 3


def test_the_learning_rate_falls_on_validation(make_unjudged, monkeypatch):
    losses = iter([0.5, 0.4, 0.45, 0.45])
    rates = []

    class Same:
        def figures(self):
            return {"loss": next(losses)}

        @classmethod
        def concatenate(cls, parts):
            return parts[0]

    monkeypatch.setattr(energy_module.EnergyLearner, "judge", lambda *_, **__: Same())
    monkeypatch.setattr(Progress, "validated", lambda _, result: rates.append(result.learning_rate))
    trainer = make_unjudged(epochs=4, config={"batch_size": 8, "lr_scheduler_patience": 0, "optim_lr": 1e-3})
    trainer.execute()
    assert rates == [1e-3, 1e-3, 1e-3, 5e-4]
    assert trainer.optimizer.param_groups[0]["lr"] == 2.5e-4


def test_the_same_seed_gives_the_same_network(make_unjudged, tmp_path):
    for name in ("a", "b"):
        make_unjudged(checkpoints=str(tmp_path / name)).execute()
    make_unjudged(checkpoints=str(tmp_path / "c"), random_seed=2).execute()
    first, second, other = (weights(tmp_path / name / "last") for name in "abc")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_resuming_is_as_if_it_had_never_stopped(make_unjudged, tmp_path):
    make_unjudged(checkpoints=str(tmp_path / "whole"), epochs=4).execute()
    make_unjudged(checkpoints=str(tmp_path / "parts"), epochs=2).execute()
    resumed = make_unjudged(
        checkpoints=str(tmp_path / "parts"), epochs=4, from_checkpoint=str(tmp_path / "parts" / "last")
    )
    resumed.execute()
    for name in ("last", "best_model"):
        whole, parts = weights(tmp_path / "whole" / name), weights(tmp_path / "parts" / name)
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_new_training_does_not_end_with_an_old_network(make_unjudged, tmp_path, monkeypatch):
    best = tmp_path / "checkpoints" / "best_model"
    make_unjudged().execute()
    old = run_of(best)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "train_epoch", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(SystemExit):
            make_unjudged().execute()
    assert run_of(best) == old  # there is no better one yet
    trainer = make_unjudged(resume=True)
    trainer.execute()
    assert run_of(best) == trainer.run_id


def test_resuming_elsewhere_brings_the_best_network_along(make_unjudged, tmp_path):
    make_unjudged(epochs=1).execute()
    best = weights(tmp_path / "checkpoints" / "best_model")
    trainer = make_unjudged(
        checkpoints=str(tmp_path / "elsewhere"), epochs=1, from_checkpoint=str(tmp_path / "checkpoints" / "last")
    )
    trainer.execute()
    assert all(torch.equal(best[key], value) for key, value in trainer.model.state_dict().items())


def test_a_checkpoint_of_another_split_or_scaling_is_refused(make_unjudged, training_set, tmp_path):
    make_unjudged(epochs=1).execute()
    maps, folder = training_set.open_spectrograms(), str(tmp_path / "training")
    split = Splitter({"block_length": 100.0, "seed": 5}, str(maps.folder), folder).execute(maps)
    Processor({"clamp": 50.0}, str(maps.folder), folder).execute(split)
    with pytest.raises(ConfigurationError, match="trained with another split and scaling"):
        make_unjudged(epochs=2, from_checkpoint=str(tmp_path / "checkpoints" / "last")).execute()


def test_a_registry_that_goes_down_costs_no_training(make_trainer, training_set, registry, monkeypatch):
    def down(*_, **__):
        raise ConnectionFailedError("the server is gone.")

    monkeypatch.setattr(registration, "send", down)
    trainer = make_trainer(registry=registry, epochs=1)
    with pytest.raises(ConnectionFailedError, match=r"gone.*Nothing is lost.*models upload"):
        trainer.execute()
    assert any("gone" in warning for warning in read_summary(training_set.folder).warnings)
    # without it being required, the same is a warning
    assert make_trainer(registry={**registry, "required": False}, epochs=1).execute() is None
    monkeypatch.undo()
    first, second = waiting(registry["outbox"])
    assert {path.suffix for path in first.folder.glob("[!.]*")} == {".json", ".safetensors"}
    version = upload(first)
    assert (version.version, version.promoted) == (1, False)
    windows = torch.rand(3, 2, 64, 64) * 50
    bundle = load("twin", 1, registry["tracking_uri"])
    torch.testing.assert_close(bundle.twin(windows), trainer.twin.cpu()(windows), rtol=1e-4, atol=1e-4)
    assert bundle.notes["reference"]["num_events"] == len(training_set.split.train)
    vetoes = bundle.notes["vetoes"]
    assert FalseAlarm.from_dict(vetoes["false_alarm"]).groups <= len(training_set.split.validation)
    assert Rivals.from_dict(vetoes["rivals"]).channel in bundle.witnesses
    assert known_ranks(vetoes).glitches > 0
    # the next run that goes well sends what still waits
    assert make_trainer(registry=registry, epochs=1).execute().version == 2
    assert waiting(registry["outbox"]) == []
    late = find("twin", 3, registry["tracking_uri"])
    assert late.tags["outbox"] == second.id
    assert not late.promoted
    assert "too few events to compare" in late.reason


def test_a_resumed_training_keeps_its_run_and_its_version(make_trainer, registry):
    client, outcome = MlflowClient(registry["tracking_uri"]), []
    for epochs in (1, 2, 2):
        outcome.append(make_trainer(registry=registry, epochs=epochs, resume=True).execute())
        # as after kill -9
        client.update_run(outcome[-1].run_id, status="RUNNING")
    first, second, third = outcome
    assert first.run_id == second.run_id == third.run_id
    # one curve, and the training that had ended already is no new version
    history = client.get_metric_history(first.run_id, "validation_loss")
    assert [point.step for point in history] == [0, 1]
    assert (first.version, second.version, third.version) == (1, 2, 2)
    assert third.promoted == second.promoted
    experiment = client.get_experiment_by_name("trial").experiment_id
    assert len(client.search_runs([experiment])) == 1
    # killed, and never resumed: the next training in its place marks it
    other = make_trainer(registry=registry, epochs=1).execute()
    assert other.run_id != first.run_id
    assert client.get_run(first.run_id).info.status == "KILLED"
    assert client.get_run(other.run_id).info.status == "FINISHED"


def test_a_training_that_is_asked_to_end_is_killed_in_mlflow_until_it_goes_on(
    make_trainer, registry, tmp_path, monkeypatch
):
    client = MlflowClient(registry["tracking_uri"])
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "after_step", Loop.interrupt)
        with pytest.raises(SystemExit):
            make_trainer(registry=registry, epochs=1).execute()
    (path,) = tmp_path.rglob("mlflow_run.json")
    run_id = json.loads(path.read_text())["run_id"]
    assert [run.info.status for run in runs_of(registry)] == ["KILLED"]
    version = make_trainer(registry=registry, epochs=1, resume=True).execute()
    assert version.run_id == run_id
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize("ending", [(KeyboardInterrupt, Interrupted, "KILLED"), (RuntimeError, RuntimeError, "FAILED")])
@pytest.mark.parametrize("place", [(Loop, "validation_epoch"), (Trainer, "_load_best")])
def test_whatever_ends_a_training_is_the_status_of_its_one_run(make_trainer, registry, monkeypatch, ending, place):
    error, told, status = ending

    def fails(*_):
        raise error("because")

    monkeypatch.setattr(*place, fails)
    with pytest.raises(told):
        make_trainer(registry=registry, epochs=1).execute()
    (run,) = runs_of(registry)
    assert (run.info.run_name, run.info.status) == ("test", status)
    assert run.data.params["epochs"] == "1"


@pytest.mark.parametrize("resume", [True, False])
def test_what_a_silent_server_has_not_taken_is_sent_by_the_next_training(
    make_trainer, registry, tmp_path, monkeypatch, resume
):
    """Asked to end while MLflow is away, a training has no other place for its numbers."""

    def silent(*_, **__):
        raise ConnectionError("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(MLFlowLogger, "log", silent)
        patch.setattr(Loop, "run_epochs", lambda self: (self.progress.tracker.metric("loss", 0.5, 7), self.interrupt()))
        with pytest.raises(SystemExit):
            make_trainer(registry=registry, epochs=1).execute()
    kept = json.loads((tmp_path / "checkpoints" / "mlflow_run.json").read_text())
    assert {"kind": "metric", "name": "loss", "value": 0.5, "step": 7} in kept["unsent"]
    make_trainer(registry=registry, epochs=1, resume=resume).execute()
    client = MlflowClient(registry["tracking_uri"])
    assert [(point.step, point.value) for point in client.get_metric_history(kept["run_id"], "loss")] == [(7, 0.5)]
    assert client.get_run(kept["run_id"]).data.params["windows_train_glitch"]
    assert json.loads((tmp_path / "checkpoints" / "mlflow_run.json").read_text())["unsent"] == []
    expected = ["FINISHED"] if resume else ["FINISHED", "KILLED"]
    assert sorted(run.info.status for run in runs_of(registry)) == expected


@pytest.mark.usefixtures("drawn")
def test_a_version_shows_what_one_chooses_by(make_trainer, training_set, registry, monkeypatch, tmp_path):
    split, titles = training_set.split, []
    labels = tmp_path / "classes.csv"
    every = [name for part in PARTS for name in split.part(part).event_ids]
    labels.write_text("event_id,label\n" + "".join(f"{name},a_class\n" for name in every))

    def tell(examples, *arguments, title, axis, **keywords):
        titles.append((title, axis, {each.event_id for each in examples}, {each.note for each in examples}))
        return plot_cleaning(examples, *arguments, title=title, axis=axis, **keywords)

    monkeypatch.setattr(energy_module, "plot_cleaning", tell)
    pictures = {"frequency_axis": "linear", "labels": [str(labels)]}
    registry = {**registry, "alias": "best"}
    version = make_trainer(registry=registry, epochs=1, pictures_every=1, pictures=pictures).execute()
    for (title, axis, shown, notes), part in zip(titles, ("validation", "test"), strict=True):
        assert (title, axis, notes) == (f"{part} events", "linear", {"a class"})
        assert shown <= set(split.part(part).event_ids)
    client = MlflowClient(registry["tracking_uri"])
    stored = client.get_model_version("twin", "1")
    scores = {tag: float(version.tags[tag]) for _, tag, *_ in FIGURES}
    run = client.get_run(version.run_id)
    assert scores["veto_roc_area"] == pytest.approx(run.data.metrics["test_veto_roc_auc"], abs=1e-4)
    assert f"**{scores['balanced_veto_accuracy']:.3f}**" in stored.description
    for text in (
        "GUIDE, BYSTANDER",
        "STRAIN",
        version.tags["gps_start"],
        version.tags["dataset"],
        version.tags["band"],
    ):
        assert text in stored.description
    # each picture that the page shows is there, and small enough for it
    shown = re.findall(r"get-artifact\?path=([^&]+)&run_uuid=(\w+)", stored.description)
    assert {unquote(path) for path, _ in shown} == {f"pictures/{name}.png" for name in ("accuracy", "examples", "roc")}
    for path, run_id in shown:
        with Image.open(client.download_artifacts(run_id, unquote(path))) as picture:
            assert picture.width < 800
    assert run.data.tags["mlflow.note.content"] == stored.description
    assert [item.dataset.digest for item in run.inputs.dataset_inputs] == [version.tags["dataset_fingerprint"][:12]]
    experiment = client.get_experiment_by_name("trial")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    page = client.get_registered_model("twin").description
    assert version.tags["veto_roc_area"] in page
    assert "alias **best**" in page
    # what somebody has written stays
    client.update_registered_model("twin", description="Ours.")
    make_trainer(registry=registry, epochs=1).execute()
    assert client.get_registered_model("twin").description == "Ours."


def test_a_twin_that_cannot_be_judged_is_kept(make_trainer, registry, monkeypatch, caplog):
    def judge(*_):
        (entry,) = waiting(registry["outbox"])
        # no other run takes it meanwhile
        with pytest.raises(BusyError, match="another run is at work"):
            upload(entry)
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Gate, "decide", judge)
    with pytest.raises(RuntimeError, match="shapes differ"):
        make_trainer(registry=registry, epochs=1).execute()
    assert "not judged. Nothing is lost" in caplog.text
    (run,) = runs_of(registry)
    assert (run.info.run_name, run.info.status) == ("test", "FAILED")
    (entry,) = waiting(registry["outbox"])
    assert not upload(entry).promoted
    assert [run.info.status for run in runs_of(registry)] == ["FINISHED"]


def test_a_full_disk_still_registers(make_trainer, registry, monkeypatch):
    def full(*_, **__):
        raise DataError("No space left while writing.")

    monkeypatch.setattr(registration, "keep", full)
    assert make_trainer(registry=registry, epochs=1).execute().version == 1
    monkeypatch.setattr(registration, "register", lambda *_, **__: (_ for _ in ()).throw(RegistryError("refused.")))
    with pytest.raises(RegistryError, match=r"No space left.*best_model.*last"):
        make_trainer(registry=registry, epochs=1).execute()


def test_the_harmful_is_registered_but_not_promoted(make_trainer, registry):
    strict = {**registry, "gate": {"max_event": 0.0, "unsafe": ["BYST*"]}}
    version = make_trainer(registry=strict, epochs=1).execute()
    assert (version.version, version.promoted) == (1, False)
    assert (
        "sees the strain itself (BYSTANDER)" in version.reason or "see the strain itself (BYSTANDER)" in version.reason
    )
    assert float(version.tags["worst_growth"]) > -1
    assert version.tags["dataset_fingerprint"]
    assert find("twin", 1, registry["tracking_uri"]).aliases == ()


def test_a_server_that_is_not_there_is_noticed_before_training(make_trainer, registry):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ConnectionFailedError):
        make_trainer(registry={**registry, "tracking_uri": f"http://127.0.0.1:{port}"})


def test_provenance_is_one_document_of_the_training(make_trainer, registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_trainer(registry={**registry, "provenance": True}, epochs=1).execute()
    documents = list((tmp_path / "checkpoints" / "provenance").rglob("*.json"))
    assert documents
    text = "".join(path.read_text() for path in documents)
    assert "validation_loss" in text
    assert "dataset_fingerprint" in text
    assert len({path.parent for path in documents}) == 1


def test_a_server_that_is_not_required_may_be_down(make_trainer, registry):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gone = {**registry, "tracking_uri": f"http://127.0.0.1:{port}", "required": False}
    assert make_trainer(registry=gone, epochs=1).execute() is None
    assert len(waiting(registry["outbox"])) == 1


def test_the_present_champion_is_compared_with(make_trainer, registry):
    make_trainer(registry=registry, epochs=2).execute()
    promote("twin", 1, registry["tracking_uri"])
    # the same again is not better
    second = make_trainer(registry=registry, epochs=2).execute()
    assert (second.version, second.promoted) == (2, False)
    assert "against version 1" in second.reason
    assert "too few events to compare with the champion" in second.reason
    assert float(second.tags["compared_events"]) == 2
    assert find("twin", "champion", registry["tracking_uri"]).version == 1


def test_witnesses_in_another_order_are_sorted_for_the_champion(make_trainer, training_set):
    class Takes(torch.nn.Module):
        def __init__(self, row):
            super().__init__()
            self.row = row
            self.register_buffer("number", torch.zeros(1))

        def forward(self, witnesses):
            return 0.5 * witnesses[:, self.row, None]

    trainer = make_trainer()
    trainer.execute()
    rival = type("B", (), {"representation": "raw", "ridge": 0.1, "twin": None})()
    bundle = describe(trainer.best_twin(), Conditions("test", 2, 1), {}, rival, {})
    orders = {0: ("GUIDE", "BYSTANDER"), 1: ("BYSTANDER", "GUIDE")}
    twins = [replace(bundle, twin=Takes(row), witnesses=names) for row, names in orders.items()]
    settings = GateSettings(min_groups=5, min_quiet=1, injections=0)
    one, other = (make_gate(trainer.best_twin(), twin, settings).decide().figures for twin in twins)
    assert one["gate_events"] == len(training_set.split.gate)
    assert one == other
    turned = replace(twins[0], witnesses=orders[1])
    assert make_gate(trainer.best_twin(), turned, settings).decide().figures["gate_loss"] != one["gate_loss"]


def test_a_diverged_training_says_so(make_trainer):
    with pytest.raises(DataError, match="Lower optim_lr"):
        make_trainer(config={"batch_size": 8, "optim_lr": 1e30, "gradient_clip": 1e30, "optimizer": "sgd"}).execute()


def test_gradients_are_clipped(make_unjudged, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda _, largest: seen.append(largest))
    make_unjudged(epochs=1).execute()
    assert set(seen) == {5.0}


def test_wrong_settings_are_refused(make_trainer):
    with pytest.raises(ConfigurationError, match="batchsize"):
        make_trainer(config={"batchsize": 3})
    with pytest.raises(ConfigurationError, match="trackin_uri"):
        make_trainer(registry={"trackin_uri": ""})
    with pytest.raises(ConfigurationError, match="max_harm"):
        make_trainer(registry={"tracking_uri": "sqlite:///x.db", "name": "x", "gate": {"max_harm": 1}})
    with pytest.raises(TypeError, match="epoch_s"):
        make_trainer(epoch_s=3)
    with pytest.raises(ConfigurationError, match="expected `name`"):
        make_trainer(model={"base": 4})


def test_it_can_be_written_as_yaml(make_trainer):
    described = make_trainer().to_dict()
    assert described["_target_"].endswith("components.trainer.Trainer")
    assert described["model"] == SMALL


def test_data_steps_start_without_torch():
    code = (
        "import sys, glitchflow_plugin.components.splitter, glitchflow_plugin.components.processor; "
        "assert not {'torch', 'mlflow', 'gwpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_the_network_that_this_run_trained_is_registered(make_trainer, registry, tmp_path, monkeypatch):
    best = tmp_path / "checkpoints" / "best_model"
    # a file system without locks lets another run write there
    monkeypatch.setattr("glitchflow_plugin.data.lock.fcntl.flock", lambda *_: None)
    train = Trainer.train

    def disturbed(trainer):
        train(trainer)
        mine = run_of(best)
        assert mine == trainer.run_id
        monkeypatch.setattr(Trainer, "train", train)
        make_trainer(epochs=1, random_seed=2).execute()
        assert run_of(best) != mine

    monkeypatch.setattr(Trainer, "train", disturbed)
    with pytest.raises(DataError, match="is of another run"):
        make_trainer(registry=registry, epochs=1).execute()
    with pytest.raises(RegistryError, match="no registered model"):
        find("twin", "champion", registry["tracking_uri"])
    # what goes on from a checkpoint may find no better network than that of the run before
    trainer = make_trainer(registry=registry, epochs=1, from_checkpoint=str(tmp_path / "checkpoints" / "last"))
    assert trainer.execute().tags["trained_by"] == trainer.run_id


def test_a_second_trainer_is_refused_before_it_touches_anything(make_trainer, tmp_path):
    folder = tmp_path / "checkpoints"
    with at_work(folder, "Trainer"), pytest.raises(BusyError, match=rf"Trainer, process {os.getpid()}"):
        make_trainer().execute()
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", "-x"])
def test_names_are_checked_before_training(make_trainer, registry, name):
    with pytest.raises(ConfigurationError, match="run_name"):
        make_trainer(run_name=name)
    for key in ("name", "alias"):
        with pytest.raises(ConfigurationError, match=rf"registry\.yaml: {key}"):
            make_trainer(registry={**registry, key: name})
