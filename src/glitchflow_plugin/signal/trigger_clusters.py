"""Triggers that stand about the same glitch: event trigger generators report one for each tile that it is loud in."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cluster_times(times: ArrayLike, loudness: ArrayLike, window: float) -> NDArray[np.int64]:
    """Of each cluster of triggers the loudest, as `gwpy.table.EventTable.cluster` defines them.

    Triggers no further than `window` from their neighbour in time are of one cluster, which may so be longer than that.
    Of equally loud ones the earliest stays; one without loudness (NaN) stays only where none of its cluster has any.

    Args:
        times: GPS s, in any order, shape (trigger,).
        loudness: SNR or alike, shape (trigger,).
        window: Largest distance between neighbours, s.

    Returns:
        Rows that stay, in the order of their times.

    Raises:
        ValueError: The window is not positive, or the shapes differ.

    >>> cluster_times([5.0, 1.0, 1.05, 1.1], [8.0, 7.0, 20.0, 9.0], 0.1)
    array([2, 0])
    """
    times, loudness = np.asarray(times, dtype=np.float64), np.asarray(loudness, dtype=np.float64)
    if times.ndim != 1 or times.shape != loudness.shape:
        raise ValueError(f"expected a time and a loudness for each trigger, got {times.shape} and {loudness.shape}")
    if not 0 < window < np.inf:
        raise ValueError(f"the window must be positive (s), got {window:g}")
    order = np.argsort(times, kind="stable")
    cluster = np.concatenate([[0], np.cumsum(np.diff(times[order]) > window)])[: len(order)]
    ranked = np.lexsort((-np.where(np.isnan(loudness), -np.inf, loudness)[order], cluster))
    first = np.diff(cluster[ranked], prepend=-1) > 0
    return order[ranked[first]]


def crowded(times: Sequence[float] | NDArray[np.float64], closer: float) -> tuple[int, int]:
    """Number of triggers that follow another within so many seconds, and of the groups that they make up with it.

    >>> crowded([0.0, 0.5, 1.2, 50.0], 1.0)
    (2, 1)
    """
    follows = np.diff(np.sort(np.asarray(times, dtype=np.float64))) < closer
    groups = int(np.count_nonzero(follows & ~np.concatenate([[False], follows[:-1]]))) if len(follows) else 0
    return int(follows.sum()), groups
