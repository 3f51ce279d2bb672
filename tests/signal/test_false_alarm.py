import json

import numpy as np
import pytest

from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.signal.false_alarm import FalseAlarm, calibrate_false_alarm


def test_counts_of_independent_strides_get_one_more():
    rank = np.arange(1.0, 11.0)[:, None]
    found = calibrate_false_alarm(rank, np.ones((10, 1), bool), np.arange(10))
    # (k + 1) / (n + 1), as for any permutation test
    assert found(np.array([0.5, 1.0, 9.0, 10.0, 10.5])).tolist() == [1.0, 1.0, 3 / 11, 2 / 11, 1 / 11]
    assert np.isnan(found(np.array([np.nan])))
    assert (found.strides, found.groups) == (10, 10)


def test_a_group_counts_as_bad_as_the_worst_seen():
    rank = np.zeros((20, 50))
    rank[3, 10:20] = 5.0  # one false alarm of ten strides in a thousand
    found = calibrate_false_alarm(rank, np.ones_like(rank, bool), np.arange(20))
    assert found(np.array([5.0]))[0] == pytest.approx(20 / 1010)
    # above all that was seen one more such group may lie
    assert found(np.array([6.0]))[0] == pytest.approx(10 / 1010)


def test_fresh_clean_time_has_no_more_false_alarms_than_are_claimed():
    rng = np.random.default_rng(1)

    def noise(events):  # false alarms come in bursts
        bursts = rng.random((events, 1)) < 0.2
        return rng.exponential(size=(events, 60)) * np.where(bursts, 5, 1)

    claimed, observed = np.array([0.01, 0.03, 0.1]), np.zeros(3)
    for _ in range(40):
        found = calibrate_false_alarm(noise(30), np.ones((30, 60), bool), np.arange(30))
        observed += (found(noise(30))[..., None] <= claimed).mean(axis=(0, 1)) / 40
    assert (observed < 1.1 * claimed).all()
    assert (observed > 0.3 * claimed).all()


def test_it_is_kept_as_plain_values():
    rank = np.random.default_rng(0).exponential(size=(8, 100))
    found = calibrate_false_alarm(rank, rank < 5, np.repeat(np.arange(4), 2))
    again = FalseAlarm.from_dict(json.loads(json.dumps(found.to_dict())))
    np.testing.assert_array_equal(again(rank), found(rank))
    assert (np.diff(found.probability) <= 0).all()


def test_without_clean_time_there_is_no_probability():
    with pytest.raises(NoEventsError, match="without a glitch"):
        calibrate_false_alarm(np.ones((2, 3)), np.zeros((2, 3), bool), np.arange(2))
