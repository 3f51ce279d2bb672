"""Clusters of loud tiles in time: each is one trigger, with the parameters of its loudest tile and its own extent."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from glitchflow_plugin.signal.qtransform.loud_tiles import tile_duration


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters, rising in time.

    Attributes:
        loudest: Place of the loudest tile of each, shape (cluster,); of equal ones the earliest, then the lowest.
        durations: From the begin of the first tile to the end of the last, s.
        bandwidths: From the lowest edge of a tile to the highest, Hz.
    """

    loudest: Int[np.ndarray, " cluster"]
    durations: Float[np.ndarray, " cluster"]
    bandwidths: Float[np.ndarray, " cluster"]


def cluster_tiles(
    times: Int[np.ndarray, " tile"],
    frequencies: Float[np.ndarray, " tile"],
    qs: Float[np.ndarray, " tile"],
    snrs: Float[np.ndarray, " tile"],
    gap: float,
) -> Clusters:
    """Join tiles whose extents in time are no further apart than a gap (Robinet et al. 2020, section 2.4).

    Args:
        times: Of the centres, ns, in any order.
        frequencies: Hz.
        qs: Quality factors.
        snrs: Signal-to-noise ratios.
        gap: s.
    """
    if not len(times):
        return Clusters(np.empty(0, np.int64), np.empty(0), np.empty(0))
    lengths = np.asarray(tile_duration(frequencies, qs))
    half = np.round(lengths / 2 * 1e9).astype(np.int64)
    order = np.lexsort((frequencies, times - half))
    starts, ends = (times - half)[order], np.maximum.accumulate((times + half)[order])
    first = np.flatnonzero(np.r_[True, starts[1:] > ends[:-1] + round(gap * 1e9)])
    cluster = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(order)]))
    ranked = np.lexsort((qs[order], frequencies[order], times[order], -snrs[order], cluster))
    low = np.minimum.reduceat((frequencies - 0.5 / lengths)[order], first)
    high = np.maximum.reduceat((frequencies + 0.5 / lengths)[order], first)
    last = np.r_[first[1:], len(order)] - 1
    return Clusters(order[ranked[first]], (ends[last] - starts[first]) / 1e9, high - low)
