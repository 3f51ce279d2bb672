"""An interval of a mean that keeps its level when few, skewed values are at hand: the gate decides by it."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.bootstrap import group_draws

#: Below this share of the spread of all groups, the spread of a drawn sample is nothing but rounding; and so is that of
#: all groups below this share of their mean.
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
    doi:10.1201/9780429246593) that draws whole groups, since events of one group are no independent cases. Every group
    counts as one, however many events it has: where one holds most of them, the mean over events is that of one case,
    and no number of small groups beside it tells how far off it is. A sample
    seldom holds the tail of a skewed law, so its mean looks better than it is; each end is therefore that of the sample
    with one more group like its most extreme one on that side. A drawn sample without any spread tells nothing about
    its error and counts as infinitely far off: what a few groups decide alone is not believed.

    Args:
        values: One an event; further axes are independent sets of values with the same groups.
        groups: Group of each event.
        confidence: Probability inside the interval.
        replicates: Bootstrap replicates.
        seed: Seed of the draws.

    Returns:
        Mean over groups, lower end and upper end, each of the shape of the further axes. Ends are infinite where the
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
    means = np.zeros((num_groups, flat.shape[1]))
    np.add.at(means, place, flat)
    means /= np.bincount(place)[:, None]
    tail = (1 - confidence) / 2
    high = _upper_end(means, tail, replicates, seed)
    low = -_upper_end(-means, tail, replicates, seed)
    shape = np.shape(values)[1:]
    return means.mean(axis=0).reshape(shape)[()], low.reshape(shape)[()], high.reshape(shape)[()]


def group_mean(
    values: Float[np.ndarray, "event *sets"], groups: Int[np.ndarray, " event"]
) -> Float[np.ndarray, "*sets"]:
    """Mean over groups of the mean over the events of each."""
    _, place, size = np.unique(groups, return_inverse=True, return_counts=True)
    return np.average(values, axis=0, weights=1 / size[place])


def _upper_end(means: NDArray[np.float64], tail: float, replicates: int, seed: int) -> NDArray[np.float64]:
    """Upper end for means of groups, (group, set)."""
    means = np.concatenate([means, means.max(axis=0)[None]])
    number, mean = len(means), means.mean(axis=0)
    away = means - mean
    spread = np.square(away).sum(axis=0)
    distances = []
    for weights in group_draws(number, replicates, seed):
        shift = (weights @ away) / number
        variance = weights @ away**2 - number * shift**2
        known = variance > _NO_SPREAD * spread
        error = np.sqrt(np.where(known, variance, 1.0)) / number
        distances.append(np.where(known, shift / error, np.copysign(np.inf, shift)))
    far = np.quantile(np.concatenate(distances), tail, axis=0, method="lower")
    error = np.sqrt(spread) / number
    error = np.where(error > _NO_SPREAD * np.abs(mean), error, 0.0)
    return np.where(error > 0, mean - far * np.where(error > 0, error, 1.0), mean)
