import numpy as np
import pytest

from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.training.seen import SeenEvents, content_of, contents


@pytest.fixture
def seen(make_coupled_maps, tmp_path):
    maps = make_coupled_maps(16, num_times=128)
    split = Splitter({"block_length": 100.0}, str(maps.folder), str(tmp_path / "training")).execute(maps)
    return SeenEvents.of(split, maps), split, maps


def test_an_event_is_seen_by_its_time_and_by_its_content_whatever_its_name(seen):
    known, split, maps = seen
    known = SeenEvents.from_notes(known.to_notes())
    train, gate = split.train, split.gate
    assert known.told
    held = contents(maps, train.event_ids)
    assert len(set(held)) == len(held)
    nothing = [""] * len(train)
    # at their own times, a little later, and at other times with the same content
    assert known.among(train.gps_start, train.gps_stop, nothing).all()
    assert known.among(train.gps_start + 5.9, train.gps_stop + 5.9, nothing).all()
    assert known.among(train.gps_start + 1e6, train.gps_stop + 1e6, held).all()
    assert not known.among(train.gps_start + 1e6, train.gps_stop + 1e6, nothing).any()
    assert not known.among(gate.gps_start, gate.gps_stop, contents(maps, gate.event_ids)).any()
    # what only touches does not overlap
    assert not known.among(train.gps_stop[:1], train.gps_stop[:1] + 6, [""]).any()
    assert known.among(split.validation.gps_start, split.validation.gps_stop, [""] * len(split.validation)).all()


def test_long_spans_hide_no_event():
    spans = np.array([[0.0, 1000.0], [10.0, 20.0]])
    known = SeenEvents(spans, frozenset())
    found = known.among(np.array([500.0, 1000.0, -5.0, -5.0]), np.array([506.0, 1006.0, 0.0, 1.0]), [""] * 4)
    assert found.tolist() == [True, False, False, True]


def test_a_content_does_not_hang_on_the_last_digits():
    generator = np.random.default_rng(0)
    energies = generator.exponential(size=(64, 257)).astype(np.float32)
    assert content_of(energies) == content_of(energies * np.float32(1 + 1e-7))
    assert content_of(energies) == content_of(energies.astype(np.float64))
    assert content_of(energies) != content_of(generator.exponential(size=(64, 257)))


def test_bundles_of_earlier_versions_say_when_their_data_were_at_most():
    old = SeenEvents.from_notes({"training_events": ["a"], "gps": [1e9, 1e9 + 600]})
    assert not old.told
    starts = 1e9 + np.array([100.0, 700.0])
    assert old.among(starts, starts + 6, ["", ""]).tolist() == [True, False]
    assert SeenEvents.from_notes({"training_events": ["a"]}) is None
