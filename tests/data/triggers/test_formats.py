"""Every format gives back what it can hold, tells what it cannot, and is read by gwpy as the searches read it."""

from collections import Counter
from pathlib import Path

import gwpy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gwpy.table import EventTable
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.cli import main
from glitchflow_plugin.data.readers.trigger_files import times_in_order
from glitchflow_plugin.data.readers.triggers import TriggerSettings, read_table
from glitchflow_plugin.data.triggers.formats import FORMATS, good_parts, lost, read_triggers, write_triggers
from glitchflow_plugin.data.triggers.store import open_triggers
from glitchflow_plugin.data.triggers.table import POINT_COLUMNS, in_order, trigger_table
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.trigger_vetoes import add_columns

CHANNELS = ("L1:GDS-CALIB_STRAIN", "H1:PEM-EX_ACC")
EXAMPLES = Path(gwpy.__file__).parent / "testing" / "data"

number = st.floats(1e-3, 1e6)
row = st.fixed_dictionaries(
    {
        "time": st.integers(1_000_000_000 * 10**9, 2_000_000_000 * 10**9),
        **dict.fromkeys(("frequency", "snr"), number),
        **dict.fromkeys(("q", "duration", "bandwidth", "amplitude"), number | st.just(np.nan)),
        "channel": st.sampled_from(CHANNELS),
        "event_id": st.sampled_from(["a", "b,c", 'd"']),
        "group": st.sampled_from(["x", None]),
    }
)


def table_of(rows: list[dict[str, object]]) -> pa.Table:
    return in_order(trigger_table({name: np.array([one[name] for one in rows]) for name in rows[0]}))


@settings(max_examples=6, deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=5))
@pytest.mark.parametrize("kind", ["parquet", *FORMATS])
def test_what_a_format_holds_comes_back(
    tmp_path_factory: pytest.TempPathFactory, kind: str, rows: list[dict[str, object]]
) -> None:
    table = table_of(rows)
    path = tmp_path_factory.mktemp("formats") / ("all" + (FORMATS[kind].suffix if kind in FORMATS else ""))
    write_triggers(table, path, kind)
    found, told = in_order(read_triggers(path)), " ".join(lost(table, kind))
    times = found["time"].to_numpy() - table["time"].to_numpy()
    assert np.all(np.abs(times) <= (125 if "times better than 0.1 us" in told else 0))
    assert found["channel"].to_pylist() == table["channel"].to_pylist()
    for name in POINT_COLUMNS:
        if name in lost(table, kind):
            assert found[name].null_count == len(found)
            continue
        got, put = found[name].to_numpy(), table[name].to_numpy()
        np.testing.assert_allclose(got, put, 2e-7 if "float32" in told else 0)
    for name in ("event_id", "group"):
        kept = table[name].to_pylist() if name not in lost(table, kind) else [None] * len(table)
        assert found[name].to_pylist() == kept
    if kind == "parquet":
        files = [read_triggers(one) for one in open_triggers(path).files]
        assert in_order(pa.concat_tables(files)).equals(table)


@pytest.fixture(scope="module")
def some() -> pa.Table:
    draw = np.random.default_rng(1)
    return in_order(
        trigger_table(
            {
                "time": 1_187_000_000 * 10**9 + draw.integers(0, 10**11, 50),
                **{name: draw.uniform(5, 100, 50) for name in POINT_COLUMNS},
                "channel": np.repeat(np.array(CHANNELS, dtype=object), 25),
            }
        )
    )


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("omicron", {"format": "hdf5", "path": "triggers", "columns": ["time", "frequency", "snr"]}),
        ("omicron_text", {"format": "ascii"}),
        ("snax", {"format": "hdf5.snax"}),
        ("ligolw", {"format": "ligolw", "tablename": "sngl_burst", "columns": ["peak", "peak_frequency", "snr"]}),
        ("csv", {"format": "ascii.csv"}),
        ("gravityspy", {"format": "csv"}),
    ],
)
def test_gwpy_reads_it_as_hveto_and_gwdetchar_do(
    tmp_path: Path, some: pa.Table, kind: str, options: dict[str, object]
) -> None:
    files = write_triggers(some, tmp_path / f"all{FORMATS[kind].suffix}", kind)
    tables = [EventTable.read(str(path), **options) for path in files]
    time = {"gravityspy": "event_time", "ligolw": "peak"}.get(kind, "time")
    frequency = {"gravityspy": "peak_frequency", "ligolw": "peak_frequency"}.get(kind, "frequency")
    found = {
        name: np.sort(np.concatenate([np.asarray(one[column], dtype=float) for one in tables]))
        for name, column in (("time", time), ("frequency", frequency), ("snr", "snr"))
    }
    np.testing.assert_allclose(found["time"], np.sort(some["time"].to_numpy()) / 1e9, rtol=0, atol=3e-7)
    for name in ("frequency", "snr"):
        np.testing.assert_allclose(found[name], np.sort(some[name].to_numpy()), rtol=1e-7)


