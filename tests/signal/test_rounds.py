from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import poisson

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance
from glitchflow_plugin.signal.rounds import Criteria, rank_in_rounds

CRITERIA = Criteria(correlation=0.17, iou=0.08)


def rank(world, reference, witness, num_events, num_channels, **changes):
    options = {
        "live": world.live(num_events),
        "tolerance": Tolerance(0.25).between_columns(world.column),
        "criteria": CRITERIA,
        "eligible": np.ones(num_channels, dtype=bool),
        "max_rounds": 20,
    } | changes
    valid = options.pop("valid", np.ones((num_events, num_channels), dtype=bool))
    return rank_in_rounds(reference, witness, valid, **options)


def detector(world, num_events, copies, *, distractors, unexplained=0.15, rate=0.6):
    """Causes of spikes, equally frequent (of two, the second in an eighth); `copies` of their sensors; distractors."""
    centre = world.rng.uniform(2, 4, num_events)
    event = np.arange(num_events)
    cause = np.where(event % 8 == 0, 1, 0) if len(copies) == 2 else event % len(copies)
    cause[world.rng.random(num_events) < unexplained] = -1
    reference = world.at(np.arange(num_events), centre)
    parts, channel = [], 0
    for number, sensors in enumerate(copies):
        for _ in range(sensors):
            events = np.flatnonzero((cause == number) & (world.rng.random(num_events) < 0.97))
            parts.append(world.at(events, centre[events] + world.rng.normal(0.03, 0.03, len(events)), channel))
            channel += 1
    rates = np.where(np.arange(channel + distractors) < channel, 0.6, rate)
    noise = world.noise(num_events, channel + distractors, rates)
    return reference, Spikes.concatenate([*parts, noise]), channel


def test_ten_copies_do_not_hide_the_second_cause(spiking):
    world = spiking(1)
    reference, witness, true = detector(world, 240, (10, 1), distractors=5)
    once = rank(world, reference, witness, 240, true + 5, max_rounds=1)
    assert np.flatnonzero(once.passed).tolist() == list(range(10))  # the second cause is below the threshold
    ranked = rank(world, reference, witness, 240, true + 5)
    assert np.flatnonzero(ranked.passed).tolist() == list(range(11))
    assert [one.channel < 10 for one in ranked.rounds] == [True, False]
    first, second = ranked.rounds
    assert second.remaining == first.remaining - first.explained
    assert second.figures.correlation[10] > 2.5 * ranked.figures.correlation[10]


@pytest.mark.parametrize("criteria", [CRITERIA, Criteria()], ids=["thresholds", "the test alone"])
def test_five_hundred_distractors(spiking, criteria):
    world = spiking(2)
    reference, witness, true = detector(world, 300, (3, 2), distractors=500)
    ranked = rank(world, reference, witness, 300, true + 500, criteria=criteria)
    found = np.flatnonzero(ranked.passed)
    assert set(range(5)) <= set(found)
    assert (found >= 5).sum() <= 0.01 * len(found)
    assert len(ranked.rounds) == 2


def test_false_discovery_rate_holds_over_all_rounds(spiking):
    # Six causes make seven rounds; at a loose level without thresholds each adds false discoveries of its own.
    loose = Criteria(fdr=0.2)
    rates = []
    for seed in range(12):
        world = spiking(seed)
        reference, witness, true = detector(world, 200, (1,) * 6, distractors=120)
        ranked = rank(world, reference, witness, 200, true + 120, criteria=loose)
        assert len(ranked.rounds) >= 6
        found = np.flatnonzero(ranked.passed)
        rates.append((found >= true).sum() / len(found))
    assert np.mean(rates) < 0.2 + 2 * np.std(rates) / np.sqrt(len(rates))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_once_the_witnesses_are_slid(spiking, seed):
    world = spiking(seed)
    reference, witness, true = detector(world, 300, (3, 2), distractors=500, rate=3.0)
    shift = world.rng.uniform(1.0, 5.0, 300)
    slid = replace(witness, time=(witness.time + shift[witness.event]) % (257 * world.column))
    ranked = rank(world, reference, slid, 300, true + 500, criteria=Criteria())
    assert not ranked.passed.any()
    assert ranked.rounds == ()


