import json
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from glitchflow_plugin.errors import ConnectionFailedError, FormatError, RegistryError
from glitchflow_plugin.tracking.connection import check_connection, ensure_experiment
from glitchflow_plugin.tracking.registry import compare, disagreement, load, register
from glitchflow_plugin.tracking.versions import find, settle


@pytest.fixture(scope="module")
def database(make_registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    uri = make_registry(folder)
    ensure_experiment(uri, "glitchflow", folder / "artifacts")
    return uri


def store(bundle, name, uri, **keywords):
    return register(bundle, name, uri, artifacts=Path(uri.removeprefix("sqlite:///")).parent / "artifacts", **keywords)


def test_a_twin_comes_back_with_all_that_is_needed(database, make_bundle):
    bundle = make_bundle()
    windows = torch.rand(3, 2, 16, 16) * 100
    expected = bundle.twin(windows)
    bundle.twin.train()
    version = store(bundle, "whole", database)
    # a copy is stored: whoever goes on with the twin finds it as it was
    assert bundle.twin.training
    assert (version.version, version.uri) == (1, "models:/whole/1")
    back = load("whole", 1, database)
    assert back.to_dict() == bundle.to_dict()
    torch.testing.assert_close(back.twin.eval()(windows), expected)
    torch.testing.assert_close(back.baseline(windows), bundle.baseline(windows))
    # any number of windows at a time
    assert back.twin(windows[:1]).shape == (1, 1, 16, 16)
    assert find("whole", "1", database).run_id == version.run_id


def test_a_model_whose_training_could_not_log_gets_a_run_that_tells_of_it(database, make_bundle):
    estimate = {"value": 0.75, "low": 0.5, "high": 0.9}
    notes = {
        "run_name": "o4 scan",
        "dataset_name": "o4",
        "epochs": 3,
        "test": {"model": {"roc_auc": estimate}, "linear": {"roc_auc": {"value": None}}},
    }
    version = store(make_bundle(notes=notes, dataset="0123456789abcdef"), "alone", database)
    run = MlflowClient(database).get_run(version.run_id)
    assert (run.info.run_name, run.info.status) == ("o4 scan", "FINISHED")
    assert run.data.metrics == {"validation_loss": 0.5, "test_roc_auc": 0.75}
    assert {"model_name": "linear", "epochs": "3"}.items() <= run.data.params.items()
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["o4"]
    # one that tells nothing is named as the model
    version = store(make_bundle(metrics={}), "bare", database)
    assert MlflowClient(database).get_run(version.run_id).info.run_name == "bare"


def test_mlflow_alone_can_load_and_describe_it(database, monkeypatch, make_bundle):
    version = store(make_bundle(), "plain", database)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(database)
    try:
        program = mlflow.pytorch.load_model(version.uri)
        info = mlflow.models.get_model_info(version.uri)
        example = info.load_input_example() if hasattr(info, "load_input_example") else None
    finally:
        mlflow.set_tracking_uri(before)
    assert program(torch.zeros(4, 2, 16, 16)).shape == (4, 1, 16, 16)
    assert info.signature.inputs.inputs[0].shape == (-1, 2, 16, 16)
    assert example is None or np.asarray(example).shape == (2, 2, 16, 16)
    assert info.flavors["pytorch"]["model_data"]


def test_nothing_in_it_is_a_pickle(database, make_bundle):
    store(make_bundle(), "clean", database)
    folder = Path(database.removeprefix("sqlite:///")).parent / "artifacts"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"bundle.json", "baseline.safetensors", "model.pt2", "MLmodel"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in (".pkl", ".pth", ".pickle")]


def test_a_pickled_model_of_others_is_refused(database):
    mlflow.set_tracking_uri(database)
    try:
        with mlflow.start_run(experiment_id=ensure_experiment(database, "glitchflow")):
            mlflow.pytorch.log_model(
                torch.nn.Identity(),
                name="x",
                registered_model_name="foreign",
                serialization_format="pickle",
                pip_requirements=["torch"],
            )
    finally:
        mlflow.set_tracking_uri(None)
    with pytest.raises(FormatError, match=r"bundle\.json"):
        load("foreign", 1, database)


class Verdict:
    def __init__(self, promoted, reason="because", **figures):
        self.promoted, self.reason, self.figures = promoted, reason, figures


def passes(*_):
    return Verdict(True)


def promote_if_better(challenger, bundle, judge):
    return settle(challenger, compare(challenger, bundle, judge), "champion")


def test_the_gate_decides_and_its_reasons_are_kept(database, make_bundle):
    asked = []

    def better(champion):
        asked.append(champion and float(champion.twin(torch.full((2, 2, 16, 16), 20.0)).mean()))
        return Verdict(len(asked) != 2, f"reason {len(asked)}", gate_loss=0.1 * len(asked))

    versions = []
    for gain in (0.5, 0.1, 0.55):
        bundle = make_bundle(gain)
        versions.append(promote_if_better(store(bundle, "contest", database), bundle, better))
    assert [version.promoted for version in versions] == [True, False, True]
    # nobody to beat at first, then twice the first
    assert asked[0] is None
    assert asked[1] == asked[2] > 0
    assert versions[1].reason == "against version 1: reason 2"
    assert find("contest", "champion", database).version == 3
    tags = mlflow.MlflowClient(database).get_model_version("contest", "2").tags
    assert (tags["promoted"], tags["promotion_reason"]) == ("false", versions[1].reason)
    assert float(tags["gate_loss"]) == pytest.approx(0.2)


