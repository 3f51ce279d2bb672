"""Tables of GPS times in every layout: what is written is read, what is spoilt is the same or refused in words."""

import gzip

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data.readers.tables import gps_times, read_csv
from glitchflow_plugin.data.readers.triggers import TriggerSettings, read_table, read_times
from glitchflow_plugin.errors import ConfigurationError, FormatError

QUICK = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
THOROUGH = settings(QUICK, max_examples=1000, derandomize=False)

TIMES = st.lists(
    st.tuples(st.integers(1, 2_000_000_000), st.integers(0, 999_999_999)),
    min_size=1,
    max_size=8,
    unique_by=lambda time: time[0],
)
"""Whole seconds and nanoseconds."""

PAIRS = (
    ("time", "time_ns"),
    ("peak_time", "peak_time_ns"),
    ("end_time", "end_time_ns"),
    ("geocent_end_time", "geocent_end_time_ns"),
    ("time_geocent_gps", "time_geocent_gps_ns"),
    ("gps", "gps_ns"),
    ("GPStime", "GPStime_NS"),
    ("Peak_Time", "PEAK_TIME_NS"),
    ("gps_s", "gps_ns"),
    ("gpsSeconds", "gpsNanoSeconds"),
    ("end_time", "end_ns"),
    ("time", "nanoseconds"),
    ("seconds", "nanoseconds"),
    ("Sec", "nSec"),
    ("s", "ns"),
)
EXPLICIT = (("start_time", "start_time_ns"), ("h_end_time", "h_end_time_ns"), ("when", "when_nanosec"))


def exact(times):
    return np.sort([seconds + 1e-9 * nanoseconds for seconds, nanoseconds in times])


def read(path, **keys):
    return np.array([one.gps_time for one in read_table(TriggerSettings(path=str(path), **keys)).triggers()])


def pairs(settings):
    return [(one.event_id, one.gps_time) for one in read_table(settings).triggers()]


def outcome(reader, path):
    """Times, or the words with which they are refused."""
    try:
        return reader(path)
    except (FormatError, ConfigurationError) as error:
        return str(error)


def as_text(times):
    return [f"{seconds}.{nanoseconds:09d}" for seconds, nanoseconds in times]


# The rule of two columns, in every layout


