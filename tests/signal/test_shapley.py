import numpy as np
import pytest

from glitchflow_plugin.signal.shapley import shapley_values


def test_an_additive_game_gives_each_its_own():
    own = np.array([3.0, -1.0, 0.0, 2.5])
    values, errors = shapley_values(lambda members: 1.0 + members @ own, 4)
    np.testing.assert_allclose(values, own)
    assert not errors.any()


def test_the_glove_game_and_the_airport_game_have_their_known_values():
    # one left glove and two right ones (Shapley 1953): 2/3, 1/6, 1/6
    gloves, _ = shapley_values(lambda members: (members[:, 0] & members[:, 1:].any(axis=1)).astype(float), 3)
    np.testing.assert_allclose(gloves, [2 / 3, 1 / 6, 1 / 6])
    # a runway as long as the largest aircraft needs (Littlechild and Owen 1973)
    lengths = np.array([8.0, 11.0, 13.0, 18.0])
    runway, _ = shapley_values(lambda members: np.where(members, lengths, 0).max(axis=1), 4)
    np.testing.assert_allclose(runway, [2.0, 3.0, 4.0, 9.0])


@pytest.mark.parametrize("seed", [0, 1])
def test_drawn_orders_agree_with_all_of_them_within_their_errors(seed):
    weights = np.random.default_rng(5).normal(size=6)

    def worth(members):
        total = members @ weights
        return total + total**2

    exact, _ = shapley_values(worth, 6)
    drawn, errors = shapley_values(worth, 6, permutations=400, seed=seed, exact=3)
    assert (errors > 0).all()
    assert (np.abs(drawn - exact) < 4 * errors).all()
    whole = worth(np.ones((1, 6), bool)) - worth(np.zeros((1, 6), bool))
    assert drawn.sum() == pytest.approx(whole[0])


def test_nobody_shares_nothing():
    values, errors = shapley_values(lambda members: np.zeros(len(members)), 0)
    assert values.size == errors.size == 0