def test_a_twin_of_other_channels_is_no_rival(database, make_bundle):
    promote_if_better(store(make_bundle(), "other", database), make_bundle(), passes)
    changed = make_bundle(witnesses=("GUIDE", "NEWCOMER"))
    version = promote_if_better(store(changed, "other", database), changed, passes)
    assert not version.promoted
    assert "BYSTANDER, NEWCOMER" in version.reason
    assert find("other", "champion", database).version == 1


@pytest.fixture(scope="module")
def sealed(database, make_bundle):
    """A version, and where its files are."""
    version = store(make_bundle(), "sealed", database)
    folder = Path(database.removeprefix("sqlite:///")).parent / "artifacts"
    newest = max(folder.rglob("MLmodel"), key=lambda path: path.stat().st_mtime_ns).parent
    return version, newest


FILES = ("MLmodel", "data/model.pt2", "extra_files/bundle.json", "extra_files/baseline.safetensors", "requirements.txt")


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_is_refused_before_anything_is_parsed(sealed, database, file, monkeypatch):
    version, folder = sealed
    assert set(FILES) < set(json.loads(version.tags["sha256"]))
    path = folder / file
    whole = path.read_bytes()
    middle = len(whole) // 2
    monkeypatch.setattr("glitchflow_plugin.tracking.registry.unpack", lambda *_: pytest.fail("parsed"))
    try:
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(FormatError, match=f"not what was registered: {file} has been changed"):
            load("sealed", 1, database)
    finally:
        path.write_bytes(whole)


def test_missing_and_foreign_files_are_refused(sealed, database, tmp_path):
    _, folder = sealed
    foreign = folder / "data" / "extra.pkl"
    try:
        foreign.write_bytes(b"x")
        with pytest.raises(FormatError, match=r"data/extra\.pkl does not belong to it"):
            load("sealed", 1, database)
        foreign.unlink()
        (folder / "requirements.txt").rename(tmp_path / "kept")
        with pytest.raises(FormatError, match=r"requirements\.txt is missing"):
            load("sealed", 1, database)
        (tmp_path / "kept").rename(folder / "requirements.txt")
    finally:
        foreign.unlink(missing_ok=True)
    assert load("sealed", 1, database).target == "STRAIN"
    mlflow.MlflowClient(database).delete_model_version_tag("sealed", "1", "sha256")
    with pytest.raises(FormatError, match="no checksums"):
        load("sealed", 1, database)


def test_disagreements_are_named(make_bundle):
    bundle = make_bundle()
    assert disagreement(bundle, make_bundle(witnesses=("BYSTANDER", "GUIDE"))) is None
    chosen = {"qtransform": {"q": 12.0}, "whiten": True, "selection": {"threshold": 99}}
    assert disagreement(bundle, make_bundle(recipe=chosen)) is None
    assert "whiten" in disagreement(bundle, make_bundle(recipe={"qtransform": {"q": 12.0}, "whiten": False}))
    assert "axes" in disagreement(bundle, make_bundle(frequencies=tuple(range(1, 17))))
    assert "targets" in disagreement(bundle, replace(bundle, target="H1"))


def test_a_champion_of_another_recipe_is_told_by_where_they_differ(make_bundle):
    conditioned = {"channels": {"GUIDE": {"minf": 8.0, "unit": "m"}, "UNUSED": {"minf": 1.0}}, "crop_jitter": 0.0}
    champion = make_bundle(recipe={"events": conditioned, "qtransform": {"q": 12.0}})
    other = {**conditioned, "channels": {"GUIDE": {"minf": 10.0, "unit": "V"}}, "crop_jitter": 0.5}
    why = disagreement(make_bundle(recipe={"events": other, "qtransform": {"q": 12.0}}), champion)
    assert why == (
        "different recipes (events.channels.GUIDE.minf: expected 8.0, got 10.0; "
        "events.crop_jitter: expected 0.0, got 0.5)"
    )
    # an earlier version did not say where crops lie, or how energies are divided
    earlier = {"events": {"channels": conditioned["channels"]}, "qtransform": {"q": 12.0, "norm": "median"}}
    assert disagreement(make_bundle(recipe=earlier), champion) is None


def test_a_champion_whose_recipe_is_damaged_leaves_the_challenger_registered(database, make_bundle):
    promote_if_better(store(make_bundle(recipe={"events": "evil"}), "odd", database), make_bundle(), passes)
    second = promote_if_better(store(make_bundle(), "odd", database), make_bundle(), passes)
    assert not second.promoted
    assert "named values" in second.reason
    assert "glitchflow models promote odd 2" in second.reason


def test_what_is_missing_is_answered_with_what_there_is(database, make_bundle):
    promote_if_better(store(make_bundle(), "known", database), make_bundle(), passes)
    with pytest.raises(RegistryError, match=r"Models there: .*known"):
        load("unknown", 1, database)
    with pytest.raises(RegistryError, match=r"Versions: 1\. Aliases: champion \(version 1\)"):
        load("known", 7, database)
    with pytest.raises(RegistryError, match="challenger"):
        load("known", "challenger", database)
    with pytest.raises(RegistryError, match="does not exist"):
        load("known", 1, "sqlite:////nowhere/mlflow.db")
    with pytest.raises(RegistryError, match="expected a database"):
        check_connection("./mlruns")


def test_a_server_that_is_down_is_noticed_at_once(free_port, make_bundle):
    uri = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(ConnectionFailedError, match=r"sqlite:///mlflow\.db"):
        load("any", 1, uri)
    with pytest.raises(ConnectionFailedError):
        register(make_bundle(), "any", uri)
    # MLflow itself tries for minutes; no measurement, only the order of magnitude
    assert time.monotonic() - began < 60