def write_csv_table(folder, columns, draw):
    separator = draw(st.sampled_from(",;\t "))
    quote = draw(st.sampled_from(["", '"']))
    trailing = draw(st.sampled_from(["", separator, 3 * separator]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    lines = [[name.join([quote, quote]) for name in columns]]
    lines += [[f"{quote}{value}{quote}" for value in row] for row in zip(*columns.values(), strict=True)]
    body = end.join(separator.join(line) + trailing * (number > 0) for number, line in enumerate(lines))
    comments = draw(st.sampled_from(["", f"# made by hand{end}", end, "# ", f"# made by hand{end}#"]))
    content = (comments + body + draw(st.sampled_from(["", end]))).encode(draw(st.sampled_from(["utf-8", "utf-8-sig"])))
    if draw(st.booleans()):
        path = folder / "t.csv.gz"
        path.write_bytes(gzip.compress(content))
    else:
        path = folder / "t.csv"
        path.write_bytes(content)
    return path, {}


def write_hdf5_table(folder, columns, draw):
    kinds = {name: "f8" if isinstance(values[0], float) else draw(st.sampled_from(["i8", ">i8", "u4"]))
             for name, values in columns.items()}  # fmt: skip
    rows = np.zeros(len(next(iter(columns.values()))), dtype=list(kinds.items()))
    for name, values in columns.items():
        rows[name] = values
    table = draw(st.sampled_from(["triggers", "H1/events"]))
    with h5py.File(folder / "t.h5", "w") as file:
        file[table] = rows
    return folder / "t.h5", {} if table == "triggers" else {"table": table}


def write_hdf5_columns(folder, columns, draw):
    """A data set a column, as PyCBC and h5py's users write them, beside things that are no columns."""
    place, keys = draw(st.sampled_from([("triggers", {}), ("H1", {}), ("/", {}), ("a/b", {"table": "a/b"})]))
    with h5py.File(folder / "t.h5", "w") as file:
        group = file.require_group(place)
        for name, values in columns.items():
            group[name] = np.array(values, dtype="f8" if isinstance(values[0], float) else "i8")
        if draw(st.booleans()):
            group["matrix"] = np.zeros((2, 2))
            group["search/threshold"] = 5.0
    return folder / "t.h5", keys


def cleared(folder):
    """Nothing is there that would be written over: a file system brings such a file to the disk at once."""
    for left in folder.iterdir():
        left.unlink()


def check_table(folder, data, times):
    """Write times in one or two columns among others, in any order, and compare what is read."""
    cleared(folder)
    write = data.draw(st.sampled_from([write_csv_table, write_hdf5_table, write_hdf5_columns]))
    pair = data.draw(st.sampled_from([*PAIRS, *EXPLICIT, None]))
    if pair is None:
        name = "time"
        texts = as_text(times)
        held = {name: texts if write is write_csv_table else [float(text) for text in texts]}
    else:
        name = pair[0]
        held = {pair[0]: [time[0] for time in times], pair[1]: [time[1] for time in times]}
    held["snr"] = [8.5 + row for row in range(len(times))]
    order = data.draw(st.permutations(list(held)))
    path, keys = write(folder, {one: held[one] for one in order}, data.draw)
    if pair in EXPLICIT or data.draw(st.booleans()):
        keys["time_column"] = name
    found = read(path, **keys)
    wanted = exact(times)
    assert found.shape == wanted.shape
    assert np.all(np.abs(found - wanted) <= np.maximum(np.spacing(wanted), 1e-9))


@QUICK
@given(data=st.data(), times=TIMES)
def test_what_is_written_is_read(tmp_path, data, times):
    check_table(tmp_path, data, times)


@pytest.mark.slow
@THOROUGH
@given(data=st.data(), times=TIMES)
def test_what_is_written_is_read_a_thousand_times(tmp_path, data, times):
    check_table(tmp_path, data, times)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("sngl_burst", "peak_time"),
        ("sngl_burst", "start_time"),
        ("sngl_inspiral", "end_time"),
        ("coinc_inspiral", "end_time"),
        ("sim_inspiral", "geocent_end_time"),
        ("sim_inspiral", "h_end_time"),
        ("sim_burst", "time_geocent_gps"),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_ligo_lw_times_are_whole_seconds_and_nanoseconds(tmp_path, table, name, reverse):
    events = pytest.importorskip("gwpy.table").EventTable
    times = [(1264000010, 500000000), (1264000000, 125000001)]
    columns = {name: [time[0] for time in times], f"{name}_ns": [time[1] for time in times]}
    order = list(columns)[:: -1 if reverse else 1]
    path = tmp_path / "t.xml.gz"
    events({one: columns[one] for one in order}).write(str(path), format="ligolw", tablename=table)
    named = name if name in ("start_time", "h_end_time") else None
    for one in (table, None):  # the only table of the file needs no name
        found = read(path, table=one, time_column=named)
        np.testing.assert_allclose(found, exact(times), rtol=0, atol=3e-7)
    if named is None:
        np.testing.assert_allclose(read_times(path), exact(times), rtol=0, atol=3e-7)


def test_a_ligo_lw_file_with_several_tables_asks_which(tmp_path):
    events = pytest.importorskip("gwpy.table").EventTable
    path = tmp_path / "t.xml"
    for number, table in enumerate(("sngl_inspiral", "coinc_inspiral")):
        columns = {"end_time": [1264000000 + number], "end_time_ns": [500000000]}
        events(columns).write(str(path), format="ligolw", tablename=table, append=bool(number))
    with pytest.raises(FormatError, match=r"sngl_inspiral.*coinc_inspiral.*triggers\.table"):
        read(path)
    assert read(path, table="coinc_inspiral").tolist() == [1264000001.5]


@pytest.mark.parametrize("name", ["t.tsv.gz", "t.txt.gz", "t.csv.gz"])
def test_packed_text_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"gps\tgps_ns\n1264000000\t500000000\n"))
    assert read(tmp_path / name).tolist() == [1264000000.5]


