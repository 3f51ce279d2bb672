import json

import numpy as np
import pytest
from scipy import stats

from glitchflow_plugin.errors import ConfigurationError, NoEventsError
from glitchflow_plugin.signal.false_alarm import FalseAlarm, calibrate_false_alarm
from glitchflow_plugin.signal.glitch_snr import GlitchSNR
from glitchflow_plugin.signal.rank_calibration import RankedGlitches, calibrate_ranks

CLEAN, GLITCH = stats.expon(), stats.gamma(4, scale=2.0)
STRIDE = 0.02
AS_THEY_ARE = GlitchSNR(5.0, None)


def _seen(at_glitches, snr=None):
    snr = np.full(len(at_glitches), 10.0) if snr is None else snr
    return RankedGlitches.of(at_glitches, snr, np.arange(len(at_glitches)), STRIDE)


def _calibrated(num_clean=40_000, num_glitches=2000, seed=0):
    rng = np.random.default_rng(seed)
    clean = CLEAN.rvs(num_clean, random_state=rng)[:, None]
    false_alarm = calibrate_false_alarm(clean, np.ones_like(clean, bool), np.arange(num_clean))
    at_glitches = GLITCH.rvs(num_glitches, random_state=rng)
    return calibrate_ranks(_seen(at_glitches), false_alarm, AS_THEY_ARE)


def test_known_densities_come_back():
    found, ranks = _calibrated(), np.linspace(1.0, 8.0, 40)
    np.testing.assert_allclose(found.efficiency(ranks), GLITCH.sf(ranks), atol=0.03)
    true = GLITCH.logpdf(ranks) - CLEAN.logpdf(ranks)
    assert np.sqrt(np.mean(np.square(found.log_ratio(ranks) - true))) < 0.3
    assert (np.diff(found.log_ratio(ranks)) >= 0).all()
    prior = 2000 / 42_000
    assert found.rate == pytest.approx(prior / STRIDE)
    posterior = 1 / (1 + np.exp(-true) * (1 - prior) / prior)
    np.testing.assert_allclose(found.probability(ranks), posterior, atol=0.12)


def test_what_is_claimed_is_found_in_fresh_time():
    """Among strides of which it is claimed to be likely, so many are glitches; at another rate, when that is told."""
    found, rng = _calibrated(), np.random.default_rng(5)
    for rate_over in (1.0, 0.2):
        glitches = round(2000 * rate_over)
        rank = np.concatenate([CLEAN.rvs(40_000, random_state=rng), GLITCH.rvs(glitches, random_state=rng)])
        truth = np.arange(len(rank)) >= 40_000
        claimed = found.at_rate(glitches / (len(rank) * STRIDE)).probability(rank)
        assert claimed.sum() == pytest.approx(glitches, rel=0.1)
        for low, high in ((0.02, 0.2), (0.2, 0.6), (0.6, 1.0)):
            chosen = (claimed >= low) & (claimed < high)
            error = np.sqrt(claimed[chosen] @ (1 - claimed[chosen])) / chosen.sum()
            assert truth[chosen].mean() == pytest.approx(claimed[chosen].mean(), abs=4 * error + 0.05)


def test_a_rank_that_tells_nothing_claims_nothing():
    rng = np.random.default_rng(2)
    clean = rng.exponential(size=(4000, 1))
    false_alarm = calibrate_false_alarm(clean, np.ones_like(clean, bool), np.arange(4000))
    found = calibrate_ranks(_seen(rng.exponential(size=4000)), false_alarm, AS_THEY_ARE)
    assert np.abs(found.log_ratio(np.array([0.1, 0.5, 1.0, 2.0]))).max() < 0.3
    np.testing.assert_allclose(found.probability(np.array([0.5, 1.0])), 0.5, atol=0.08)


def test_beyond_all_clean_time_no_more_is_claimed_than_its_false_alarms_allow():
    clean = np.random.default_rng(3).exponential(size=(20, 50))
    false_alarm = calibrate_false_alarm(clean, np.ones_like(clean, bool), np.arange(20))
    found = calibrate_ranks(_seen(np.full(9, 1e3)), false_alarm, AS_THEY_ARE)
    least = false_alarm(np.array([1e9]))[0]
    assert found.log_ratio(np.array([1e9]))[0] <= np.log(1 / least)
    assert np.isfinite(found.log_ratio(np.array([0.0, 1.0, 1e3, 1e9]))).all()
    assert found.efficiency(np.array([0.0, 1e3, 1.1e3])).tolist() == [1.0, 1.0, 0.0]
    assert np.isnan([found.efficiency(np.array([np.nan])), found.probability(np.array([np.nan]))]).all()


