from dataclasses import replace

import numpy as np
import pytest
import torch

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.bundle import EnergyTwin
from glitchflow_plugin.training.evaluation import WindowResults, ZeroTwin, judge_windows
from glitchflow_plugin.training.gate import GateSettings, Judgement, decide, paired_difference
from glitchflow_plugin.training.losses import LossSettings

WITNESSES = ("GUIDE", "BYSTANDER")


def make(loss, event=None, **changes):
    loss = np.asarray(loss, dtype=float)
    values = {
        "event": np.arange(len(loss)).astype(str) if event is None else np.asarray(event),
        "loss": loss,
        "quiet": np.arange(len(loss)) % 2 == 0,
        "harmed": np.zeros(len(loss), dtype=bool),
        "added": np.zeros(len(loss)),
        "measured": np.ones(len(loss)),
    }
    return Judgement(**{**values, **changes})


@pytest.fixture
def losses():
    generator = np.random.default_rng(3)
    return 0.2 + 0.1 * generator.random(40), generator


def test_better_by_more_than_the_noise_is_promoted_and_nothing_else(losses):
    hard, generator = losses
    settings = GateSettings()
    better = make(hard - 0.01 + 0.005 * generator.standard_normal(40))
    verdict = decide(better, WITNESSES, settings, (better, make(hard)))
    assert verdict.promoted
    assert verdict.figures["loss_difference_high"] < 0
    # the same mean difference, but from event to event so different that it may be chance
    noisy = make(hard - 0.01 + 0.2 * generator.standard_normal(40))
    verdict = decide(noisy, WITNESSES, settings, (noisy, make(hard)))
    assert not verdict.promoted
    assert "not less by more than the noise" in verdict.reason
    # the same twin again
    assert not decide(make(hard), WITNESSES, settings, (make(hard), make(hard))).promoted
    worse = make(hard + 0.01)
    assert not decide(worse, WITNESSES, settings, (worse, make(hard))).promoted


def test_the_interval_is_that_of_a_t_interval_for_independent_events(losses):
    _, generator = losses
    difference = generator.normal(-0.02, 0.05, size=400)
    mean, low, high = paired_difference(make(0.5 + difference), make(np.full(400, 0.5)), GateSettings(replicates=4000))
    error = difference.std(ddof=1) / np.sqrt(400)
    assert mean == pytest.approx(difference.mean())
    np.testing.assert_allclose([low, high], difference.mean() + 1.96 * error * np.array([-1, 1]), atol=0.1 * error)
    # deterministic
    again = paired_difference(make(0.5 + difference), make(np.full(400, 0.5)), GateSettings(replicates=4000))
    assert again == (mean, low, high)


def test_windows_of_one_event_are_no_further_evidence(losses):
    _, generator = losses
    difference = generator.normal(0, 0.05, size=30)
    one = paired_difference(make(0.5 + difference), make(np.full(30, 0.5)), GateSettings())
    copies = np.repeat(difference, 5)
    event = np.repeat(np.arange(30), 5).astype(str)
    five = paired_difference(make(0.5 + copies, event), make(np.full(150, 0.5), event), GateSettings())
    np.testing.assert_allclose(one, five)


def test_harm_stops_even_the_first_and_the_best(losses):
    hard, _ = losses
    harmed = np.zeros(40, dtype=bool)
    harmed[:4] = True  # every second window is quiet: 2 of 20
    one = make(hard - 0.1, harmed=harmed)
    verdict = decide(one, WITNESSES, GateSettings(max_harmed=0.09))
    assert not verdict.promoted
    assert "harms 10.00% of the glitch-free windows" in verdict.reason
    assert decide(one, WITNESSES, GateSettings(max_harmed=0.1)).promoted
    loud = make(hard - 0.1, added=np.full(40, 0.02))
    verdict = decide(loud, WITNESSES, GateSettings(), (loud, make(hard)))
    assert not verdict.promoted
    assert "is less" in verdict.reason
    assert "adds 2.00%" in verdict.reason


def test_unsafe_channels_are_refused_unless_named(losses):
    one = make(losses[0])
    unsafe = GateSettings(unsafe=["BY*"])
    assert "BYSTANDER" in decide(one, WITNESSES, unsafe).reason
    assert not decide(one, WITNESSES, unsafe).promoted
    assert decide(one, WITNESSES, replace(unsafe, safe_override=["BYSTANDER"])).promoted


def test_what_cannot_be_told_is_not_promoted(losses):
    hard, _ = losses
    one, few, nothing = make(hard), make(hard[:4]), Judgement.of(None, [])
    assert "glitch-free" in decide(make(hard, quiet=np.zeros(40, dtype=bool)), WITNESSES, GateSettings()).reason
    assert "only 4 validation events" in decide(one, WITNESSES, GateSettings(), (few, few)).reason
    assert "trained on all" in decide(one, WITNESSES, GateSettings(), (nothing, nothing)).reason
    with pytest.raises(ConfigurationError, match="same windows"):
        paired_difference(one, few, GateSettings())
    for wrong in ({"max_added": -1}, {"confidence": 1.0}, {"min_events": 1}, {"unsafe": "V1:DARM"}):
        with pytest.raises(ConfigurationError):
            GateSettings(**wrong)


def test_a_judgement_holds_what_the_twin_did():
    class Constant(torch.nn.Module):
        def forward(self, witnesses):
            return torch.full_like(witnesses[:, :1], 20.0)

    scaling = EnergyTwin(torch.nn.Identity(), clamp=1e4, witness_scale=[1.0, 1.0], target_scale=1.0)
    strain = torch.ones(4, 1, 16, 16)
    strain[1, 0, 3, 3] = 100.0
    batches = [(torch.ones(2, 2, 16, 16), strain[:2]), (torch.ones(2, 2, 16, 16), strain[2:])]
    keywords = {"scaling": scaling, "loss": LossSettings(), "device": torch.device("cpu")}
    ids = ["a", "a", "b", "b"]
    nothing = judge_windows(ZeroTwin(), batches, **keywords)
    judged = Judgement.of(nothing, ids)
    assert judged.quiet.tolist() == [True, False, True, True]
    assert judged.added.sum() == 0
    assert judged.loss.mean() == pytest.approx(nothing.loss)
    assert judged.figures() == {"validation_loss": pytest.approx(nothing.loss), "harmed_share": 0, "added_power": 0}
    # 20 predicted where 1 is measured leaves 19, which is 18 more
    loud = Judgement.of(judge_windows(Constant(), batches, **keywords), ids)
    assert loud.figures()["added_power"] == pytest.approx(18)
    assert loud.figures()["harmed_share"] == 1
    with pytest.raises(ConfigurationError):
        Judgement.of(nothing, ids[:3])
    with pytest.raises(ConfigurationError):
        Judgement.of(WindowResults(nothing.loss_sum, nothing.statistics), ids)
