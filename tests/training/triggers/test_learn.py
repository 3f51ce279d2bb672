import math
from dataclasses import replace

import pytest
import torch
from tests._triggers import CHANNELS, GLOBALS, KINDS, Quiet, coupled, coupled_sets, learn

from glitchflow_plugin.errors import DataError
from glitchflow_plugin.models.triggers.build import build_network
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.steps import Stepper
from glitchflow_plugin.training.triggers.held import HeldRows
from glitchflow_plugin.training.triggers.learn import answers
from glitchflow_plugin.training.triggers.learner import TriggerLearner
from glitchflow_plugin.training.triggers.losses import TaskWeights, task_losses
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels

SETTINGS = {"num_channels": CHANNELS, "num_globals": GLOBALS, "num_kinds": KINDS, "dim": 16, "heads": 2, "layers": 1}
CONFIG = TrainingConfiguration(batch_size=64, optim_lr=5e-3, gradient_clip=1.0, lr_scheduler=None, precision="float32")


def small():
    torch.manual_seed(0)
    return build_network("pointvit", **SETTINGS)


def learner(training):
    return TriggerLearner("pointvit", SETTINGS, TaskWeights(), training)


def taught(folder, training, validation, epochs, **config):
    tracker = Quiet()
    given = CONFIG.model_copy(update=config)
    lesson = learn(learner(training), validation, given, epochs=epochs, checkpoints=folder, tracker=tracker)
    return lesson, tracker.numbers


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


def loss_of(network, held):
    with torch.no_grad():
        return float(task_losses(network(held.inputs), held.labels, TaskWeights()).mean())


def test_it_learns_what_is_coupled(tmp_path):
    lesson, numbers = taught(tmp_path, coupled(600), coupled(200, 1), epochs=12, warmup_epochs=1)
    test = coupled(300, 2)
    ((told, true),) = answers(lesson.network, test.in_order(300))
    assert ((told.glitch > 0) == (true.glitch > 0)).float().mean() > 0.9
    losses = numbers["validation_loss"]
    assert loss_of(lesson.network, coupled(200, 1)) == pytest.approx(min(losses), rel=1e-4)
    assert loss_of(lesson.network, test) < 0.5 * losses[0]
    assert max(numbers["validation_auc"]) > 0.95


def test_it_ends_where_validation_gains_nothing_and_keeps_the_best(tmp_path):
    held = coupled(64)
    wrong = replace(held.labels, glitch=torch.randint(0, 2, (64,), generator=torch.Generator().manual_seed(1)).float())
    validation = HeldRows(held.inputs, wrong)
    lesson, numbers = taught(tmp_path, held, validation, epochs=40, optim_lr=2e-2, early_stopping=2)
    losses = numbers["validation_loss"]
    assert len(losses) == lesson.epochs == losses.index(min(losses)) + 3 < 40
    assert loss_of(lesson.network, validation) == pytest.approx(min(losses), rel=1e-4)


def test_scaling_is_that_of_the_training_sets_alone():
    network = small()
    learner(held := coupled(100)).initialise(network)
    points = held.inputs.points[held.inputs.mask]
    torch.testing.assert_close(network.scaling.point_mean, points.mean(0))


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


def test_parts_without_sets_and_a_rate_too_large_are_told(tmp_path):
    empty = HeldRows(*coupled(1)[:0])
    with pytest.raises(DataError, match="learn from, got none"):
        taught(tmp_path, empty, coupled(9), 1)
    with pytest.raises(DataError, match="validate with, got none"):
        taught(tmp_path, coupled(9), empty, 1)
    with pytest.raises(DataError, match="Lower optim_lr"):
        taught(tmp_path, coupled(256), coupled(9), 3, optim_lr=1e30)
