import logging
from dataclasses import replace

import numpy as np
import pytest

from glitchflow_plugin.data.spike_store import COLUMNS, SpikeStore
from glitchflow_plugin.errors import FormatError

IDS = tuple(f"event-{row}" for row in range(7))


@pytest.fixture
def store(tmp_path):
    return SpikeStore(tmp_path / "spikes", {"threshold": 20.0, "q": 12.0}, "events abc", IDS, shard_size=3)


def columns(number, seed=0):
    rng = np.random.default_rng(seed)
    return {name: (100 * rng.random(number)).astype(kind) for name, kind in COLUMNS.items()}


def fill(store):
    for plan in store.pending():
        store.write(plan, columns(plan.index * 5, plan.index))  # the first shard has no spikes


def test_spikes_come_back_in_the_order_of_the_shards(store):
    assert [plan.event_ids for plan in store.pending()] == [IDS[:3], IDS[3:6], IDS[6:]]
    fill(store)
    assert store.pending() == []
    read = store.read()
    for name, kind in COLUMNS.items():
        assert read[name].dtype == kind
        np.testing.assert_array_equal(read[name], np.concatenate([columns(5 * i, i)[name] for i in range(3)]))


def test_killed_run_goes_on_at_the_missing_shards(store):
    first, *rest = store.pending()
    store.write(first, columns(4))
    assert store.pending() == rest
    with pytest.raises(FormatError, match=r"shards \[1, 2\] are missing"):
        store.read()


@pytest.mark.parametrize(
    "change",
    [{"recipe": {"threshold": 21.0, "q": 12.0}}, {"inputs": "events def"}, {"event_ids": IDS[::-1]}, {"shard_size": 2}],
)
def test_whatever_decides_the_spikes_makes_them_anew(store, change):
    fill(store)
    other = replace(store, **change)
    assert other.pending() == list(other.plans)


def test_what_other_runs_left_is_removed_when_all_shards_are_made_and_not_before(store):
    fill(store)
    (store.folder / ".spikes-00001-abc.tmp.h5").write_bytes(b"half")
    fewer = replace(store, event_ids=IDS[:3])
    fewer.pending()
    assert len(list(store.folder.iterdir())) == 4
    fill(fewer)
    fewer.read()
    assert len(list(store.folder.iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped"])
def test_damaged_shard_is_noticed_and_made_again(store, damage, caplog):
    fill(store)
    path = store.folder / "spikes-00002.h5"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        place = content.find(columns(10, 2)["time"].tobytes())
        assert place > 0
        content[place] ^= 1
    path.write_bytes({"truncated": content[: len(content) // 2], "emptied": b"", "flipped": content}[damage])
    with caplog.at_level(logging.WARNING):
        assert [plan.index for plan in store.pending()] == [2]
    assert "spikes-00002.h5 is damaged" in caplog.text
    fill(store)
    assert len(store.read()["time"]) == 15
