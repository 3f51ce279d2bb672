"""Tables of triggers with columns of vetoes: everything that was there is there, in each format, as gwpy reads it."""

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest
from gwpy.table import EventTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from igwn_ligolw import ligolw
from igwn_ligolw.utils import load_filename

from glitchflow_plugin.data.readers.tables import read_csv
from glitchflow_plugin.data.readers.trigger_files import OMICRON_TEXT, times_in_order
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.products.trigger_vetoes import LIGOLW_TABLE, add_columns

GPS = 1264625000


@st.composite
def tables(draw):
    """Triggers in any order, with times to the nanosecond, and what is said of them."""
    count = draw(st.integers(1, 5))
    many = {"min_size": count, "max_size": count}
    rest = draw(st.lists(st.integers(0, 10**9 - 1), **many))
    seconds = draw(st.lists(st.integers(0, 10**7), **many))
    snr = draw(st.lists(st.floats(5, 1e6, width=32), **many))
    said = {
        "vetoed": np.array(draw(st.lists(st.integers(0, 1), **many)), dtype=np.int32),
        "veto_rank": np.array(draw(st.lists(st.floats(0, 1) | st.just(float("nan")), **many))),
        "decision": np.array(draw(st.lists(st.sampled_from(["pass", "veto", "subtract"]), **many))),
    }
    return [GPS + one for one in seconds], rest, snr, said


def _write(kind, path, seconds, rest, snr):
    times = [f"{second}.{nano:09d}" for second, nano in zip(seconds, rest, strict=True)]
    if kind == "ligolw":
        columns = {"peak_time": seconds, "peak_time_ns": rest, "snr": np.float32(snr)}
        EventTable(columns).write(str(path), format="ligolw", tablename="sngl_burst", overwrite=True)
    elif kind == "group":
        with h5py.File(path, "w") as file:
            file.attrs["origin"] = "somebody"
            group = file.create_group("triggers")
            group["time"], group["snr"] = np.float64(times), snr
            group["snr"].attrs["unit"] = ""
            file["other/segments"] = np.arange(4)
    elif kind == "rows":
        rows = np.array(list(zip(map(float, times), snr, strict=True)), dtype=[("time", "<f8"), ("snr", "<f4")])
        with h5py.File(path, "w") as file:
            file.create_dataset("triggers", data=rows, chunks=True, compression="gzip", maxshape=(None,))
            file["triggers"].attrs["source"] = "omicron"
    else:
        pairs = list(zip(times, snr, strict=True))
        body = {
            "csv": "# kept\nname,time,snr,\n" + "".join(f'"a, b",{t},{s!r},\n' for t, s in pairs),
            "tsv": "time\tsnr\r\n" + "".join(f"{t}\t{s!r}\r\n" for t, s in pairs),
            "units": "# central time [s]\n# snr [-]\n" + "".join(f"{t}  {s!r}\n" for t, s in pairs),
            "bare": "".join(f"{t} 100.0 {s!r}\n" for t, s in pairs),
        }[kind]
        path.write_bytes(gzip.compress(body.encode()) if path.suffix == ".gz" else body.encode())


NAMES = {
    "csv": "a.csv",
    "tsv": "a.tsv",
    "units": "omicron-a.txt",
    "bare": "omicron-b.txt",
    "group": "a.h5",
    "rows": "b.hdf5",
    "ligolw": "a.xml",
}


def _columns(kind, path):
    """All columns as an independent reader gives them."""
    if kind == "ligolw":
        return dict(EventTable.read(str(path), format="ligolw", tablename="sngl_burst").columns)
    if kind == "group":
        with h5py.File(path) as file:
            return {name: item[:] for name, item in file["triggers"].items()}
    if kind == "rows":
        return dict(EventTable.read(str(path), format="hdf5", path="triggers").columns)
    return read_csv(path, headless=OMICRON_TEXT)


@pytest.mark.parametrize("kind", NAMES)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables())
def test_all_that_was_there_comes_back_with_what_is_said(kind, table, tmp_path):
    *content, said = table
    source, target = tmp_path / NAMES[kind], tmp_path / f"vetoed-{NAMES[kind]}"
    _write(kind, source, *content)
    before = _columns(kind, source)
    add_columns(source, target, said)
    after = _columns(kind, target)
    for name, column in before.items():
        assert np.array_equal(np.asarray(after[name]), np.asarray(column)), name
    np.testing.assert_array_equal(times_in_order(target), times_in_order(source))
    if kind == "ligolw":
        rows = ligolw.Table.get_table(load_filename(str(target)), LIGOLW_TABLE)
        added = {name: [getattr(row, name) for row in rows] for name in said}
    else:
        assert set(after) == {*before, *said}
        added = {name: after[name] for name in said}
    assert [int(one) for one in added["vetoed"]] == said["vetoed"].tolist()
    np.testing.assert_allclose(np.asarray(added["veto_rank"], dtype=float), said["veto_rank"], rtol=1e-8)
    texts = [one.decode() if isinstance(one, bytes) else str(one) for one in added["decision"]]
    assert texts == said["decision"].tolist()


def test_text_keeps_its_comments_and_numbers_and_hdf5_its_other_data(tmp_path):
    said = {"vetoed": np.array([1], dtype=np.int32), "decision": np.array(["veto"])}
    _write("csv", tmp_path / "a.csv", [GPS], [5], [7.5])
    add_columns(tmp_path / "a.csv", tmp_path / "out.csv", said)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines == ["# kept", "name,time,snr,vetoed,decision", f'"a, b",{GPS}.000000005,7.5,1,veto']
    _write("bare", tmp_path / "omicron.txt", [GPS], [5], [7.5])
    add_columns(tmp_path / "omicron.txt", tmp_path / "omicron-out.txt", said)
    assert (tmp_path / "omicron-out.txt").read_text().startswith("# time frequency snr vetoed decision\n")
    _write("group", tmp_path / "a.h5", [GPS], [5], [7.5])
    add_columns(tmp_path / "a.h5", tmp_path / "out.h5", said)
    with h5py.File(tmp_path / "out.h5") as file:
        assert (file.attrs["origin"], file["other/segments"][3]) == ("somebody", 3)
        assert file["triggers/snr"].attrs["unit"] == ""
    _write("rows", tmp_path / "b.h5", [GPS], [5], [7.5])
    add_columns(tmp_path / "b.h5", tmp_path / "rows.h5", said)
    with h5py.File(tmp_path / "rows.h5") as file:
        table = file["triggers"]
        assert (table.attrs["source"], table.compression, table.maxshape) == ("omicron", "gzip", (None,))


def test_what_cannot_be_written_is_told_and_nothing_is_left(tmp_path):
    source = tmp_path / "a.csv"
    _write("csv", source, [GPS], [0], [7.0])
    before = source.read_bytes()
    one = {"vetoed": np.array([1])}
    with pytest.raises(ConfigurationError, match="is not overwritten"):
        add_columns(source, tmp_path / "." / "a.csv", one)
    with pytest.raises(ConfigurationError, match=r"ends in \.csv"):
        add_columns(source, tmp_path / "a.h5", one)
    with pytest.raises(FormatError, match="holds 1 triggers"):
        add_columns(source, tmp_path / "b.csv", {"vetoed": np.array([1, 0])})
    with pytest.raises(FormatError, match=r"has the columns \['snr'\] already"):
        add_columns(source, tmp_path / "b.csv", {"snr": np.array([1])})
    assert [Path(one).name for one in tmp_path.iterdir()] == ["a.csv"]
    assert source.read_bytes() == before
