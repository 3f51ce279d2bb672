import numpy as np
import pyarrow.dataset as ds
import pytest

from glitchflow_plugin.data.triggers.series import Sampled, SeriesSettings, rate_series, sampled_series
from glitchflow_plugin.data.triggers.sets import Vocabulary
from glitchflow_plugin.data.triggers.table import trigger_table
from glitchflow_plugin.errors import ConfigurationError

START = 1_400_000_000 * 10**9
SECOND = 10**9


def drawn(number, seed=0):
    rng = np.random.default_rng(seed)
    times = np.sort(START + rng.integers(0, 400 * SECOND, number))
    names = np.array(["L1:A", "L1:B", "L1:OTHER"])[rng.integers(0, 3, number)]
    return times, names


def test_rates_are_the_counts_of_each_step_and_channel():
    times, names = drawn(3000)
    table = trigger_table(
        {"time": times, "frequency": np.full(3000, 50.0), "snr": np.full(3000, 8.0), "channel": names.tolist()}
    )
    settings = SeriesSettings(reach=10.0, nearest=0.5, batch=2)
    anchors = START + np.array([50, 133, 320]) * SECOND + 7
    parts = list(rate_series(ds.dataset(table), anchors, Vocabulary(("L1:A", "L1:B")), settings))
    assert [len(part) for part in parts] == [2, 1]
    edges = settings.edges
    for row, anchor in zip([*parts[0].values, *parts[1].values], anchors, strict=True):
        expected = [np.histogram((times[names == name] - anchor) / SECOND, edges)[0] for name in ("L1:A", "L1:B")]
        np.testing.assert_allclose(row, np.log1p(np.concatenate(expected)), rtol=1e-6)
    one = parts[0]
    np.testing.assert_allclose(one.uncertainties, np.exp(-one.values / 2), rtol=1e-6)
    assert one.channels[0].tolist() == [0] * (len(edges) - 1) + [1] * (len(edges) - 1)
    np.testing.assert_allclose(one.times[0, : len(edges) - 1], (edges[1:] + edges[:-1]) / 2)


def test_the_uncertainty_of_a_rate_is_near_that_of_its_logarithm():
    counts = np.random.default_rng(0).poisson(30, 200_000)
    assert np.log1p(counts).std() == pytest.approx(1 / np.sqrt(31), rel=0.05)


def test_channels_are_sampled_when_they_like():
    slow = Sampled(START + np.arange(5) * 4 * SECOND, np.arange(5.0), np.full(5, 0.1), np.ones(5))
    fast = Sampled(START + np.arange(40) * SECOND // 2 + 1, np.arange(40.0), np.full(40, 0.2), np.full(40, 0.5))
    fast.value[3] = np.nan
    anchors = np.array([START + 4 * SECOND, START + 100 * SECOND])
    series = sampled_series({"slow": slow, "fast": fast}, anchors, SeriesSettings(reach=4.0))
    first = series.mask[0]
    assert series.values[0][first].tolist() == [0, 1, 2, *(one for one in range(16) if one != 3)]
    assert series.channels[0][first].tolist() == [0] * 3 + [1] * 15
    assert series.times[0][:3].tolist() == [-4, 0, 4]
    np.testing.assert_allclose(series.times[0, 3], -4 + 1e-9)
    assert series.uncertainties[0][first].tolist() == pytest.approx([0.1] * 3 + [0.2] * 15)
    assert series.weights[0][first].tolist() == [1.0] * 3 + [0.5] * 15
    assert not series.mask[1].any()
    assert sampled_series({}, anchors, SeriesSettings()).mask.shape == (2, 0)


def test_steps_longer_than_the_reach_are_refused():
    with pytest.raises(ConfigurationError, match="nearest up to reach"):
        SeriesSettings(reach=1.0, nearest=2.0)
