import numpy as np
import pytest

from glitchflow_plugin.data.groups import LEAST_GROUPS
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.intervals import (
    bootstrap,
    estimate,
    few_groups,
    weighted_median,
)


def mean_of(values):
    return lambda weights: (weights @ values / weights.sum(axis=1))[:, None]


def test_the_interval_of_a_mean_covers_the_truth():
    generator = np.random.default_rng(4)
    held = 0
    for trial in range(200):
        low, high = bootstrap(mean_of(generator.normal(size=40)), 40, replicates=300, seed=trial)[:, 0]
        held += low <= 0 <= high
    assert 0.90 <= held / 200 <= 0.99


@pytest.mark.parametrize(("groups", "replicates"), [(LEAST_GROUPS - 1, 100), (1, 100), (30, 0)])
def test_no_interval_of_few_groups_or_without_replicates(groups, replicates):
    assert np.isnan(bootstrap(mean_of(np.arange(groups)), groups, replicates=replicates)).all()
    assert bool(few_groups(groups)) == (groups < LEAST_GROUPS)


def test_a_figure_that_some_replicates_cannot_define_has_an_interval_of_the_others():
    values = np.r_[np.full(19, np.nan), 2.0]

    def defined(weights):
        return np.where(weights[:, -1:] > 0, values[-1], np.nan) * [1, np.nan]

    ends = bootstrap(defined, 20, replicates=100)
    np.testing.assert_array_equal(ends[:, 0], [2, 2])
    assert np.isnan(ends[:, 1]).all()


def test_weighted_medians_are_those_of_repeated_values():
    generator = np.random.default_rng(1)
    values = np.round(generator.normal(size=31), 1)
    weights = generator.integers(0, 4, (50, 31)).astype(float)
    weights[0] = 0
    found = weighted_median(values, weights)
    assert np.isnan(found[0])
    expected = [np.median(np.repeat(values, row.astype(int))) for row in weights[1:]]
    np.testing.assert_allclose(found[1:], expected)


def test_what_is_missing_has_a_reason():
    assert estimate(np.nan, (0, 1), "nothing").to_dict() == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "nothing",
    }
    without = estimate(0.5, (np.nan, np.nan), few_groups(3))
    assert (without.value, without.low) == (0.5, None)
    assert "3 independent groups" in without.reason
    assert estimate(0.5, (0.4, 0.6), "unused").reason is None
    with pytest.raises(ConfigurationError, match="replicates"):
        bootstrap(mean_of(np.arange(9)), 9, replicates=-1)