def test_real_triggers_of_omicron() -> None:
    """2,052 of LIGO's, as gwpy reads them."""
    path = EXAMPLES / "H1-LDAS_STRAIN-968654552-10.xml.gz"
    found, expected = read_triggers(path), EventTable.read(str(path), format="ligolw", tablename="sngl_burst")
    assert len(found) == 2052
    exact = np.asarray(expected["peak_time"], dtype=np.int64) * 10**9 + np.asarray(expected["peak_time_ns"])
    np.testing.assert_array_equal(found["time"].to_numpy(), exact)
    np.testing.assert_array_equal(found["snr"].to_numpy(), np.asarray(expected["snr"], dtype=float))
    assert set(found["channel"].to_pylist()) == {"H1:LDAS-STRAIN"}


def test_a_store_gives_its_times_to_the_data_sets(tmp_path: Path, some: pa.Table) -> None:
    (file, *_) = write_triggers(some, tmp_path / "store", "parquet")
    assert np.all(np.diff(times_in_order(file)) >= 0)
    assert len(times_in_order(file)) == 25


def test_a_file_that_does_not_tell_its_channel(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time,frequency,snr\n1187000000.123456789,100,8\n")
    with pytest.raises(FormatError, match="--channel"):
        read_triggers(path)
    (found,) = read_triggers(path, channel="V1:Hrec").to_pylist()
    assert (found["time"], found["channel"]) == (1_187_000_000_123_456_789, "V1:Hrec")


def test_the_command_converts_describes_and_counts_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "time,frequency,snr,channel,q,group\n1187000000.5,100,8,L1:A,,g\n1187000010.5,90,80,L1:A,5,\n1187000001,-1,8,L1:B,,\n"
    )
    assert main(["triggers", "convert", str(path), str(tmp_path / "o.xml"), "--to", "ligolw"]) == 0
    told = capsys.readouterr()
    assert "2 triggers in 1 file" in told.out
    assert "1 row(s) left out: frequency" in told.err
    assert "ligolw does not keep: q, group" in told.err
    assert main(["triggers", "describe", str(tmp_path / "o.xml")]) == 0
    out = capsys.readouterr().out
    assert "2 triggers of 1 channels, GPS 1187000000.500000000 to 1187000010.500000000" in out
    assert "L1:A" in out
    assert "1187000010.500000000" in out.splitlines()[-1]


def test_many_files_become_one_store_and_a_source_of_events(
    tmp_path: Path, some: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    write_triggers(some, tmp_path / "omicron", "omicron")
    assert main(["triggers", "convert", str(tmp_path / "omicron"), str(tmp_path / "store"), "--to", "parquet"]) == 0
    assert "50 triggers in 2 file(s)" in capsys.readouterr().out
    taken = read_table(TriggerSettings(path=str(tmp_path / "store"), select={"snr": [20, None]}))
    assert len(taken) == np.count_nonzero(some["snr"].to_numpy() >= 20)
    np.testing.assert_allclose(
        taken.times[0], some["time"].to_numpy()[some["snr"].to_numpy() >= 20][0] / 1e9, atol=3e-7
    )


def test_parquet_gets_columns_with_vetoes(tmp_path: Path, some: pa.Table) -> None:
    (file, *_) = write_triggers(some, tmp_path / "store", "parquet")
    add_columns(file, tmp_path / "vetoed.parquet", {"decision": np.array(["veto", "pass"] * 12 + ["pass"])})
    found = pq.read_table(tmp_path / "vetoed.parquet")
    assert found["decision"].to_pylist()[:2] == ["veto", "pass"]
    assert found.drop_columns(["decision"]).equals(pq.read_table(file))
    with pytest.raises(FormatError, match="already"):
        add_columns(tmp_path / "vetoed.parquet", tmp_path / "x.parquet", {"decision": np.zeros(25)})


def test_a_row_with_an_empty_field_is_no_trigger_and_the_others_are_read(tmp_path):
    (tmp_path / "some.csv").write_text("time,frequency,snr,channel\n1,10,8,A\n2,,8,A\n3,10,,A\n4,10,8,\n")
    bad = Counter()
    assert [len(one) for one in good_parts(tmp_path / "some.csv", bad)] == [1]
    assert bad == {"frequency is no possible number": 1, "snr is no possible number": 1, "channel is no name": 1}
