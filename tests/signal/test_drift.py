import json

import numpy as np
import pytest
from scipy.stats import ks_2samp

from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.signal.drift import LADDER, DriftSettings, ExceedanceCount, Reference, compare

CHANNELS = ("GUIDE", "BYSTANDER", "RARE")


def simulate(num_events, seed, gain=1.0, rate=0.5):
    """Noise with median 1, each event at its own level, and in some events a burst."""
    generator = np.random.default_rng(seed)
    levels = generator.normal(1, 0.03, size=(num_events, len(CHANNELS), 1))
    energies = generator.exponential(1 / np.log(2), size=(num_events, len(CHANNELS), 800)) * levels
    burst = generator.random((num_events, len(CHANNELS))) < np.array([0.5, 0.5, 0.05]) * rate * 2
    energies[..., :20] += burst[..., None] * generator.uniform(30, 300, size=(num_events, len(CHANNELS), 20))
    energies[:, 0] *= gain
    return energies.astype(np.float32)


def counted(energies, valid=None):
    found = ExceedanceCount(CHANNELS)
    valid = np.ones(energies.shape[:2], dtype=bool) if valid is None else valid
    for first in range(0, len(energies), 7):
        found.add(energies[first : first + 7], valid[first : first + 7])
    return found


@pytest.fixture(scope="module")
def reference():
    return counted(simulate(200, 0)).reference()


def test_stationary_data_raise_no_alarm(reference):
    alarms = [compare(counted(simulate(60, seed)), reference, DriftSettings()).drifted for seed in range(1, 31)]
    assert not any(alarms)


def test_p_values_of_stationary_data_are_uniform_enough(reference):
    # 90 of them (30 sets, three channels): about 5 % below 0.05
    reports = [compare(counted(simulate(60, seed)), reference, DriftSettings()) for seed in range(1, 31)]
    p_values = [channel.p_value for report in reports for channel in report.channels]
    assert np.mean(np.array(p_values) < 0.05) < 0.15


def test_a_gain_a_noisier_and_a_silent_channel_are_noticed(reference):
    def drifted(energies, valid=None):
        found = compare(counted(energies, valid), reference, DriftSettings()).drifted
        return {channel.channel: channel.alarm for channel in found}

    assert "distributed otherwise" in drifted(simulate(60, 5, gain=4.0))["GUIDE"]  # twice the amplitude
    noisy = simulate(60, 5)
    noisy[:, 1, ::40] += 30
    assert set(drifted(noisy)) == {"BYSTANDER"}
    assert "times the loud values" in drifted(noisy)["BYSTANDER"]
    silent = simulate(60, 5)
    silent[:, 1] = np.minimum(silent[:, 1], 10)
    assert set(drifted(silent)) == {"BYSTANDER"}
    gone = np.ones((60, 3), dtype=bool)
    gone[:, 1] = False
    assert drifted(simulate(60, 5), gone) == {"BYSTANDER": "it is missing in 60 of 60 events"}


def test_few_events_raise_no_alarm(reference):
    assert not compare(counted(simulate(10, 5, gain=4.0)), reference, DriftSettings()).drifted


def test_the_distance_is_that_of_kolmogorov_on_the_ladder(reference):
    before, after = simulate(200, 0), simulate(60, 5, gain=1.5)
    found = compare(counted(after), reference, DriftSettings()).channels[0]
    exact = ks_2samp(before[:, 0].ravel(), after[:, 0].ravel()).statistic
    # the ladder is coarse, so it can only be a little less
    assert 0.9 * exact < found.distance <= exact + 1e-6
    same = compare(counted(before), reference, DriftSettings()).channels[0]
    assert (same.distance, same.loud_ratio, same.p_value) == (0, 1, 1)


def test_the_reference_survives_json_and_refuses_others(reference):
    content = json.loads(json.dumps(reference.to_dict()))
    assert Reference.from_dict(content) == reference
    with pytest.raises(FormatError, match="another ladder"):
        Reference.from_dict({**content, "ladder": [1.0]})
    with pytest.raises(FormatError, match="not reference statistics"):
        Reference.from_dict({"shares": 3})
    with pytest.raises(ChannelMismatchError, match="NEW"):
        compare(ExceedanceCount(("NEW",)), reference, DriftSettings())
    with pytest.raises(NoEventsError):
        ExceedanceCount(CHANNELS).reference()
    for wrong in ({"max_distance": 0}, {"max_ratio": 1.0}, {"significance": 1}, {"min_events": 1}):
        with pytest.raises(ConfigurationError):
            DriftSettings(**wrong)


def test_shares_count_values_above_each_step():
    energies = np.array([[[0.0, 1.0, 17.0, 1000.0]]], dtype=np.float32)
    found = ExceedanceCount(("X",))
    found.add(energies, np.ones((1, 1), dtype=bool))
    expected = [np.mean(energies > step) for step in LADDER]
    np.testing.assert_allclose(found.shares[0, 0], expected)
