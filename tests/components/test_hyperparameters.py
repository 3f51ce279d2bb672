"""The search as a user runs it, killed and gone on with; and what it refuses before it starts."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from glitchflow_plugin import cli
from glitchflow_plugin.components import hyperparameters
from glitchflow_plugin.components.hyperparameters import HyperparameterSearch
from glitchflow_plugin.errors import ConfigurationError, GlitchflowError

BIN = Path(sys.executable).parent
SPACE = {"config": {"optim_lr": {"type": "loguniform", "lower": 1e-4, "upper": 1e-2}}}


@pytest.fixture
def training_set(make_training_set):
    return make_training_set(24)


@pytest.fixture
def make(training_set, tmp_path):
    def make_search(**changes):
        model = {"name": "unet", "base": 4, "depth": 2, "attention_heads": 2}
        search = {"trials": 3, "epochs": 1, "search_space": SPACE} | changes
        return HyperparameterSearch(
            search=search, training=str(training_set.folder), folder=str(tmp_path / "hpo"), model=model, device="cpu"
        )

    return make_search


def test_what_cannot_run_is_refused(make, monkeypatch):
    monkeypatch.setattr(hyperparameters, "run_trials", lambda *_: pytest.fail("a trial was started"))
    for wrong, said in (
        ({"trails": 3}, "trails"),
        ({"trials": 0}, "at least 1"),
        ({"search_space": {"training": {"optim_lr": {}}}}, "training"),
        ({"search_space": {}}, "nothing"),
        ({"objective": {"dead_time": 0.1}}, "dead_time"),
        ({"search_space": {"config": {"optim_lrr": {"type": "choice", "categories": [1.0]}}}}, "optim_lrr"),
        ({"search_space": {"config": {"optim_lr": {"type": "logunifrom", "lower": 1, "upper": 2}}}}, "logunifrom"),
        ({"search_space": {"model": {"bse": {"type": "choice", "categories": [4]}}}}, r"'bse'\. Nearest: base"),
        ({"search_space": {"model": {"features": {"type": "choice", "categories": [4]}}}}, "conf/model=unet"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            make(**wrong).execute()


def test_what_is_drawn_depends_on_the_seed_alone(make):
    few, more, other = (make(**changes).drawn() for changes in ({}, {"trials": 8}, {"seed": 1}))
    assert few == more[:3]
    assert few != other
    assert all(1e-4 <= drawn["config"]["optim_lr"] <= 1e-2 for drawn in more)
    grid = make(trials=4, search_space={"model": {"base": {"grid_search": [4, 8, 16]}}}).drawn()
    assert [drawn["model"]["base"] for drawn in grid] == [4, 8, 16, 4]


def test_the_best_comes_first_and_a_failure_fails_the_search(make, monkeypatch):
    def run(search, pending, _train):
        # veto efficiency, power removed, share harmed
        ends = {0: (0.5, 0.2, 0.0), 1: (0.9, 0.8, 0.5), 2: (0.7, 0.6, 0.0)}
        for number in pending:
            figures = dict(zip(("veto_efficiency", "net_power_removed", "harmed_share"), ends[number], strict=True))
            found = {"figures": figures} if number not in broken else {"error": "ValueError: too large"}
            path = search.folder / "trials" / f"{number:04d}" / "result.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"number": number, "settings": search.drawn[number], **found}))

    monkeypatch.setattr(hyperparameters, "run_trials", run)
    broken = {0}
    with pytest.raises(GlitchflowError, match=r"1 trial\(s\) failed; number 0 .*too large.*allow_failures"):
        make().execute()
    assert [record["number"] for record in make(allow_failures=True).execute()] == [2, 1, 0]
    broken = set()
    records = make().execute()  # only the failed one is repeated
    assert [(record["number"], record["score"]) for record in records] == [
        (2, pytest.approx(0.65)),
        (0, pytest.approx(0.35)),
        (1, -float("inf")),
    ]
    with pytest.raises(ConfigurationError, match="another epochs"):
        make(epochs=2).execute()


@pytest.mark.slow
@pytest.mark.pipeline
def test_a_search_that_was_killed_goes_on_and_tells_of_the_trial_that_failed(training_set, make_registry, tmp_path):
    run = tmp_path / "run"
    cli.init(run)
    uri = make_registry(run)
    known = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment = known | {"PATH": f"{BIN}{os.pathsep}{known['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    space = "{config: {optim_lr: {type: loguniform, lower: 1e-4, upper: 1e-2}, batch_size: {type: choice,"
    space += " categories: [4]}}, model: {attention_heads: {grid_search: [2, 4, 3]}}}"  # 3 does not divide the features
    command = [
        *("itwinai", "exec-pipeline", "+pipe_key=hpo_pipeline", "+pipe_steps=[Hyperparameter-search]"),
        *(
            "run_name=search",
            f"saveconf.training={training_set.folder}",
            "conf/model=unet",
            "model.base=4",
            "model.depth=2",
        ),
        *("hpo.trials=3", "hpo.epochs=1", "hpo.cpus=1", "~hpo.search_space", f"+hpo.search_space={space}"),
    ]

    def start():
        # a fresh interpreter: Ray reads its token's place while it is imported
        return subprocess.Popen(
            command, cwd=run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    first = run / "temp/search/hpo/trials/0000/result.json"
    process = start()
    for _ in range(2000):
        if first.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert first.exists(), said
    written = first.stat().st_mtime_ns

    said, _ = (process := start()).communicate(timeout=300)
    assert process.returncode == 1, said
    assert "1 trial(s) failed; number 2 with {'config': {'optim_lr'" in said
    assert first.stat().st_mtime_ns == written
    with (run / "temp/search/hpo/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished", "finished", "failed"]
    assert rows[2]["number"] == "2"
    assert rows[2]["error"]
    assert float(rows[0]["score"]) >= float(rows[1]["score"])
    assert not list((run / "temp/search/hpo").rglob("*.pt"))

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("glitchflow").experiment_id])
    (tracked,) = (each for each in runs if "mlflow.parentRunId" not in each.data.tags)
    assert (tracked.info.run_name, tracked.info.status) == ("search-hpo", "FAILED")
    trials = {each.info.run_name: each for each in runs if each is not tracked}
    assert {name: each.info.status for name, each in trials.items()} == {
        "trial 0": "FINISHED",
        "trial 1": "FINISHED",
        "trial 2": "FAILED",
    }
    assert {each.data.tags["mlflow.parentRunId"] for each in trials.values()} == {tracked.info.run_id}
    assert "config_optim_lr" in trials["trial 2"].data.params
    kept = {file.path for file in client.list_artifacts(tracked.info.run_id)}
    assert "trials.csv" in kept
    assert list((run / "artifacts").rglob("parallel/0000.png"))
    assert tracked.data.metrics["best_veto_efficiency"] == pytest.approx(float(rows[0]["veto_efficiency"]))
