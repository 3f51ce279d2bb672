import json

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from glitchflow_plugin.errors import ConfigurationError, DataError, NoEventsError
from glitchflow_plugin.inference.score import (
    THRESHOLDS,
    Confusion,
    WindowStatistics,
    _weighted_auc,
    confusion_counts,
    map_statistics,
    score,
    score_statistics,
    scoring_windows,
    window_statistics,
)


def statistics(measured, predicted, cleaned=None, event=None, cut=16.0):
    measured, predicted = np.asarray(measured, float), np.asarray(predicted, float)
    cleaned = np.abs(measured - predicted) if cleaned is None else np.asarray(cleaned, float)
    event = np.arange(len(measured)) if event is None else np.asarray(event)
    power = np.where(measured > cut, measured, 0)  # as if each window had one pixel
    residual = np.where((measured > cut) | (predicted > cut), cleaned, 0)
    return WindowStatistics(event, measured, predicted, cleaned, power, residual, cut)


@pytest.fixture
def windows():
    """Sixty windows of fifteen events; every second one holds a glitch of SNR² 20 to 80."""
    generator = torch.Generator().manual_seed(3)
    maps = torch.empty(60, 16, 16).exponential_(1.0, generator=generator).clamp(max=8)
    glitch = torch.arange(60) % 2 == 0
    maps[glitch, 5, 7] = 20 + 60 * torch.rand(int(glitch.sum()), generator=generator)
    return maps, np.repeat(np.arange(15), 4)


def test_a_perfect_prediction_scores_one_everywhere(windows):
    measured, events = windows
    scores = score(measured, measured.clone(), events, seed=1)
    metrics = scores.metrics()
    for name in ("denoising_accuracy_snr2_16", "veto_accuracy_snr2_16", "roc_auc", "residual_power_removed"):
        assert metrics[name].value == metrics[name].low == metrics[name].high == 1.0, name
    assert metrics["harmed_share_snr2_16"].value == 0
    assert scores.confusion == Confusion(hits=30, misses=0, false_alarms=0, correct_rejections=30)


def test_the_zero_prediction_removes_nothing_and_ranks_nothing(windows):
    measured, events = windows
    scores = score(measured, torch.zeros_like(measured), events)
    metrics = scores.metrics()
    assert metrics["denoising_accuracy_snr2_16"].value == 0
    assert metrics["residual_power_removed"].value == 0
    assert metrics["roc_auc"].value == metrics["roc_auc"].low == metrics["roc_auc"].high == 0.5
    assert metrics["veto_accuracy_snr2_16"].value == 0.5  # right on the quiet half
    assert scores.confusion == Confusion(hits=0, misses=30, false_alarms=0, correct_rejections=30)


def test_curves_follow_their_definitions(windows):
    measured, events = windows
    predicted = 0.7 * measured + torch.rand(measured.shape, generator=torch.Generator().manual_seed(4))
    scores = score(measured, predicted, events, replicates=0)
    for index, threshold in enumerate(THRESHOLDS):
        cleaned = [float((m - p).abs().max()) for m, p in zip(measured, predicted, strict=True)]
        loud = [float(m.max()) > threshold for m in measured]
        left = [c < threshold for c, was in zip(cleaned, loud, strict=True) if was]
        agree = [(float(p.max()) > threshold) == was for p, was in zip(predicted, loud, strict=True)]
        assert scores.denoising_accuracy.value[index] == pytest.approx(np.mean(left))
        assert scores.denoising_accuracy.count[index] == sum(loud)
        assert scores.veto_accuracy.value[index] == pytest.approx(np.mean(agree))
    assert np.isnan(scores.veto_accuracy.low).all()  # no replicates, no band
    assert scores.metrics()["roc_auc"].low is None


def test_residual_power_counts_what_was_taken_away_and_what_was_added():
    measured = torch.tensor([[40.0, 60.0, 2.0, 1.0]])
    half = torch.tensor([[20.0, 30.0, 0.0, 0.0]])
    invented = torch.tensor([[0.0, 0.0, 0.0, 51.0]])
    assert score(measured, half, replicates=0).residual_power_removed.value == pytest.approx(0.5)
    # nothing removed of 100, and 50 more put where there was silence
    assert score(measured, invented, replicates=0).residual_power_removed.value == pytest.approx(-0.5)


