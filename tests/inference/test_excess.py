import math

import numpy as np
import pytest

from glitchflow_plugin.inference.excess import (
    added_power,
    grown_share,
    paired_medians,
    pooled_growth,
    power_removed,
    snr_kinds,
)


def alone(count):
    """Every event a group of its own."""
    return np.arange(count)


def test_power_of_waveforms():
    generator = np.random.default_rng(1)
    truth = generator.normal(size=(3, 500)).astype(np.float32)
    truth[2] = 0
    for share, expected in ((0.0, 0.0), (1.0, 1.0), (2.0, 0.0), (0.5, 0.75), (-1.0, -3.0)):
        removed = power_removed(truth, share * truth)
        np.testing.assert_allclose(removed[:2], expected, atol=1e-6)
        assert np.isnan(removed[2])
    apart = generator.normal(size=(3, 500))
    expected = 1 - np.linalg.norm(truth[0] - apart[0]) ** 2 / np.linalg.norm(truth[0]) ** 2
    assert power_removed(truth, apart)[0] == pytest.approx(expected)


def test_added_power():
    before = np.array([100.0, 300.0])
    assert added_power(before, before) == 0
    assert added_power(before, before + np.array([4.0, 0.0])) == pytest.approx(0.01)
    assert math.isnan(added_power(before[:0], before[:0]))
    one = pooled_growth(before, np.array([104.0, 0.0]), np.array([True, False]), alone(2))
    assert (one.value, one.low) == (pytest.approx(0.04), None)
    assert "1 independent group" in one.reason
    assert pooled_growth(before, before, np.zeros(2, bool), alone(2)).value is None


def test_glitches_that_grow_by_more_than_a_hundredth_are_counted():
    removed = np.array([0.9, 0.0, -0.0099, -0.0101, -2.0, np.nan, -3.0])
    chosen = np.arange(7) < 6  # the last does not count, and where there is no glitch none can grow
    one = grown_share(removed, chosen, alone(7))
    assert one.value == pytest.approx(2 / 5)
    assert one.low <= 0.4 <= one.high
    twins = grown_share(np.repeat(removed, 3), np.repeat(chosen, 3), np.repeat(alone(7), 3))
    assert twins.to_dict() == pytest.approx(one.to_dict())
    assert grown_share(removed, removed > 1, alone(7)).value is None


def test_growth_is_drawn_by_group():
    generator = np.random.default_rng(5)
    groups = np.repeat(np.arange(12), 5)
    before, after = generator.uniform(1, 2, (2, 60))
    one = pooled_growth(before, after, np.ones(60, bool), groups, replicates=2000)
    drawn = []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in generator.integers(0, 12, 12)])
        drawn.append(after[rows].sum() / before[rows].sum() - 1)
    np.testing.assert_allclose((one.low, one.high), np.percentile(drawn, [2.5, 97.5]), atol=0.02)


def test_medians_are_compared_in_pairs():
    generator = np.random.default_rng(2)
    base = generator.normal(size=60)
    values = {"linear": base, "ours": base + 0.3}
    chosen = np.arange(60) < 50
    found = paired_medians(values, chosen, alone(60), reference="linear", replicates=2000, seed=3)
    median, difference = found["ours"]
    assert median.value == pytest.approx(np.median(base[:50]) + 0.3)
    assert median.low < median.value < median.high
    # the same groups are drawn for both, so a constant lead has no width
    assert (difference.low, difference.high) == pytest.approx((0.3, 0.3))
    by_hand = np.median(values["ours"][:50][generator.integers(0, 50, (2000, 50))], axis=1)
    assert (median.low, median.high) == pytest.approx(tuple(np.percentile(by_hand, [2.5, 97.5])), abs=0.05)
    assert found["linear"][1].value == 0


def test_copies_of_an_event_in_its_group_change_no_median_and_no_interval():
    values = np.random.default_rng(6).normal(size=15)
    once = paired_medians({"a": values}, np.ones(15, bool), alone(15), replicates=500)["a"][0]
    often = paired_medians({"a": np.repeat(values, 4)}, np.ones(60, bool), np.repeat(alone(15), 4), replicates=500)
    assert often["a"][0].to_dict() == pytest.approx(once.to_dict())
    few = paired_medians({"a": values}, np.ones(15, bool), alone(15) % 4, replicates=500)["a"][0]
    assert (few.value, few.low) == (once.value, None)
    assert "4 independent groups" in few.reason


def test_the_interval_of_a_median_covers_the_truth():
    generator = np.random.default_rng(4)
    held = 0
    for trial in range(200):
        sample = {"one": generator.normal(size=40)}
        estimate = paired_medians(sample, np.ones(40, bool), alone(40), replicates=300, seed=trial)["one"][0]
        held += estimate.low <= 0 <= estimate.high
    assert 0.90 <= held / 200 <= 0.99


def test_an_event_that_is_undefined_for_one_counts_for_none():
    values = {"a": np.array([0.0, 1.0, 5.0]), "b": np.array([0.0, 1.0, np.nan])}
    found = paired_medians(values, np.ones(3, bool), alone(3), replicates=0)
    assert (found["a"][0].value, found["b"][0].value) == (0.5, 0.5)
    assert found["a"][0].low is None
    assert found["a"][1].value is None
    assert paired_medians(values, np.zeros(3, bool), alone(3))["a"][0].value is None


def test_kinds_by_snr_share_no_event_and_leave_out_what_has_none():
    snr = np.array([0.0, 5.0, 10.0, 19.9, 20.0, 300.0])
    kinds = snr_kinds(snr, [10.0, 20.0])
    assert [kind.name for kind in kinds] == ["< 10", "10-20", "> 20"]
    np.testing.assert_array_equal(np.sum([kind.events for kind in kinds], axis=0), snr > 0)
    assert [kind.name for kind in snr_kinds(np.array([15.0]), [10.0, 20.0])] == ["10-20"]
