import itertools

import numpy as np
import pytest

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance, coincidence, explained


def spikes(*rows):
    """Spikes from (event, channel, time[, frequency])."""
    rows = [(*row, 50.0)[:4] for row in rows]
    event, channel, time, frequency = (np.array(column) for column in zip(*rows, strict=True)) if rows else ([],) * 4
    as_int, as_float = (lambda x: np.asarray(x, dtype=np.int64)), (lambda x: np.asarray(x, dtype=np.float64))
    return Spikes(as_int(event), as_int(channel), as_float(time), as_float(frequency), np.full(len(rows), 30.0))


def counts_of(reference, witness, valid=None, events=3, channels=1, **tolerance):
    valid = np.ones((events, channels), dtype=bool) if valid is None else valid
    return coincidence(reference, witness, valid, Tolerance(**({"time": 0.1} | tolerance)))


def test_hits_and_misses_are_not_swapped():
    # Strain 4 spikes, witness 2, one shared: of the strain's spikes a quarter is shared, of the witness's a half.
    counts = counts_of(spikes((0, 0, 1.0), (0, 0, 2.0), (1, 0, 1.0), (2, 0, 1.0)), spikes((0, 0, 1.05), (2, 0, 3.0)))
    assert (counts.reference[0], counts.witness[0], counts.shared[0]) == (4, 2, 1)
    assert counts.correlation[0] == 1 / 4
    assert counts.iou[0] == 1 / 5


def test_silence_against_silence_is_no_information():
    counts = counts_of(spikes(), spikes())
    assert np.isnan(counts.correlation[0])
    assert np.isnan(counts.iou[0])


def test_silent_events_add_nothing():
    reference, witness = spikes((0, 0, 1.0)), spikes((0, 0, 1.0))
    few, many = counts_of(reference, witness, events=1), counts_of(reference, witness, events=50)
    assert few.iou[0] == many.iou[0] == 1.0
    assert few.correlation[0] == many.correlation[0] == 1.0


def test_silent_witness_of_a_glitching_strain_shares_nothing():
    counts = counts_of(spikes((0, 0, 1.0)), spikes())
    assert counts.correlation[0] == 0.0
    assert counts.iou[0] == 0.0


def test_witness_that_is_never_valid_gives_no_information():
    valid = np.ones((3, 2), dtype=bool)
    valid[:, 1] = False
    counts = counts_of(spikes((0, 0, 1.0)), spikes((0, 0, 1.0)), valid, channels=2)
    assert counts.correlation[0] == 1.0
    assert np.isnan(counts.correlation[1])


def test_events_where_the_witness_is_not_valid_do_not_count_against_it():
    valid = np.array([[True], [False], [True]])
    counts = counts_of(spikes((0, 0, 1.0), (1, 0, 1.0)), spikes((0, 0, 1.0), (1, 0, 9.0)), valid)
    assert (counts.reference[0], counts.witness[0], counts.shared[0]) == (1, 1, 1)


def test_spikes_of_different_events_never_coincide():
    counts = counts_of(spikes((0, 0, 5.99)), spikes((1, 0, 0.0)), time=0.5)
    assert counts.shared[0] == 0


def test_one_spike_is_not_counted_twice():
    counts = counts_of(spikes((0, 0, 1.0), (0, 0, 1.05)), spikes((0, 0, 1.02)))
    assert counts.shared[0] == 1
    counts = counts_of(spikes((0, 0, 1.02)), spikes((0, 0, 1.0), (0, 0, 1.05)))
    assert counts.correlation[0] == 1.0
    assert counts.iou[0] == 0.5


def test_pairs_are_as_many_as_possible():
    # Taking the nearest first, 1.08 with 1.00, would leave 0.92 without partner.
    counts = counts_of(spikes((0, 0, 1.0), (0, 0, 1.17)), spikes((0, 0, 0.92), (0, 0, 1.08)))
    assert counts.shared[0] == 2


def test_tolerance_includes_its_end():
    assert counts_of(spikes((0, 0, 1.0)), spikes((0, 0, 1.1))).shared[0] == 1
    assert counts_of(spikes((0, 0, 1.0)), spikes((0, 0, 1.11))).shared[0] == 0


def test_frequency_counts_only_where_asked():
    reference, witness = spikes((0, 0, 1.0, 40.0)), spikes((0, 0, 1.0, 100.0))
    assert counts_of(reference, witness).shared[0] == 1
    assert counts_of(reference, witness, octaves=1.0).shared[0] == 0
    assert counts_of(reference, witness, octaves=1.5).shared[0] == 1


@pytest.mark.parametrize("seed", range(5))
def test_same_as_trying_every_assignment(seed):
    rng = np.random.default_rng(seed)
    reference = spikes(*((rng.integers(3), 0, rng.uniform(0, 1), rng.uniform(20, 80)) for _ in range(7)))
    witness = spikes(*((rng.integers(3), rng.integers(2), rng.uniform(0, 1), rng.uniform(20, 80)) for _ in range(12)))
    tolerance = Tolerance(0.15, 0.8)
    found = coincidence(reference, witness, np.ones((3, 2), dtype=bool), tolerance).shared
    for channel in range(2):
        mine = np.flatnonzero(witness.channel == channel)
        allowed = (
            (np.abs(reference.time[:, None] - witness.time[mine]) <= tolerance.time)
            & (reference.event[:, None] == witness.event[mine])
            & (np.abs(np.log2(reference.frequency[:, None] / witness.frequency[mine])) <= tolerance.octaves)
        )
        slots = [*range(len(mine)), *[None] * 7][: max(7, len(mine))]
        best = 0
        for chosen in set(itertools.permutations(slots, 7)) if len(slots) <= 7 else itertools.permutations(slots, 7):
            best = max(best, sum(allowed[row, column] for row, column in enumerate(chosen) if column is not None))
        assert found[channel] == best


def test_vetoed_and_used_spikes_need_no_partner_of_their_own():
    counts = counts_of(spikes((0, 0, 1.0), (0, 0, 1.05), (1, 0, 1.0)), spikes((0, 0, 1.02), (2, 0, 1.0)))
    assert (counts.shared[0], counts.vetoed[0], counts.used[0]) == (1, 2, 1)


def test_explained_spikes_are_those_with_a_spike_of_the_witness_near():
    reference = spikes((0, 0, 1.0), (0, 0, 3.0), (1, 0, 1.0))
    witness = spikes((0, 0, 1.05), (0, 1, 3.0), (1, 1, 1.0), (2, 1, 1.0))
    found = explained(reference, witness, Tolerance(0.1), num_channels=3)
    assert found.tolist() == [[True, False, False], [False, True, True], [False, False, False]]


def test_tolerance_between_columns_changes_nothing_for_columns():
    column = 6.0 / 257
    near = Tolerance(0.25).between_columns(column)
    steps = np.arange(30)
    assert (steps * column <= near.time).tolist() == (steps * column <= 0.25).tolist()
    assert near.time / column == pytest.approx(10.5)
    assert Tolerance(3 * column, 0.4).between_columns(column) == Tolerance(3.5 * column, 0.4)


def test_wrong_rows_and_tolerances_are_refused():
    with pytest.raises(DataError, match="outside"):
        counts_of(spikes((7, 0, 1.0)), spikes())
    with pytest.raises(ConfigurationError, match="negative"):
        Tolerance(-0.1)