@pytest.mark.parametrize("num_glitches", [1, 7, 9000])
def test_glitches_are_kept_as_plain_values_and_no_more_than_are_of_use(num_glitches):
    rng, false_alarm = np.random.default_rng(num_glitches), _calibrated(2000, 5).false_alarm
    ranks, snr = rng.gamma(4, 2.0, num_glitches), rng.uniform(5, 50, num_glitches)
    seen = RankedGlitches.of(ranks, snr, np.arange(num_glitches) // 2, STRIDE)
    assert len(seen.ranks) == min(num_glitches, 4096)
    pairs = dict(zip(ranks, snr, strict=True))
    assert [pairs[one] for one in seen.ranks] == seen.snr.tolist()
    again = RankedGlitches.from_dict(json.loads(json.dumps(seen.to_dict())))
    kept = FalseAlarm.from_dict(json.loads(json.dumps(false_alarm.to_dict())))
    one, other = calibrate_ranks(seen, false_alarm, GlitchSNR()), calibrate_ranks(again, kept, GlitchSNR())
    levels = np.linspace(0, 60, 400)
    for name in ("efficiency", "log_ratio", "probability"):
        np.testing.assert_array_equal(getattr(other, name)(levels), getattr(one, name)(levels))
    assert one.told() == other.told()
    assert one.rate == pytest.approx(num_glitches / ((num_glitches + 2000) * STRIDE))
    shares = [(ranks >= level).mean() for level in levels]
    np.testing.assert_allclose(calibrate_ranks(seen, false_alarm, AS_THEY_ARE).efficiency(levels), shares, atol=1e-3)


def test_what_is_stated_is_of_the_glitches_that_are_named():
    """Validation glitches are loud; those of a stream are mostly faint, and the fainter the lower they rank."""
    rng, law = np.random.default_rng(8), GlitchSNR(5.0, 3.5)
    clean = CLEAN.rvs(40_000, random_state=rng)[:, None]
    false_alarm = calibrate_false_alarm(clean, np.ones_like(clean, bool), np.arange(40_000))

    def _ranks(snr):
        return snr**2 * rng.lognormal(-2.0, 0.5, len(snr))

    snr = np.exp(rng.uniform(np.log(4.0), np.log(70.0), 2000))
    seen = _seen(_ranks(snr), snr)
    stream = 5.0 * rng.uniform(size=4000) ** (1 / (1 - law.exponent))
    found = _ranks(stream)
    named, as_they_are = (calibrate_ranks(seen, false_alarm, one) for one in (law, AS_THEY_ARE))
    levels = np.quantile(found, [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(named.efficiency(levels), [0.9, 0.75, 0.5, 0.25, 0.1], atol=0.05)
    assert as_they_are.efficiency(levels)[2] > 0.8  # which is what made it claim too much
    rank = np.concatenate([CLEAN.rvs(40_000, random_state=rng), found])
    rate = len(found) / (len(rank) * STRIDE)
    assert named.at_rate(rate).probability(rank).sum() == pytest.approx(len(found), rel=0.1)
    assert named.effective < named.glitches < 2000
    assert named.told()["glitch_snr_exponent"] == 3.5


def test_a_rate_that_cannot_be_and_no_glitch_at_all_are_refused():
    found = _calibrated(500, 20)
    assert found.at_rate(None) is found
    for rate in (0.0, -1.0, 1 / STRIDE):
        with pytest.raises(ConfigurationError, match="rate of glitches"):
            found.at_rate(rate)
    with pytest.raises(NoEventsError, match="glitch"):
        calibrate_ranks(_seen(np.empty(0)), found.false_alarm, GlitchSNR())
    with pytest.raises(NoEventsError, match=r"glitch_snr\.lowest"):
        calibrate_ranks(_seen(np.ones(9)), found.false_alarm, GlitchSNR(11.0))
