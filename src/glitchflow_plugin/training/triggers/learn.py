"""How a contest has networks of triggers taught, and asks models what they say."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.training.triggers.learner import Examples, TriggerLearner
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


Teach = Callable[[str, TriggerLearner, Mapping[str, Any], Examples], Lesson | None]
"""Teaches an entrant by its name, with the keys of its configuration that are its own, and what validates it; None in a
process that another one goes on for."""


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
