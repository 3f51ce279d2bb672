import math

import numpy as np
import pytest
import torch

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.inference.cases import map_statistics
from glitchflow_plugin.settings import built
from glitchflow_plugin.training.objectives import (
    Objectives,
    ObjectiveSettings,
    objectives,
    veto_efficiency_at_deadtime,
)


def windows(glitch, predicted, left=0.3):
    """Statistics of maps of one glitch each, or of none: one pixel of 100 is predicted, and so much of it is left."""
    measured = torch.full((len(glitch), 8, 8), 5.0)
    measured[np.asarray(glitch, dtype=bool), 4, 4] = 100.0
    said, cleaned = torch.zeros_like(measured), measured.clone()
    said[:, 4, 4] = torch.as_tensor(np.asarray(predicted, dtype=np.float32))
    cleaned[:, 4, 4] *= torch.as_tensor(np.asarray(left, dtype=np.float32))
    return map_statistics(measured, said, cleaned=cleaned)


def brute_force(glitch, predicted, deadtime):
    """Try every threshold there is."""
    best = 0.0
    for threshold in [-math.inf, *predicted]:
        vetoed = predicted > threshold
        if vetoed[~glitch].sum() <= deadtime * (~glitch).sum() + 1e-9:
            best = max(best, vetoed[glitch].mean())
    return best


@pytest.mark.parametrize("deadtime", [0.0, 0.01, 0.05, 0.3, 1.0])
def test_the_efficiency_is_that_of_the_best_threshold(deadtime):
    generator = np.random.default_rng(3)
    for _ in range(20):
        glitch = generator.random(150) < 0.4
        # few distinct values: ties
        predicted = np.floor(generator.exponential(5, 150) + 4 * glitch)
        expected = brute_force(glitch, predicted, deadtime)
        assert veto_efficiency_at_deadtime(windows(glitch, predicted), deadtime) == pytest.approx(expected)


def test_whole_shares_are_whole_in_floating_point():
    # 0.07 x 100 is a little more than 7, 0.29 x 100 a little less than 29
    for deadtime, taken in ((0.07, 7), (0.29, 29)):
        quiet = np.arange(100.0)
        glitch = np.r_[np.zeros(100, bool), np.ones(100, bool)]
        found = veto_efficiency_at_deadtime(windows(glitch, np.r_[quiet, quiet + 0.5]), deadtime)
        assert found == pytest.approx((taken + 1) / 100)


def test_limits():
    glitch = np.array([True, True, False, False])
    assert veto_efficiency_at_deadtime(windows(glitch, [9, 8, 1, 2]), 0.0) == 1.0
    assert veto_efficiency_at_deadtime(windows(glitch, [0, 0, 0, 0]), 0.4) == 0.0
    assert math.isnan(veto_efficiency_at_deadtime(windows([True], [1]), 0.1))
    assert math.isnan(veto_efficiency_at_deadtime(windows([False], [1]), 0.1))


def test_a_trial_that_harms_scores_worst():
    settings = ObjectiveSettings(harmed_limit=0.25)
    glitch = [True, True, False, False, False, False]
    good = objectives(windows(glitch, [9, 0, 1, 2, 1, 1]), settings)
    assert (good.veto_efficiency, good.harmed_share) == (0.5, 0.0)
    assert 0.6 < good.net_power_removed < 0.8
    assert good.score(settings) == pytest.approx(0.5 * 0.5 + 0.5 * good.net_power_removed)
    harmful = objectives(windows(glitch, [9, 9, 1, 2, 1, 1], left=[0.3, 0.3, 8, 8, 1, 1]), settings)
    assert harmful.harmed_share == 0.5
    assert harmful.score(settings) == -math.inf
    assert harmful.score(settings) < Objectives(0.0, -100.0, 0.0).score(settings)
    # where nothing is subtracted nothing is harmed
    veto_alone = ObjectiveSettings(harmed_limit=0.25, veto_weight=1.0, power_weight=0.0)
    assert harmful.score(veto_alone) == 1.0


def test_both_kinds_of_windows_are_needed():
    with pytest.raises(DataError, match="got 1 with and 0 without"):
        objectives(windows([True], [1]), ObjectiveSettings())


@pytest.mark.parametrize("wrong", [{"deadtime": 2}, {"harmed_limit": -0.1}, {"veto_weight": 0, "power_weight": 0}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"hpo\.objective"):
        built(ObjectiveSettings, wrong, "hpo.objective")
