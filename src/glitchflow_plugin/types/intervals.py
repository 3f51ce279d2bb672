"""Intervals on a line: times that are covered, however many pieces cover them."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float


def union(intervals: Iterable[tuple[float, float]], touching: float = 0.0) -> Float[np.ndarray, "interval 2"]:
    """Intervals that touch or overlap, made one, rising, shape (interval, 2).

    Args:
        intervals: Pairs of start and end, in any order.
        touching: Intervals no further apart than this are one.

    >>> union([(20.0, 30.0), (0.0, 10.0), (10.0, 12.0)])
    array([[ 0., 12.],
           [20., 30.]])
    """
    given = intervals if isinstance(intervals, np.ndarray) else np.array(list(intervals), dtype=np.float64)
    ends = given.reshape(-1, 2)
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    reached = np.maximum.accumulate(ends[:, 1])
    first = np.flatnonzero(np.concatenate([[True], ends[1:, 0] > reached[:-1] + touching]))[: len(ends)]
    last = np.concatenate([first[1:] - 1, [len(ends) - 1]])[: len(first)]
    return np.stack([ends[first, 0], reached[last]], axis=1)