def test_harm_is_a_quiet_window_made_loud():
    measured, predicted = [2.0, 2.0, 30.0, 3.0], [40.0, 1.0, 30.0, 3.0]
    assert score_statistics(statistics(measured, predicted), replicates=0).harmed.value == pytest.approx(1 / 3)


def test_hits_and_misses_are_not_swapped():
    # three glitches, one of them flagged; five quiet windows, two of them flagged
    glitch = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    vetoed = np.array([1, 0, 0, 1, 1, 0, 0, 0], bool)
    counts = confusion_counts(glitch, vetoed)
    assert counts == Confusion(hits=1, misses=2, false_alarms=2, correct_rejections=3)
    tn, fp, fn, tp = confusion_matrix(glitch, vetoed).ravel()
    assert (counts.hits, counts.misses, counts.false_alarms, counts.correct_rejections) == (tp, fn, fp, tn)
    scores = score_statistics(statistics(np.where(glitch, 30, 2), np.where(vetoed, 30, 2)), replicates=0)
    assert scores.confusion == counts
    assert scores.metrics()["veto_accuracy_snr2_16"].value == pytest.approx(4 / 8)


def test_roc_agrees_with_scikit_learn():
    generator = np.random.default_rng(5)
    measured = generator.exponential(14, 300)
    predicted = np.round(measured * generator.lognormal(0, 0.8, 300))  # rounding makes ties
    scores = score_statistics(statistics(measured, predicted), replicates=0)
    assert scores.roc_auc.value == pytest.approx(roc_auc_score(measured > 16, predicted), abs=1e-12)
    expected = roc_curve(measured > 16, predicted)
    np.testing.assert_array_equal(scores.roc.false_alarm_rate, expected[0])
    np.testing.assert_array_equal(scores.roc.hit_rate, expected[1])


def test_weighted_areas_agree_with_scikit_learn():
    generator = np.random.default_rng(6)
    peak = np.sort(generator.integers(0, 20, 100)).astype(float)
    truth = generator.random(100) < 0.4
    weights = generator.integers(0, 4, (5, 100)).astype(float)
    areas = _weighted_auc(weights, truth, np.unique(peak, return_inverse=True)[1])
    expected = [roc_auc_score(truth, peak, sample_weight=row) for row in weights]
    np.testing.assert_allclose(areas, expected, rtol=1e-12)


def test_bands_are_those_of_a_plain_bootstrap_by_event():
    generator = np.random.default_rng(7)
    events = np.repeat(np.arange(40), 4)
    measured = np.repeat(generator.exponential(20, 40), 4)
    predicted = measured * np.repeat(generator.choice([0.3, 0.95], 40), 4)
    scores = score_statistics(statistics(measured, predicted, event=events), replicates=2000, seed=1)
    plain = []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(events == e) for e in generator.integers(0, 40, 40)])
        glitch = measured[rows] > 16
        plain.append(np.mean(np.abs(measured - predicted)[rows][glitch] < 16))
    band = scores.metrics()["denoising_accuracy_snr2_16"]
    assert band.low < band.value < band.high
    np.testing.assert_allclose([band.low, band.high], np.percentile(plain, [2.5, 97.5]), atol=0.04)


def test_windows_of_one_event_do_not_narrow_the_band():
    generator = np.random.default_rng(8)
    measured, predicted = generator.exponential(20, 50), generator.exponential(20, 50)
    alone = score_statistics(statistics(measured, predicted), seed=2).metrics()["veto_accuracy_snr2_16"]
    repeated = [np.repeat(values, 4) for values in (measured, predicted, np.arange(50))]
    copies = score_statistics(statistics(*repeated[:2], event=repeated[2]), seed=2).metrics()["veto_accuracy_snr2_16"]
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))


