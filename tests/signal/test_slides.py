from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, kstest

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance, coincidence
from glitchflow_plugin.signal.slides import Together, slide_statistics


def tolerance_of(world, time=0.25, octaves=None):
    return Tolerance(time, octaves).between_columns(world.column)


def statistics_of(world, reference, witness, num_events, num_channels, **options):
    options = {"live": world.live(num_events), "tolerance": tolerance_of(world), "num_slides": 128} | options
    return slide_statistics(reference, witness, num_channels=num_channels, **options)


def slid(live, witness, fractions):
    """The plain way: move each spike of an event by its share of the event's analysed time, and wrap around."""
    first, last = live.limits(witness.event, witness.frequency)
    moved = first + (witness.time - first + fractions[witness.event] * (last - first)) % (last - first)
    return replace(witness, time=moved)


@pytest.mark.parametrize("octaves", [None, 1.0])
def test_same_as_sliding_and_counting_again(spiking, octaves):
    world = spiking(3)
    reference, witness = world.noise(8, 1, 2.5), world.noise(8, 3, 3.0)
    live, tolerance = world.live(8, cycles=1.9), tolerance_of(world, 0.3, octaves)
    reference, witness = (spikes.select(live.holds(spikes)) for spikes in (reference, witness))
    found = statistics_of(world, reference, witness, 8, 3, live=live, tolerance=tolerance, num_slides=40)
    valid = np.ones((8, 3), dtype=bool)
    shared = np.array(
        [
            coincidence(reference, slid(live, witness, np.full(8, slide / 40)), valid, tolerance).shared
            for slide in range(40)
        ]
    )
    observed = coincidence(reference, witness, valid, tolerance).shared
    assert (observed == shared[0]).all()
    fraction = np.minimum(np.arange(40), 40 - np.arange(40)) / 40
    far = fraction * 6.0 > 2 * tolerance.time
    np.testing.assert_allclose(found.chance, shared[far].mean(axis=0))
    np.testing.assert_allclose(found.p_common, (1 + (shared[far] >= observed).sum(axis=0)) / (1 + far.sum()))


def test_p_value_is_the_share_of_all_arrangements(spiking):
    world = spiking(5)
    reference, witness = world.noise(10, 1, 1.5), world.noise(10, 2, 2.0)
    live, tolerance = world.live(10), tolerance_of(world)
    found = statistics_of(world, reference, witness, 10, 2, num_slides=32)
    valid = np.ones((10, 2), dtype=bool)
    observed = coincidence(reference, witness, valid, tolerance).shared
    tried = np.array(
        [
            coincidence(reference, slid(live, witness, world.rng.integers(0, 32, 10) / 32), valid, tolerance).shared
            for _ in range(1500)
        ]
    )
    np.testing.assert_allclose(found.p_value, (tried >= observed).mean(axis=0), atol=0.04)
    assert (found.p_value < 1).any()


def test_iou_and_correlation_have_the_same_p_value(spiking):
    world = spiking(6)
    reference, witness = world.noise(12, 1, 1.0), world.noise(12, 1, 2.0)
    live, tolerance, valid = world.live(12), tolerance_of(world), np.ones((12, 1), dtype=bool)
    found = [
        coincidence(reference, slid(live, witness, np.full(12, slide / 30)), valid, tolerance) for slide in range(30)
    ]
    correlation, iou = (np.array([getattr(one, name)[0] for one in found]) for name in ("correlation", "iou"))
    assert ((correlation >= correlation[0]) == (iou >= iou[0])).all()


def test_one_pair_an_event_is_binomial(spiking):
    world = spiking()
    events = np.arange(50)
    reference = world.at(events, np.full(50, 3.0))
    witness = world.at(events, np.where(events < 20, 3.1, 1.0))
    found = statistics_of(world, reference, witness, 50, 1, num_slides=257)
    # a window of 21 columns of 257
    assert found.p_value[0] == pytest.approx(binom.sf(19, 50, 21 / 257), rel=1e-6)


@pytest.mark.parametrize("kind", ["poisson", "bursts", "dead time"])
def test_p_values_of_unrelated_channels_are_uniform(spiking, kind):
    world, num_events, num_channels = spiking(11), 60, 400
    live = world.live(num_events, cycles=1.9)
    centre = world.at(np.arange(num_events), world.rng.uniform(2.5, 3.5, num_events))
    reference = Spikes.concatenate([centre, world.noise(num_events, 1, 1.0)])
    witness = world.noise(num_events, num_channels, 2.5 if kind == "bursts" else 5.0)
    if kind == "bursts":  # a spike seldom comes alone
        again = replace(witness, time=witness.time + world.column * world.rng.integers(5, 20, len(witness)))
        witness = Spikes.concatenate([witness, again.select(again.time < world.duration - world.column)])
    if kind == "dead time":
        live = live.without(world.noise(num_events, 1, 1.0), tolerance_of(world).time)
    reference, witness = (spikes.select(live.holds(spikes)) for spikes in (reference, witness))
    p = statistics_of(world, reference, witness, num_events, num_channels, live=live).p_value
    # p-values have steps of up to 0.08 here; never too small, and too large by no more than a step
    for level in (0.02, 0.1, 0.3, 0.6):
        noise = 3.3 * np.sqrt(level * (1 - level) / num_channels)
        assert level - 0.08 - noise < (p <= level).mean() < level + noise
    assert kstest(p - 0.04, "uniform").pvalue > 1e-3  # half a step below


def test_true_witness_is_far_below_what_the_number_of_slides_allows(spiking):
    world = spiking(2)
    centre = world.rng.uniform(2, 4, 100)
    reference = world.at(np.arange(100), centre)
    found = statistics_of(world, reference, world.at(np.arange(40), centre[:40] + 0.05), 100, 1)
    assert found.p_value[0] < 1e-12
    assert found.p_common[0] > 1e-3
    assert found.chance[0] == 0.0


def test_chance_explains_a_busy_witness(spiking):
    world = spiking(0)
    centres = world.rng.uniform(2.0, 4.0, 200)
    reference, busy = world.at(np.arange(200), centres), world.noise(200, 1, 6.0)
    found = statistics_of(world, reference, busy, 200, 1)
    # Poisson spikes at 1 Hz: P(at least one within the window of 21 columns) = 1 - exp(-0.49).
    assert found.chance[0] / 200 == pytest.approx(1 - np.exp(-21 * world.column), abs=0.03)
    assert found.p_value[0] > 0.01


def test_silence_and_short_events_give_no_verdict(spiking):
    world = spiking()
    one = world.at([0], [3.0])
    silent = statistics_of(world, one, Spikes.empty(), 1, 2)
    assert silent.p_value.tolist() == silent.p_common.tolist() == [1.0, 1.0]
    live = replace(world.live(1), spans=np.array([[2.8, 3.4]]))
    short = statistics_of(world, one, one, 1, 1, live=live)
    assert np.isnan(short.chance[0])
    assert np.isnan(short.p_common[0])
    assert short.p_value[0] > 0.5


def test_blocks_do_not_change_the_result(spiking):
    world = spiking(8)
    reference, witness = world.noise(20, 1, 2.0), world.noise(20, 30, 2.0)
    whole = statistics_of(world, reference, witness, 20, 30)
    parts = statistics_of(world, reference, witness, 20, 30, together=Together(pairs=50, channels=7))
    for name in ("p_value", "p_common", "chance"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)
