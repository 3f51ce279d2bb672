import json

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from glitchflow_plugin.errors import ConfigurationError, DataError, NoEventsError
from glitchflow_plugin.inference.cases import BLOCK, MARGIN, NOISE_CLAIM, NOISE_MEAN, CaseStatistics, map_statistics
from glitchflow_plugin.inference.metrics import Confusion, confusion_counts, weighted_auc
from glitchflow_plugin.inference.score import THRESHOLDS, Sample, score_statistics


def statistics(measured, predicted, *, cleaned=None, event=None, group=None, cut=16.0):
    """Of cases of one pixel, one column, each in a group of its own."""
    measured, predicted = np.asarray(measured, float), np.asarray(predicted, float)
    cleaned = np.abs(measured - predicted) if cleaned is None else np.asarray(cleaned, float)
    event = np.arange(len(measured)) if event is None else np.asarray(event)
    loud, seen = measured > cut, predicted > cut
    return CaseStatistics(
        event=event,
        group=event if group is None else np.asarray(group),
        peak_measured=measured,
        peak_predicted=predicted,
        peak_in_time=predicted,
        peak_cleaned=cleaned,
        peak_left=cleaned + np.minimum(predicted, NOISE_CLAIM),
        total_measured=measured,
        total_cleaned=cleaned,
        glitch_power=np.where(loud, measured - NOISE_CLAIM, 0),
        glitch_left=np.where(loud, cleaned - np.maximum(NOISE_CLAIM - predicted, 0), 0),
        added=np.where(loud, 0, np.maximum(cleaned - np.maximum(measured, NOISE_MEAN), 0)),
        columns=np.ones(len(measured)),
        columns_of_glitch=loud.astype(float),
        columns_vetoed=seen.astype(float),
        columns_vetoed_in_time=(seen & loud).astype(float),
        glitch_threshold=cut,
    )


def score(measured, predicted, events=None, *, glitch_threshold=16.0, groups=None, **settings):
    found = map_statistics(measured, predicted, events, glitch_threshold, groups=groups)
    return score_statistics(found, **settings)


