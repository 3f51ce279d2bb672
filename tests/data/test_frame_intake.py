"""Frames that come late, twice, broken, with a wrong clock, or not at all."""

from dataclasses import replace

import numpy as np
import pytest
from tests.data._replayer import PATIENCE, Replayer

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.frame_intake import FrameIntake, IntakeSettings
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.data.readers.continuous import description_in_name, span_in_name

GPS, RATES = 1_400_000_000.0, {"V1:STRAIN": 64.0, "V1:SEIS": 16.0}
SERIES = {name: np.random.default_rng(0).standard_normal(round(200 * rate)) for name, rate in RATES.items()}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def pieces(start, length, names=tuple(RATES)):
    found = {}
    for name in names:
        first, last = (round(edge * RATES[name]) for edge in (start, start + length))
        found[name] = Channel(name, SERIES[name][first:last], GPS + start, RATES[name], "m")
    return found


def put(folder, start, length=1.0, names=tuple(RATES), word="SIM", **changed):
    path = folder / f"V-{word}-{GPS + start:.0f}-{length:.0f}.h5"
    hdf5.write(path, {**pieces(start, length, names), **changed})
    return path


@pytest.fixture
def intake(tmp_path):
    clock = Clock()
    made = FrameIntake([tmp_path], dict.fromkeys(RATES, "m"), 1.0, IntakeSettings(patience=4.0), clock)
    made.wait = lambda seconds: setattr(clock, "now", clock.now + seconds)
    return made


def all_of(intake, most=100):
    found = []
    while len(found) < most and (one := intake.next()) is not None:
        found.append(one)
    return found


def check(arrived, names=tuple(RATES)):
    assert set(arrived.channels) == set(names)
    for name, one in arrived.channels.items():
        first = round((arrived.start - GPS) * RATES[name])
        np.testing.assert_array_equal(one.series, SERIES[name][first : first + round(RATES[name])])
        assert (one.t0, one.sample_rate) == (arrived.start, RATES[name])


def test_strides_come_in_order_whatever_the_lengths_of_files_and_their_order(intake, tmp_path):
    put(tmp_path, 4, 4)
    put(tmp_path, 0, 4)
    found = all_of(intake)
    put(tmp_path, 8, 1, ["V1:STRAIN"])
    put(tmp_path, 8, 2, ["V1:SEIS"], word="AUX")
    found += all_of(intake)
    assert [one.start - GPS for one in found] == list(range(9))
    for one in found:
        check(one)
    assert not +intake.counts


def test_a_file_is_read_once_it_is_whole(intake, tmp_path):
    put(tmp_path, 0)
    whole = put(tmp_path, 1)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    assert len(all_of(intake)) == 1
    intake.wait(1.0)
    assert intake.next() is None
    whole.write_bytes(content)
    (one,) = all_of(intake)
    check(one)
    assert not +intake.counts


def test_a_broken_file_is_counted_and_its_time_goes_without(intake, tmp_path):
    put(tmp_path, 0)
    broken = put(tmp_path, 1)
    broken.write_bytes(broken.read_bytes()[:-100])
    put(tmp_path, 2)
    assert len(all_of(intake)) == 1
    for _ in range(3):
        intake.wait(2.0)
        rest = all_of(intake)
        if rest:
            break
    assert [one.start - GPS for one in rest] == [2]
    assert intake.counts["broken"] == 1


def test_what_is_late_is_told_and_never_handed_out_again(intake, tmp_path):
    put(tmp_path, 0)
    put(tmp_path, 2)
    assert len(all_of(intake)) == 1
    intake.wait(5.0)
    assert [one.start - GPS for one in all_of(intake)] == [2]
    put(tmp_path, 1)
    put(tmp_path, 3)
    assert [one.start - GPS for one in all_of(intake)] == [3]
    assert intake.counts["late"] == 1


def test_a_witness_that_is_silent_is_waited_for_once(intake, tmp_path):
    put(tmp_path, 0)
    for start in (1, 2, 3):
        put(tmp_path, start, names=["V1:STRAIN"])
    assert len(all_of(intake)) == 1
    intake.wait(5.0)
    found = all_of(intake)
    assert [one.start - GPS for one in found] == [1, 2, 3]
    for one in found:
        check(one, ["V1:STRAIN"])
    put(tmp_path, 4)
    check(all_of(intake)[0])
    assert intake.counts["missing"] == 3


