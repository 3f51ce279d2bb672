"""Shapley values: how what players achieve together is shared out among them.

A player's share is what it adds to those before it, averaged over all orders in which the players may come (L. Shapley,
Contributions to the Theory of Games II, 1953, doi:10.1515/9781400881970-018). Shares add up to the whole, equal players
have equal ones, and who never adds anything has none.
"""

from collections.abc import Callable
from math import factorial

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

Worth = Callable[[Bool[np.ndarray, "coalition player"]], Float[np.ndarray, " coalition"]]

EXACT = 7
"""Players up to which all coalitions are asked for, 128 of them."""


def shapley_values(
    worth: Worth, num_players: int, *, permutations: int = 64, seed: int = 0, exact: int = EXACT
) -> tuple[Float[np.ndarray, " player"], Float[np.ndarray, " player"]]:
    """Shapley values of a game.

    Args:
        worth: What coalitions achieve, one a row; true for its members.
        num_players: Players.
        permutations: Orders that are drawn where there are more than `exact` players, at least 2.
        seed: Decides the drawing.
        exact: Players up to which the values are exact.

    Returns:
        Values, and their standard errors, which are 0 where the values are exact.

    >>> shapley_values(lambda members: members @ np.array([1.0, 2.0]) + members.all(axis=1), 2)[0]
    array([1.5, 2.5])
    """
    if num_players == 0:
        return np.zeros(0), np.zeros(0)
    return _exact(worth, num_players) if num_players <= exact else _sampled(worth, num_players, permutations, seed)


def _exact(worth: Worth, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    numbers = np.arange(1 << count)
    members = (numbers[:, None] >> np.arange(count) & 1).astype(bool)
    value, size = worth(members), members.sum(axis=1)
    weight = np.array([factorial(each) * factorial(count - each - 1) for each in range(count)]) / factorial(count)
    values = np.zeros(count)
    for player in range(count):
        without = numbers[~members[:, player]]
        values[player] = np.sum(weight[size[without]] * (value[without | 1 << player] - value[without]))
    return values, np.zeros(count)


def _sampled(worth: Worth, count: int, permutations: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    added = np.zeros((permutations, count))
    for row in range(permutations):
        order = generator.permutation(count)
        # who is there before, and after, each one has come
        members = np.zeros((count + 1, count), dtype=bool)
        for place, player in enumerate(order, 1):
            members[place:, player] = True
        added[row, order] = np.diff(worth(members))
    return added.mean(axis=0), added.std(axis=0, ddof=1) / np.sqrt(permutations)
