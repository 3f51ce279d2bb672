import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from glitchflow_plugin.inference.clean import clean_maps
from glitchflow_plugin.inference.excess import (
    NOISE_MEAN,
    added_power,
    event_draws,
    excess_removed,
    paired_medians,
    pooled_growth,
    power_removed,
    snr_groups,
)

SHAPE = (40, 32, 64)


@pytest.fixture
def scene():
    """Complex tiles of noise and of one glitch an event; an energy is |tile|², whose noise has median 1."""
    generator = np.random.default_rng(0)
    noise = math.sqrt(NOISE_MEAN / 2) * (generator.normal(size=SHAPE) + 1j * generator.normal(size=SHAPE))
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    shape = np.exp(-(((rows - 16) / 3) ** 2) - ((columns - 32) / 4) ** 2)
    glitch = 20 * shape * np.exp(2j * np.pi * generator.uniform(size=(SHAPE[0], 1, 1)))
    return noise, glitch


def energy(tiles):
    return torch.from_numpy(np.abs(tiles) ** 2)


def subtracted(scene, share):
    noise, glitch = scene
    return excess_removed(energy(noise + glitch), energy(share * glitch), energy(noise + (1 - share) * glitch))


def test_noise_has_the_mean_that_is_taken_off(scene):
    assert energy(scene[0]).median() == pytest.approx(1, abs=0.02)
    assert energy(scene[0]).mean() == pytest.approx(NOISE_MEAN, rel=0.02)


def test_subtraction_removes_what_it_should(scene):
    """A share s of the waveform leaves (1 - s)² of the energy, and the noise is neither rewarded nor punished."""
    assert np.allclose(subtracted(scene, 0.0), 0)
    for share, expected in ((0.5, 0.75), (0.9, 0.99), (1.0, 1.0), (2.0, 0.0), (2.5, -1.25)):
        removed = subtracted(scene, share)
        assert np.median(removed) == pytest.approx(expected, abs=0.02)
        assert removed.max() <= 1


def test_pixels_are_those_of_the_glitch_widened_and_of_the_prediction():
    measured, predicted, cleaned = (torch.full((1, 9, 9), NOISE_MEAN, dtype=torch.float64) for _ in range(3))
    measured[0, 4, 4], predicted[0, 0, 8] = 30.0, 20.0
    cleaned[0] = torch.arange(81.0).reshape(9, 9)
    counted = binary_dilation(measured[0].numpy() > 16, np.ones((3, 3))) | (predicted[0].numpy() > 16)
    after = (cleaned[0].numpy() - NOISE_MEAN)[counted].sum()
    removed = excess_removed(measured, predicted, cleaned, dilation=1)
    assert removed[0] == pytest.approx(1 - after / (30 - NOISE_MEAN))


def test_energies_without_phase_are_judged_by_the_same_figure(scene):
    noise, glitch = scene
    measured = energy(noise + glitch)
    assert np.allclose(excess_removed(measured, measured, clean_maps(measured, measured)), 1)
    zero = torch.zeros_like(measured)
    assert np.allclose(excess_removed(measured, zero, clean_maps(measured, zero)), 0)


def test_without_excess_there_is_no_share(scene):
    quiet = energy(scene[0]).clamp(max=15)
    loud_prediction = energy(scene[1])
    assert np.isnan(excess_removed(quiet, loud_prediction, clean_maps(quiet, loud_prediction))).all()


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
    one = pooled_growth(before, np.array([104.0, 0.0]), np.array([True, False]))
    assert (one.value, one.low, one.high) == pytest.approx((0.04, 0.04, 0.04))
    assert pooled_growth(before, before, np.zeros(2, bool)).value is None


def test_medians_are_compared_in_pairs():
    generator = np.random.default_rng(2)
    base = generator.normal(size=60)
    values = {"linear": base, "ours": base + 0.3}
    chosen = np.arange(60) < 50
    found = paired_medians(values, chosen, reference="linear", replicates=300, seed=3)
    median, difference = found["ours"]
    assert median.value == pytest.approx(np.median(base[:50]) + 0.3)
    assert median.low < median.value < median.high
    # the same events are drawn for both, so a constant lead has no width
    assert (difference.low, difference.high) == pytest.approx((0.3, 0.3))
    by_hand = np.median(values["ours"][:50][event_draws(50, 300, 3)], axis=1)
    assert (median.low, median.high) == pytest.approx(tuple(np.percentile(by_hand, [2.5, 97.5])))
    assert found["linear"][1].value == 0


def test_the_interval_of_a_median_covers_the_truth():
    generator = np.random.default_rng(4)
    held = 0
    for trial in range(200):
        sample = {"one": generator.normal(size=40)}
        estimate = paired_medians(sample, np.ones(40, bool), replicates=300, seed=trial)["one"][0]
        held += estimate.low <= 0 <= estimate.high
    assert 0.90 <= held / 200 <= 0.99


def test_an_event_that_is_undefined_for_one_counts_for_none():
    values = {"a": np.array([0.0, 1.0, 5.0]), "b": np.array([0.0, 1.0, np.nan])}
    found = paired_medians(values, np.ones(3, bool), replicates=0)
    assert (found["a"][0].value, found["b"][0].value) == (0.5, 0.5)
    assert found["a"][0].low is None
    assert found["a"][1].value is None
    assert paired_medians(values, np.zeros(3, bool))["a"][0].value is None


def test_groups_by_snr_share_no_event_and_leave_out_what_has_none():
    snr = np.array([0.0, 5.0, 10.0, 19.9, 20.0, 300.0])
    groups = snr_groups(snr, [10.0, 20.0])
    assert [group.name for group in groups] == ["< 10", "10-20", "> 20"]
    np.testing.assert_array_equal(np.sum([group.events for group in groups], axis=0), snr > 0)
    assert [group.name for group in snr_groups(np.array([15.0]), [10.0, 20.0])] == ["10-20"]