def as_it_comes(intake, tmp_path, late, last=30):
    """What is handed out of strain that comes at once and of a witness that is so late (s), by the second it comes."""
    found = []
    for half in range(2 * last):
        intake.wait(0.5)
        if half % 2 == 0:
            put(tmp_path, half // 2, names=["V1:STRAIN"], word="STRAIN")
        second = half / 2 - late(half / 2)
        if second >= 0 and second % 1 == 0:
            put(tmp_path, second, names=["V1:SEIS"], word="SEIS")
        found += [(half / 2 - (one.start - GPS), one) for one in all_of(intake)]
    return found


def test_a_witness_that_was_given_up_and_then_comes_a_little_later_is_waited_for_again(intake, tmp_path):
    found = as_it_comes(intake, tmp_path, lambda now: 2.5 if now < 5 or now > 12 else 100.0)
    lacking = [one.start - GPS for _, one in found if set(one.channels) != set(RATES)]
    assert [one.start - GPS for _, one in found] == [*range(len(found))]
    # what came while nobody waited for it is lost, and nothing after that
    assert lacking == [*range(3, 13)]
    assert all(after == 2.5 for after, one in found if one.start - GPS > 12)
    for _, one in found:
        check(one, tuple(one.channels))
    assert (intake.counts["late"], intake.counts["missing"]) == (3, 10)


@pytest.mark.parametrize("late", [5.5, 7.0, 100.0])
def test_a_witness_that_is_dead_or_always_too_late_holds_up_nothing_for_long(intake, tmp_path, late):
    found = as_it_comes(intake, tmp_path, lambda now: late if now > 5 else 0.0)
    delays = [after for after, one in found if one.start - GPS > 6]
    assert max(after for after, _ in found) <= 4.0 + 1.5
    assert delays[4:] == [0.0] * len(delays[4:])
    assert [one.start - GPS for _, one in found] == [*range(30)]


def test_a_late_file_that_cannot_be_read_yet_is_waited_for_once_it_can(intake, tmp_path):
    put(tmp_path, 0)
    put(tmp_path, 1, names=["V1:STRAIN"])
    put(tmp_path, 2, names=["V1:STRAIN"])
    all_of(intake)
    intake.wait(5.0)
    assert len(all_of(intake)) == 2
    late = put(tmp_path, 2, names=["V1:SEIS"], word="SEIS")
    content = late.read_bytes()
    late.write_bytes(content[:-100])
    put(tmp_path, 3, names=["V1:STRAIN"])
    assert len(all_of(intake)) == 1
    late.write_bytes(content)
    intake.wait(1.0)
    assert all_of(intake) == []
    put(tmp_path, 4, names=["V1:STRAIN"])
    put(tmp_path, 4, names=["V1:SEIS"], word="SEIS")
    (one,) = all_of(intake)
    check(one)


def test_a_broken_file_that_is_mended_before_its_time_is_over_is_read(intake, tmp_path):
    put(tmp_path, 0)
    broken = put(tmp_path, 1)
    content = broken.read_bytes()
    broken.write_bytes(content[:-100])
    all_of(intake)
    intake.wait(5.0)
    intake.next()
    intake.wait(1.0)
    intake.next()
    assert intake.counts["broken"] == 1
    broken.write_bytes(content)
    (one,) = all_of(intake)
    check(one)
    assert not intake.counts["changed"]


def test_what_happens_with_each_file_is_counted_and_told_now_and_then(intake, tmp_path, caplog):
    for start in range(40):
        put(tmp_path, start)
        put(tmp_path, start, word="COPY")
    assert len(all_of(intake)) == 40
    assert intake.counts["duplicate"] == 80
    assert sum("the same as another file" in one.message for one in caplog.records) == 2


def test_it_is_idle_from_the_first_look_on_or_from_the_last_file(intake, tmp_path):
    intake.wait(50.0)
    assert intake.idle() == 0.0
    assert intake.next() is None
    intake.wait(2.0)
    assert (intake.idle(), intake.empty) == (2.0, True)
    put(tmp_path, 0)
    all_of(intake)
    assert (intake.idle(), intake.empty) == (0.0, False)
    intake.wait(3.0)
    assert intake.idle() == 3.0
    put(tmp_path, 1).write_bytes(b"half")
    intake.next()
    assert intake.idle() == 0.0


def replayed(folder, seed, harmful=0.0, last=60):
    """What is handed out of strain and a witness in files of their own, by a channel's name and second."""
    store, frames = folder / "store", folder / "frames"
    for one in (store, frames):
        one.mkdir()
    files = [
        put(store, second, names=[name], word=word)
        for second in range(last)
        for name, word in (("V1:STRAIN", "STRAIN"), ("V1:SEIS", "SEIS"))
    ]
    replayer = Replayer(files, frames, seed, harmful)
    intake = FrameIntake([frames], dict.fromkeys(RATES, "m"), 1.0, IntakeSettings(patience=PATIENCE), replayer.clock)
    found = []
    intake.begin(GPS)
    while replayer.step() or intake.idle() < 2 * PATIENCE:
        found += all_of(intake)
    lost = {(f"V1:{description_in_name(name)[2:]}", span_in_name(name)[0] - GPS) for name in replayer.lost}
    return found, lost, intake


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_nor_handed_out_twice_whatever_happens_to_files_that_come(tmp_path, seed):
    found, _, intake = replayed(tmp_path, seed)
    assert [one.start - GPS for one in found] == [*range(60)]
    for one in found:
        check(one)
    assert set(+intake.counts) <= {"late", "duplicate", "different", "changed", "future", "broken"}
    assert intake.counts["duplicate"] * intake.counts["future"]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_lost_costs_its_own_channel_a_few_strides(tmp_path, seed):
    found, lost, _ = replayed(tmp_path, seed, harmful=0.1)
    starts = [one.start - GPS for one in found]
    assert lost
    assert starts == sorted(set(starts))
    there = {(name, one.start - GPS) for one in found for name in one.channels}
    assert not there & lost
    for one in found:
        check(one, tuple(one.channels))
    # nothing ever follows the last second, so that its lost files are still waited for
    lacking = {(name, second) for name in RATES for second in range(59)} - there
    for name, second in lacking:
        assert any(whose == name and second - 2 * PATIENCE < other <= second for whose, other in lost)


def test_copies_count_once_and_of_what_differs_the_first(intake, tmp_path):
    put(tmp_path, 0)
    intake.next()
    put(tmp_path, 1, word="A")
    put(tmp_path, 1, word="B")
    other = pieces(2, 1)
    put(tmp_path, 2, word="A")
    put(tmp_path, 2, word="B", **{"V1:SEIS": replace(other["V1:SEIS"], series=other["V1:SEIS"].series + 1)})
    put(tmp_path, 1, 4, word="LONG")
    found = all_of(intake)
    assert [one.start - GPS for one in found] == [1, 2, 3, 4]
    for one in found:
        check(one)
    assert intake.counts["duplicate"] >= 3
    assert intake.counts["different"] == 1


def test_a_stray_file_far_ahead_stops_nothing(intake, tmp_path):
    put(tmp_path, 0)
    hdf5.write(tmp_path / "V-SIM-1500000000-1.h5", {name: replace(one, t0=1.5e9) for name, one in pieces(0, 1).items()})
    assert len(all_of(intake)) == 1
    intake.wait(100.0)
    assert all_of(intake) == []
    put(tmp_path, 1)
    check(all_of(intake)[0])
    assert intake.counts["future"] == 1


def test_a_stray_file_a_little_ahead_holds_up_nothing_and_takes_nothing_away(intake, tmp_path):
    hdf5.write(tmp_path / f"V-STRAY-{GPS + 20:.0f}-1.h5", {n: replace(o, t0=GPS + 20) for n, o in pieces(0, 1).items()})
    found = []
    for start in range(20):
        put(tmp_path, start)
        found += all_of(intake)
        intake.wait(1.0)
    assert [one.start - GPS for one in found] == [*range(21)]
    for one in found[:20]:
        check(one)


def test_strays_of_several_clocks_are_no_jump(intake, tmp_path):
    put(tmp_path, 0)
    all_of(intake)
    for start in (2000, 3000, 4000, 5000):
        hdf5.write(
            tmp_path / f"V-SIM-{GPS + start:.0f}-1.h5",
            {name: replace(one, t0=GPS + start) for name, one in pieces(0, 1).items()},
        )
    assert all_of(intake) == []
    intake.wait(100.0)
    assert all_of(intake) == []
    put(tmp_path, 1)
    check(all_of(intake)[0])
    assert (intake.counts["future"], intake.counts["jumps"]) == (4, 0)


def test_after_an_outage_its_backlog_is_one_statement(intake, tmp_path, caplog):
    put(tmp_path, 0)
    assert len(all_of(intake)) == 1
    for start in range(90, 190):
        put(tmp_path, start)
        intake.wait(0.01)
        intake.next()
    intake.wait(9.0)
    found = all_of(intake, 200)
    assert [one.start - GPS for one in found] == [*range(90, 190)]
    assert +intake.counts == {"jumps": 1}
    assert len(caplog.records) == 1


def test_after_a_jump_of_the_clock_it_goes_on_there(intake, tmp_path):
    put(tmp_path, 0)
    all_of(intake)
    for start in (150, 151, 152):
        put(tmp_path, start)
    assert all_of(intake) == []
    intake.wait(9.0)
    assert [one.start - GPS for one in all_of(intake)] == [150, 151, 152]
    assert intake.counts["jumps"] == 1


def test_a_jump_back_is_refused(intake, tmp_path):
    put(tmp_path, 100)
    all_of(intake)
    put(tmp_path, 5)
    put(tmp_path, 101)
    assert [one.start - GPS for one in all_of(intake)] == [101]
    assert intake.counts["late"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 32.0, "series": np.zeros(32)},
        {"unit": "V"},
    ],
)
def test_a_channel_that_is_another_thing_is_masked(intake, tmp_path, change, caplog):
    put(tmp_path, 0)
    put(tmp_path, 1)
    for start in (2, 3):
        put(tmp_path, start, **{"V1:SEIS": replace(pieces(start, 1)["V1:SEIS"], **change)})
    assert len(all_of(intake)) == 2
    intake.wait(5.0)
    for one in all_of(intake):
        check(one, ["V1:STRAIN"])
    assert intake.counts["unusable"] == 2
    assert sum("is not used" in one.message for one in caplog.records) == 1


