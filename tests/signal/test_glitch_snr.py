import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.glitch_snr import GlitchSNR, effective_number, fitted_exponent

LAWS = [GlitchSNR(), GlitchSNR(5.0, 1.5), GlitchSNR(8.0, 4.0), GlitchSNR(6.0, None)]


def drawn(law, count, seed=0):
    return law.lowest * np.random.default_rng(seed).uniform(size=count) ** (1 / (1 - law.exponent))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(arrays(float, st.integers(0, 12), elements=st.sampled_from([1.0, 4.9, 5.0, 6.0, 6.1, 9.0, 80.0, 1e9])))
def test_weights_are_a_distribution_over_those_that_are_loud_enough(snr):
    for law in LAWS:
        weights = law.weights(snr)
        assert (weights[snr < law.lowest] == 0).all()
        assert (weights[snr >= law.lowest] > 0).all()
        assert weights.sum() == pytest.approx(float((snr >= law.lowest).any()))
        for one in set(snr):
            assert np.ptp(weights[snr == one]) == 0  # glitches of one SNR count alike


@pytest.mark.parametrize("exponent", [2.0, 3.0, 5.0])
def test_weighted_glitches_are_distributed_as_is_stated(exponent):
    """Whatever the distribution of those that there are: uniform on a logarithmic scale here."""
    law, snr = GlitchSNR(5.0, exponent), np.geomspace(2.0, 200.0, 3000)
    weights = law.weights(snr)
    for edge in (5.5, 8.0, 20.0, 60.0):
        assert weights[snr > edge].sum() == pytest.approx((edge / 5.0) ** (1 - exponent), abs=2e-3)
    assert effective_number(weights) < (snr >= 5).sum()


def test_a_law_is_found_again_and_without_one_all_count_alike():
    assert fitted_exponent(drawn(GlitchSNR(5.0, 2.5), 20_000), 5.0) == pytest.approx(2.5, abs=0.05)
    assert np.isnan(fitted_exponent(np.array([3.0, 4.0]), 5.0))
    weights = GlitchSNR(6.0, None).weights(np.array([5.0, 6.0, 60.0]))
    assert weights.tolist() == [0.0, 0.5, 0.5]
    assert effective_number(weights) == pytest.approx(2.0)
    assert effective_number(np.zeros(3)) == 0.0


@pytest.mark.parametrize("wrong", [{"exponent": 1.0}, {"lowest": 0.0}, {"slope": 3.0}])
def test_a_law_that_has_no_sum_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        built(GlitchSNR, wrong, "stream.products.glitch_snr")
