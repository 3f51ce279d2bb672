import numpy as np
import pytest

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal import bootstrap
from glitchflow_plugin.signal.bootstrap import group_draws, in_memory


def test_draws_are_as_many_as_there_are_groups_and_the_same_in_blocks(monkeypatch):
    whole = np.concatenate(list(group_draws(7, 50, 3)))
    assert whole.shape == (50, 7)
    assert (whole.sum(axis=1) == 7).all()
    monkeypatch.setattr(bootstrap, "WEIGHTS_IN_MEMORY", 7 * 8)
    blocks = list(group_draws(7, 50, 3))
    assert [len(block) for block in blocks] == [8] * 6 + [2]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert (np.concatenate(list(group_draws(7, 50, 4))) != whole).any()
    np.testing.assert_array_equal(np.concatenate(list(in_memory(whole, 28))), whole)
    assert max(len(block) for block in in_memory(whole, 28)) == 2


def test_draws_are_those_of_groups_with_replacement():
    draws = np.concatenate(list(group_draws(4, 40_000, 0)))
    # multinomial: mean 1, variance 1 - 1/4, covariance -1/4
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=0.02)
    np.testing.assert_allclose(np.cov(draws.T), np.eye(4) - 0.25, atol=0.02)


def test_a_negative_number_of_replicates_is_refused():
    with pytest.raises(ConfigurationError, match="replicates"):
        list(group_draws(9, -1))