def noise(*shape, seed=0, ceiling=14.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(*shape).exponential_(1 / NOISE_MEAN, generator=generator).clamp(max=ceiling)


@pytest.fixture
def maps():
    """Sixty maps in thirty groups; every second one holds a glitch of SNR² 20 to 80, at any time."""
    generator = torch.Generator().manual_seed(3)
    measured = noise(60, 16, 100, seed=3)
    for row in range(0, 60, 2):
        column = int(torch.randint(0, 100, (1,), generator=generator))
        measured[row, 5:8, column] = 20 + 60 * torch.rand(3, generator=generator)
    return measured, np.arange(60) // 4


def test_a_perfect_prediction_has_all_merits_and_no_cost(maps):
    measured, groups = maps
    scores = score(measured, measured.clone(), groups=groups, seed=1)
    assert list(scores.merits()) == [
        "cleaned_share_snr2_16",
        "balanced_veto_accuracy_snr2_16",
        "veto_roc_auc",
        "net_power_removed",
    ]
    for name, one in scores.merits().items():
        assert one.value == one.low == one.high == 1.0, name
    costs = scores.costs()
    assert costs["harmed_share_snr2_16"].value == costs["deadtime_outside_glitches_snr2_16"].value == 0
    assert costs["deadtime_snr2_16"].value == pytest.approx(30 / 6000)
    assert scores.confusion == Confusion(hits=30, misses=0, false_alarms=0, correct_rejections=30)
    assert scores.glitches == scores.quiet == Sample(30, 15)


def test_the_zero_prediction_earns_nothing_and_costs_nothing(maps):
    measured, groups = maps
    scores = score(measured, torch.zeros_like(measured), groups=groups)
    metrics = scores.metrics()
    for name, expected in {
        "cleaned_share_snr2_16": 0,
        "net_power_removed": 0,
        "veto_roc_auc": 0.5,
        "balanced_veto_accuracy_snr2_16": 0.5,
    }.items():
        assert metrics[name].value == metrics[name].low == metrics[name].high == expected, name
    assert {one.value for one in scores.costs().values()} == {0}
    assert scores.confusion == Confusion(hits=0, misses=30, false_alarms=0, correct_rejections=30)


@pytest.mark.parametrize("level", [0.1, NOISE_MEAN, 2.0, NOISE_CLAIM, 3.0, 8.0, 15.99, 16.01, 40.0])
def test_no_constant_earns_anything(maps, level):
    measured, _ = maps
    scores = score(measured, torch.full_like(measured, level), replicates=0)
    # that of the mean of noise and below takes nothing and adds nothing
    assert scores.net_power_removed.value == pytest.approx(0, abs=0.02) if level <= NOISE_MEAN else True
    assert scores.net_power_removed.value <= 1e-6
    assert scores.roc_auc.value == 0.5
    assert (scores.veto_balance.value[15], scores.cleaned_share.value[15]) == (0.5, 0)
    if level > 3:
        assert scores.net_power_removed.value < -1
        assert scores.harmed.value == 1


@pytest.mark.parametrize("level", [0.5, 1.5, 2.2])
def test_a_constant_cleans_no_glitch_that_is_barely_above_the_threshold(level):
    measured = noise(20, 16, 64)
    measured[:, 4, 20] = 16.3
    scores = score(measured, torch.full_like(measured, level), replicates=0)
    assert scores.cleaned_share.at(16).value == 0
    assert score(measured, measured.clone(), replicates=0).cleaned_share.at(16).value == 1


def test_what_stays_below_the_threshold_counts_by_its_energy():
    measured = noise(40, 16, 64)
    measured[:, 4, 20] = 60
    far_below = score(measured, torch.full_like(measured, 15.99), replicates=0).net_power_removed.value
    assert far_below < -100
    here = torch.zeros_like(measured)
    here[:, 8:12, 40:44] = 15.0
    expected = -16 * (15 - 2.6 * NOISE_MEAN) / (60 - NOISE_CLAIM)
    assert score(measured, here, replicates=0).net_power_removed.value == pytest.approx(expected, rel=0.3)


def test_interference_of_a_small_waveform_with_noise_is_counted_by_what_it_adds():
    generator = np.random.default_rng(0)
    tiles = generator.normal(size=(30, 64, 128)) + 1j * generator.normal(size=(30, 64, 128))
    small = 0.12 * (generator.normal(size=tiles.shape) + 1j * generator.normal(size=tiles.shape))
    unit = NOISE_MEAN / 2
    measured, predicted, cleaned = (torch.from_numpy(unit * np.abs(one) ** 2) for one in (tiles, small, tiles - small))
    found = map_statistics(measured.clamp(max=15), predicted, cleaned=cleaned)
    share = found.added.sum() / found.total_measured.sum()
    assert 0.005 < share < 0.02  # 1.4 % are added; pixel by pixel it would be 6 %


def test_a_prediction_at_another_time_finds_nothing():
    measured = noise(60, 16, 100)
    measured[::2, 4, 20] = 60
    predicted = torch.zeros_like(measured)
    predicted[::2, 4, 20 + MARGIN] = 50
    late = torch.zeros_like(measured)
    late[::2, 4, 21 + MARGIN] = 50
    found, missed = (score(measured, said, replicates=0) for said in (predicted, late))
    assert (found.roc_auc.value, found.confusion.hits) == (1.0, 30)
    assert (missed.roc_auc.value, missed.confusion.hits) == (0.5, 0)
    assert missed.deadtime_outside.value == pytest.approx(30 / (6000 - 30 * (2 * MARGIN + 1)))
    assert found.deadtime_outside.value == 0
    assert found.deadtime.value == missed.deadtime.value == pytest.approx(30 / 6000)


def test_what_says_the_same_of_all_events_finds_no_more_than_it_flags():
    generator = torch.Generator().manual_seed(1)
    measured = noise(80, 16, 100)
    measured[::2, 4, 45:55] = 60  # always in the middle
    for said in (measured.mean(dim=0), measured.amax(dim=0), 40 * torch.rand(16, 100, generator=generator)):
        scores = score(measured, said.expand_as(measured), replicates=0)
        assert scores.roc_auc.value <= 0.5
        assert np.nanmax(scores.veto_balance.value) <= 0.5


def test_curves_follow_their_definitions(maps):
    measured, _ = maps
    predicted = 0.7 * measured + torch.rand(measured.shape, generator=torch.Generator().manual_seed(4))
    scores = score(measured, predicted, replicates=0)
    for index, threshold in enumerate(THRESHOLDS):
        loud = [float(m.max()) > threshold for m in measured]
        left = [
            float(((m - p).abs() + p.clamp(max=NOISE_CLAIM)).max()) < threshold
            and float((m - p).abs().sum()) <= float(m.sum())
            for m, p, was in zip(measured, predicted, loud, strict=True)
            if was
        ]
        found, alarms = [], []
        for m, p, was in zip(measured, predicted, loud, strict=True):
            peaks = m.amax(dim=0)
            marked = torch.nonzero(peaks > 16 if peaks.max() > 16 else peaks == peaks.max())[:, 0]
            near = {column + step for column in marked.tolist() for step in range(-MARGIN, MARGIN + 1)}
            columns = sorted(near & set(range(m.shape[1]))) if was else slice(None)
            (found if was else alarms).append(float(p[:, columns].max()) > threshold)
        assert scores.cleaned_share.value[index] == pytest.approx(np.mean(left))
        assert scores.cleaned_share.count[index] == sum(loud)
        expected = (np.mean(found) + 1 - np.mean(alarms)) / 2 if alarms else np.nan
        assert scores.veto_balance.value[index] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(scores.veto_balance.low).all()  # no replicates, no interval
    assert scores.metrics()["veto_roc_auc"].low is None


def test_net_power_counts_what_was_taken_away_and_what_was_added():
    measured = torch.full((1, 4, 8), NOISE_MEAN)
    measured[0, 1, 2], measured[0, 2, 2] = 40, 60
    glitch = 100 - 2 * NOISE_CLAIM
    half, invented = torch.zeros_like(measured), torch.zeros_like(measured)
    half[0, 1:3, 2] = measured[0, 1:3, 2] / 2
    invented[0, 0, 7] = 51 + NOISE_MEAN
    assert score(measured, half, replicates=0).net_power_removed.value == pytest.approx(1 - 50 / glitch)
    # nothing removed, and 51 - NOISE_MEAN more where there was noise
    expected = -(51 - NOISE_MEAN) / glitch
    assert score(measured, invented, replicates=0).net_power_removed.value == pytest.approx(expected)


def test_added_energy_is_that_of_blocks():
    rows, columns = BLOCK
    measured = torch.full((1, 2 * rows, columns + 3), NOISE_MEAN, dtype=torch.float64)
    cleaned = measured.clone()
    cleaned[0, 0, 0], cleaned[0, 1, 1] = NOISE_MEAN + 9, 0  # one block: 9 more, a pixel of noise less
    cleaned[0, rows, 0] = NOISE_MEAN + 5
    cleaned[0, 0, columns:] = 0  # what is taken from the last, narrow block pays for nothing
    found = map_statistics(measured, torch.zeros_like(measured), cleaned=cleaned)
    assert found.added[0] == pytest.approx(9 - NOISE_MEAN + 5)


def test_what_lies_outside_the_judged_pixels_counts_nowhere(maps):
    measured, groups = maps
    inside = np.ones((16, 100), bool)
    inside[:, :10], inside[:, 90:], inside[12:] = False, False, False
    predicted = 0.8 * measured
    there = map_statistics(measured, predicted, groups=groups, inside=inside)
    changed, said = measured.clone(), predicted.clone()
    changed[:, ~torch.from_numpy(inside)], said[:, ~torch.from_numpy(inside)] = 500.0, 70.0
    again = map_statistics(changed, said, groups=groups, inside=inside)
    for name, values in vars(there).items():
        np.testing.assert_array_equal(values, vars(again)[name], err_msg=name)
    assert (there.columns == 80).all()
    with pytest.raises(ConfigurationError, match="one value a pixel"):
        map_statistics(measured, predicted, inside=inside[:, :50])


def test_harm_is_a_quiet_case_made_loud_or_grown():
    measured, predicted = [2.0, 2.0, 30.0, 3.0, 2.0], [40.0, 1.0, 30.0, 3.0, 4.15]
    assert score_statistics(statistics(measured, predicted), replicates=0).harmed.value == pytest.approx(2 / 4)


def test_a_glitch_that_makes_room_for_more_energy_is_not_cleaned():
    measured = noise(10, 16, 64)
    measured[:, 4, 20] = 60
    cleaned = measured.clone()
    cleaned[:, 4, 20] = 0
    clean = map_statistics(measured, torch.zeros_like(measured), cleaned=cleaned)
    dirty = map_statistics(measured, torch.zeros_like(measured), cleaned=cleaned + 0.1)
    assert score_statistics(clean, replicates=0).metrics()["cleaned_share_snr2_16"].value == 1
    assert score_statistics(dirty, replicates=0).metrics()["cleaned_share_snr2_16"].value == 0


def test_hits_and_misses_are_not_swapped():
    # three glitches, one of them flagged; five quiet cases, two of them flagged
    glitch = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    vetoed = np.array([1, 0, 0, 1, 1, 0, 0, 0], bool)
    counts = confusion_counts(glitch, vetoed)
    assert counts == Confusion(hits=1, misses=2, false_alarms=2, correct_rejections=3)
    tn, fp, fn, tp = confusion_matrix(glitch, vetoed).ravel()
    assert (counts.hits, counts.misses, counts.false_alarms, counts.correct_rejections) == (tp, fn, fp, tn)
    scores = score_statistics(statistics(np.where(glitch, 30, 2), np.where(vetoed, 30, 2)), replicates=0)
    assert scores.confusion == counts
    assert scores.metrics()["balanced_veto_accuracy_snr2_16"].value == pytest.approx((1 / 3 + 3 / 5) / 2)


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
    areas = weighted_auc(weights, truth, np.unique(peak, return_inverse=True)[1])
    expected = [roc_auc_score(truth, peak, sample_weight=row) for row in weights]
    np.testing.assert_allclose(areas, expected, rtol=1e-12)


def test_intervals_are_those_of_a_plain_bootstrap_by_group():
    generator = np.random.default_rng(7)
    groups = np.repeat(np.arange(40), 4)
    measured = np.repeat(generator.exponential(20, 40), 4)
    predicted = measured * np.repeat(generator.choice([0.3, 0.95], 40), 4)
    scores = score_statistics(statistics(measured, predicted, group=groups), replicates=2000, seed=1)
    plain, areas = [], []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(groups == e) for e in generator.integers(0, 40, 40)])
        glitch = measured[rows] > 16
        plain.append(np.mean((np.abs(measured - predicted) + np.minimum(predicted, NOISE_CLAIM))[rows][glitch] < 16))
        areas.append(roc_auc_score(glitch, predicted[rows]))
    for name, drawn in {"cleaned_share_snr2_16": plain, "veto_roc_auc": areas}.items():
        one = scores.metrics()[name]
        assert one.low < one.value < one.high
        np.testing.assert_allclose([one.low, one.high], np.percentile(drawn, [2.5, 97.5]), atol=0.04)