def test_p_values_of_later_rounds_are_as_uniform_as_those_of_the_first(spiking):
    world = spiking(4)
    reference, witness, true = detector(world, 200, (1, 1), distractors=300, rate=4.0)
    ranked = rank(world, reference, witness, 200, true + 300)
    p = ranked.rounds[-1].figures.p_value[true:]
    assert len(ranked.rounds) == 2
    for level in (0.05, 0.3, 0.6):
        noise = 3.3 * np.sqrt(level * (1 - level) / 300)
        assert level - 0.12 - noise < (p <= level).mean() < level + noise


def test_figures_of_a_veto_by_hand(spiking):
    world = spiking()
    # Four spikes of the reference in two events; three of the witness, two of them beside one of the reference.
    reference = world.at([0, 0, 1, 1], [1.0, 4.0, 2.0, 5.0])
    witness = world.at([0, 0, 1], [1.0, 1.1, 3.0])
    figures = rank(world, reference, witness, 2, 1).figures
    half = Tolerance(0.25).between_columns(world.column).time
    live = 2 * 6.0
    assert (figures.reference[0], figures.witness[0], figures.shared[0]) == (4, 3, 1)
    assert figures.efficiency[0] == 1 / 4
    assert figures.use_percentage[0] == pytest.approx(200 / 3)
    apart = witness.time[1] - witness.time[0]
    assert figures.deadtime[0] == pytest.approx((4 * half + apart) / live)
    assert figures.efficiency_over_deadtime[0] == pytest.approx(0.25 / figures.deadtime[0])
    expected = 4 * 3 * 2 * half / live
    assert figures.significance[0] == pytest.approx(-np.log10(poisson.sf(0, expected)))


def test_channels_that_may_not_be_chosen_have_figures_and_count_as_no_test(spiking):
    world = spiking(6)
    reference, witness, true = detector(world, 120, (2, 0), distractors=3)
    eligible = np.ones(true + 3, dtype=bool)
    eligible[0] = False
    ranked = rank(world, reference, witness, 120, true + 3, eligible=eligible)
    assert np.flatnonzero(ranked.passed).tolist() == [1]
    assert np.isnan(ranked.figures.q_value[0])
    assert ranked.figures.p_value[0] < 1e-10


def test_events_without_data_do_not_count(spiking):
    world = spiking(7)
    reference, witness, true = detector(world, 100, (1, 0), distractors=1)
    valid = np.ones((100, true + 1), dtype=bool)
    valid[50:, 0] = False
    figures = rank(world, reference, witness, 100, true + 1, valid=valid).figures
    assert figures.events.tolist() == [50, 100]
    assert figures.reference.tolist() == [50, 100]
    assert figures.deadtime[0] == pytest.approx(figures.witness[0] * 21 * world.column / (50 * 6.0), 0.1)


def test_without_slides_the_thresholds_decide(spiking):
    world = spiking(8)
    reference, witness, true = detector(world, 100, (1, 0), distractors=1, rate=6.0)
    free = Criteria(correlation=0.17, iou=0.03, num_slides=0)
    ranked = rank(world, reference, witness, 100, true + 1, criteria=free, max_rounds=1)
    assert ranked.passed.tolist() == [True, True]  # the busy distractor too
    assert np.isnan(ranked.figures.p_value).all()
    assert rank(world, reference, witness, 100, true + 1, max_rounds=1).passed.tolist() == [True, False]


def test_silence_of_the_reference_is_no_information(spiking):
    world = spiking(9)
    figures = rank(world, Spikes.empty(), world.noise(10, 2, 1.0), 10, 2).figures
    for name in ("correlation", "iou", "p_value", "q_value", "significance", "efficiency"):
        assert np.isnan(getattr(figures, name)).all(), name
