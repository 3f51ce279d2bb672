import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest

from glitchflow_plugin.data.files import read_json, write_json
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.training.baseline import BaselineSettings
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.learners import choose_learner
from glitchflow_plugin.training.objectives import Objectives, ObjectiveSettings
from glitchflow_plugin.training.search import (
    Search,
    SearchSettings,
    Trial,
    nested,
    ranked,
    summarize,
    trials_figure,
    trials_table,
    trouble,
)
from glitchflow_plugin.training.trained_twin import TrainedTwin

SPACE = {"config": {"optim_lr": {"type": "loguniform", "lower": 1e-4, "upper": 1e-2}}}
DRAWN = [{"config": {"optim_lr": rate}, "model": {"lags": lags}} for rate, lags in ((1e-4, [0]), (1e-3, [-1, 0]))]
AIM = ObjectiveSettings()


def trial(number, *figures, **known):
    found = Objectives(*figures) if figures else None
    settings = {"config": {"optim_lr": 10.0**-number}, "model": {"base": 8, "kind": "ab"[number % 2]}}
    return Trial(number, settings, found, **known)


@pytest.fixture
def training_set(make_training_set):
    return make_training_set(24)


@pytest.fixture
def search(tmp_path, training_set):
    trainer = {
        "folder": str(training_set.folder),
        "model": {"name": "linear"},
        "config": {"batch_size": 8},
        "random_seed": 0,
        "device": "cpu",
    }
    return Search(SearchSettings(search_space=SPACE), AIM, tmp_path / "hpo", trainer, DRAWN)


def test_settings_by_part_are_plain_numbers():
    drawn = nested({"config.optim_lr": np.float64(0.5), "config.name.with.dots": "x", "model.base": np.int64(8)})
    assert drawn == {"config": {"optim_lr": 0.5, "name.with.dots": "x"}, "model": {"base": 8}}
    assert [type(value) for part in drawn.values() for value in part.values()] == [float, str, int]


def test_the_best_is_first_then_what_harms_then_what_has_no_figures():
    trials = [trial(0), trial(1, 0.9, 0.9, 0.5), trial(2, 0.5, 0.1, 0.0), trial(3, error="no"), trial(4, 0.5, 0.1, 0.0)]
    found = ranked(trials, AIM)
    assert [one.number for one in found] == [2, 4, 1, 0, 3]
    assert [one.score for one in found] == [pytest.approx(0.3), pytest.approx(0.3), -math.inf, None, None]
    assert [one.status for one in found] == ["finished"] * 3 + ["not run", "failed"]
    # a score of nothing is still one
    assert ranked([trial(0), trial(1, 0.0, 0.0, 0.0)], AIM)[0].number == 1


def test_a_search_with_failures_or_without_any_end_is_none():
    finished, failed, missing = trial(0, 0.5, 0.5, 0.0), trial(1, error="ValueError: too large"), trial(2)
    assert trouble([finished, missing], allow_failures=False) == ""
    assert "number 1 with {'config': {'optim_lr': 0.1}" in trouble([finished, failed], allow_failures=False)
    assert trouble([finished, failed], allow_failures=True) == ""
    for none in ([failed], [missing], [failed, missing]):
        assert "no trial was finished" in trouble(none, allow_failures=True)


def test_table_picture_and_summary_tell_of_all_trials(training_set):
    trials = ranked([trial(0, 0.9, 0.4, 0.0, parameters=7, seconds=1.5), trial(1, error='a "b", c'), trial(2)], AIM)
    rows = list(csv.DictReader(io.StringIO(trials_table(trials))))
    assert [row["status"] for row in rows] == ["finished", "failed", "not run"]
    assert list(rows[0]) == [
        *("number", "status", "score", "veto_efficiency", "net_power_removed", "harmed_share", "parameters"),
        *("seconds", "config.optim_lr", "model.base", "model.kind", "error"),
    ]
    assert (rows[0]["score"], rows[0]["parameters"], rows[0]["model.kind"]) == ("0.65", "7", "a")
    assert (rows[1]["score"], rows[1]["error"], rows[2]["error"]) == ("", 'a "b", c', "")
    labels = [text.get_text() for text in trials_figure(trials).axes[0].get_xticklabels()]
    assert labels == ["optim_lr", "base", "kind", "veto_efficiency", "net_power_removed", "harmed_share"]
    summary = summarize(trials, training_set, {"table": "trials.csv"}, "2026-01-01T00:00:00+00:00")
    assert summary.outputs["best settings"] == "training.config.optim_lr=1.0 model.base=8 model.kind=a"
    assert summary.metrics["trials_finished"].value == 1
    assert summary.warnings == ('trial 1 failed: a "b", c',)
    assert "best settings" not in summarize(trials[1:], training_set, {}, "").outputs


def test_what_a_trial_leaves_is_read_again(search, training_set):
    assert [one.status for one in search.trials()] == ["not run", "not run"]
    asked = []

    def train(keywords):
        asked.append(keywords)
        config = TrainingConfiguration(**keywords["config"])
        learner = choose_learner(training_set, keywords["model"], config, baseline=BaselineSettings())
        return TrainedTwin(learner, learner.twin(learner.network()), config, minutes=0.0, epochs=0)

    done = search.run(1, train)
    assert asked[0]["config"] == {"batch_size": 8, "optim_lr": 1e-3}
    assert asked[0]["model"] == {"name": "linear", "lags": [-1, 0]}
    assert asked[0]["checkpoints"] == str(search.folder / "trials/0001/checkpoints")
    assert done.status == "finished"
    assert 0 <= done.figures.veto_efficiency <= 1
    assert set(read_json(search.folder / "trials/0001/result.json")) == {
        *("number", "settings", "figures", "parameters", "seconds")
    }
    assert search.trials() == [Trial(0, DRAWN[0]), done]

    with pytest.raises(ZeroDivisionError):
        search.run(0, lambda _: 1 / 0)
    failed = search.trials()[0]
    assert failed == Trial(0, DRAWN[0], error="ZeroDivisionError: division by zero")
    path = search.folder / "trials/0000/result.json"
    write_json(path, failed.to_dict() | {"seconds": "long"})
    with pytest.raises(FormatError, match="seconds"):
        search.trials()


def test_a_folder_holds_one_search(search, training_set):
    search.claim(training_set)
    replace(search, settings=replace(search.settings, trials=40, cpus=2)).claim(training_set)
    for changed, what in (
        (replace(search, settings=replace(search.settings, epochs=3)), "epochs"),
        (replace(search, settings=replace(search.settings, seed=3)), "seed"),
        (replace(search, trainer={**search.trainer, "random_seed": 1}), "fixed settings"),
    ):
        with pytest.raises(ConfigurationError, match=f"with another {what}"):
            changed.claim(training_set)
