import numpy as np
import pytest
from scipy import stats

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.training.mean_interval import group_mean, mean_interval

NUM_SETS = 2000


def rare(generator, shape):
    """Slightly below zero in 90 % of cases, far above in 10 %."""
    return np.where(generator.random(shape) < 0.9, -1.0, 9.0) + 0.05 * generator.standard_normal(shape)


# all of mean 0
LAWS = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "exponential": lambda generator, shape: generator.exponential(size=shape) - 1,
    "log-normal": lambda generator, shape: generator.lognormal(size=shape) - np.exp(0.5),
    "gamma": lambda generator, shape: generator.gamma(0.5, size=shape) - 0.5,
    "rare": rare,
}


@pytest.mark.parametrize("law", LAWS)
def test_the_level_is_kept_at_the_smallest_number_of_groups(law):
    """Of 2.5 % meant at either end, at most 4 % are found; the lower end is the upper one of the other sign."""
    values = LAWS[law](np.random.default_rng(1), (50, NUM_SETS))
    _, low, high = mean_interval(values, np.arange(50), replicates=1000)
    assert np.mean(high < 0) <= 0.04
    assert np.mean(low > 0) <= 0.04


def test_a_typical_gain_is_found():
    """A gain of half the spread from event to event is found in most cases, one of its size in all."""
    noise = np.random.default_rng(2).standard_normal((50, 500))
    power = [np.mean(mean_interval(noise - gain, np.arange(50))[2] < 0) for gain in (0.0, 0.5, 1.0)]
    assert power[0] <= 0.04
    assert power[1] >= 0.75
    assert power[2] == 1


SIZES = {
    "some larger": lambda generator: generator.integers(1, 12, 50),
    "log-normal": lambda generator: np.ceil(generator.lognormal(0, 1.5, 50)).astype(int),
    "one holds most": lambda _: [200] + [1] * 49,
    "two hold most": lambda _: [100, 100] + [1] * 48,
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_groups_of_very_different_sizes_keep_the_level(sizes):
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(50), sizes(generator))
    shared = generator.standard_normal((50, NUM_SETS))[groups]
    values = shared + 0.3 * generator.standard_normal(shared.shape)
    _, low, high = mean_interval(values, groups, replicates=500)
    assert np.mean(high < 0) <= 0.04
    assert np.mean(low > 0) <= 0.04
    # taken for independent, they would not
    _, _, naive = mean_interval(values, np.arange(len(groups)), replicates=500)
    assert np.mean(naive < 0) > 0.1


def test_it_tends_to_the_interval_of_student():
    values = np.random.default_rng(4).normal(-0.02, 0.05, 1000)
    mean, low, high = mean_interval(values, np.arange(1000), replicates=2000)
    expected = stats.t.interval(0.95, 999, mean, stats.sem(values))
    np.testing.assert_allclose([low, high], expected, atol=0.25 * stats.sem(values))


def test_every_group_counts_as_one():
    assert group_mean(np.array([1.0, 1.0, 1.0, 5.0]), np.array([7, 7, 7, 2])) == 3.0
    assert mean_interval(np.array([1.0, 1.0, 1.0, 5.0]), np.array([7, 7, 7, 2]))[0] == 3.0


def test_copies_are_no_further_evidence():
    values = np.random.default_rng(5).standard_normal(30)
    one = mean_interval(values, np.arange(30))
    many = mean_interval(np.repeat(values, 5), np.repeat(np.arange(30), 5))
    np.testing.assert_allclose(one, many)


def test_what_hangs_on_one_event_is_not_believed():
    values = np.zeros(60)
    values[7] = -1
    assert mean_interval(values, np.arange(60))[2] >= 0
    assert mean_interval(np.zeros(60), np.arange(60)) == (0, 0, 0)
    with pytest.raises(ConfigurationError, match="two groups"):
        mean_interval(values, np.zeros(60))
