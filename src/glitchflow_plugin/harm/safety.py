"""Which witnesses follow the strain, and what they would hold of a signal in it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.harm.ground import Ground
from glitchflow_plugin.harm.injections import distance_to
from glitchflow_plugin.signal.continuous import window_taps
from glitchflow_plugin.signal.relation import Relation, measure_relation
from glitchflow_plugin.signal.whitening import unwhiten, whiten
from glitchflow_plugin.streaming.subtraction import at_own_rate
from glitchflow_plugin.streaming.windows import Prepared, StreamModel, look
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.tensors import host

_QUIET_WINDOWS = 8
"""Windows without a glitch of which a relation is measured, at least."""


@dataclass(frozen=True)
class Follower:
    """A witness that follows the strain where there is no glitch.

    Attributes:
        name: Name of the witness.
        coherent: Share of the bins in which it does.
        gain: Median modulus of the transfer from whitened strain to whitened witness in them.
    """

    name: str
    coherent: float
    gain: float


@dataclass(frozen=True, eq=False)
class Leak:
    """Witnesses that hold a copy of the strain, with the relation of all to it.

    Attributes:
        witnesses: Their names.
        relation: In the order of the model's witnesses.
        prepared: The channels of the block, from `streaming.windows.prepare`.
    """

    witnesses: tuple[str, ...]
    relation: Relation
    prepared: Sequence[Prepared | None]

    def copy(self, signals: Series, witness: Channel, ground: Ground) -> Channel | None:
        """What a witness would hold of signals in the strain, at its samples in the block; None if it has none.

        Args:
            signals: As the strain is conditioned, (time,).
            witness: As recorded.
            ground: The block.
        """
        row = [one.name for one in ground.model.witnesses].index(witness.name)
        strain, other = self.prepared[0], self.prepared[1 + row]
        if strain is None or other is None:
            return None
        middle = (ground.span[0] + ground.span[1]) / 2
        taps = window_taps(strain[1], middle, strain[0], ground.model.target.settings)
        own_taps = window_taps(other[1], middle, other[0], ground.model.witnesses[row].settings)
        if taps is None or own_taps is None:
            return None
        whitened = torch.from_numpy(whiten(signals, taps)[0])[None]
        copy = host(self.relation.copies(whitened)[0, row])
        band = other[0].band
        series = unwhiten(copy, own_taps, ground.rate, band)[0]
        # a copy need not reach further than the witness
        inside = max(ground.span[0], witness.t0), min(ground.span[1], witness.t0 + witness.duration)
        first = int(np.ceil((inside[0] - witness.t0) * witness.sample_rate - 1e-6))
        own = at_own_rate(series, ground.first, witness, inside, rate=ground.rate, high=band[1])
        return replace(witness, series=own, t0=witness.t0 + first / witness.sample_rate)


def measured_relation(prepared: Sequence[Prepared | None], ground: Ground) -> Relation | None:
    """How each witness follows the strain in windows without a glitch; None where these are too few.

    Args:
        prepared: From `streaming.windows.prepare`.
        ground: The block.
    """
    model = ground.model
    half = model.duration / 2
    centres = np.arange(ground.span[0] + half, ground.span[1] - half + 1e-6, model.duration)
    clear = distance_to(ground.glitches, centres - half, centres + half) > 0
    looked = [look(prepared, model, float(centre)) for centre in centres[clear]]
    there = [(strain, witnesses) for _, strain, witnesses in looked if strain.any()]
    if len(there) < _QUIET_WINDOWS:
        return None
    strain, witnesses = (torch.from_numpy(np.stack(part)) for part in zip(*there, strict=True))
    return measure_relation(strain, witnesses, ground.rate)


def followers_of(relation: Relation, model: StreamModel) -> tuple[Follower, ...]:
    """The witnesses that follow the strain in any bin.

    Args:
        relation: Relation of all witnesses to the strain.
        model: Names them.
    """
    gains = host(relation.gain.abs())
    return tuple(
        Follower(recipe.name, float(relation.coherent[row]), float(np.median(gains[row][gains[row] > 0])))
        for row, recipe in enumerate(model.witnesses)
        if relation.coherent[row] > 0
    )
