"""Figures of the leaderboard beside the scores: power removed from true waveforms, growth of quiet events, medians.

==================  ==================  ===============  ======================  =================
figure              perfect prediction  zero prediction  twice the glitch        undefined (NaN)
==================  ==================  ===============  ======================  =================
power removed       1                   0                0                       no true glitch
added power         0                   0                -                       no quiet event
grown share         0                   0                0                       no true glitch
==================  ==================  ===============  ======================  =================

Intervals draw groups of events, the same for all that is compared (:mod:`glitchflow_plugin.inference.intervals`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.inference.intervals import (
    Estimate,
    bootstrap,
    estimate,
    few_groups,
    weighted_median,
)
from glitchflow_plugin.signal.bootstrap import in_memory

LOUDER = 0.01
"""Share of its own power by which a glitch must grow to count as made louder."""


def power_removed(
    truth: Float[np.ndarray, "event time"], predicted: Float[np.ndarray, "event time"]
) -> Float[np.ndarray, " event"]:
    """Share of the true glitch's power that subtracting the predicted waveform removes.

    Args:
        truth: The glitch alone, whitened.
        predicted: Whitened likewise.

    Returns:
        1 - |truth - predicted|² / |truth|²; NaN where there is no glitch.
    """
    glitch = np.square(truth, dtype=np.float64).sum(axis=1)
    left = np.square(np.subtract(truth, predicted, dtype=np.float64)).sum(axis=1)
    return np.where(glitch > 0, 1 - left / np.where(glitch > 0, glitch, 1), np.nan)


def added_power(before: Float[np.ndarray, " event"], after: Float[np.ndarray, " event"]) -> float:
    """Share by which events that need no cleaning grow: sum(after) / sum(before) - 1.

    Args:
        before: Energy of each event, any unit.
        after: The same after cleaning. Of waveforms, give the measured power plus that of the prediction: what is
            predicted for a quiet event has nothing to do with its noise.

    Returns:
        The share, negative where cleaning took noise away; NaN without events.
    """
    return float(after.sum() / before.sum() - 1) if before.sum() > 0 else math.nan


def paired_medians(
    values: Mapping[str, Float[np.ndarray, " event"]],
    chosen: Bool[np.ndarray, " event"],
    groups: Int[np.ndarray, " event"],
    *,
    reference: str | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[Estimate, Estimate]]:
    """Median of a figure over some events for each entrant, and its difference to that of a reference.

    Args:
        values: By entrant. Events where any entrant is undefined are left out for all.
        chosen: Events that count.
        groups: Number of each event's group.
        reference: Entrant that the others are compared with; None: the differences are undefined.
        replicates: Bootstrap replicates; 0 for no intervals.
        seed: Seed of the bootstrap.

    Returns:
        (median, median minus the reference's) by entrant.
    """
    if not values:
        return {}
    table = np.stack(list(values.values()))
    counted = chosen & np.isfinite(table).all(axis=0)
    table, (number, num_groups) = table[:, counted], _numbered(groups[counted])
    if not num_groups:
        return dict.fromkeys(values, (Estimate(None, reason="no event"), Estimate(None, reason="no event")))
    names = list(values)
    base = names.index(reference) if reference in names else None

    def _figures(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = [part[:, number] for part in in_memory(weights, table.size)]
        medians = np.concatenate([np.stack([weighted_median(row, part) for row in table], axis=1) for part in parts])
        return medians if base is None else np.concatenate([medians, medians - medians[:, base : base + 1]], axis=1)

    point = _figures(np.ones((1, num_groups)))[0]
    ends = bootstrap(_figures, num_groups, replicates=replicates, seed=seed)
    found = [estimate(value, ends[:, row], few_groups(num_groups)) for row, value in enumerate(point)]
    leads = found[len(names) :] or [Estimate(None, reason="no reference")] * len(names)
    return {name: (found[row], leads[row]) for row, name in enumerate(names)}


def pooled_growth(
    before: Float[np.ndarray, " event"],
    after: Float[np.ndarray, " event"],
    chosen: Bool[np.ndarray, " event"],
    groups: Int[np.ndarray, " event"],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """`added_power` over some events, with its interval."""
    before, after, (number, num_groups) = before[chosen], after[chosen], _numbered(groups[chosen])
    if not num_groups or before.sum() <= 0:
        return Estimate(None, reason="no quiet event")
    sums = np.stack([np.bincount(number, values) for values in (before, after)], axis=1)

    def _growth(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        drawn = weights @ sums
        return drawn[:, 1:] / drawn[:, :1] - 1

    ends = bootstrap(_growth, num_groups, replicates=replicates, seed=seed)
    return estimate(added_power(before, after), ends[:, 0], few_groups(num_groups))


def grown_share(
    removed: Float[np.ndarray, " event"],
    chosen: Bool[np.ndarray, " event"],
    groups: Int[np.ndarray, " event"],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Share of glitches that subtraction makes louder, by more than `LOUDER` of their power, with its interval.

    Args:
        removed: As from `power_removed`.
        chosen: Events that count; those without a glitch never do.
        groups: Number of each event's group.
        replicates: Bootstrap replicates; 0 for no intervals.
        seed: Seed of the bootstrap.
    """
    counted = chosen & np.isfinite(removed)
    if not counted.any():
        return Estimate(None, reason="no glitch")
    one = np.ones(len(removed))
    return pooled_growth(one, one + (removed < -LOUDER), counted, groups, replicates=replicates, seed=seed)


def _numbered(groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Numbers of the groups from 0 on, and how many there are."""
    found, number = np.unique(groups, return_inverse=True)
    return number, len(found)


@dataclass(frozen=True)
class Kind:
    """Some of the events that have something in common, with a name to show."""

    name: str
    events: NDArray[np.bool_]


def snr_kinds(snr: Float[np.ndarray, " event"], edges: Sequence[float]) -> list[Kind]:
    """Events by a positive SNR: below the first edge, between edges, above the last; empty ones are left out."""
    bounds = [0.0, *edges, math.inf]
    names = [f"< {edges[0]:g}", *(f"{a:g}-{b:g}" for a, b in pairwise(edges)), f"> {edges[-1]:g}"]
    found = [
        Kind(name, (snr > 0) & (snr >= low) & (snr < high))
        for name, (low, high) in zip(names, pairwise(bounds), strict=True)
    ]
    return [kind for kind in found if kind.events.any()]
