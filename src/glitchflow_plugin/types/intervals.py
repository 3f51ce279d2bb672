"""Intervals on a line: times that are covered, however many pieces cover them."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float


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


def covered(
    intervals: Float[np.ndarray, "interval 2"], spans: Float[np.ndarray, "span 2"]
) -> Float[np.ndarray, " span"]:
    """How much of each span some intervals cover.

    Args:
        intervals: Disjoint and rising, as from `union`.
        spans: Pairs of start and end, in any order, of any overlap.

    >>> covered(np.array([[0.0, 12.0], [20.0, 30.0]]), np.array([[10.0, 25.0], [12.0, 20.0]]))
    array([7., 0.])
    """
    if not len(intervals):
        return np.zeros(len(spans))
    # sums of lengths are small numbers, which GPS times are not
    before = np.concatenate([[0.0], np.cumsum(intervals[:, 1] - intervals[:, 0])])

    def _up_to(times: np.ndarray) -> np.ndarray:
        last = np.maximum(np.searchsorted(intervals[:, 0], times, "right") - 1, 0)
        within = np.clip(times - intervals[last, 0], 0.0, intervals[last, 1] - intervals[last, 0])
        return before[last] + within

    return _up_to(spans[:, 1]) - _up_to(spans[:, 0])


def holds(intervals: Float[np.ndarray, "interval 2"], times: Float[np.ndarray, " time"]) -> Bool[np.ndarray, " time"]:
    """Which times lie within disjoint, rising intervals; the end of an interval lies outside.

    >>> holds(np.array([[0.0, 12.0], [20.0, 30.0]]), np.array([-1.0, 0.0, 12.0, 29.0])).tolist()
    [False, True, False, True]
    """
    if not len(intervals):
        return np.zeros(len(times), dtype=bool)
    last = np.searchsorted(intervals[:, 0], times, "right") - 1
    return (last >= 0) & (times < intervals[np.maximum(last, 0), 1])


def left_over(
    one: Float[np.ndarray, "interval 2"], other: Float[np.ndarray, "interval 2"]
) -> Float[np.ndarray, "rest 2"]:
    """What of disjoint, rising intervals others do not cover.

    Args:
        one: The intervals.
        other: Those that are taken away.

    >>> left_over(np.array([[0.0, 12.0], [20.0, 30.0]]), np.array([[5.0, 6.0], [10.0, 25.0]]))
    array([[ 0.,  5.],
           [ 6., 10.],
           [25., 30.]])
    """
    between = np.concatenate([[-np.inf], other.ravel(), [np.inf]]).reshape(-1, 2)
    return common(one, between)


def common(one: Float[np.ndarray, "interval 2"], other: Float[np.ndarray, "interval 2"]) -> Float[np.ndarray, "both 2"]:
    """What two lists of disjoint, rising intervals have in common.

    >>> common(np.array([[0.0, 12.0], [20.0, 30.0]]), np.array([[10.0, 25.0]]))
    array([[10., 12.],
           [20., 25.]])
    """
    edges = np.unique(np.concatenate([one.ravel(), other.ravel()]))
    pieces = np.stack([edges[:-1], edges[1:]], axis=1)
    return union(pieces[holds(one, edges[:-1]) & holds(other, edges[:-1])])
