"""Teach a network of triggers, until validation no longer gains."""

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.settings import Count, CountOrNone, Fraction, NotNegative, Positive, section
from glitchflow_plugin.training.interruption import stop_requests
from glitchflow_plugin.training.steps import Stepper, build_optimizer, warm_up
from glitchflow_plugin.training.triggers.losses import TaskWeights, task_losses
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels, TriggerSets

logger = logging.getLogger(__name__)

Batches = Callable[[int], Iterable[tuple[TriggerSets, TriggerLabels]]]
"""From the number of an epoch to its batches."""


@section
class LearningSettings:
    """How a network of triggers is learnt.

    Attributes:
        batch_size: Sets of a step.
        epochs: Passes over the training part at most.
        rate: Largest learning rate, of AdamW.
        weight_decay: Its decay of weights.
        warm_up_steps: Steps in which the rate rises to its full size.
        patience: Epochs without a better validation loss after which it ends.
        gradient_clip: Largest norm of the gradient.
        tasks: Weights of the tasks.
        least_gain: Share by which the validation loss must fall to be better.
    """

    batch_size: Count = 128
    epochs: Count = 30
    rate: Positive = 5e-4
    weight_decay: NotNegative = 0.01
    warm_up_steps: CountOrNone = 100
    patience: Count = 5
    gradient_clip: Positive = 1.0
    tasks: TaskWeights = field(default_factory=TaskWeights)
    least_gain: Fraction = 1e-4


@dataclass(frozen=True, eq=False)
class Learnt:
    """A network at its best epoch.

    Attributes:
        network: With those weights, in evaluation mode.
        best_epoch: Counted from 0.
        training: Loss by epoch.
        validation: The same of validation.
        interrupted: Name of the signal that ended it; None: it ended by itself.
    """

    network: TriggerNetwork
    best_epoch: int
    training: tuple[float, ...]
    validation: tuple[float, ...]
    interrupted: str | None = None


def learn(
    network: TriggerNetwork,
    training: Batches,
    validation: Batches,
    settings: LearningSettings,
    device: torch.device | str = "cpu",
) -> Learnt:
    """Learn by AdamW until the validation loss has not fallen for some epochs; the best weights are kept.

    Scaling is fitted to the first epoch's batches. Where memory runs out, batches are worked through in pieces.

    Args:
        network: To be learnt; changed.
        training: Batches of the training part.
        validation: Batches of the validation part, the same in each epoch.
        settings: How it is learnt.
        device: Where.

    Raises:
        ConfigurationError: The loss is no longer finite.
        DataError: A part is empty, or a single set does not fit into memory.
    """
    network.scaling.fit(sets for sets, _ in training(0))
    network = network.to(device)
    optimizer = build_optimizer(network.parameters(), "adamw", rate=settings.rate, weight_decay=settings.weight_decay)
    stepper: Any = Stepper(
        lambda sets, labels: task_losses(network(sets), labels, settings.tasks),  # type: ignore[arg-type]
        lambda rows: rows.to(device),
        network,
        optimizer,
        gradient_clip=settings.gradient_clip,
    )
    losses: tuple[list[float], list[float]] = ([], [])
    best, weights, steps = 0, copy.deepcopy(network.state_dict()), 0
    with stop_requests() as asked:
        for epoch in range(settings.epochs):
            steps, loss = _epoch(stepper, training(epoch), settings, steps)
            losses[0].append(loss)
            losses[1].append(mean_loss(network, validation(epoch), settings.tasks, device))
            logger.info("epoch %d: loss %.4f, validation %.4f", epoch, losses[0][-1], losses[1][-1])
            if epoch == 0 or losses[1][-1] < losses[1][best] * (1 - settings.least_gain):
                best, weights = epoch, copy.deepcopy(network.state_dict())
            if asked.name or epoch - best >= settings.patience:
                break
    network.load_state_dict(weights)
    return Learnt(network.eval(), best, tuple(losses[0]), tuple(losses[1]), asked.name)


def answers(
    model: Callable[[TriggerSets], TriggerAnswers],
    batches: Iterable[tuple[TriggerSets, TriggerLabels]],
    device: torch.device | str = "cpu",
) -> Iterator[tuple[TriggerAnswers, TriggerLabels]]:
    """What a network in evaluation mode, or trees, say of batches, beside the truth, on the CPU."""
    with torch.no_grad():
        for sets, labels in batches:
            yield model(sets.to(device)).to("cpu"), labels


def mean_loss(
    network: TriggerNetwork,
    batches: Iterable[tuple[TriggerSets, TriggerLabels]],
    tasks: TaskWeights,
    device: torch.device | str = "cpu",
) -> float:
    """Mean loss over sets.

    Raises:
        DataError: There are none.
    """
    total, count = 0.0, 0
    for told, true in answers(network.eval(), batches, device):
        total += float(task_losses(told, true, tasks).double().sum())
        count += len(true)
    if not count:
        raise DataError("expected sets of triggers to validate with, got none. Give validation a share of the split.")
    return total / count


def _epoch(
    stepper: Any, batches: Iterable[tuple[TriggerSets, TriggerLabels]], settings: LearningSettings, steps: int
) -> tuple[int, float]:
    """Steps taken so far and the mean loss of those of this epoch."""
    stepper.network.train()
    total, count = 0.0, 0
    for sets, labels in batches:
        warm_up(stepper.optimizer, settings.rate, steps, settings.warm_up_steps)
        total += float(stepper.step(sets, labels))
        steps, count = steps + 1, count + len(sets)
    if not count:
        raise DataError("expected sets of triggers to learn from, got none. Give training a share of the split.")
    if not math.isfinite(total):
        raise ConfigurationError("the loss is no longer finite: set a smaller learning rate (`rate`).")
    return steps, total / count