def test_events_of_one_group_do_not_narrow_the_interval():
    generator = np.random.default_rng(8)
    measured, predicted = generator.exponential(20, 50), generator.exponential(20, 50)
    alone = score_statistics(statistics(measured, predicted), seed=2)
    repeated = [np.repeat(values, 4) for values in (measured, predicted, np.arange(50))]
    copies = score_statistics(statistics(*repeated[:2], group=repeated[2]), seed=2)
    assert copies.num_events == 4 * alone.num_events
    assert copies.num_groups == alone.num_groups
    for name, one in alone.metrics().items():
        again = copies.metrics()[name]
        assert (again.low, again.high) == pytest.approx((one.low, one.high)), name


def test_few_groups_of_a_kind_have_no_interval_with_the_reason():
    measured, predicted = [30.0] * 8 + [2.0] * 8, [20.0, 2.0] * 8
    group = [0, 0, 1, 1, 2, 2, 3, 3, *range(10, 18)]  # glitches of four groups
    scores = score_statistics(statistics(measured, predicted, group=group), replicates=100)
    assert (scores.glitches, scores.quiet) == (Sample(8, 4), Sample(8, 8))
    metrics = scores.metrics()
    for name in scores.merits():
        assert metrics[name].value is not None
        assert metrics[name].low is None
        assert "4 independent groups" in metrics[name].reason, name
    assert metrics["harmed_share_snr2_16"].low is not None
    assert metrics["harmed_share_snr2_16"].reason is None
    assert np.isnan(scores.cleaned_share.low[15])


