"""Triggers by channel group and day: in order, the same bytes whatever the way, and nothing of others touched."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data.triggers.store import MANIFEST_NAME, ROW_GROUP, TriggerWriter, open_triggers, read_manifest
from glitchflow_plugin.data.triggers.table import SCHEMA, in_order, trigger_table, without_bad_rows
from glitchflow_plugin.errors import FormatError

CHANNELS = ("L1:GDS-CALIB_STRAIN", "L1:SUS-ETMX_WIT", "L1:SUS-ETMY_WIT", "H1:PEM-EX_ACC")
START = 1_187_000_000 * 10**9


def some(number: int, seed: int = 0, days: float = 3) -> pa.Table:
    draw = np.random.default_rng(seed)
    return trigger_table(
        {
            "time": draw.integers(START, START + int(days * 86_400 * 10**9), number),
            "frequency": draw.uniform(10, 1000, number),
            "snr": draw.uniform(5, 50, number),
            "channel": np.array(CHANNELS, dtype=object)[draw.integers(0, 4, number)],
        }
    )


def written(folder: Path, *tables: pa.Table, **options: Any) -> Path:
    with TriggerWriter(folder, **options) as writer:
        for table in tables:
            writer.write(table)
    return folder


def test_what_is_written_comes_back_once_and_in_order(tmp_path: Path) -> None:
    table = some(5000)
    store = open_triggers(written(tmp_path, table))
    assert store.count_rows() == 5000
    assert in_order(store.to_table()).cast(SCHEMA).to_pylist() == in_order(table).to_pylist()
    for file in store.files:
        times = pq.read_table(file)["time"].to_numpy()
        assert np.all(np.diff(times) >= 0)
        group, start, duration = Path(file).stem.rsplit("-", 2)
        assert int(start) * 10**9 <= times[0] <= times[-1] < (int(start) + int(duration)) * 10**9
        assert {one.split("-")[0].replace(":", "_") for one in pq.read_table(file)["channel"].to_pylist()} == {group}
    assert not list(tmp_path.glob(".waiting-*"))


@settings(max_examples=4, deadline=None)
@given(order=st.permutations(range(5)), held=st.integers(1, 3000), seed=st.integers(0, 9))
def test_the_bytes_depend_on_the_triggers_alone(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], held: int, seed: int
) -> None:
    table = some(1000, seed)
    whole = written(tmp_path_factory.mktemp("whole"), table)
    pieces = written(tmp_path_factory.mktemp("pieces"), *(table.slice(i * 200, 200) for i in order), held_rows=held)
    assert read_manifest(whole) == read_manifest(pieces)


def test_a_day_with_too_many_rows_is_parted(tmp_path: Path) -> None:
    store = open_triggers(written(tmp_path, some(4000, days=1), file_rows=300, held_rows=700))
    rows = [pq.ParquetFile(file).metadata.num_rows for file in store.files]
    assert sum(rows) == 4000
    assert max(rows) <= 310  # cut at whole seconds
    assert store.count_rows(filter=pc.field("channel") == CHANNELS[0]) == read_manifest(tmp_path).channels[CHANNELS[0]]


def test_row_groups_are_of_the_size_that_is_read_at_once(tmp_path: Path) -> None:
    table = trigger_table(
        {
            "time": START + np.arange(200_000),
            "frequency": np.full(200_000, 9.0),
            "snr": np.full(200_000, 5.0),
            "channel": ["X1:A"] * 200_000,
        }
    )
    (file,) = open_triggers(written(tmp_path, table)).files
    assert pq.ParquetFile(file).metadata.row_group(0).num_rows == ROW_GROUP


def test_an_error_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    written(tmp_path, some(100))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FormatError, match="expected a table of triggers"):
        written(tmp_path, some(50, seed=1), pa.table({"time": [1]}), held_rows=10)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_store_replaces_its_own_files_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine-0-1.parquet"
    pq.write_table(pa.table({"a": [1]}), mine)
    written(tmp_path, some(100, days=3))
    written(tmp_path, some(10, days=0.001))
    assert mine.exists()
    assert {path.name for path in tmp_path.glob("*_*-*.parquet")} == {one.file for one in read_manifest(tmp_path).files}
    assert open_triggers(tmp_path).count_rows() == 10


def test_no_trigger_is_a_store_too(tmp_path: Path) -> None:
    assert open_triggers(written(tmp_path, SCHEMA.empty_table())).count_rows() == 0


@pytest.mark.parametrize("harm", ["gone", "cut", "another", "edited"])
def test_damage_is_told(tmp_path: Path, harm: str) -> None:
    file = Path(open_triggers(written(tmp_path, some(100))).files[0])
    if harm == "gone":
        file.unlink()
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-50])
    elif harm == "another":
        pq.write_table(some(1), file)
    else:
        manifest = tmp_path / MANIFEST_NAME
        record = json.loads(manifest.read_text())
        record["files"][0]["file"] = "../x-0-1.parquet"
        manifest.write_text(json.dumps(record))
    with pytest.raises(FormatError, match=r"again|record"):
        open_triggers(tmp_path)


def test_times_stay_exact_and_rounded_ones_are_refused() -> None:
    exact = {"time": [1_368_975_618_123_456_789], "frequency": [1.0], "snr": [5.0], "channel": ["X1:A"]}
    assert trigger_table(exact)["time"].to_pylist() == exact["time"]
    with pytest.raises(FormatError, match="whole nanoseconds"):
        trigger_table({**exact, "time": np.array([1.4e18])})
    with pytest.raises(FormatError, match="missing"):
        trigger_table({"time": exact["time"]})


def test_rows_that_are_no_triggers_are_counted_by_reason() -> None:
    table = trigger_table(
        {
            "time": [START, -1, START, START, START, START],
            "frequency": [20.0, 20.0, 0.0, 20.0, 20.0, 20.0],
            "snr": [5.0, 5.0, 5.0, np.inf, 5.0, 5.0],
            "q": [np.nan, 5.0, 5.0, 5.0, -1.0, 5.0],
            "channel": ["X1:A"] * 5 + [""],
        }
    )
    good, bad = without_bad_rows(table)
    assert len(good) == 1
    assert sorted(bad.values()) == [1, 1, 1, 1, 1]
    assert {reason.split()[0] for reason in bad} == {"time", "frequency", "snr", "q", "channel"}
