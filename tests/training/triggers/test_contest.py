import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from tests._triggers import CHANNELS, GLOBALS, KINDS, coupled_sets

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import built
from glitchflow_plugin.training.interruption import Interrupted
from glitchflow_plugin.training.triggers.contest import ContestSettings, Parts, Sizes, contest

SIZES = Sizes(CHANNELS, GLOBALS, KINDS)


def parts(test=300):
    made = {
        name: coupled_sets(number, seed=seed) for name, number, seed in (("a", 300, 0), ("b", 200, 1), ("c", test, 2))
    }

    def batches(name):
        sets, labels = made[name]
        return lambda _: [
            (sets[start : start + 100], labels[start : start + 100]) for start in range(0, len(sets), 100)
        ]

    return Parts(batches("a"), batches("b"), batches("c"), np.arange(test) // 5)


def test_the_best_on_validation_is_champion_and_what_knows_nothing_is_not():
    settings = built(
        ContestSettings,
        {
            "entrants": {
                "trees": {"model": "boosting", "max_iter": [1, 15], "min_samples_leaf": 10},
                "floor": {"model": "condonly", "dim": 8, "layers": 1},
            },
            "learning": {"epochs": 2, "warm_up_steps": 0},
            "replicates": 100,
        },
        "contest",
    )
    result = contest(parts(), SIZES, settings)
    trees, floor = result.entrants["trees"], result.entrants["floor"]
    assert result.champion == "trees"
    assert trees.settings["max_iter"] == 15  # one round knows less
    assert trees.figures["auc"].low > 0.9
    assert floor.figures["auc"].value < 0.65
    assert floor.lead["auc"].high < 0
    assert trees.lead == {}
    assert trees.figures["snr_coverage"].value == pytest.approx(0.9, abs=0.08)
    assert {*result.rivals} == {"loudest", "logistic"}
    assert result.rivals["logistic"]["auc"].low > 0.8


def test_an_entrant_without_a_model_is_told():
    with pytest.raises(ConfigurationError, match="expected a model"):
        ContestSettings(entrants={"mine": {"dim": 3}})


def test_what_a_signal_cut_short_is_not_judged():
    whole = parts(20)

    def stopped(epoch):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole.training(epoch)

    settings = built(ContestSettings, {"entrants": {"a": {"model": "condonly", "dim": 8}}}, "contest")
    with pytest.raises(Interrupted, match="SIGTERM ended the teaching of condonly"):
        contest(replace(whole, training=stopped), SIZES, settings)
