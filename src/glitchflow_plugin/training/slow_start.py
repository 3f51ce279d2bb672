"""Which couplings follow a motion below the band, as training events show it: before anything else is learnt.

Two ways are known: a coupling is as strong as a beam is off a centre (one number for a witness and a slow channel), and
its phase turns with the direction in which something swings (one more filter). Cross-validation over groups decides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.models.wiener import WienerSums
from glitchflow_plugin.signal.slow import SHARE
from glitchflow_plugin.training.filter_start import CONFIDENCE, FOLDS, held_out_gains

#: Strengths that are tried, by unit of the slow channel's scale.
_STRENGTHS = [step / 10 for step in range(-15, 16) if step]
#: Speed (scales a second) beyond which there is nothing but the direction.
_SPEED = 1.0
#: Share of what a witness explains in the end that following a motion must be worth: less is found by chance.
_WORTH = 0.05
#: The same, of what the witness that explains most does.
_LEAST = 0.01
#: Share of what the best fold gains that any other may lose.
_LOST = 0.1


@dataclass(frozen=True)
class Context:
    """How one witness follows one slow channel.

    Attributes:
        witness: Place of the witness among the network's channels.
        channel: Place of the slow channel.
        strength: Change of the coupling by scale of the motion; None: its phase turns with the direction.
    """

    witness: int
    channel: int
    strength: float | None


def find_context(
    network: CouplingNet,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    folds: Int[np.ndarray, " event"],
    channels: Sequence[int],
    sample_rate: float,
) -> list[Context]:
    """The slow channels that witnesses follow, at most one each.

    Args:
        network: Before anything is learnt.
        batches: Witnesses (event, witness, time), what is to be predicted (event, 1, time), and the root of each
            event's weight (event, 1, 1), in the order of `folds`.
        folds: Fold of each event.
        channels: Places of the slow channels.
        sample_rate: Hz.
    """
    sums: list[list[WienerSums]] = []
    first = 0
    for witnesses, strain, root in batches:
        parts = root[..., None] * _followed(network, witnesses, channels, sample_rate)
        width = parts.shape[2]
        sums = sums or [[WienerSums(width, network.filter_size) for _ in range(FOLDS)] for _ in parts[0]]
        own = folds[first : first + len(strain)]
        for fold in np.unique(own):
            chosen = torch.from_numpy(own == fold)
            for witness, by_fold in enumerate(sums):
                by_fold[fold].add(parts[chosen, witness], (root * strain)[chosen])
        first += len(strain)
    if any(not each.count for by_fold in sums for each in by_fold):
        return []
    alone = [held_out_gains([each.only(torch.tensor([0])) for each in by_fold]) for by_fold in sums]
    least = _LEAST * max((float(gain.mean()) for gain in alone), default=0.0)
    found = (_followed_by(witness, sums[witness], channels, gain, least) for witness, gain in enumerate(alone))
    return [one for one in found if one is not None]


def set_context(network: CouplingNet, channels: Sequence[int], contexts: Sequence[Context], sample_rate: float) -> None:
    """Let a network with a slow context look at these channels, and begin by what was found, in place."""
    assert network.place is not None and network.direction is not None  # noqa: S101, PT018
    unit, speed = _units(network, sample_rate)
    network.slow_channels[list(channels)] = 1.0
    with torch.no_grad():
        for one in contexts:
            if one.strength is None:
                network.direction[one.witness, one.channel] = 1 / speed
            else:
                network.place[one.witness, one.channel] = one.strength / unit


def _followed(
    network: CouplingNet, witnesses: Tensor, channels: Sequence[int], sample_rate: float
) -> Float[Tensor, "event witness way time"]:
    """Each cleaned witness: alone, times the place of each slow channel, and times the direction of each."""
    motion, change = network.slow_motion(witnesses)
    unit, speed = _units(network, sample_rate)
    shape = torch.Size((len(witnesses), len(channels), witnesses.shape[-1]))
    place = network.by_sample(motion[:, channels] / unit, shape)
    direction = network.by_sample(torch.tanh(change[:, channels] / speed), shape)
    ways = torch.cat([torch.ones_like(place[:, :1]), place, direction], dim=1)
    return network.linear_series(witnesses)[:, :, None] * ways[:, None]


def _units(network: CouplingNet, sample_rate: float) -> tuple[float, float]:
    """A slow channel's scale, and `_SPEED`, as `CouplingNet.slow_motion` gives them."""
    transform = network.transform
    unit = SHARE * float(transform.window.sum()) / transform.frame_size**0.5
    return unit, unit * _SPEED * transform.hop_size / sample_rate


def _followed_by(
    witness: int, sums: Sequence[WienerSums], channels: Sequence[int], alone: Float[Tensor, " fold"], least: float
) -> Context | None:
    """The slow channel that a witness follows, if there is one that is better on the folds left out."""
    best: tuple[Tensor, Context | None] = alone, None
    for place, channel in enumerate(channels, start=1):
        pair = [each.only(torch.tensor([0, place + len(channels)])) for each in sums]
        tried = [(held_out_gains(pair), Context(witness, channel, None))]
        for strength in _STRENGTHS:
            weights = torch.zeros(1, sums[0].in_channels)
            weights[0, 0], weights[0, place] = 1.0, strength
            tried.append(
                (held_out_gains([each.combined(weights) for each in sums]), Context(witness, channel, strength))
            )
        best = max([best, *tried], key=lambda each: float(each[0].mean()))
    gain, context = best
    better = gain - alone
    # a kind of glitch need not be in every fold: there nothing is gained
    sure = better.min() > -_LOST * better.max() and better.mean() > CONFIDENCE * better.std() / len(better) ** 0.5
    # to lose less than a witness alone, which foretells nothing of other events, is no sign of anything
    useful = gain.mean() > 0 and better.mean() > max(least, _WORTH * float(gain.mean()))
    return context if sure and useful else None
