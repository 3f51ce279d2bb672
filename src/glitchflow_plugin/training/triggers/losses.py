"""What networks of triggers minimise: a loss for each task, unknown labels left out."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from glitchflow_plugin.settings import NotNegative, section
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels

UNKNOWN_LABEL = -1


@section
class TaskWeights:
    """What each task counts for in the loss; 0 leaves it out."""

    glitch: NotNegative = 1.0
    kind: NotNegative = 1.0
    log1p_snr: NotNegative = 1.0
    channel: NotNegative = 0.0


def task_losses(told: TriggerAnswers, true: TriggerLabels, tasks: TaskWeights) -> Float[Tensor, " set"]:
    """Loss of each set: cross-entropies of glitch, class and channel, Huber's of ln(1 + SNR), weighted and summed."""
    known = true.log1p_snr.isfinite()
    snr = functional.huber_loss(told.log1p_snr, torch.where(known, true.log1p_snr, 0.0), reduction="none")
    glitch = functional.binary_cross_entropy_with_logits(told.glitch, true.glitch, reduction="none")
    total = tasks.glitch * glitch + tasks.log1p_snr * torch.where(known, snr, 0.0)
    total = total + tasks.kind * _entropies(told.kind, true.kind)
    total = total + tasks.channel * _entropies(told.channel, true.channel)
    return true.weights * total


def _entropies(told: Float[Tensor, "set choice"], true: Tensor) -> Float[Tensor, " set"]:
    return functional.cross_entropy(told, true, ignore_index=UNKNOWN_LABEL, reduction="none")
