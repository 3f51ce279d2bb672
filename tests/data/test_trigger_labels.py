from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data.triggers.labelled import Labelled
from glitchflow_plugin.data.triggers.labels import (
    PARTS,
    LabelledTimes,
    LabelSettings,
    TriggerSplitSettings,
    label_times,
    split_times,
)
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError

START, DURATION = 1_400_000_000, 40_000
LIVE = np.array([[START, START + 15_000], [START + 20_000, START + DURATION]], dtype=float)
GIVEN = LabelSettings(times="strain", block_length=1000.0, separation=2.0, quiet=1.0)


def labelled(seed=0, rate=0.02):
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.uniform(0, DURATION, int(rate * DURATION)))
    seconds = seconds[(seconds < 15_000) | (seconds > 20_000)]
    time = START * NANOSECONDS + (seconds * NANOSECONDS).astype(np.int64)
    return time, label_times(time, rng.uniform(5, 20, len(time)), np.full(len(time), "blip"), LIVE, GIVEN)


def test_quiet_times_are_live_and_away_from_every_trigger_of_the_strain():
    strain, times = labelled()
    quiet = times.time[~times.glitch]
    assert len(quiet) > 100
    assert np.abs(quiet[:, None] - strain).min() >= 2 * NANOSECONDS - 1000
    seconds = quiet / NANOSECONDS
    assert (((seconds[:, None] >= LIVE[:, 0]) & (seconds[:, None] < LIVE[:, 1])).any(axis=1)).all()
    assert np.diff(np.sort(times.time[times.glitch])).min() > 2 * NANOSECONDS


@pytest.mark.parametrize("rate", [0.02, 0.001])  # of the second many blocks have no glitch
def test_a_clock_cannot_tell_and_weights_undo_the_balance(rate):
    strain, times = labelled(1, rate)
    for block in np.unique(times.group):
        own = times[times.group == block]
        assert own.glitch.sum() == (~own.glitch).sum()
    fine = np.linspace(START, START + DURATION, 400_001)
    live = ((fine[:, None] >= LIVE[:, 0]) & (fine[:, None] < LIVE[:, 1])).any(axis=1)
    after = np.searchsorted(strain / NANOSECONDS, fine)
    near = np.minimum(
        np.abs(fine - (strain / NANOSECONDS)[np.minimum(after, len(strain) - 1)]),
        np.abs(fine - (strain / NANOSECONDS)[np.maximum(after - 1, 0)]),
    )
    quiet_slots = (live & (near >= GIVEN.separation)).mean() * DURATION / GIVEN.separation
    assert times.weight[~times.glitch].sum() == pytest.approx(quiet_slots, rel=0.01)


ASKED = LabelSettings(block_length=1000.0, coincidence=0.3)


def witnessed(seed=0, **others):
    """Times to ask at, some of them of the strain's triggers, with what is labelled of them."""
    rng = np.random.default_rng(seed)
    strain, _ = labelled(seed)
    snr = rng.uniform(5, 20, len(strain))
    own = strain[rng.random(len(strain)) < 0.7] + rng.integers(-5, 6, 1)[0] * NANOSECONDS // 20
    asked = np.unique(np.concatenate([own, START * NANOSECONDS + rng.integers(0, DURATION, 3000) * NANOSECONDS]))
    asked = asked[np.r_[True, np.diff(asked) > NANOSECONDS]]
    kind = np.where(snr > 12, "loud", "faint")
    return strain, snr, asked, label_times(strain, snr, kind, LIVE, replace(ASKED, **others), asked=asked)


