"""Streams of sets: every example once, the same whatever reads it and wherever it begins again, damage told."""

import logging
import multiprocessing
import os
import signal
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import _warm

from glitchflow_plugin.data.parent import ENDING
from glitchflow_plugin.data.triggers.epochs import StretchOrder, balanced, reading
from glitchflow_plugin.data.triggers.sets import SetSettings, Vocabulary, trigger_sets
from glitchflow_plugin.data.triggers.store import DAY, TriggerWriter, open_triggers
from glitchflow_plugin.data.triggers.stream import StreamSettings, TriggerStream
from glitchflow_plugin.data.triggers.stretches import RowGroups
from glitchflow_plugin.data.triggers.table import NANOSECONDS, trigger_table
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.types.triggers import TriggerLabels

TARGET, DAYS, EXAMPLES = "L1:GDS-STRAIN", 12, 300
KNOWN = Vocabulary(("L1:ASC-A", "L1:SUS-B", "L1:SUS-C"), ("blip", "whistle"))
START = 14_000 * DAY * NANOSECONDS
SETS = SetSettings(window=600.0, rate_window=3000.0, most=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve days of four channels of three groups, one of which the vocabulary does not have."""
    folder, draw = tmp_path_factory.mktemp("stream") / "store", np.random.default_rng(0)
    names = np.array([TARGET, "L1:ASC-A", "L1:SUS-B", "L1:SUS-NEW"], dtype=object)
    rows = 6000
    with TriggerWriter(folder) as writer:
        writer.write(
            trigger_table(
                {
                    "time": START + draw.integers(0, DAYS * DAY, rows) * NANOSECONDS,  # some at the same time
                    "frequency": draw.uniform(10, 1000, rows),
                    "snr": draw.uniform(5, 50, rows),
                    "q": np.where(draw.random(rows) < 0.1, np.nan, 8.0),
                    "channel": names[draw.integers(0, 4, rows)],
                }
            )
        )
    return folder


def examples() -> tuple[np.ndarray, TriggerLabels]:
    draw = np.random.default_rng(1)
    times = START + np.sort(draw.integers(0, DAYS * DAY, EXAMPLES)) * NANOSECONDS
    glitch = draw.random(EXAMPLES) < 0.3
    kind = np.where(glitch, np.where(draw.random(EXAMPLES) < 0.1, 1, 0), -1)
    snr = torch.arange(EXAMPLES).float()  # names the example
    unknown = torch.full((EXAMPLES,), -1)
    return times, TriggerLabels(
        torch.from_numpy(glitch).float(), torch.from_numpy(kind), snr, unknown, torch.ones(EXAMPLES)
    )


def stream(store: Path, **given: Any) -> TriggerStream:
    settings = {"memory": 3.5e-4, "stretch_rows": 400}
    settings |= {name: given.pop(name) for name in ("memory", "stretch_rows", "balance") if name in given}
    times, labels = examples()
    return TriggerStream(
        store,
        times,
        labels,
        KNOWN,
        target=TARGET,
        sets=SETS,
        settings=StreamSettings(**settings),
        **{"batch_size": 16, "seed": 3, **given},
    )


def numbers(batches: Any) -> list[list[int]]:
    return [labels.log1p_snr.int().tolist() for _, labels in batches]


# the order alone

LAYOUTS = st.lists(st.integers(0, 7), min_size=1, max_size=40).map(lambda stretch: np.sort(np.array(stretch)))


@settings(max_examples=60, deadline=None)
@given(stretch=LAYOUTS, mixed=st.integers(1, 9), seed=st.none() | st.integers(0, 3), place=st.integers(0, 40))
def test_every_example_comes_once_from_few_stretches_and_any_place_begins_again(stretch, mixed, seed, place):
    order = StretchOrder(stretch, mixed, seed)
    steps = list(order.steps(2))
    whole = np.concatenate([step.examples for step in steps])
    assert np.sort(whole).tolist() == list(range(len(stretch)))
    assert all(len(step.held) <= max(1, mixed) for step in steps)
    assert all(set(stretch[step.examples].tolist()) <= step.held for step in steps)
    later = list(order.steps(2, place))
    assert [step.examples.tolist() for step in later] == [
        step.examples.tolist() for step in steps if step.first + len(step.examples) > place
    ]
    _, wanted = reading(iter(steps))
    assert set(wanted) == set(stretch.tolist())
    assert len(wanted) <= len(set(stretch.tolist())) + mixed - 1, "read once, but at the seam of the circle"


def test_epochs_differ_and_two_of_a_batch_share_a_stretch_as_often_as_said():
    stretch = np.repeat(np.arange(40), 100)
    order = StretchOrder(stretch, 8, 0)
    first, second = (np.concatenate([step.examples for step in order.steps(epoch)]) for epoch in (0, 1))
    assert (first != second).mean() > 0.99
    batches = stretch[first].reshape(-1, 50)
    same = (batches[:, :, None] == batches[:, None]).sum() - batches.size
    assert same / (batches.size * 49) == pytest.approx(1 / 8, rel=0.15)
    alone = StretchOrder(stretch, 40, 0)
    batches = stretch[np.concatenate([step.examples for step in alone.steps(0)])].reshape(-1, 50)
    same = (batches[:, :, None] == batches[:, None]).sum() - batches.size
    assert same / (batches.size * 49) < 1.1 / 40, "no worse than a perfect shuffle where all are held"


def test_balance_makes_labels_come_as_often():
    label = np.repeat([0, 1, 2], [900, 90, 10])
    often = balanced(label, 1.0)
    order = StretchOrder(np.sort(np.arange(1000) % 7), 3, 0, often)
    seen = Counter(label[np.concatenate([step.examples for step in order.steps(0)])].tolist())
    assert sum(seen.values()) == 1000
    assert all(abs(count - 1000 / 3) < 25 for count in seen.values())
    half = balanced(label, 0.5)
    assert half is not None
    assert half[0] * 900 / (half[-1] * 10) == pytest.approx(np.sqrt(90))


# sets and labels out of a store


def test_sets_are_those_that_are_cut_from_the_whole_table(store: Path) -> None:
    times, labels = examples()
    direct = {}
    table = ds.dataset(open_triggers(store).to_table())
    for row, time in enumerate(times[::5]):
        (direct[5 * row],) = trigger_sets(table, np.array([time]), KNOWN, TARGET, SETS)
    seen = Counter[int]()
    for sets, told in stream(store)(0):
        for place, row in enumerate(told.log1p_snr.int().tolist()):
            seen[row] += 1
            if row not in direct:
                continue
            one, expected = sets[place : place + 1], direct[row]
            assert torch.equal(one.points[one.mask].nan_to_num(), expected.points[expected.mask].nan_to_num())
            assert torch.equal(one.channels[one.mask], expected.channels[expected.mask])
            assert torch.equal(one.globals_, expected.globals_)
            assert told.glitch[place] == labels.glitch[row]
            assert told.kind[place] == labels.kind[row]
    assert seen == dict.fromkeys(range(EXAMPLES), 1)


@settings(max_examples=5, deadline=None)
@given(batch=st.integers(0, 18), epoch=st.integers(0, 3))
def test_any_batch_begins_again(store: Path, batch: int, epoch: int) -> None:
    one = stream(store)
    assert numbers(stream(store)(epoch, 16 * batch)) == numbers(one(epoch))[batch:]
    assert list(chain(*numbers(one(epoch)))) == one.numbers(epoch).tolist()


def test_other_processes_go_on_at_any_place(store: Path) -> None:
    rest = stream(store).numbers(1)[40:].tolist()
    shares = [numbers(stream(store, batch_size=7, rank=rank, world_size=3)(1, 40)) for rank in range(3)]
    batches = [rest[first : first + 21] for first in range(0, len(rest), 21)]
    for rank, share in enumerate(shares):
        assert share == [one[rank::3] or one[:1] for one in batches]


def test_what_is_mixed_is_part_of_the_store_and_workers_change_nothing(store: Path) -> None:
    one = stream(store, memory=6e-4, stretch_rows=200)
    assert one.order.mixed > 1
    others = multiprocessing.active_children()
    apart = stream(store, memory=6e-4, stretch_rows=200, workers=2)(1, 48)
    first = next(apart)
    # what asks a whole job to end lets the one that learns end in order: its workers do not hear it
    for worker in set(multiprocessing.active_children()) - set(others):
        for number in ENDING:
            os.kill(worker.pid or 0, number)
    assert numbers(chain([first], apart)) == numbers(one(1))[3:]
    assert 1 < stream(store).order.mixed < DAYS


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_each_batch_and_are_as_often_asked(store: Path, world_size: int) -> None:
    size = 16 // world_size if world_size == 2 else 16
    alone = numbers(stream(store, batch_size=size * world_size)(0))
    shares = [list(stream(store, batch_size=size, rank=rank, world_size=world_size)(0)) for rank in range(world_size)]
    assert {len(share) for share in shares} == {len(alone)}
    for number, whole in enumerate(alone):
        told = [share[number][1] for share in shares]
        counted = [one.log1p_snr[one.weights > 0].int().tolist() for one in told]
        assert [whole[rank::world_size] for rank in range(world_size)] == counted
        assert all(len(one) for one in told)


def test_a_process_without_an_example_takes_part_without_weight(store: Path) -> None:
    shares = [list(stream(store, batch_size=23, rank=rank, world_size=13)(0))[-1][1] for rank in (0, 1, 2)]
    assert [one.weights.tolist() for one in shares] == [[1.0], [0.0], [0.0]]  # 300 = 13 * 23 + 1


def test_in_order_of_time_without_shuffling(store: Path) -> None:
    assert list(chain(*numbers(stream(store, seed=None, balance=1.0)(5)))) == list(range(EXAMPLES))


def test_weights_undo_a_balanced_sampling(store: Path) -> None:
    batches = [labels for epoch in range(5) for _, labels in stream(store, balance=1.0)(epoch)]
    joined = TriggerLabels.joined(batches)
    _, labels = examples()
    for kind in (-1, 0, 1):
        own = joined.kind == kind
        assert float(own.sum()) == pytest.approx(5 * EXAMPLES / 3, abs=30)
        assert float(joined.weights[own].sum()) == pytest.approx(5 * float((labels.kind == kind).sum()), rel=0.1)


def _learn(store: Path, notes: Path, until: int) -> None:
    """A run that writes down each batch, and is killed in the middle of the next."""
    torch.set_num_threads(1)
    whole = stream(store)
    for batch, seen in enumerate(numbers(whole(0))):
        if batch == until:
            os.kill(os.getpid(), signal.SIGKILL)
        with notes.open("a") as file:
            file.write(f"{seen}\n")


def test_a_run_that_was_killed_goes_on_at_the_batch(store: Path, tmp_path: Path) -> None:
    run = _warm.start(_learn, store, tmp_path / "seen", 7, output=tmp_path / "log")
    assert run.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    seen = [[int(one) for one in line.strip("[]").split(",")] for line in (tmp_path / "seen").read_text().splitlines()]
    assert len(seen) == 7
    rest = numbers(stream(store)(0, 16 * len(seen)))
    assert seen + rest == numbers(stream(store)(0))


# what is wrong


def copy(store: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in store.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_truncated_file_is_told_and_counted_and_times_about_it_are_left_out(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = copy(store, tmp_path / "store")
    files = sorted(broken.glob("*SUS*.parquet"))
    rows = pq.read_metadata(files[3]).num_rows + pq.read_metadata(files[7]).num_rows
    files[3].write_bytes(files[3].read_bytes()[:-100])
    files[7].unlink()
    assert RowGroups.of(broken).lost_rows == rows
    with caplog.at_level(logging.WARNING):
        short = stream(broken)
    assert f"2 of {len(list(store.glob('*.parquet')))} files cannot be read, with {rows} of 6000" in caplog.text
    times, _ = examples()
    spans = [int(one.stem.split("-")[1]) * NANOSECONDS for one in (files[3], files[7])]
    reach = SETS.reach
    kept = [
        row
        for row, time in enumerate(times)
        if not any(begin - reach <= time < begin + DAY * NANOSECONDS + reach for begin in spans)
    ]
    assert short.left_out == EXAMPLES - len(kept)
    assert 0 < short.left_out < EXAMPLES
    assert sorted(chain(*numbers(short(0)))) == kept


def test_damage_inside_a_file_names_it(store: Path, tmp_path: Path) -> None:
    broken = copy(store, tmp_path / "store")
    file = sorted(broken.glob("*ASC*.parquet"))[2]
    held = bytearray(file.read_bytes())
    held[4 : len(held) // 2] = bytes(len(held) // 2 - 4)
    file.write_bytes(held)
    for workers in (0, 1):
        with pytest.raises(FormatError, match=rf"{file.name} is damaged"):
            list(stream(broken, workers=workers)(0))


@pytest.mark.parametrize("change", ["no snr", "text", "other rows"])
def test_another_table_is_refused(store: Path, tmp_path: Path, change: str) -> None:
    broken = copy(store, tmp_path / "store")
    file = sorted(broken.glob("*ASC*.parquet"))[0]
    table = pq.read_table(file)
    if change == "no snr":
        table = table.drop_columns(["snr"])
    elif change == "text":
        texts = table["channel"].cast("string")
        table = table.set_column(table.column_names.index("frequency"), "frequency", texts)
    else:
        table = table.slice(1)
    pq.write_table(table, file)
    with pytest.raises(FormatError, match=file.name):
        stream(broken)
    with pytest.raises(FormatError, match=file.name):
        open_triggers(broken)


def test_nothing_that_can_be_read_is_an_error(store: Path, tmp_path: Path) -> None:
    broken = copy(store, tmp_path / "store")
    for file in broken.glob("*.parquet"):
        file.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="none that can be read"):
        stream(broken)


def test_too_little_memory_is_told_before_reading(store: Path) -> None:
    with pytest.raises(ConfigurationError, match="Raise memory"):
        stream(store, memory=1e-5)
    with pytest.raises(ConfigurationError, match="lower workers"):
        stream(store, workers=50)


def test_the_strain_and_times_that_fall_are_refused(store: Path) -> None:
    times, labels = examples()
    given = {"target": TARGET, "sets": SETS, "settings": StreamSettings()}
    with pytest.raises(ConfigurationError, match="without the target"):
        TriggerStream(store, times, labels, replace(KNOWN, channels=(TARGET,)), **given)
    with pytest.raises(ConfigurationError, match="rising"):
        TriggerStream(store, times[::-1], labels, KNOWN, **given)
