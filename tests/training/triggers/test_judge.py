import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, r2_score, roc_auc_score
from tests._triggers import CHANNELS, coupled_sets, random_sets

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.triggers.trees import table
from glitchflow_plugin.training.triggers.judge import conformal_half_width, efficiency, figures_of, lead
from glitchflow_plugin.training.triggers.rivals import logistic, loudest
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels


def judged(number=400, *, noise=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    glitch = (torch.rand(number, generator=generator) < 0.5).float()
    kind = torch.where(glitch > 0, torch.randint(0, 3, (number,), generator=generator), -1)
    snr = torch.where(glitch > 0, torch.randn(number, generator=generator), torch.nan)
    told = TriggerAnswers(
        (glitch + noise * torch.randn(number, generator=generator)).round(decimals=1),  # with ties
        torch.nn.functional.one_hot(kind.clamp(min=0), 3) + 3 * noise * torch.rand(number, 3, generator=generator),
        torch.nan_to_num(snr) + noise * torch.randn(number, generator=generator),
        torch.zeros(number, 2),
    )
    return told, TriggerLabels(glitch, kind, snr, torch.full((number,), -1), torch.ones(number))


GROUPS = np.arange(400) // 10


def test_figures_are_those_of_scikit_learn():
    told, true = judged()
    found = figures_of(told, true, GROUPS, half_width=1.0, replicates=200)
    known = true.kind >= 0
    expected = {
        "auc": roc_auc_score(true.glitch, told.glitch),
        "macro_f1": f1_score(true.kind[known], told.kind.argmax(1)[known], average="macro"),
        "snr_r2": r2_score(true.log1p_snr[known], told.log1p_snr[known]),
        "snr_coverage": float(((told.log1p_snr - true.log1p_snr)[known].abs() <= 1).float().mean()),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6)
        assert found[name].low < value < found[name].high


def test_efficiency_is_that_of_the_best_threshold_by_hand():
    generator = np.random.default_rng(0)
    score, glitch = generator.normal(size=300).round(1), generator.random(300) < 0.4
    for alarm in (0.0, 0.05, 0.3):
        thresholds = [*np.unique(score), np.inf]
        allowed = [(score[glitch] >= cut).mean() for cut in thresholds if (score[~glitch] >= cut).mean() <= alarm]
        assert efficiency(score, glitch, np.ones((1, 300)), alarm)[0] == pytest.approx(max(allowed))


def test_a_lead_over_oneself_is_nothing_and_over_noise_is_one():
    (good, true), (noisy, _) = judged(noise=0.3), judged(noise=5.0)
    own = lead([good, good], true, GROUPS, half_widths=[1.0, 1.0], replicates=100)
    assert all((one.value, one.low, one.high) == (0, 0, 0) for one in own.values())
    ahead = lead([good, noisy], true, GROUPS, half_widths=[1.0, 1.0], replicates=200)
    assert all(ahead[name].low > 0 for name in ("auc", "macro_f1", "snr_r2"))


def test_few_groups_give_no_interval():
    told, true = judged()
    assert figures_of(told, true, GROUPS // 20, half_width=1.0)["auc"].low is None


def test_an_interval_of_validation_holds_its_share_of_the_test():
    width = conformal_half_width(*judged(4000), coverage=0.8)
    told, true = judged(4000, seed=1)
    held = figures_of(told, true, np.arange(4000), half_width=width, replicates=0)["snr_coverage"].value
    assert held == pytest.approx(0.8, abs=0.03)
    assert conformal_half_width(*judged(4)) == np.inf
    with pytest.raises(ConfigurationError, match="coverage"):
        conformal_half_width(told, true, coverage=1.0)


def test_rivals_know_what_they_can():
    sets, labels = coupled_sets(400, seed=1)
    known = logistic(*table([coupled_sets(400)], CHANNELS), num_channels=CHANNELS)(sets)
    assert roc_auc_score(labels.glitch, known) > 0.9
    assert roc_auc_score(labels.glitch, loudest(sets)) > 0.9
    nothing = random_sets([2, 0])
    assert loudest(nothing)[1] == 0