def test_samples_that_lack_within_a_stride_are_nan(intake, tmp_path):
    put(tmp_path, 0)
    intake.next()
    half = pieces(1, 1)["V1:STRAIN"]
    put(tmp_path, 1, **{"V1:STRAIN": replace(half, series=half.series[:20])})
    put(tmp_path, 2)
    assert all_of(intake) == []
    intake.wait(5.0)
    first, _ = all_of(intake)
    series = first.channels["V1:STRAIN"].series
    np.testing.assert_array_equal(series[:20], half.series[:20])
    assert np.isnan(series[20:]).all()


def test_a_folder_that_vanishes_is_waited_for(intake, tmp_path):
    put(tmp_path, 0)
    intake.next()
    away = tmp_path.rename(tmp_path.with_suffix(".away"))
    assert intake.next() is None
    away.rename(tmp_path)
    put(tmp_path, 1)
    check(all_of(intake)[0])


def test_what_is_deleted_after_it_was_read_is_not_lost(intake, tmp_path):
    path = put(tmp_path, 0, 4)
    first = intake.next()
    path.unlink()
    found = [first, *all_of(intake)]
    assert len(found) == 4
    for one in found:
        check(one)


def test_it_begins_where_it_is_told(intake, tmp_path):
    put(tmp_path, 0, 4)
    put(tmp_path, 4, 4)
    intake.begin(GPS + 5.5)
    assert [one.start - GPS for one in all_of(intake)] == [5, 6, 7]
    assert not +intake.counts
