import json

import numpy as np
import pytest
from scipy import stats

from glitchflow_plugin.errors import ConfigurationError, NoEventsError
from glitchflow_plugin.signal.false_alarm import FalseAlarm, calibrate_false_alarm
from glitchflow_plugin.signal.rank_calibration import RankCalibration, calibrate_ranks

CLEAN, GLITCH = stats.expon(), stats.gamma(4, scale=2.0)
STRIDE = 0.02


def _calibrated(num_clean=40_000, num_glitches=2000, seed=0):
    rng = np.random.default_rng(seed)
    clean = CLEAN.rvs(num_clean, random_state=rng)[:, None]
    false_alarm = calibrate_false_alarm(clean, np.ones_like(clean, bool), np.arange(num_clean))
    at_glitches = GLITCH.rvs(num_glitches, random_state=rng)
    return calibrate_ranks(at_glitches, np.arange(num_glitches), false_alarm, STRIDE)


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
    found = calibrate_ranks(rng.exponential(size=4000), np.arange(4000), false_alarm, STRIDE)
    assert np.abs(found.log_ratio(np.array([0.1, 0.5, 1.0, 2.0]))).max() < 0.3
    np.testing.assert_allclose(found.probability(np.array([0.5, 1.0])), 0.5, atol=0.08)


def test_beyond_all_clean_time_no_more_is_claimed_than_its_false_alarms_allow():
    clean = np.random.default_rng(3).exponential(size=(20, 50))
    false_alarm = calibrate_false_alarm(clean, np.ones_like(clean, bool), np.arange(20))
    found = calibrate_ranks(np.full(9, 1e3), np.arange(9), false_alarm, STRIDE)
    least = false_alarm(np.array([1e9]))[0]
    assert found.log_ratio(np.array([1e9]))[0] <= np.log(1 / least)
    assert np.isfinite(found.log_ratio(np.array([0.0, 1.0, 1e3, 1e9]))).all()
    assert found.efficiency(np.array([0.0, 1e3, 1.1e3])).tolist() == [1.0, 1.0, 0.0]
    assert np.isnan([found.efficiency(np.array([np.nan])), found.probability(np.array([np.nan]))]).all()


@pytest.mark.parametrize("num_glitches", [1, 7, 700])
def test_it_is_kept_as_plain_values(num_glitches):
    found, ranks = _calibrated(2000, num_glitches), np.linspace(0, 60, 400)
    kept = json.loads(json.dumps(found.to_dict()))
    again = RankCalibration.from_dict(kept, FalseAlarm.from_dict(json.loads(json.dumps(found.false_alarm.to_dict()))))
    for name in ("efficiency", "log_ratio", "probability"):
        np.testing.assert_array_equal(getattr(again, name)(ranks), getattr(found, name)(ranks))
    assert (again.glitches, again.groups, again.rate) == (num_glitches, num_glitches, found.rate)


def test_a_rate_that_cannot_be_and_no_glitch_at_all_are_refused():
    found = _calibrated(500, 20)
    assert found.at_rate(None) is found
    for rate in (0.0, -1.0, 1 / STRIDE):
        with pytest.raises(ConfigurationError, match="rate of glitches"):
            found.at_rate(rate)
    with pytest.raises(NoEventsError, match="glitch"):
        calibrate_ranks(np.empty(0), np.empty(0, int), found.false_alarm, STRIDE)
