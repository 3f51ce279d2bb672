"""The vetoes of continuous data: when the model predicts a glitch, and when it has looked."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from glitchflow_plugin.inference.stream_ranks import MARGIN
from glitchflow_plugin.products.rank_channels import raised_times
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.intervals import common, union

Spans: TypeAlias = tuple[tuple[float, float], ...]
"""Start and end of times, GPS s."""


@dataclass(frozen=True)
class BlockVetoes:
    """Vetoes of a block.

    Attributes:
        known: When the model has looked.
        active: When it vetoes, of these.
    """

    known: Spans
    active: Spans


def block_vetoes(energy: Series, block: tuple[float, float], threshold: float, padding: float) -> BlockVetoes:
    """When a block is vetoed.

    Args:
        energy: From `predicted_energy`.
        block: Start and end, whole GPS s.
        threshold: Energy above which it is, SNR².
        padding: s that a veto reaches beyond, at most `MARGIN`.
    """
    start = block[0] - MARGIN
    raised = union(raised_times(energy > threshold, start) + np.array([-padding, padding]))
    known = common(raised_times(np.isfinite(energy), start), np.array([block]))
    return BlockVetoes(_plain(known), _plain(common(raised, known)))


def _plain(spans: np.ndarray) -> Spans:
    return tuple((float(start), float(end)) for start, end in spans)
