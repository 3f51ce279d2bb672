import numpy as np
import pytest

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance
from glitchflow_plugin.signal.lags import best_lags


@pytest.mark.parametrize("true", [-0.4, -0.05, 0.0, 0.11, 0.6])
def test_lag_is_found_within_its_error_and_positive_for_a_witness_that_follows(spiking, true):
    world = spiking(1)
    centre = world.rng.uniform(1.5, 4.5, 150)
    reference = world.at(np.arange(150), centre)
    scatter = world.rng.normal(0, 0.02, 150)
    witness = Spikes.concatenate([world.at(np.arange(150), centre + true + scatter), world.noise(150, 1, 1.0)])
    lag, error = best_lags(reference, witness, Tolerance(0.25), num_channels=1, column=world.column)
    assert abs(lag[0] - true) < 4 * error[0]
    assert 0.001 < error[0] < 0.01


def test_error_shrinks_with_the_root_of_the_number(spiking):
    world = spiking(2)
    errors = []
    for number in (50, 800):
        events = np.arange(number)
        reference = world.at(events, world.rng.uniform(2, 4, number))
        witness = Spikes(events, events * 0, reference.time, reference.frequency, reference.energy)
        lag, error = best_lags(reference, witness, Tolerance(0.25), num_channels=1, column=world.column)
        assert lag[0] == 0.0
        errors.append(error[0])
    assert errors[0] / errors[1] == pytest.approx(4.0)


def test_each_channel_has_its_own_lag_and_silent_ones_none(spiking):
    world = spiking(3)
    events = np.arange(60)
    reference = world.at(events, np.full(60, 128 * world.column))
    late = world.at(events, np.full(60, 133 * world.column), channel=2)
    lag, error = best_lags(reference, late, Tolerance(0.25), num_channels=3, column=world.column)
    assert lag[2] == pytest.approx(5 * world.column)
    assert np.isnan(lag[:2]).all()
    assert np.isnan(error[:2]).all()
