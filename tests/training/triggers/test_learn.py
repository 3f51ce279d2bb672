import math

import pytest
import torch
from tests._triggers import CHANNELS, GLOBALS, KINDS, coupled_sets

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.models.triggers.build import build_network
from glitchflow_plugin.training.steps import Stepper
from glitchflow_plugin.training.triggers.learn import LearningSettings, answers, learn, mean_loss
from glitchflow_plugin.training.triggers.losses import TaskWeights, task_losses
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels

SETTINGS = {"num_channels": CHANNELS, "num_globals": GLOBALS, "num_kinds": KINDS}


def small(name="pointvit", **others):
    torch.manual_seed(0)
    return build_network(name, **SETTINGS, dim=16, heads=2, layers=1, **others)


def batches(number, seed, size=64):
    sets, labels = coupled_sets(number, seed=seed)

    def of(epoch):
        order = torch.randperm(number, generator=torch.Generator().manual_seed(epoch))
        return ((sets[rows], labels[rows]) for rows in order.split(size))

    return of


def test_losses_by_hand():
    told = TriggerAnswers(
        torch.tensor([0.0, 2.0]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([1.5, 4.0]), torch.zeros(2, 4)
    )
    true = TriggerLabels(
        torch.tensor([1.0, 0.0]),
        torch.tensor([1, -1]),
        torch.tensor([1.0, torch.nan]),
        torch.tensor([3, -1]),
        torch.tensor([2.0, 1.0]),
    )
    first = 2 * (math.log(2) + math.log(2) + 0.5 * 0.5**2 + 0.5 * math.log(4))
    expected = torch.tensor([first, math.log(1 + math.exp(2))])
    torch.testing.assert_close(task_losses(told, true, TaskWeights(channel=0.5)), expected)


def test_a_label_that_is_not_known_gives_no_gradient():
    sets, labels = coupled_sets(8)
    quiet = torch.nonzero(labels.glitch == 0)[:, 0]
    network = small()
    task_losses(network(sets[quiet]), labels[quiet], TaskWeights(glitch=0.0)).sum().backward()
    assert all(one.grad.isfinite().all() and not one.grad.any() for one in network.parameters())


def test_it_learns_what_is_coupled():
    learnt = learn(small(), batches(600, 0), batches(200, 1), LearningSettings(epochs=12, rate=5e-3, warm_up_steps=10))
    test = batches(300, 2)
    ((told, true),) = ((told, true) for told, true in answers(learnt.network, [next(iter(batches(300, 2, 300)(0)))]))
    assert ((told.glitch > 0) == (true.glitch > 0)).float().mean() > 0.9
    assert learnt.validation[learnt.best_epoch] == min(learnt.validation)
    assert mean_loss(learnt.network, test(0), TaskWeights()) < 0.5 * learnt.validation[0]


def test_it_ends_where_validation_gains_nothing_and_keeps_the_best():
    noise = torch.Generator().manual_seed(1)
    sets, labels = coupled_sets(64)
    wrong = TriggerLabels(
        torch.randint(0, 2, (64,), generator=noise).float(),
        *(getattr(labels, name) for name in ("kind", "log1p_snr", "channel", "weights")),
    )
    settings = LearningSettings(epochs=40, rate=2e-2, patience=2, warm_up_steps=0)
    learnt = learn(small(), batches(64, 0), lambda _: [(sets, wrong)], settings)
    assert len(learnt.validation) == learnt.best_epoch + 3 < 40
    again = mean_loss(learnt.network, [(sets, wrong)], settings.tasks)
    assert again == pytest.approx(learnt.validation[learnt.best_epoch], rel=1e-5)


def test_where_memory_runs_out_the_step_stays_the_same():
    sets, labels = coupled_sets(10)
    gradients = []
    for most in (10, 3):
        network = small().eval()  # no channel is hidden at random

        def losses(part, true, network=network, most=most):
            if len(part) > most:
                raise torch.OutOfMemoryError("out of memory")
            return task_losses(network(part), true, TaskWeights())

        stepper = Stepper(
            losses, lambda rows: rows, network, torch.optim.SGD(network.parameters(), lr=0.0), gradient_clip=1e9
        )
        stepper.step(sets, labels)
        gradients.append(torch.cat([one.grad.flatten() for one in network.parameters() if one.grad is not None]))
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_parts_without_sets_and_a_rate_too_large_are_told():
    with pytest.raises(DataError, match="learn from, got none"):
        learn(small(), lambda _: [], batches(9, 0), LearningSettings())
    with pytest.raises(DataError, match="validate with, got none"):
        learn(small(), batches(9, 0), lambda _: [], LearningSettings())
    with pytest.raises(ConfigurationError, match="smaller rate"):
        learn(small(), batches(256, 0), batches(9, 0), LearningSettings(rate=1e30, warm_up_steps=0))