def test_the_seed_fixes_the_intervals(maps):
    measured, groups = maps
    predicted = measured.roll(1, 0)
    first, again, other = (score(measured, predicted, groups=groups, seed=seed).to_dict() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_figure_without_cases_is_null_with_a_reason():
    scores = score_statistics(statistics([3.0, 4.0], [1.0, 2.0]))
    metrics = scores.metrics()
    assert metrics["cleaned_share_snr2_16"].value is None
    assert "no case holds a glitch" in metrics["cleaned_share_snr2_16"].reason
    assert metrics["veto_roc_auc"].value is None
    assert scores.roc is None
    assert metrics["net_power_removed"].value is None
    assert metrics["balanced_veto_accuracy_snr2_16"].value is None
    text = json.dumps(scores.to_dict(), allow_nan=False)  # refuses NaN
    assert '"value": null' in text
    loud = score_statistics(statistics([30.0, 40.0], [1.0, 2.0])).metrics()
    assert loud["harmed_share_snr2_16"].value is None
    assert loud["deadtime_outside_glitches_snr2_16"].value is None


def test_the_glitch_threshold_need_not_be_among_the_thresholds():
    scores = score(
        torch.tensor([[[30.0]], [[2.0]]]), torch.tensor([[[28.0]], [[1.0]]]), thresholds=[5, 10], glitch_threshold=7.5
    )
    assert scores.metrics()["cleaned_share_snr2_7.5"].value == 1
    np.testing.assert_array_equal(scores.cleaned_share.thresholds, [5, 7.5, 10])
    with pytest.raises(ConfigurationError, match="asked for 9"):
        scores.veto_balance.at(9)


def test_unusable_input_is_refused():
    with pytest.raises(NoEventsError, match="none"):
        score_statistics(statistics([], []))
    with pytest.raises(NoEventsError):
        CaseStatistics.concatenate([])
    with pytest.raises(ConfigurationError, match="glitch threshold"):
        CaseStatistics.concatenate([statistics([1.0], [1.0]), statistics([1.0], [1.0], cut=9.0)])
    with pytest.raises(ConfigurationError, match="one shape"):
        score(torch.zeros(2, 4, 1), torch.zeros(2, 5, 1))
    with pytest.raises(ConfigurationError, match="one event a case"):
        score(torch.zeros(2, 4, 1), torch.zeros(2, 4, 1), events=[1])
    with pytest.raises(ConfigurationError, match="one group a case"):
        score(torch.zeros(2, 4, 1), torch.zeros(2, 4, 1), groups=[1])
    with pytest.raises(DataError, match="not finite in 1 of 2"):
        score(torch.zeros(2, 4, 1), torch.tensor([[0.0, 0, 0, 0], [0, float("nan"), 0, 0]])[..., None])
    with pytest.raises(ConfigurationError, match="replicates"):
        score(torch.zeros(2, 4, 1), torch.zeros(2, 4, 1), replicates=-1)


def test_batches_joined_and_written_equal_one_pass(maps):
    measured, groups = maps
    predicted = 0.5 * measured
    events = [f"event-{row}" for row in range(60)]
    whole = map_statistics(measured, predicted, events, groups=groups)
    parts = [
        map_statistics(measured[rows], predicted[rows], events[rows], groups=groups[rows])
        for rows in (slice(0, 7), slice(7, 60))
    ]
    joined = CaseStatistics.concatenate(parts)
    kept = CaseStatistics.from_dict(json.loads(json.dumps(joined.to_dict(), default=np.ndarray.tolist)))
    assert list(kept.event) == events
    expected = score_statistics(whole).to_dict()
    assert score_statistics(joined).to_dict() == score_statistics(kept).to_dict() == expected
    assert len(whole.select(whole.glitch)) == 30


def test_cleaned_maps_that_are_known_otherwise_take_the_place_of_the_difference():
    generator = torch.Generator().manual_seed(5)
    measured, predicted, cleaned = (20 * torch.rand(3, 8, 21, generator=generator) for _ in range(3))
    usual = map_statistics(measured, predicted)
    same = map_statistics(measured, predicted, cleaned=(measured - predicted).abs())
    np.testing.assert_array_equal(same.glitch_left, usual.glitch_left)
    other = map_statistics(measured, predicted, cleaned=cleaned)
    np.testing.assert_allclose(other.peak_cleaned, cleaned.amax(dim=(1, 2)))
    np.testing.assert_array_equal(other.peak_predicted, usual.peak_predicted)


def test_a_veto_between_two_columns_counts_as_it_is_given():
    measured = torch.ones(2, 4, 40)
    measured[0, 1, 20] = 100
    loudest = torch.zeros(2, 40)
    loudest[0, 21], loudest[1, 3] = 50, 30
    found = map_statistics(measured, torch.zeros_like(measured), loudest=loudest)
    assert found.peak_in_time.tolist()[0] == 50
    assert found.peak_predicted.tolist() == [50, 30]
    assert found.columns_vetoed.tolist() == [1, 1]
    # what is left has nothing to do with it
    assert found.total_cleaned.tolist() == found.total_measured.tolist()
