"""The vetoes of continuous data: when the model predicts a glitch, and when it has looked."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from glitchflow_plugin.products.folder import VetoBox
from glitchflow_plugin.products.rank_channels import RANK_RATE, raised_times
from glitchflow_plugin.streaming.ranks import MARGIN, within_block
from glitchflow_plugin.streaming.subtraction import Subtraction
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


def veto_boxes(found: Subtraction, block: tuple[float, float], threshold: float) -> tuple[VetoBox, ...]:
    """What is vetoed in a block, in time and frequency, and whether it is taken away without a doubt.

    Args:
        found: What the model says of the block.
        block: Start and end, whole GPS s.
        threshold: Energy above which it is vetoed, SNR².
    """
    energy, band = within_block(found.energy), within_block(found.band)
    at = np.arange(len(energy) + 1)
    kept = {"witness missing": found.complete, "new to the model": found.familiar, "strain disagrees": found.agreed}
    boxes = []
    for start, stop in raised_times(energy > threshold, block[0]):
        run = slice(*(round((edge - block[0]) * RANK_RATE) for edge in (start, stop)))
        parts = {name: slice(*(at[[run.start, run.stop]] * len(one) // len(energy))) for name, one in kept.items()}
        taken = slice(*(at[[run.start, run.stop]] * len(found.glitch) // len(energy)))
        boxes.append(
            VetoBox(
                float(start),
                float(stop),
                float(band[0, run].min()),
                float(band[1, run].max()),
                float(energy[run].max()),
                subtracted=bool(found.glitch[taken].any()),
                doubts=tuple(name for name, one in kept.items() if not one[parts[name]].all()),
            )
        )
    return tuple(boxes)


def _plain(spans: np.ndarray) -> Spans:
    return tuple((float(start), float(end)) for start, end in spans)
