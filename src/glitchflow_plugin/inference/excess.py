"""How much of a glitch a prediction takes away, and what it adds where there is none; with intervals by event.

==================  ==================  ===============  ======================  =================
figure              perfect prediction  zero prediction  twice the glitch        undefined (NaN)
==================  ==================  ===============  ======================  =================
excess removed      1                   0                0 (waveforms)           no pixel is loud
power removed       1                   0                0                       no true glitch
added power         0                   0                -                       no quiet event
==================  ==================  ===============  ======================  =================

Intervals are percentiles of a bootstrap that draws events, the same draws for all that is compared (see
:mod:`glitchflow_plugin.inference.score` for its limits).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from glitchflow_plugin.inference.score import CONFIDENCE, GLITCH_THRESHOLD, Estimate
from glitchflow_plugin.types.tensors import host

NOISE_MEAN = 1 / math.log(2)
"""Mean energy (SNR²) of Gaussian noise in a map whose rows are divided by their median: exponential with median 1."""

DILATION = 2
"""Pixels by which the loud ones of a map are widened: the skirts of a glitch belong to it."""


def excess_removed(
    measured: Float[Tensor, "event frequency time"],
    predicted: Float[Tensor, "event frequency time"],
    cleaned: Float[Tensor, "event frequency time"],
    threshold: float = GLITCH_THRESHOLD,
    dilation: int = DILATION,
) -> Float[np.ndarray, " event"]:
    """Share of a glitch's excess energy that cleaning removes.

    Counted are the pixels of the glitch (measured above the threshold, widened) and those where the prediction is above
    it, so that what is added beside the glitch counts against it. What noise holds there on average is no excess. Of a
    twin of energies, noise that is removed in these pixels pays for glitch that is left: predicting the noise's mean
    everywhere earns some per cent of a faint glitch. `power_removed` knows no such gift.

    Args:
        measured: Energies, SNR².
        predicted: Energies, SNR².
        cleaned: Energies after cleaning, SNR².
        threshold: SNR² above which a pixel is loud.
        dilation: Pixels by which loud measured pixels are widened in both directions.

    Returns:
        1 - excess after / excess before; negative where cleaning adds energy, at most 1, NaN where no measured pixel is
        loud.
    """
    loud = measured > threshold
    wide = functional.max_pool2d(loud[:, None].float(), 2 * dilation + 1, stride=1, padding=dilation)[:, 0] > 0
    pixels = (wide | (predicted > threshold)).double()
    before = host(((measured.double() - NOISE_MEAN) * pixels).sum(dim=(1, 2)))
    after = host(((cleaned.double() - NOISE_MEAN) * pixels).sum(dim=(1, 2)))
    there = host(loud.flatten(1).any(dim=1)) & (before > 0)
    return np.where(there, 1 - np.maximum(after, 0) / np.where(there, before, 1), np.nan)


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


def event_draws(num_events: int, replicates: int, seed: int = 0) -> Int[np.ndarray, "replicate event"]:
    """Rows of events drawn with replacement; equal arguments give equal draws, so entrants are compared in pairs."""
    return np.random.default_rng(seed).integers(0, num_events, (replicates, num_events))


def paired_medians(
    values: Mapping[str, Float[np.ndarray, " event"]],
    chosen: Bool[np.ndarray, " event"],
    *,
    reference: str | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[Estimate, Estimate]]:
    """Median of a figure over some events for each entrant, and its difference to that of a reference.

    Args:
        values: By entrant. Events where any entrant is undefined are left out for all.
        chosen: Events that count.
        reference: Entrant that the others are compared with; None: the differences are undefined.
        replicates: Of the bootstrap; 0 for no intervals.
        seed: Of the bootstrap.

    Returns:
        (median, median minus the reference's) by entrant.
    """
    if not values:
        return {}
    table = np.stack(list(values.values()))
    table = table[:, chosen & np.isfinite(table).all(axis=0)]
    none = Estimate(None, reason="no event")
    if not table.shape[1]:
        return dict.fromkeys(values, (none, none))
    point = np.median(table, axis=1)
    draws = event_draws(table.shape[1], replicates, seed)
    drawn = np.stack([np.median(row[draws], axis=1) for row in table])  # (entrant, replicate)
    result = {}
    for row, name in enumerate(values):
        difference = Estimate(None, reason="no reference")
        if reference is not None and reference in values:
            base = list(values).index(reference)
            difference = _estimate(point[row] - point[base], drawn[row] - drawn[base])
        result[name] = (_estimate(point[row], drawn[row]), difference)
    return result


def pooled_growth(
    before: Float[np.ndarray, " event"],
    after: Float[np.ndarray, " event"],
    chosen: Bool[np.ndarray, " event"],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """`added_power` over some events, with its interval."""
    before, after = before[chosen], after[chosen]
    if not before.size or before.sum() <= 0:
        return Estimate(None, reason="no quiet event")
    draws = event_draws(len(before), replicates, seed)
    return _estimate(added_power(before, after), after[draws].sum(axis=1) / before[draws].sum(axis=1) - 1)


@dataclass(frozen=True)
class Group:
    """Some of the events, with a name to show."""

    name: str
    events: NDArray[np.bool_]


def snr_groups(snr: Float[np.ndarray, " event"], edges: Sequence[float]) -> list[Group]:
    """Events by a positive SNR: below the first edge, between edges, above the last; empty ones are left out."""
    bounds = [0.0, *edges, math.inf]
    names = [f"< {edges[0]:g}", *(f"{a:g}-{b:g}" for a, b in pairwise(edges)), f"> {edges[-1]:g}"]
    found = [
        Group(name, (snr > 0) & (snr >= low) & (snr < high))
        for name, (low, high) in zip(names, pairwise(bounds), strict=True)
    ]
    return [group for group in found if group.events.any()]


def _estimate(value: float, drawn: NDArray[np.float64]) -> Estimate:
    if not drawn.size:
        return Estimate(float(value))
    low, high = np.percentile(drawn, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return Estimate(float(value), float(low), float(high))
