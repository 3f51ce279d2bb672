import numpy as np
import pytest
import scipy.signal

from glitchflow_plugin.errors import DataError
from glitchflow_plugin.signal.similarity import coherence, cross_correlation

RATE = 256.0


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_a_delayed_copy_is_found_with_its_lag():
    strain = noise(1024)
    late, early = np.roll(strain, 13), -np.roll(strain, -5)
    found = cross_correlation(strain, np.stack([late, early, strain]), RATE, 0.1)
    np.testing.assert_allclose(found.place, [13 / RATE, -5 / RATE, 0])
    assert (found.value > 0.97).all()
    assert found.value[2] == pytest.approx(1)


def test_correlation_is_that_of_scipy():
    strain, other = noise(300), noise(300, seed=1)
    lags = scipy.signal.correlation_lags(300, 300)
    reference = scipy.signal.correlate(other, strain) / np.sqrt((strain**2).sum() * (other**2).sum())
    near = np.abs(lags) <= 25
    found = cross_correlation(strain, other[None], RATE, 25 / RATE)
    assert found.value[0] == pytest.approx(np.abs(reference[near]).max())
    assert found.place[0] == lags[near][np.abs(reference[near]).argmax()] / RATE


def test_independent_series_reach_what_chance_gives_as_often_as_said():
    strain, others = noise(2048), noise(400, 2048, seed=1)
    alike = coherence(strain, others, RATE, (8, 100))
    assert 0.02 < (alike.value > alike.by_chance).mean() < 0.09
    found = cross_correlation(strain, others, RATE, 0.1)
    assert 0.35 < (found.value > found.by_chance).mean() < 0.65


def test_coherence_is_that_of_what_is_shared():
    shared = noise(2**16)
    band = scipy.signal.butter(6, (40, 50), "bandpass", fs=RATE, output="sos")
    other = scipy.signal.sosfiltfilt(band, shared) + 0.1 * noise(2**16, seed=2)
    found = coherence(shared, np.stack([other, np.zeros(2**16)]), RATE, (8, 100))
    assert 38 <= found.place[0] <= 52
    assert found.value[0] == pytest.approx(1, abs=0.05)
    assert found.value[1] == 0


def test_what_is_too_short_is_refused():
    with pytest.raises(DataError, match="three times"):
        cross_correlation(noise(64), noise(1, 64), RATE, 0.1)
    with pytest.raises(DataError, match="three segments"):
        coherence(noise(200), noise(1, 200), RATE, (8, 100))
    with pytest.raises(DataError, match="no frequency"):
        coherence(noise(1024), noise(1, 1024), RATE, (8.1, 8.2))
