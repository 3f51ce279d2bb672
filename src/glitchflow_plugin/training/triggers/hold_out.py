"""A diagnostic: of which channel is a trigger that was taken out of its set? Without leaks hardly anything tells."""

import torch
from torch import Tensor

from glitchflow_plugin.training.triggers.learner import HeldSets
from glitchflow_plugin.types.triggers import UNKNOWN, TriggerLabels, TriggerSets


def hold_out(held: HeldSets, seed: int) -> HeldSets:
    """Take one trigger of a known channel out of each set that has one; its channel becomes the label.

    Nothing of it is left: the point is padding, and the rate of its channel, which is the first global of each, counts
    one less. So the inputs are the same to the last bit whatever its channel was.

    Args:
        held: Sets whose globals are ln(1 + count) by channel, from index 1 on, and their labels.
        seed: Of the draw, uniform over the triggers of a set.
    """
    sets, labels = held.sets, held.labels
    able = sets.mask & (sets.channels != UNKNOWN)
    generator = torch.Generator().manual_seed(seed)
    if not able.any():
        return held
    drawn = torch.rand(able.shape, generator=generator).masked_fill(~able, -1.0).argmax(1)
    rows = torch.nonzero(able.any(1))[:, 0]
    place = drawn[rows]
    channel = sets.channels[rows, place]
    points, channels, mask = sets.points.clone(), sets.channels.clone(), sets.mask.clone()
    points[rows, place], channels[rows, place], mask[rows, place] = 0.0, UNKNOWN, False
    globals_ = sets.globals_.clone()
    globals_[rows, channel - 1] = _one_less(globals_[rows, channel - 1])
    true = torch.full_like(labels.channel, -1)
    true[rows] = channel
    without = TriggerSets(points, channels, mask, globals_, sets.globals_valid)
    return HeldSets(without, TriggerLabels(labels.glitch, labels.kind, labels.log1p_snr, true, labels.weights))


def _one_less(rates: Tensor) -> Tensor:
    """ln(1 + count) of one trigger less."""
    return torch.log1p((torch.expm1(rates.double()).round() - 1).clamp(min=0)).to(rates.dtype)