def test_the_seed_fixes_the_bands(windows):
    measured, events = windows
    predicted = measured.roll(1, 0)
    first, again, other = (score(measured, predicted, events, seed=seed).to_dict() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_figure_without_windows_is_null_with_a_reason():
    scores = score_statistics(statistics([3.0, 4.0], [1.0, 2.0]))
    metrics = scores.metrics()
    assert metrics["denoising_accuracy_snr2_16"].value is None
    assert "no window holds a glitch" in metrics["denoising_accuracy_snr2_16"].reason
    assert metrics["roc_auc"].value is None
    assert scores.roc is None
    assert metrics["residual_power_removed"].value is None
    assert metrics["veto_accuracy_snr2_16"].value == 1
    text = json.dumps(scores.to_dict(), allow_nan=False)  # refuses NaN
    assert '"value": null' in text
    loud = score_statistics(statistics([30.0, 40.0], [1.0, 2.0])).metrics()
    assert loud["harmed_share_snr2_16"].value is None


def test_bands_of_figures_that_some_replicates_cannot_define_are_finite():
    scores = score_statistics(statistics([30.0] + [2.0] * 9, [29.0] + [1.0] * 9), replicates=200)
    assert scores.metrics()["denoising_accuracy_snr2_16"].low == 1.0
    assert scores.roc_auc.low == 1.0


def test_one_event_gives_values_without_bands():
    estimate = score_statistics(statistics([30.0, 2.0], [29.0, 1.0], event=["a", "a"])).metrics()["roc_auc"]
    assert (estimate.value, estimate.low) == (1.0, None)


def test_the_glitch_threshold_need_not_be_among_the_thresholds():
    scores = score(
        torch.tensor([[30.0], [2.0]]), torch.tensor([[28.0], [1.0]]), thresholds=[5.0, 10.0], glitch_threshold=7.5
    )
    assert scores.metrics()["denoising_accuracy_snr2_7.5"].value == 1
    np.testing.assert_array_equal(scores.denoising_accuracy.thresholds, [5, 7.5, 10])
    with pytest.raises(ConfigurationError, match="asked for 9"):
        scores.veto_accuracy.at(9)


def test_unusable_input_is_refused():
    empty = np.zeros(0)
    with pytest.raises(NoEventsError, match="none"):
        score_statistics(WindowStatistics(empty, empty, empty, empty, empty, empty))
    with pytest.raises(NoEventsError):
        WindowStatistics.concatenate([])
    with pytest.raises(ConfigurationError, match="one shape"):
        score(torch.zeros(2, 4), torch.zeros(2, 5))
    with pytest.raises(ConfigurationError, match="one event a window"):
        score(torch.zeros(2, 4), torch.zeros(2, 4), events=[1])
    with pytest.raises(DataError, match="not finite in 1 of 2"):
        score(torch.zeros(2, 4), torch.tensor([[0.0, 0, 0, 0], [0, float("nan"), 0, 0]]))
    with pytest.raises(ConfigurationError, match="replicates"):
        score(torch.zeros(2, 4), torch.zeros(2, 4), replicates=-1)


@pytest.mark.parametrize("num_times", [10, 64, 100, 128, 257, 1000])
def test_scoring_windows_cover_each_column_once(num_times):
    columns = [column for start, stop in scoring_windows(num_times, 64) for column in range(start, stop)]
    assert columns == list(range(num_times))


def test_map_statistics_keep_the_event_of_each_window():
    measured = torch.zeros(3, 4, 257)
    for event in range(3):
        for window in range(4):
            measured[event, 1, 64 * window + 5] = 100 * event + window
    measured[2, 0, 256] = 999  # the remainder column belongs to the last window
    result = map_statistics(measured, torch.zeros_like(measured), ["a", "b", "c"])
    assert result.event.tolist() == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert result.peak_measured.tolist() == [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 999]


def test_batches_joined_equal_one_pass(windows):
    measured, events = windows
    predicted = 0.5 * measured
    whole = window_statistics(measured, predicted, events)
    parts = [window_statistics(measured[rows], predicted[rows], events[rows]) for rows in (slice(0, 7), slice(7, 60))]
    joined = WindowStatistics.concatenate(parts)
    assert score_statistics(joined).to_dict() == score_statistics(whole).to_dict()


def test_cleaned_maps_that_are_known_otherwise_take_the_place_of_the_difference():
    generator = torch.Generator().manual_seed(5)
    measured, predicted, cleaned = (20 * torch.rand(3, 8, 21, generator=generator) for _ in range(3))
    usual = map_statistics(measured, predicted, window_size=8)
    same = map_statistics(measured, predicted, window_size=8, cleaned=(measured - predicted).abs())
    np.testing.assert_array_equal(same.peak_cleaned, usual.peak_cleaned)
    np.testing.assert_array_equal(same.power_residual, usual.power_residual)
    other = map_statistics(measured, predicted, window_size=8, cleaned=cleaned)
    assert other.peak_cleaned[1] == pytest.approx(float(cleaned[0, :, 8:].max()))
    np.testing.assert_array_equal(other.peak_predicted, usual.peak_predicted)
