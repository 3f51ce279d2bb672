"""The strain as it is searched: as it is, cleaned, and what its rivals make of it."""

import numpy as np
from jaxtyping import Float
from scipy.signal import windows

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.harm.ground import Ground
from glitchflow_plugin.harm.injections import HarmSettings
from glitchflow_plugin.signal.continuous import raised_runs
from glitchflow_plugin.signal.matched_filter import Weighted
from glitchflow_plugin.streaming.belief import BELIEF_EDGE, RINGING
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.intervals import union

WAYS = ("before", "after", "gated", "elsewhere")
"""What is searched: the strain as it is, cleaned, with gates in place of cleaning, and cleaned at another place."""

GATE_TAPER = 0.25
"""Time in which a gate closes and opens, s, as searches have it."""

_AWAY = 16.0
"""How far away elsewhere is, at least, s."""


def searched_ways(
    ground: Ground,
    strain: Series,
    spans: Float[np.ndarray, "stretch 2"],
    subtracted: Series,
    settings: HarmSettings,
) -> dict[str, Weighted]:
    """By way the strain with signals, as the filter takes it.

    Args:
        ground: The block.
        strain: With the signals, as it is conditioned, (time,).
        spans: Where a prediction is believed, from `believed`.
        subtracted: What is subtracted from the strain, as it is conditioned, (time,).
        settings: Decide about the ends and the other place.
    """
    size = len(strain)
    away = min(round(_AWAY * ground.rate), size // 4)
    rng = np.random.default_rng([settings.seed, round(ground.span[0]), size])
    series = {
        "before": strain,
        "after": strain - subtracted,
        "gated": strain * gate(spans, ground.first, size, ground.rate),
        "elsewhere": strain - np.roll(subtracted, int(rng.integers(away, size - away))),
    }
    return {way: ground.weighted(series[way], settings) for way in WAYS}


def believed(taken: Channel) -> Float[np.ndarray, "stretch 2"]:
    """Where a prediction is believed, GPS s: where something is subtracted, without what only rings beside it.

    Args:
        taken: What is subtracted.
    """
    # samples may be zero within a glitch
    spans = union(taken.t0 + raised_runs(taken.series != 0) / taken.sample_rate, touching=BELIEF_EDGE)
    spans = spans + (RINGING + 2 * BELIEF_EDGE) * np.array([1, -1])
    return spans[spans[:, 1] > spans[:, 0]]


def gate(spans: Float[np.ndarray, "stretch 2"], first: int, size: int, rate: float) -> Series:
    """Zero in some stretches, one elsewhere, with a taper beside them, (time,).

    Args:
        spans: Start and end, GPS s.
        first: Number of the first sample, from GPS 0.
        size: Samples.
        rate: Hz.

    >>> gate(np.array([[1.0, 2.0]]), 0, 12, 4.0)
    array([1., 1., 1., 0., 0., 0., 0., 0., 0., 1., 1., 1.])
    """
    passed = np.ones(size)
    taper = round(GATE_TAPER * rate)
    for start, stop in np.round(spans * rate).astype(int) - first:
        length = stop - start + 2 * taper
        closed = 1 - windows.tukey(length, 2 * taper / length)
        low, high = max(start - taper, 0), min(stop + taper, size)
        if low < high:
            part = closed[low - start + taper : high - start + taper]
            passed[low:high] = np.minimum(passed[low:high], part)
    return passed
