"""A diagnostic: of which channel is a trigger that was taken out of its set? Without leaks hardly anything tells."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from glitchflow_plugin.types.triggers import UNKNOWN, TriggerLabels, TriggerSets


def hold_out(
    sets: TriggerSets, labels: TriggerLabels, chances: Float[Tensor, " set"]
) -> tuple[TriggerSets, TriggerLabels]:
    """Take one trigger of a known channel out of each set that has one; its channel becomes the label.

    Nothing of it is left: the point is padding, and the rate of its channel, which is the first global of each, counts
    one less. So the inputs are the same to the last bit whatever its channel was.

    Args:
        sets: Sets whose globals are ln(1 + count) by channel, from index 1 on.
        labels: Theirs.
        chances: Drawn for each set, uniform from 0 to 1: which of its triggers is taken, whatever else is in the batch.
    """
    able = sets.mask & (sets.channels != UNKNOWN)
    rows = torch.nonzero(able.any(1))[:, 0]
    if not len(rows):
        return sets, labels
    counted = able.cumsum(1)
    wanted = 1 + (chances * counted[:, -1]).long().clamp(max=counted[:, -1] - 1)
    place = (able & (counted == wanted[:, None])).long().argmax(1)[rows]
    channel = sets.channels[rows, place]
    points, channels, mask = sets.points.clone(), sets.channels.clone(), sets.mask.clone()
    points[rows, place], channels[rows, place], mask[rows, place] = 0.0, UNKNOWN, False
    globals_ = sets.globals_.clone()
    globals_[rows, channel - 1] = _one_less(globals_[rows, channel - 1])
    true = torch.full_like(labels.channel, -1)
    true[rows] = channel
    return TriggerSets(points, channels, mask, globals_, sets.globals_valid), replace(labels, channel=true)


def _one_less(rates: Tensor) -> Tensor:
    """ln(1 + count) of one trigger less."""
    return torch.log1p((torch.expm1(rates.double()).round() - 1).clamp(min=0)).to(rates.dtype)
