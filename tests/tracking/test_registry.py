import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from glitchflow_plugin.errors import ConnectionFailedError, FormatError, RegistryError
from glitchflow_plugin.models.bundle import EnergyTwin, ModelBundle
from glitchflow_plugin.models.linear import LinearFilter
from glitchflow_plugin.tracking.registry import (
    check_connection,
    disagreement,
    ensure_experiment,
    find,
    load,
    promote_if_better,
    register,
)

WITNESSES = ("GUIDE", "BYSTANDER")


def make_bundle(gain=1.0, **changes):
    # a small network: what is stored is the same for any
    network = LinearFilter(len(WITNESSES), 16, (-1, 0))
    with torch.no_grad():
        network.weight.fill_(gain)
    twin = EnergyTwin(network, clamp=1e4, witness_scale=[5.0, 7.0], target_scale=4.0)
    values = {
        "twin": twin,
        "target": "STRAIN",
        "witnesses": WITNESSES,
        "recipe": {"qtransform": {"q": 12.0}, "whiten": True},
        "window_size": 16,
        "frequencies": tuple(float(row) for row in range(16)),
        "times": tuple(column / 64 for column in range(40)),
        "metrics": {"validation_loss": 0.5},
        "baseline": EnergyTwin(network, clamp=1e4, witness_scale=[5.0, 7.0], target_scale=4.0, transform="none"),
    }
    return ModelBundle(**{**values, **changes})


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database with its tables, made once: that takes seconds."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    ensure_experiment(uri, "glitchflow", folder / "artifacts")
    return uri


def store(bundle, name, uri, **keywords):
    return register(bundle, name, uri, artifacts=Path(uri.removeprefix("sqlite:///")).parent / "artifacts", **keywords)


def test_a_twin_comes_back_with_all_that_is_needed(database):
    bundle = make_bundle()
    windows = torch.rand(3, 2, 16, 16) * 100
    expected = bundle.twin(windows)
    version = store(bundle, "whole", database)
    assert (version.version, version.uri) == (1, "models:/whole/1")
    back = load("whole", 1, database)
    assert back.to_dict() == bundle.to_dict()
    torch.testing.assert_close(back.twin.eval()(windows), expected)
    torch.testing.assert_close(back.baseline(windows), bundle.baseline(windows))
    # any number of windows at a time
    assert back.twin(windows[:1]).shape == (1, 1, 16, 16)
    assert find("whole", "1", database).run_id == version.run_id


def test_mlflow_alone_can_load_and_describe_it(database, monkeypatch):
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


def test_nothing_in_it_is_a_pickle(database):
    store(make_bundle(), "clean", database)
    folder = Path(database.removeprefix("sqlite:///")).parent / "artifacts"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"bundle.json", "baseline.safetensors", "model.pt2", "MLmodel"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in (".pkl", ".pth", ".pickle")]