def test_times_of_witnesses_have_the_loudest_glitch_that_is_near_or_are_quiet():
    strain, snr, asked, times = witnessed()
    near = (np.abs(asked[:, None] - strain) <= 0.3 * NANOSECONDS) & (snr >= ASKED.snr)
    seconds = asked / NANOSECONDS
    live = ((seconds[:, None] >= LIVE[:, 0]) & (seconds[:, None] < LIVE[:, 1])).any(axis=1)
    there = live & near.any(axis=1)
    assert times.time[times.glitch].tolist() == asked[there].tolist()
    np.testing.assert_array_equal(times.snr[times.glitch], np.where(near, snr, 0).max(axis=1)[there])
    assert set(times.kind[times.glitch & (times.snr > 12)]) == {"loud"}
    quiet = times.time[~times.glitch]
    assert set(quiet) <= set(asked[live & ~there])
    assert len(set(quiet)) == len(quiet) > 100
    # each stands for others: as many as there are, whatever is drawn
    assert times.weight[times.glitch].sum() == there.sum()
    assert times.weight[~times.glitch].sum() == pytest.approx((live & ~there).sum())
    every = witnessed(quiet=1e6)[-1]
    assert (np.diff(every.time) > 0).all()
    drawn_from = np.isin(asked // (1000 * NANOSECONDS), np.unique(times.group[times.glitch]))
    assert len(every) == (live & drawn_from).sum()


def test_glitches_that_no_witness_is_near_to_are_told():
    strain, snr, _, _ = witnessed()
    apart = strain[:-1][np.diff(strain) > NANOSECONDS] + NANOSECONDS // 2
    with pytest.raises(DataError, match=r"found none of \d+ at \d+ times.*times=strain"):
        label_times(strain, snr, np.full(len(snr), ""), LIVE, ASKED, asked=apart)
    with pytest.raises(ConfigurationError, match=r"at most half the separation, 0\.5 s, got 0\.6 s"):
        LabelSettings(coincidence=0.6)
    assert LabelSettings(times="strain", separation=0.1).coincidence == 0.1, "of no effect"


def test_records_of_before_there_was_a_choice_are_of_times_of_the_strain():
    before = Labelled("store", "", "L1:STRAIN", 4096.0, settings={"label": {"snr": 8.0, "separation": 0.1}})
    assert before.labels == LabelSettings(times="strain", snr=8.0, separation=0.1)
    now = asdict(LabelSettings(snr=7.0))
    assert replace(before, settings={"label": now}).labels == LabelSettings(snr=7.0)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), reach=st.floats(1.0, 500.0), rate=st.sampled_from([0.003, 0.02]))
def test_nothing_of_one_part_is_within_reach_of_another(seed, reach, rate):
    divided = split_times(labelled(seed, rate)[1], GIVEN.block_length, TriggerSplitSettings(reach=reach, seed=seed))
    for one in PARTS:
        for other in set(PARTS) - {one}:
            apart = np.abs(divided.of(one).time[:, None] - divided.of(other).time)
            assert not apart.size or apart.min() >= 2 * reach * NANOSECONDS - 1000
    again = split_times(labelled(seed, rate)[1], GIVEN.block_length, TriggerSplitSettings(reach=reach, seed=seed))
    assert (again.part == divided.part).all()


def test_what_is_written_is_read_and_what_is_none_is_told(tmp_path):
    times = split_times(labelled()[1], GIVEN.block_length, TriggerSplitSettings())
    times.write(tmp_path / "times.parquet")
    read = LabelledTimes.read(tmp_path / "times.parquet")
    for name in ("time", "glitch", "kind", "snr", "group", "weight", "part"):
        np.testing.assert_array_equal(getattr(read, name), getattr(times, name))
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match="Label the triggers again"):
        LabelledTimes.read(tmp_path / "other.parquet")


def test_too_few_glitches_and_blocks_are_told():
    time = np.array([START * NANOSECONDS])
    with pytest.raises(DataError, match="Lower the threshold"):
        label_times(time, np.array([5.0]), np.array([""]), LIVE, GIVEN)
    one = label_times(time, np.array([9.0]), np.array([""]), LIVE, GIVEN)
    with pytest.raises(DataError, match="blocks of time"):
        split_times(one, GIVEN.block_length, TriggerSplitSettings())
    with pytest.raises(ConfigurationError, match="twice the reach"):
        split_times(one, 100.0, TriggerSplitSettings(reach=51.0))
