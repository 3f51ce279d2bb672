"""An interval of a mean that keeps its level when few, skewed values are at hand: the gate decides by it."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.bootstrap import group_draws

#: Below this share of the spread of all groups, the spread of a drawn sample is nothing but rounding.
_NO_SPREAD = 1e-12


def mean_interval(
    values: Float[np.ndarray, "event *sets"],
    groups: Int[np.ndarray, " event"],
    *,
    confidence: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean of some values, with the interval in which it lies with a given confidence.

    A studentised bootstrap (bootstrap-t: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12,
    doi:10.1201/9780429246593) that draws whole groups, since events of one group are no independent cases. A sample
    seldom holds the tail of a skewed law, so its mean looks better than it is; each end is therefore that of the sample
    with one more group like its most extreme one on that side. A drawn sample without any spread tells nothing about
    its error and counts as infinitely far off: what a few groups decide alone is not believed.

    Args:
        values: One an event; further axes are independent sets of values with the same groups.
        groups: Group of each event.
        confidence: Probability inside the interval.
        replicates: Bootstrap replicates.
        seed: Of the draws.

    Returns:
        Mean over events, lower end and upper end, each of the shape of the further axes. Ends are infinite where the
        groups cannot tell.

    Raises:
        ConfigurationError: There are fewer than two groups, or not one group an event.

    >>> mean, low, high = mean_interval(np.linspace(0.0, 1.0, 50), np.arange(50))
    >>> bool(low < mean < high), float(mean.round(3))
    (True, 0.5)
    """
    _, place = np.unique(groups, return_inverse=True)
    num_groups = int(place.max(initial=-1)) + 1
    if num_groups < 2 or len(groups) != len(values):
        message = f"an interval needs a group for each event and two groups, got {num_groups} of {len(values)} events."
        raise ConfigurationError(message)
    flat = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    sizes = np.bincount(place).astype(np.float64)
    sums = np.zeros((num_groups, flat.shape[1]))
    np.add.at(sums, place, flat)
    tail = (1 - confidence) / 2
    high = _upper_end(sums, sizes, tail, replicates, seed)
    low = -_upper_end(-sums, sizes, tail, replicates, seed)
    shape = np.shape(values)[1:]
    return flat.mean(axis=0).reshape(shape)[()], low.reshape(shape)[()], high.reshape(shape)[()]


def _upper_end(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], tail: float, replicates: int, seed: int
) -> NDArray[np.float64]:
    """Upper end for sums over groups (group, set) and their numbers of events (group,)."""
    centre = sums.sum(axis=0) / sizes.sum()
    worst = np.argmax(sums - centre * sizes[:, None], axis=0)
    sums = np.concatenate([sums, np.take_along_axis(sums, worst[None], axis=0)])
    counts = np.concatenate([np.broadcast_to(sizes[:, None], (len(sizes), sums.shape[1])), sizes[worst][None]])
    mean = sums.sum(axis=0) / counts.sum(axis=0)
    away = sums - mean * counts
    spread = np.square(away).sum(axis=0)
    distances = []
    for weights in group_draws(len(sums), replicates, seed):
        number = weights @ counts
        shift = (weights @ away) / number
        variance = weights @ away**2 - 2 * shift * (weights @ (away * counts)) + shift**2 * (weights @ counts**2)
        known = variance > _NO_SPREAD * spread
        error = np.sqrt(np.where(known, variance, 1.0)) / number
        distances.append(np.where(known, shift / error, np.copysign(np.inf, shift)))
    far = np.quantile(np.concatenate(distances), tail, axis=0, method="lower")
    error = np.sqrt(spread) / counts.sum(axis=0)
    return np.where(error > 0, mean - far * np.where(error > 0, error, 1.0), mean)