def test_our_loading_forbids_pickles_and_leaves_the_environment_alone(database, monkeypatch):
    store(make_bundle(), "guarded", database)
    monkeypatch.delenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", raising=False)
    seen = []
    original = mlflow.pytorch.load_model
    monkeypatch.setattr(
        mlflow.pytorch,
        "load_model",
        lambda *a, **k: (seen.append(os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"]), original(*a, **k))[1],
    )
    tracking = mlflow.get_tracking_uri()
    load("guarded", 1, database)
    assert seen == ["false"]
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" not in os.environ
    assert mlflow.get_tracking_uri() == tracking


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


def test_the_first_is_champion_and_then_only_the_better(database):
    gains = {}
    windows = torch.full((2, 2, 16, 16), 20.0)
    wanted = make_bundle(0.55).twin(windows).detach()

    def evaluate(bundle):
        return float((bundle.twin(windows).detach() - wanted).abs().mean())

    for gain in (0.5, 0.1, 0.55):
        version = store(make_bundle(gain), "contest", database)
        gains[version.version] = promote_if_better(version, make_bundle(gain), evaluate)
    assert [gains[number].promoted for number in (1, 2, 3)] == [True, False, True]
    assert gains[1].reason == "the first champion"
    assert "not less" in gains[2].reason
    assert find("contest", "champion", database).version == 3
    client = mlflow.MlflowClient(database)
    tags = client.get_model_version("contest", "2").tags
    assert tags["promoted"] == "false"
    assert tags["promotion_reason"] == gains[2].reason
    assert float(tags["validation_loss"]) > float(tags["champion_validation_loss"])


def test_a_twin_of_other_channels_is_no_rival(database):
    store_first = store(make_bundle(), "other", database)
    promote_if_better(store_first, make_bundle(), lambda _: 1.0)
    changed = make_bundle(witnesses=("GUIDE", "NEWCOMER"))
    version = promote_if_better(store(changed, "other", database), changed, lambda _: 0.0)
    assert not version.promoted
    assert "BYSTANDER, NEWCOMER" in version.reason
    assert find("other", "champion", database).version == 1


def test_champion_and_challenger_are_judged_on_events_that_neither_has_seen(database):
    champion = make_bundle(notes={"training_events": ["a", "b"]})
    promote_if_better(store(champion, "judged", database), champion, lambda _: 1.0)
    asked = []

    def evaluate(bundle, without=frozenset()):
        asked.append(without)
        return 0.5 if bundle is challenger else 0.7

    challenger = make_bundle(2.0)
    version = promote_if_better(store(challenger, "judged", database), challenger, evaluate)
    assert version.promoted
    assert asked == [frozenset(), {"a", "b"}, {"a", "b"}]
    promote_if_better(store(champion, "exhausted", database), champion, lambda _: 1.0)
    version = promote_if_better(
        store(challenger, "exhausted", database), challenger, lambda _, without=(): np.nan if without else 1.0
    )
    assert not version.promoted
    assert "trained on all of these" in version.reason


def test_disagreements_are_named():
    bundle = make_bundle()
    assert disagreement(bundle, make_bundle(witnesses=WITNESSES[::-1])) is None
    chosen = {"qtransform": {"q": 12.0}, "whiten": True, "selection": {"threshold": 99}}
    assert disagreement(bundle, make_bundle(recipe=chosen)) is None
    assert "whiten" in disagreement(bundle, make_bundle(recipe={"qtransform": {"q": 12.0}, "whiten": False}))
    assert "axes" in disagreement(bundle, make_bundle(frequencies=tuple(range(1, 17))))
    assert "targets" in disagreement(bundle, replace(bundle, target="H1"))


def test_what_is_missing_is_answered_with_what_there_is(database):
    promote_if_better(store(make_bundle(), "known", database), make_bundle(), lambda _: 1.0)
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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_is_down_is_noticed_at_once():
    uri = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(ConnectionFailedError, match=r"sqlite:///mlflow\.db"):
        load("any", 1, uri)
    with pytest.raises(ConnectionFailedError):
        register(make_bundle(), "any", uri)
    # MLflow itself tries for minutes; no measurement, only the order of magnitude
    assert time.monotonic() - began < 60


@pytest.fixture
def server(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=2).close()  # noqa: S310  # our own server
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        yield uri, process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.mark.slow
def test_a_real_server_does_the_same(server):
    uri, process = server
    bundle = make_bundle()
    windows = torch.rand(3, 2, 16, 16) * 100
    expected = bundle.twin(windows)
    version = promote_if_better(register(bundle, "served", uri), bundle, lambda _: 1.0)
    assert (version.version, version.promoted) == (1, True)
    back = load("served", "champion", uri)
    torch.testing.assert_close(back.twin(windows), expected)
    assert back.baseline is not None
    second = promote_if_better(register(make_bundle(2.0), "served", uri), make_bundle(2.0), lambda _: 2.0)
    assert (second.version, second.promoted) == (2, False)
    process.terminate()
    process.wait(timeout=30)
    with pytest.raises(ConnectionFailedError):
        load("served", "champion", uri)
