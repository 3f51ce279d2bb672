"""How unlikely chance is: Poisson tails of any depth, exact tails of sums, and control of false discoveries.

References:
    Smith et al., Class. Quantum Grav. 28 (2011) 235005, doi:10.1088/0264-9381/28/23/235005 (significance of Hveto).
    Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995) 289, doi:10.1111/j.2517-6161.1995.tb02031.x.
    Benjamini and Yekutieli, Ann. Stat. 29 (2001) 1165, doi:10.1214/aos/1013699998.
"""

from typing import Literal

import numpy as np
from scipy.special import gammainc, gammaln
from scipy.stats import false_discovery_control

#: Below this a tail is summed as a series of logarithms.
_TINY = 1e-200


def hveto_significance(coincidences: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Minus log10 of the Poisson probability of at least so many coincidences where so many are expected.

    Args:
        coincidences: Number n of coincidences, shape (channel,).
        expected: Mean number by accident, mu = N_strain N_witness T_window / T_live, shape (channel,).

    Returns:
        -log10 P(k >= n | mu), without underflow; 0 for n = 0, infinite for n > 0 where mu is 0. Shape (channel,).

    Example:
        >>> float(np.round(hveto_significance(np.array([3]), np.array([0.1])), 3)[0])
        3.81
    """
    count, mean = np.asarray(coincidences, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    some = np.maximum(count, 1.0)
    with np.errstate(divide="ignore"):
        tail = np.where(count > 0, gammainc(some, mean), 1.0)
        found = -np.log10(tail)
        deep = (tail < _TINY) & (mean > 0)
        if deep.any():
            found[deep] = -_log_tail(some[deep], mean[deep]) / np.log(10.0)
    return found + 0.0  # no -0


def _log_tail(count: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Natural logarithm of P(k >= n) far above the mean: the first term times a series that falls like (mean / n)^j."""
    term, total = np.ones_like(mean), np.ones_like(mean)
    step = 0
    while np.any(term > 1e-17 * total):
        step += 1
        term = term * mean / (count + step)
        total = total + term
    return count * np.log(mean) - mean - gammaln(count + 1.0) + np.log(total)


def sum_tail(needed: np.ndarray, laws: np.ndarray) -> np.ndarray:
    """Probability that independent whole numbers add up to at least `needed`.

    Only positive terms are added, so that the smallest probabilities are as accurate as the large ones.

    Args:
        needed: Shape (channel,).
        laws: Probability of 0, 1, ... for each summand, shape (channel, summand, value).

    Returns:
        P(sum >= needed), shape (channel,).

    Example:
        >>> sum_tail(np.array([2]), np.full((1, 2, 2), 0.5))
        array([0.25])
    """
    needed = np.asarray(needed, dtype=np.int64)
    width = int(needed.max(initial=0)) + 1
    # The state is how much is still needed; 0 is never left.
    state = np.zeros((len(needed), width))
    state[np.arange(len(needed)), needed] = 1.0
    for place in range(laws.shape[1]):
        law = laws[:, place]
        after = state * law[:, :1]
        after[:, 0] = state[:, 0]
        for value in range(1, law.shape[1]):
            reached = state[:, 1 : value + 1].sum(axis=1)
            after[:, 0] += law[:, value] * reached
            if value + 1 < width:
                after[:, 1 : width - value] += law[:, value : value + 1] * state[:, value + 1 :]
        state = after
    return state[:, 0]


def q_values(p_values: np.ndarray, method: Literal["bh", "by"] = "bh") -> np.ndarray:
    """Smallest false-discovery rate at which each channel is a discovery.

    Args:
        p_values: NaN = not tested, and not counted as a test. Shape (channel,).
        method: `bh` (Benjamini-Hochberg) holds for independent and positively dependent channels, `by`
            (Benjamini-Yekutieli) for any dependence, at the price of a factor of about ln(number of channels).

    Returns:
        Adjusted p-values, NaN where not tested, shape (channel,).
    """
    found = np.full(len(p_values), np.nan)
    tested = np.isfinite(p_values)
    if tested.any():
        found[tested] = false_discovery_control(p_values[tested], method=method)
    return found