def test_a_fraction_of_seconds_is_joined(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("time,time_frac\n1264000000,0.25\n")
    assert read(path) == [1264000000.25]


@pytest.mark.parametrize(
    ("header", "told"),
    [("gps_time,peak_time_ns", True), ("time,gps_ns", True), ("time,frac", True), ("time,duration_s", False)],
)
def test_a_rest_of_seconds_that_is_not_joined_is_told(tmp_path, caplog, header, told):
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n1264000000,0.5\n")
    assert read(path) == [1264000000.0]
    assert ("is not joined" in caplog.text) == told


def test_a_fraction_given_twice_counts_once_and_must_agree(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("time,time_ns\n1264000000.5,500000000\n1264000010.000000,0\n1264000020.9999999,999999900\n")
    np.testing.assert_allclose(read(path), [1264000000.5, 1264000010, 1264000020.9999999], rtol=0, atol=3e-7)
    path.write_text("time,time_ns\n1264000000.5,250000000\n")
    with pytest.raises(FormatError, match=r"t\.csv.*'time' and 'time_ns' hold different fractions"):
        read(path)


@pytest.mark.parametrize(
    ("text", "column", "match"),
    [
        ("time,time_ns\n1264000000,1000000000\n", None, "beyond a second"),
        ("time,time_ns\n1264000000,-1\n", None, "beyond a second"),
        ("time,time_ns\n1264000000,1264000000500000000\n", None, "beyond a second"),
        ("time,time_ns\n1264000000,nan\n", None, "beyond a second"),
        ("time,time_ns\n1264000000,\n", None, "column 'time_ns', row 1: expected a number, got ''"),
        ("time,time_ns,TIME_NS\n1264000000,5,6\n", None, "may each hold the rest"),
        ("peak_time,peak_time_ns\n1264000000,5\n", "peak_time_ns", "holds the rest of seconds"),
        ("t,nanoseconds\n1264000000,5\n", "nanoseconds", "holds the rest of seconds"),
    ],
)
def test_halves_that_do_not_fit_are_refused(tmp_path, text, column, match):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match=match):
        read(path, time_column=column)


def test_injections_in_two_columns_are_joined(tmp_path):
    path = tmp_path / "injections.csv"
    path.write_text("peak_time,peak_time_ns\n1264000010,750000000\n1264000000,400000000\n")
    np.testing.assert_allclose(read_times(path), [1264000000.4, 1264000010.75], rtol=0, atol=3e-7)


def test_other_units_of_the_rest(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("time,time_us\n1264000000,250000\n")
    assert read(path).tolist() == [1264000000.25]
    path.write_text("gps_seconds,gps_milliseconds\n1264000000,250\n")
    assert read(path).tolist() == [1264000000.25]


# Precision


@pytest.mark.parametrize("kind", ["f4", "f2", ">f4"])
def test_single_precision_is_refused(tmp_path, kind):
    rows = np.zeros(2, dtype=[("time", kind), ("snr", "f4")])
    rows["time"] = [60000, 50000] if kind == "f2" else [1264000010, 1264000000]
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["triggers"] = rows
    with pytest.raises(FormatError, match=r"t\.h5: column 'time' is stored as .*float64"):
        read(tmp_path / "t.h5")


@pytest.mark.parametrize("text", ["1.12626e9", "1.12626e+09", "1.126259462E9", "0e500", "1e9"])
def test_times_with_too_few_digits_are_refused(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(f"time,snr\n{text},8\n")
    with pytest.raises(FormatError, match="rounded to whole seconds or worse"):
        read(path)
    path.write_text(f"{text}\n")
    with pytest.raises(FormatError, match="rounded to whole seconds or worse"):
        read_times(path)


def test_enough_digits_with_an_exponent_are_a_time(tmp_path):
    path = tmp_path / "t.csv"
    np.savetxt(path, [[1126259462.4], [1126259463.0]], header="time", comments="")
    assert read(path).tolist() == [1126259462.4, 1126259463.0]


def test_times_that_look_rounded_are_told(tmp_path, caplog):
    path = tmp_path / "t.csv"
    single = np.array([1264000010.3, 1264000907.1], dtype=np.float32)
    for written in (single.astype(np.float64), single.astype(str)):
        caplog.clear()
        path.write_text("time\n" + "".join(f"{time}\n" for time in written))
        read(path)
        assert "t.csv: column 'time'" in caplog.text
        assert "single precision" in caplog.text
    caplog.clear()
    path.write_text("".join(f"{time}\n" for time in single.astype(str)))
    read_times(path)
    assert "single precision" in caplog.text
    caplog.clear()
    path.write_text("time\n1264000010\n1264000020\n")
    read(path)
    assert not caplog.text


def test_columns_are_times_in_seconds_or_refused():
    for column, match in (
        (np.array([True, False]), "expected numbers, got bool"),
        (np.array([1e9 + 1j, 2]), "complex"),
        (np.array([[1e9, 2e9]]), "one number a row"),
        (np.ma.masked_array([1e9, 2e9], mask=[True, False]), "lacks values in 1 row"),
        (np.array(["1126259462,4"]), "decimal point"),
    ):
        with pytest.raises(FormatError, match=match):
            gps_times({"time": column}, "table")
    table = pytest.importorskip("astropy.table")
    with pytest.raises(FormatError, match="expected times in s, got the unit ms"):
        gps_times({"time": table.Column([1e12], unit="ms")}, "table")
    assert gps_times({"time": [b"1126259462.5"]}, "table").tolist() == [1126259462.5]
    time = pytest.importorskip("astropy.time").Time([1126259462.5], format="gps")
    time.format = "unix"
    np.testing.assert_allclose(gps_times({"time": time}, "table"), 1126259462.5, rtol=0, atol=3e-7)


def test_other_units_than_seconds_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("time\n1126259462400\n")
    with pytest.raises(ConfigurationError, match="positive seconds"):
        read(path)


# The rule of strict rows

GOOD = "event_id,time,snr\na,1264000010.5,8\nb,1264000000.25,9\n"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "event_id,time,snr\na,1264000010.5,8,\nb,1264000000.25,9,\n",
        "event_id,time,snr,\na,1264000010.5,8\nb,1264000000.25,9,,\n",
        "event_id;time;snr\na;1264000010.5;8\nb;1264000000.25;9\n",
        "event_id\ttime\tsnr\na\t1264000010.5\t8\nb\t1264000000.25\t9\n",
        ",event_id,time,snr\n0,a,1264000010.5,8\n1,b,1264000000.25,9\n",
        '"event_id","time","snr"\r\n"a","1264000010.5","8"\r\n"b","1264000000.25","9"\r\n',
        "\ufeff" + GOOD,
        "# a comment, with commas\n\n" + GOOD + ",,\n# more\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_rows_that_fit_are_read(tmp_path, text, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes(text.lstrip("\ufeff" if encoding == "utf-16" else "").encode(encoding))
    assert pairs(TriggerSettings(path=str(path))) == [("b", 1264000000.25), ("a", 1264000010.5)]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("time,snr\n1264000010.5,8,1\n", r"line 2: expected 2 values.*got 3"),
        ("time,snr\n1264000010.5,8\n\n1264000000.25,9,1\n", r"line 4: expected 2 values.*got 3"),
        ("time,snr\n1264000010.5\n", r"line 2: expected 2 values.*got 1"),
        ("event_id,time\na,1264000010,5\n", r"got 3.*decimal points"),
        ("snr,time,\n8,1264000010,5\n", r"got 3"),
        ("time\n1264000010,5\n", "got 2"),
        ("time;snr\n1264000010,5;8,1\n", "decimal point"),
        ('time,snr\n"1,264,000,010.5",8\n', "thousands"),
        ("time,snr\n1,264,000,010.5,8\n", "got 5"),
        ("time,time\n1264000010,1264000020\n", "more than once"),
        ("event_id;snr,time\na,8\n", "mixes separators"),
        ('time,snr\n"1264000010.5,8\n1264000000.25,9\n', "cannot be read as CSV"),
        ("# only this\n", "is empty|holds no time"),
        ("1264000010.5,8\n1264000000.5,8\n", "first line must be the header"),
        ("event_id,time\n,1264000010.5\n", "empty in 1 row"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, text, match):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match=rf"(?s)t\.csv.*(?:{match})"):
        read(path)
    with pytest.raises(FormatError, match=rf"(?s)t\.csv.*(?:{match})"):
        read_times(path)


@pytest.mark.parametrize(
    "text",
    [
        "# event_id,time,snr\na,1264000010.5,8\nb,1264000000.25,9\n",
        "#event_id time snr\na 1264000010.5 8\nb  1264000000.25   9\n",
        "# found by Omicron\n# event_id\ttime\tsnr\n\na\t1264000010.5\t8\n# more\nb\t1264000000.25\t9\n",
        "event_id time snr\na 1264000010.5 8\nb 1264000000.25 9\n",
    ],
)
def test_headers_in_comments_and_blanks_between_columns_are_read(tmp_path, text):
    path = tmp_path / "t.txt"
    path.write_text(text)
    assert pairs(TriggerSettings(path=str(path))) == [("b", 1264000000.25), ("a", 1264000010.5)]


@pytest.mark.parametrize("delimiter", [" ", ",", ";", "\t"])
def test_what_numpy_writes_is_read(tmp_path, delimiter):
    path, rows = tmp_path / "t.txt", [[1264000000.25, 9.0], [1264000010.5, 8.0]]
    np.savetxt(path, rows, header=delimiter.join(["time", "snr"]), delimiter=delimiter)
    assert read(path).tolist() == [1264000000.25, 1264000010.5]
    assert read_times(path).tolist() == [1264000000.25, 1264000010.5]


@pytest.mark.parametrize(
    "text",
    ["# time snr\n1264000010.5,8\n", "# time\n1264000010.5,8\n", "1264000010.5,8\n# time,snr\n"],
    ids=["other separator", "too few", "below"],
)
def test_a_comment_that_may_be_something_else_is_no_header(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match="first line must be the header"):
        read(path)


def test_columns_of_hdf5_have_texts_and_one_length(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["triggers/time"] = [1264000010.5, 1264000000.25]
        file["triggers/event_id"] = ["a", "b"]
    settings = TriggerSettings(path=str(tmp_path / "t.h5"), id_column="event_id")
    assert pairs(settings) == [("b", 1264000000.25), ("a", 1264000010.5)]
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        file["triggers/snr"] = [8.0]
    with pytest.raises(FormatError, match=r"as long as each other.*'snr': 1"):
        read_table(settings)
    with pytest.raises(FormatError, match=r"has no table 'other'.*triggers"):
        read(tmp_path / "t.h5", table="other")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("triggers/time", (1 << 40,), dtype="f8", chunks=(1024,))
    with pytest.raises(FormatError, match="samples are asked for"):
        read(tmp_path / "t.h5")


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "t.csv").write_text(GOOD)
    assert len(read("~/t.csv")) == len(read_times("~/t.csv")) == 2
    with pytest.raises(FormatError, match=r"~nobody-of-this-name/t\.csv: no such table"):
        read("~nobody-of-this-name/t.csv")


def test_files_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("time,état\n1264000010.5,1\n".encode("latin-1"))
    with pytest.raises(FormatError, match="UTF-8"):
        read_csv(path)
    path.write_bytes(b"\0\0\0\0")
    with pytest.raises(FormatError):
        read_csv(path)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(GOOD.encode())[:-9])
    with pytest.raises(FormatError, match="cannot be read"):
        read_csv(tmp_path / "t.csv.gz")
    with pytest.raises(FormatError, match="cannot be read"):
        read_csv(tmp_path)


# What happens to tables on their way


def _width(text, change):
    """One change to how many values some or all rows, or the header, have."""
    head, *rows = text.splitlines()
    kind, some = change
    rows = [_WIDTH[kind](row) if not number or not some else row for number, row in enumerate(rows)]
    head = _WIDTH_OF_HEADER.get(kind, str)(head)
    return "\n".join([head, *rows]) + "\n"


_WIDTH = {
    "value more": lambda row: f"{row},7",
    "value more, first": lambda row: f"7,{row}",
    "value less": lambda row: row.rpartition(",")[0] or row,
    "decimal commas": lambda row: row.replace(".", ","),
    "thousands": lambda row: row.replace("12640", "1,264,0"),
    "trailing commas": lambda row: f"{row},,",
    "name less": str,
    "name less, first": str,
    "name more": str,
    "nothing": str,
}
_WIDTH_OF_HEADER = {
    "name less": lambda head: head.rpartition(",")[0],
    "name less, first": lambda head: head.partition(",")[2],
    "name more": lambda head: f"{head},more",
}
_DRESS = {
    "semicolons": lambda text: text.replace(",", ";"),
    "tabs": lambda text: text.replace(",", "\t"),
    "mark": lambda text: "\ufeff" + text,
    "quotes": lambda text: "\n".join(",".join(f'"{one}"' for one in line.split(",")) for line in text.splitlines()),
    "blanks": lambda text: text.replace("\n", "\n\n"),
    "spaces": lambda text: text.replace(",", " , "),
    "windows": lambda text: text.replace("\n", "\r\n"),
    "comment": lambda text: "# of mine\n" + text,
    "header in a comment": lambda text: "# " + text,
    "blanks between columns": lambda text: text.replace(",", " "),
    "trailing comma in the header": lambda text: text.replace("\n", ",\n", 1),
    "one semicolon": lambda text: text.replace(",", ";", 1),
}


def check_spoilt(folder, times, names, change, dress):
    """A table that was changed in structure, never in digits: read as before, or refused."""
    cleared(folder)
    values = {"time": as_text(times), "snr": ["8.5"] * len(times), "event_id": [f"e{row}" for row in range(len(times))]}
    rows = zip(*(values[name] for name in names), strict=True)
    text = _width("\n".join(",".join(line) for line in [names, *rows]), change)
    for one in dress:
        text = _DRESS[one](text)
    path = folder / "t.csv"
    path.write_bytes(text.encode())
    for reader in (read, read_times):
        found = outcome(reader, path)
        if not isinstance(found, str):
            np.testing.assert_allclose(found, exact(times), rtol=0, atol=3e-7)


COLUMNS = ("time", "time,snr", "snr,time", "event_id,time", "event_id,snr,time", "time,event_id,snr")
SPOILT = {
    "times": st.lists(st.tuples(st.integers(10**9, 2 * 10**9), st.integers(0, 999_999_999)), min_size=1, max_size=5,
                      unique_by=lambda time: time[0]),
    "names": st.sampled_from(COLUMNS).map(lambda names: names.split(",")),
    "change": st.tuples(st.sampled_from(list(_WIDTH)), st.booleans()),
    "dress": st.lists(st.sampled_from(list(_DRESS)), max_size=3, unique=True),
}  # fmt: skip


@QUICK
@given(**SPOILT)
def test_a_changed_table_is_the_same_or_refused(tmp_path, times, names, change, dress):
    check_spoilt(tmp_path, times, names, change, dress)


@pytest.mark.slow
@THOROUGH
@given(**SPOILT)
def test_a_changed_table_is_the_same_or_refused_a_thousand_times(tmp_path, times, names, change, dress):
    check_spoilt(tmp_path, times, names, change, dress)


DAMAGE = st.lists(
    st.tuples(st.integers(0, 80), st.sampled_from(["put", "drop", "cut"]), st.binary(max_size=3)), min_size=1
)


def check_damaged(folder, damage):
    """Whatever happens to the bytes: times, or an error for the user."""
    cleared(folder)
    content = GOOD.encode()
    for place, kind, what in damage:
        rest = {"put": content[place:], "drop": content[place + 1 :], "cut": b""}[kind]
        content = content[:place] + (what if kind == "put" else b"") + rest
    for name in ("t.csv", "t.csv.gz", "t.h5", "t.xml"):
        path = folder / name
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        for reader in (read, read_times):
            found = outcome(reader, path)
            assert name in found if isinstance(found, str) else np.all(np.isfinite(found))


@QUICK
@given(damage=DAMAGE)
def test_damaged_bytes_end_in_words(tmp_path, damage):
    check_damaged(tmp_path, damage)


@pytest.mark.slow
@THOROUGH
@given(damage=DAMAGE)
def test_damaged_bytes_end_in_words_a_thousand_times(tmp_path, damage):
    check_damaged(tmp_path, damage)
