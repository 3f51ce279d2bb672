import mpmath
import numpy as np
import pytest
from scipy.stats import binom, false_discovery_control, poisson

from glitchflow_plugin.signal.significance import hveto_significance, q_values, sum_tail


@pytest.mark.parametrize(
    ("count", "mean"), [(1, 1e-12), (3, 0.1), (50, 40.0), (100, 1.0), (200, 25.0), (540, 40.0), (5000, 30.0), (9, 12.0)]
)
def test_significance_is_the_poisson_tail_at_any_depth(count, mean):
    with mpmath.workdps(60):
        exact = -mpmath.log10(mpmath.gammainc(count, 0, mean, regularized=True))
    found = hveto_significance(np.array([count]), np.array([mean]))[0]
    assert found == pytest.approx(float(exact), rel=1e-10)


def test_significance_of_ordinary_tails_is_scipys():
    count = np.arange(1, 30)
    np.testing.assert_allclose(hveto_significance(count, np.full(29, 5.0)), -np.log10(poisson.sf(count - 1, 5.0)))


def test_nothing_is_not_significant_and_never_negative_or_nan():
    found = hveto_significance(np.array([0, 0, 2]), np.array([0.0, 7.0, 0.0]))
    assert found.tolist() == [0.0, 0.0, np.inf]


def test_tail_of_equal_summands_is_binomial_however_small():
    laws = np.tile([0.9, 0.1], (4, 200, 1))
    needed = np.array([0, 1, 30, 180])
    np.testing.assert_allclose(sum_tail(needed, laws), binom.sf(needed - 1, 200, 0.1), rtol=1e-9)
    assert sum_tail(np.array([180]), laws[:1])[0] < 1e-100


def test_tail_of_unequal_summands_is_that_of_their_convolution():
    rng = np.random.default_rng(0)
    laws = rng.dirichlet(np.ones(4), size=(3, 7))
    needed = np.array([2, 9, 25])
    for row, number in enumerate(needed):
        total = np.ones(1)
        for law in laws[row]:
            total = np.convolve(total, law)
        assert sum_tail(needed, laws)[row] == pytest.approx(total[number:].sum(), rel=1e-12)


def test_q_values_leave_out_what_was_not_tested():
    p = np.array([0.001, np.nan, 0.02, 0.5])
    for method in ("bh", "by"):
        found = q_values(p, method)
        assert np.isnan(found[1])
        np.testing.assert_allclose(found[[0, 2, 3]], false_discovery_control(p[[0, 2, 3]], method=method))
    assert np.isnan(q_values(np.array([np.nan]))).all()


def test_false_discoveries_stay_below_the_rate_that_was_asked_for():
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(300):
        p = rng.uniform(size=200)
        p[:20] = rng.uniform(size=20) ** 6
        found = q_values(p) <= 0.1
        shares.append(found[20:].sum() / max(found.sum(), 1))
    assert np.mean(shares) == pytest.approx(0.1 * 180 / 200, abs=0.02)
