"""Families of redundant channels: those that explain the same spikes of the reference."""

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform


def redundant_families(
    explained: np.ndarray, known: np.ndarray, score: np.ndarray, overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Group channels by the spikes of the reference that they explain.

    The likeness of two channels is the Jaccard index of what they explain, among the spikes about which both have data.
    Groups are merged while their mean likeness is at least `overlap` (average linkage).

    Args:
        explained: Which spikes each channel explains, bool, shape (channel, spike).
        known: Where a channel has data, bool, shape (channel, spike).
        score: The highest of a family is its representative, and families are numbered by it, shape (channel,).
        overlap: Between 0 and 1.

    Returns:
        Number of the family, from 1, shape (channel,), and whether the channel represents it, bool, shape (channel,).

    Example:
        >>> seen = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], bool)
        >>> redundant_families(seen, np.ones_like(seen), np.array([5.0, 9.0, 7.0]), 0.5)
        (array([1, 1, 2]), array([False,  True,  True]))
    """
    number = len(explained)
    if number < 2:
        return np.ones(number, dtype=np.int64), np.ones(number, dtype=bool)
    seen, there = (explained & known).astype(np.float32), known.astype(np.float32)
    both = seen @ seen.T
    either = seen @ there.T + there @ seen.T - both
    likeness = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    distance = 1.0 - likeness.astype(np.float64)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average")
    label = fcluster(tree, 1.0 - overlap + 1e-9, criterion="distance")
    family, representative = np.zeros(number, dtype=np.int64), np.zeros(number, dtype=bool)
    for row in np.argsort(-score, kind="stable"):
        if not family[row]:
            representative[row] = True
            family[label == label[row]] = family.max() + 1
    return family, representative
