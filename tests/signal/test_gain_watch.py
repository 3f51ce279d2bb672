"""When a witness is stopped: changes that are found, and those that are none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.signal.gain_watch import (
    HIGH,
    LOW,
    GainReference,
    GainWatch,
    MeasuredGains,
    WatchSettings,
    reference_gains,
    watch_gains,
)

SETTINGS = WatchSettings()
NAMES = ("A", "B")


def spans(number, distance=10.0):
    start = 1e9 + distance * np.arange(number)
    return np.stack([start, start + 6], axis=1)


def ordinary(generator, number, *, mean=0.9, spread=0.15, noise=0.1, parts=2):
    variance = noise**2 * generator.uniform(0.5, 2, (number, parts))
    return mean + np.sqrt(spread**2 + variance) * generator.normal(size=(number, parts)), variance


@pytest.fixture
def generator():
    return np.random.default_rng(3)


@pytest.fixture
def reference(generator):
    gain, variance = ordinary(generator, 12)
    return reference_gains(NAMES, measured(gain, variance), np.arange(12), SETTINGS)


def measured(gain, variance, power=None):
    return MeasuredGains(gain, variance, np.full_like(gain, 100) if power is None else power, np.zeros_like(gain))


def watched(gain, variance, reference, *, power=None, times=None):
    times = spans(len(gain)) if times is None else times
    return watch_gains(measured(gain, variance, power), times, reference, SETTINGS)


def test_the_reference_is_that_of_a_random_effects_model(generator):
    gain, variance = ordinary(generator, 400, spread=0.3)
    found = reference_gains(NAMES, measured(gain, variance), np.arange(400), SETTINGS)

    def unlikely(guess):
        total = guess[1] ** 2 + variance[:, 0]
        return (np.log(total) + (gain[:, 0] - guess[0]) ** 2 / total).sum()

    expected = minimize(unlikely, [1.0, 0.2], method="Nelder-Mead").x
    assert found.gain[0] == pytest.approx(expected[0], abs=0.01)
    assert found.spread[0] == pytest.approx(expected[1], rel=0.05)
    assert found.error[0] == pytest.approx(0.3 / 20, rel=0.2)
    assert GainReference.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("cuts", [(3, 9), (17,), (1, 2, 20)])
def test_a_watch_that_goes_on_says_what_one_of_all_events_says(generator, reference, cuts):
    gain, variance = ordinary(generator, 24)
    gain[10:, 1] *= -1
    times = spans(24, distance=4.0)  # of events of 6 s: every second overlaps
    whole, state, parts = watched(gain, variance, reference, times=times), None, []
    for rows in np.split(np.arange(24), cuts):
        parts.append(watch_gains(measured(gain[rows], variance[rows]), times[rows], reference, SETTINGS, state))
        state = parts[-1].state
    joined = GainWatch.joined(parts)
    for name in ("counted", "evidence", "stopped"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
    assert (joined.since, joined.state) == (whole.since, whole.state)
    assert whole.reason == ("", LOW)
    assert whole.state.since[1] == times[whole.since[1], 0]


def test_a_witness_of_few_groups_is_not_watched(generator):
    gain, variance = ordinary(generator, 12)
    power = np.full_like(gain, 100)
    power[2:, 1] = 1
    found = reference_gains(NAMES, measured(gain, variance, power), np.arange(12), SETTINGS)
    assert found.gain[1] is None
    assert found.share == (1.0, pytest.approx(2 / 12))
    assert watched(-gain, variance, found).since[1] == -1
    grouped = reference_gains(NAMES, measured(gain, variance), np.arange(12) // 6, SETTINGS)
    assert grouped.gain == (None, None)


@pytest.mark.parametrize(
    ("factor", "reason"), [(-1.0, LOW), (0.0, LOW), (0.3, LOW), (3.0, HIGH)], ids=["flip", "gone", "third", "threefold"]
)
def test_a_change_is_found_within_ten_glitches_and_never_by_one(generator, reference, factor, reason):
    glitches = []
    for _ in range(50):
        gain, variance = ordinary(generator, 30)
        gain[15:, 0] *= factor
        found = watched(gain, variance, reference)
        assert found.reason == (reason, "")
        glitches.append(found.since[0] - 15 + 1)
        assert found.stopped[:, 0].tolist() == [event > found.since[0] for event in range(30)]
        assert not found.stopped[:, 1].any()
    assert min(glitches) >= SETTINGS.least_events
    assert np.quantile(glitches, 0.95) <= 10


def test_one_event_counts_for_a_share_however_much_it_says(reference):
    gain, variance = np.array([[0.9, 0.9], [-1e6, 0.9]] + [[0.9, 0.9]] * 4), np.full((6, 2), 1e-4)
    found = watched(gain, variance, reference)
    assert found.evidence[1, 0, 0] == pytest.approx(1 / SETTINGS.least_events)
    assert found.since == (-1, -1)
    assert found.evidence[2, 0, 0] < found.evidence[1, 0, 0]


def test_false_stops_are_rarer_than_promised(generator):
    stops = 0
    for _ in range(40):
        gain, variance = ordinary(generator, 12, parts=5)
        names = tuple("ABCDE")
        reference = reference_gains(names, measured(gain, variance), np.arange(12), SETTINGS)
        gain, variance = ordinary(generator, 500, parts=5)
        stops += sum(each >= 0 for each in watched(gain, variance, reference).since)
    assert stops <= SETTINGS.false_stops * 40 * 500 / 1000


def test_a_change_within_the_tolerance_is_none(generator, reference):
    gain, variance = ordinary(generator, 300)
    assert watched(0.8 * gain, variance, reference).since == (-1, -1)
    assert watched(gain * np.linspace(1, 0.3, 300)[:, None], variance, reference).reason == (LOW, LOW)


def test_events_are_judged_in_order_of_time_by_those_before(generator, reference):
    gain, variance = ordinary(generator, 40)
    gain[10:, 0] *= -1
    times, order = spans(40), generator.permutation(40)
    expected = watched(gain, variance, reference)
    found = watched(gain[order], variance[order], reference, times=times[order])
    np.testing.assert_array_equal(found.stopped, expected.stopped[order])
    np.testing.assert_array_equal(found.evidence, expected.evidence[order])
    # what comes later changes nothing
    later = gain.copy()
    later[20:] = 7
    np.testing.assert_array_equal(watched(later, variance, reference).stopped[:21], expected.stopped[:21])


def test_faint_parts_and_copies_of_one_glitch_do_not_count(generator, reference):
    gain, variance = ordinary(generator, 40)
    faint = np.full_like(gain, 100)
    faint[:, 0] = 24
    assert watched(-gain, variance, reference, power=faint).reason == ("", LOW)
    close = watched(-gain, variance, reference, times=spans(40, distance=0.1))
    assert close.counted.sum(axis=0).tolist() == [1, 1]
    assert close.since == (-1, -1)


def test_a_reference_that_is_none_is_refused(reference):
    content = reference.to_dict()
    for name, value in (("gain", [1.0]), ("gain", [None, 1.0]), ("spread", [-1.0, 1.0]), ("groups", ["x", 1])):
        with pytest.raises(FormatError):
            GainReference.from_dict({**content, name: value})
    with pytest.raises(FormatError):
        GainReference.from_dict({})
    assert replace(reference).parts == NAMES
