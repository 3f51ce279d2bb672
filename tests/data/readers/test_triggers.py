import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data.readers.triggers import (
    TriggerSettings,
    event_id_at,
    read_times,
    read_triggers,
    write_triggers,
)
from glitchflow_plugin.errors import ConfigurationError, FormatError

NAMES = st.text(
    st.characters(whitelist_categories=("Lu", "Ll", "Nd"), whitelist_characters="-_"), min_size=1, max_size=12
)
TIMES = st.floats(1e9, 2e9).map(lambda time: round(time, 6))


def pairs(settings):
    return [(one.event_id, one.gps_time) for one in read_triggers(settings)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.dictionaries(NAMES, TIMES, min_size=1, max_size=20))
def test_csv_round_trip(tmp_path, rows):
    triggers = sorted(rows.items(), key=lambda row: (row[1], row[0]))
    write_triggers(tmp_path / "triggers.csv", triggers)
    found = pairs(TriggerSettings(path=str(tmp_path / "triggers.csv")))
    assert found == triggers


def test_columns_are_found_or_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("# a comment\nsnr, GPStime, label\n8.0, 1264000010.25, b\n9.0, 1264000000.5, a\n")
    assert pairs(TriggerSettings(path=str(path))) == [
        ("1264000000.500000", 1264000000.5),
        ("1264000010.250000", 1264000010.25),
    ]
    named = TriggerSettings(path=str(path), time_column="GPStime", id_column="label")
    assert pairs(named) == [("a", 1264000000.5), ("b", 1264000010.25)]
    with pytest.raises(FormatError, match="no column 'when'"):
        read_triggers(TriggerSettings(path=str(path), time_column="when"))
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FormatError, match="time_column"):
        read_triggers(TriggerSettings(path=str(path)))
    path.write_text("time\nsoon\n")
    with pytest.raises(FormatError, match="row 1: expected a number, got 'soon'"):
        read_triggers(TriggerSettings(path=str(path)))


def test_an_id_with_two_times_is_refused_and_a_repeated_row_is_not(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("event_id,time\na,1264000000.5\nb,1264000010\na,1264000000.5\n")
    assert pairs(TriggerSettings(path=str(path))) == [("a", 1264000000.5), ("b", 1264000010.0)]
    path.write_text("event_id,time\na,1264000000.5\nb,1264000010\na,1264000020.5\nc,1264000030\nc,1264000031\n")
    with pytest.raises(FormatError, match=r"t\.csv.*2 event id\(s\).*a, c.*id_column"):
        read_triggers(TriggerSettings(path=str(path)))
    near = (1264000000.5, 1264000000.5 + 3e-7)  # the same microsecond: one trigger
    assert len(read_triggers(TriggerSettings(times=near))) == 1


def test_inline_times_are_sorted_and_checked():
    assert pairs(TriggerSettings(times=(2e9, 1e9))) == [(event_id_at(1e9), 1e9), (event_id_at(2e9), 2e9)]
    with pytest.raises(ConfigurationError, match="positive"):
        read_triggers(TriggerSettings(times=(-5.0,)))
    with pytest.raises(ConfigurationError, match="either"):
        TriggerSettings()
    with pytest.raises(ConfigurationError, match="must be"):
        TriggerSettings(times=(1e9,), format="root")
    with pytest.raises(FormatError, match="no such table"):
        read_triggers(TriggerSettings(path="nowhere.csv"))


def test_omicron_hdf5_through_gwpy(tmp_path):
    pytest.importorskip("gwpy.table")
    rows = np.array([(1264000010.5, 8.0, 100.0), (1264000000.125, 20.0, 60.0)], dtype="f8, f8, f8")
    rows.dtype.names = ("time", "snr", "frequency")
    with h5py.File(tmp_path / "V1-OMICRON-1264000000-100.h5", "w") as file:
        file["triggers"] = rows
    found = pairs(TriggerSettings(path=str(tmp_path / "V1-OMICRON-1264000000-100.h5")))
    assert [time for _, time in found] == [1264000000.125, 1264000010.5]
    with pytest.raises(FormatError, match="omicron"):
        read_triggers(TriggerSettings(path=str(tmp_path / "V1-OMICRON-1264000000-100.h5"), table="other"))


def test_ligo_lw_through_gwpy(tmp_path):
    table = pytest.importorskip("gwpy.table")
    events = table.EventTable(
        {"peak_time": [1264000010, 1264000000], "peak_time_ns": [500000000, 125000000], "snr": [8.0, 20.0]}
    )
    path = tmp_path / "triggers.xml.gz"
    events.write(str(path), format="ligolw", tablename="sngl_burst")
    found = pairs(TriggerSettings(path=str(path)))
    assert [time for _, time in found] == [1264000000.125, 1264000010.5]


def test_times_keep_their_microseconds(tmp_path):
    table = pd.DataFrame({"time": [1264000000.123457]})
    table.to_csv(tmp_path / "t.csv", index=False)
    assert pairs(TriggerSettings(path=str(tmp_path / "t.csv")))[0][1] == 1264000000.123457


@pytest.mark.parametrize(
    "text",
    [
        "1200000000\n\n1100000000.25\n",
        "# GPS\n1100000000.25,\n1200000000 # late\n",
        "time\n1200000000\n1100000000.25\n",
    ],
)
def test_times_come_from_plain_lists_and_from_tables(tmp_path, text):
    path = tmp_path / "times.csv"
    path.write_text(text)
    assert read_times(path).tolist() == [1100000000.25, 1.2e9]


@pytest.mark.parametrize("header", ["# snr;time", "# snr,time", "#snr\ttime", "# snr time"])
def test_a_table_that_has_lost_its_times_is_no_list_of_times(tmp_path, header):
    path = tmp_path / "times.csv"
    path.write_text(f"{header}\n8.5\n9.5\n")
    with pytest.raises(FormatError, match="looks like GPS times"):
        read_times(path)


def test_times_that_are_none_are_refused(tmp_path):
    path = tmp_path / "times.txt"
    path.write_text("# nothing\n")
    with pytest.raises(FormatError, match="holds no time"):
        read_times(path)
    path.write_text("soon\n")
    with pytest.raises(FormatError, match="GPS times"):
        read_times(path)
    with pytest.raises(FormatError, match="no such table"):
        read_times(tmp_path / "missing.txt")
