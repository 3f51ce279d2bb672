"""Teach a network of triggers by the loop of all trainings, alone and untracked; and ask models what they say."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.tracking.tracker import Tracker
from glitchflow_plugin.training.checkpoints import BEST, judged_weights, load_weights, read_checkpoint
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.loop import Loop, LoopSettings
from glitchflow_plugin.training.processes import OneProcess
from glitchflow_plugin.training.progress import Progress
from glitchflow_plugin.training.triggers.learner import HeldSets, TriggerLearner, set_batches
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels, TriggerSets


@dataclass(frozen=True, eq=False)
class Lesson:
    """A network that was taught.

    Attributes:
        network: With the weights that are best on validation, in evaluation mode.
        epochs: Epochs that it took, those before a resumption left out.
        seconds: That it took, s, passes over validation included.
    """

    network: TriggerNetwork
    epochs: int
    seconds: float


Teach = Callable[[str, TriggerLearner, Mapping[str, Any], HeldSets], Lesson | None]
"""Teaches an entrant by its name, with the keys of its configuration that are its own, and what validates it; None in a
process that another one goes on for."""


def learn(
    learner: TriggerLearner,
    validation: HeldSets,
    config: TrainingConfiguration,
    *,
    epochs: int,
    checkpoints: Path,
    tracker: Tracker,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Lesson:
    """Teach in this process alone.

    Args:
        learner: Network, tasks and what it learns from.
        validation: What ends it and chooses the weights.
        config: How it is learnt.
        epochs: Passes over the training sets, at most.
        checkpoints: Folder for checkpoints.
        tracker: Gets the numbers.
        seed: Of the first weights and the order.
        device: Where.

    Raises:
        Interrupted: A signal asked to end; a checkpoint was written.
        DataError: A part is empty, memory is too short, or the loss is no number.
    """
    torch.manual_seed(seed)
    started, processes = time.perf_counter(), OneProcess()
    loop = Loop(
        learner,
        set_batches(learner.training, validation, config, seed=seed, processes=processes),
        LoopSettings(config=config, epochs=epochs, random_seed=seed, checkpoints=checkpoints, disable_tqdm=True),
        device=torch.device(device),
        processes=processes,
        progress=Progress(tracker, epochs),
    )
    loop.run()
    network = learner.network()
    load_weights(network, judged_weights(read_checkpoint(checkpoints / BEST)))
    return Lesson(network.to(device).eval(), loop.state.epochs_begun, time.perf_counter() - started)


def answers(
    model: Callable[[TriggerSets], TriggerAnswers],
    batches: Iterable[tuple[TriggerSets, TriggerLabels]],
    device: torch.device | str = "cpu",
) -> Iterator[tuple[TriggerAnswers, TriggerLabels]]:
    """What a network in evaluation mode, or trees, say of batches, beside the truth, on the CPU."""
    if isinstance(model, nn.Module):
        model.to(device)
    with torch.no_grad():
        for sets, labels in batches:
            yield model(sets.to(device)).to("cpu"), labels
