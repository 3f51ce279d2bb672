import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data.readers import trigger_files
from glitchflow_plugin.data.readers.tables import read_csv
from glitchflow_plugin.data.readers.trigger_table import Trigger, event_id_at
from glitchflow_plugin.data.readers.triggers import (
    TriggerSettings,
    read_table,
    read_times,
    write_triggers,
)
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError

NAMES = st.text(
    st.characters(whitelist_categories=("Lu", "Ll", "Nd"), whitelist_characters="-_"), min_size=1, max_size=12
)
TIMES = st.floats(1e9, 2e9).map(lambda time: round(time, 6))


def pairs(settings):
    return [(one.event_id, one.gps_time) for one in read_table(settings).triggers()]


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
        read_table(TriggerSettings(path=str(path), time_column="when"))
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FormatError, match="time_column"):
        read_table(TriggerSettings(path=str(path)))
    path.write_text("time\nsoon\n")
    with pytest.raises(FormatError, match="row 1: expected a number, got 'soon'"):
        read_table(TriggerSettings(path=str(path)))


def test_an_id_with_two_times_is_refused_and_a_repeated_row_is_not(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("event_id,time\na,1264000000.5\nb,1264000010\na,1264000000.5\n")
    assert pairs(TriggerSettings(path=str(path))) == [("a", 1264000000.5), ("b", 1264000010.0)]
    path.write_text("event_id,time\na,1264000000.5\nb,1264000010\na,1264000020.5\nc,1264000030\nc,1264000031\n")
    with pytest.raises(FormatError, match=r"t\.csv.*2 event id\(s\).*a, c.*id_column"):
        read_table(TriggerSettings(path=str(path)))
    near = (1264000000.5, 1264000000.5 + 3e-7)  # the same microsecond: one trigger
    assert len(read_table(TriggerSettings(times=near)).triggers()) == 1


def test_inline_times_are_sorted_and_checked():
    assert pairs(TriggerSettings(times=(2e9, 1e9))) == [(event_id_at(1e9), 1e9), (event_id_at(2e9), 2e9)]
    with pytest.raises(ConfigurationError, match="positive"):
        read_table(TriggerSettings(times=(-5.0,)))
    with pytest.raises(ConfigurationError, match="either"):
        TriggerSettings()
    with pytest.raises(ConfigurationError, match="must be"):
        TriggerSettings(times=(1e9,), format="root")
    with pytest.raises(FormatError, match="no such table"):
        read_table(TriggerSettings(path="nowhere.csv"))


def test_omicron_hdf5_through_gwpy(tmp_path):
    pytest.importorskip("gwpy.table")
    rows = np.array([(1264000010.5, 8.0, 100.0), (1264000000.125, 20.0, 60.0)], dtype="f8, f8, f8")
    rows.dtype.names = ("time", "snr", "frequency")
    with h5py.File(tmp_path / "V1-OMICRON-1264000000-100.h5", "w") as file:
        file["triggers"] = rows
    found = pairs(TriggerSettings(path=str(tmp_path / "V1-OMICRON-1264000000-100.h5")))
    assert [time for _, time in found] == [1264000000.125, 1264000010.5]
    with pytest.raises(FormatError, match="omicron"):
        read_table(TriggerSettings(path=str(tmp_path / "V1-OMICRON-1264000000-100.h5"), table="other"))


def test_a_lone_number_that_was_meant_as_a_range_is_told_how_to_write_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("time,snr,label\n" + "".join(f"{1264000000.5 + row},{9.5 + row},a\n" for row in range(3)))
    with pytest.raises(NoEventsError, match=r"snr in 8, where there are 9\.5 to 11\.5\. A lone number.*\[8, null\]"):
        read_table(TriggerSettings(path=str(path), select={"snr": 8}))
    with pytest.raises(FormatError, match=r"expected a number, got 'a'\. Select labels by a list"):
        read_table(TriggerSettings(path=str(path), select={"label": [8, None]}))
    path.write_text("time,snr\n1264000000.5,9\nnan,9\n")
    with pytest.raises(ConfigurationError, match=r"got nan in row 2\. Correct it, or leave the row out"):
        read_table(TriggerSettings(path=str(path)))


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


# Selection

TABLE = """time,snr,peak_frequency,ml_label,good,band
1264000000.5,20,60,Blip,True,1
1264000010.5,7.9,100,Tomte,False,2
1264000020.5,8,500,Scattered_Light,True,3
1264000030.5,nan,30,Blip,true,1
1264000040.5,,30,Blip,0,2
"""


def table(tmp_path, text=TABLE, name="t.csv"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def kept(path, **keys):
    return [one.gps_time - 1264000000 for one in read_table(TriggerSettings(path=path, **keys)).triggers()]


@pytest.mark.parametrize(
    ("select", "rows"),
    [
        ({"snr": [8, None]}, [0.5, 20.5]),
        ({"snr": [None, 8]}, [10.5, 20.5]),
        ({"snr": [None, None]}, [0.5, 10.5, 20.5]),
        ({"peak_frequency": [60, 500], "snr": [8.0, 20]}, [0.5, 20.5]),
        ({"ml_label": ["Blip", "Tomte"]}, [0.5, 10.5, 30.5, 40.5]),
        ({"ml_label": "Blip"}, [0.5, 30.5, 40.5]),
        ({"good": True}, [0.5, 20.5, 30.5]),
        ({"good": False}, [10.5, 40.5]),
        ({"band": 2}, [10.5, 40.5]),
        ({"band": [1, 2, 3]}, [0.5, 10.5, 20.5, 30.5, 40.5]),
        ({"time": [1264000010.5, 1264000020.5]}, [10.5, 20.5]),
        ({}, [0.5, 10.5, 20.5, 30.5, 40.5]),
    ],
)
def test_columns_select(tmp_path, select, rows):
    path = table(tmp_path)
    assert kept(path, select=select) == rows
    report = read_table(TriggerSettings(path=path, select=select)).report
    assert report.read == 5 == report.events + sum(report.fell.values())


def test_what_falls_is_counted_by_condition_and_nan_by_itself(tmp_path):
    report = read_table(
        TriggerSettings(path=table(tmp_path), select={"snr": [8, None], "ml_label": ["Blip", "Tomte"]})
    ).report
    assert dict(report.fell) == {
        "select snr in [8, null]": 1,
        "select snr in [8, null]: no value": 2,
        "select ml_label in Blip, Tomte": 1,
        "select ml_label in Blip, Tomte: no value": 0,
        "repeated": 0,
    }


@pytest.mark.parametrize(
    ("keys", "error", "match"),
    [
        ({"select": {"snrr": [8, None]}}, FormatError, r"no column 'snrr'; it has.*peak_frequency.*Nearest: snr"),
        ({"select": {"ml_label": [1, None]}}, FormatError, r"row 1: expected a number, got 'Blip'"),
        ({"select": {"snr": [100, None]}}, NoEventsError, r"none of 5.*snr in \[100, null\].*7.9 to 20"),
        ({"select": {"ml_label": ["Blib"]}}, NoEventsError, r"Blip, Scattered_Light, Tomte.*Nearest: Blip"),
        ({"group_column": "label"}, FormatError, r"no column 'label'.*Nearest: ml_label"),
        ({"cluster": 0.1, "loudness": "snt"}, FormatError, r"no column 'snt'.*Nearest: snr"),
    ],
)
def test_columns_that_are_not_there_and_selections_of_nothing_are_refused(tmp_path, keys, error, match):
    with pytest.raises(error, match=match):
        read_table(TriggerSettings(path=table(tmp_path), **keys))


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"select": {"snr": [20, 8]}}, r"select\.snr.*\[low, high\]"),
        ({"select": {"snr": []}}, r"select\.snr: expected a range"),
        ({"select": {"snr": {"min": 8}}}, r"select\.snr: expected a range"),
        ({"select": {"snr": [8, None, 9]}}, "expected numbers, true or false, or texts"),
        ({"select": ["snr"]}, "expected columns with what they must hold"),
        ({"cluster": 0}, "how near"),
        ({"cluster": -0.1}, "how near"),
        ({"cluster": True}, "how near"),
        ({"cluster": float("nan")}, "how near"),
        ({"segments": []}, "segments is empty"),
        ({"segments": [[2, 1]]}, "start before end"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_read(keys, match):
    with pytest.raises(ConfigurationError, match=match):
        TriggerSettings(path="t.csv", **keys)


def test_a_list_of_times_has_no_columns():
    with pytest.raises(ConfigurationError, match=r"triggers\.select names columns"):
        TriggerSettings(times=(1e9,), select={"snr": [8, None]})


def test_a_label_that_no_trigger_has_is_told(tmp_path, caplog):
    assert len(kept(table(tmp_path), select={"ml_label": ["Blip", "Tomt"]})) == 3
    assert "no trigger has ml_label = 'Tomt'. Nearest: Tomte." in caplog.text


def test_selection_in_every_format(tmp_path):
    events = pytest.importorskip("gwpy.table").EventTable
    times, snr, label = np.array([1264000000.5, 1264000010.5]), np.array([9.0, 5.0]), ["Blip", "Tomte"]
    held = events({"time": times, "snr": snr, "label": label})
    held.write(str(tmp_path / "t.h5"), path="triggers", format="hdf5")
    held.write(str(tmp_path / "t.csv"), format="ascii.csv")
    with h5py.File(tmp_path / "g.hdf5", "w") as file:
        file["triggers/time"], file["triggers/snr"], file["triggers/label"] = times, snr, label
        file["triggers/good"] = np.array([True, False])
    assert kept(str(tmp_path / "g.hdf5"), select={"good": True}) == [0.5]
    for name in ("t.h5", "t.csv", "g.hdf5"):
        for select in ({"snr": [8, None]}, {"label": ["Blip"]}):
            assert kept(str(tmp_path / name), select=select) == [0.5], (name, select)
    burst = events({"peak_time": [1264000000, 1264000010], "peak_time_ns": [500000000] * 2, "snr": snr,
                    "duration": [0.1, 3.0]})  # fmt: skip
    burst.write(str(tmp_path / "t.xml.gz"), format="ligolw", tablename="sngl_burst")
    assert kept(str(tmp_path / "t.xml.gz"), select={"duration": [None, 2]}) == [0.5]


def test_hidden_values_pass_no_range(tmp_path):
    masked = pytest.importorskip("astropy.table")
    held = masked.Table({"time": [1264000000.5, 1264000010.5], "snr": masked.MaskedColumn([9.0, 9.0], mask=[0, 1])})
    held.write(str(tmp_path / "t.h5"), path="triggers", format="hdf5", serialize_meta=True)
    assert kept(str(tmp_path / "t.h5"), select={"snr": [8, None]}) == [0.5]


def test_groups_come_along(tmp_path):
    found = read_table(TriggerSettings(path=table(tmp_path), group_column="ml_label")).triggers()
    assert found[0] == Trigger(event_id_at(1264000000.5), 1264000000.5, "Blip")
    assert [one.group for one in found] == ["Blip", "Tomte", "Scattered_Light", "Blip", "Blip"]


# Omicron's text

ROWS = "1264000000.50000 60.5 20.1 5.6 1e-22 0.1 1264000000.4 1264000000.6 50 70\n1264000010.5 90 7 5 1e-22 0 1 2 3 4\n"
HEADER = (
    "# central time [s]\n# central frequency [Hz]\n# snr []\n# q []\n#amplitude [Hz^-1/2]\n# phase [rad]\n"
    "# starting time [s]\n# ending time [s]\n# starting frequency [Hz]\n# ending frequency [Hz]\n"
)
THREE = "1264000000.5 60.5 20.1\n1264000010.5\t90 7\n".replace("\t", " ")


@pytest.mark.parametrize(
    ("name", "text", "keys"),
    [
        ("t.txt", HEADER + ROWS, {}),
        ("t.txt", "# made by hand\n" + HEADER + ROWS, {}),
        ("t.txt", HEADER + ROWS, {"format": "omicron"}),
        ("t.txt", ROWS, {"format": "omicron"}),
        ("V1-HREC_OMICRON-1264000000-100.txt", ROWS, {}),
        ("omicron.dat", THREE, {}),
        ("t.txt", THREE, {"format": "omicron"}),
        ("t.txt", THREE.replace(" ", ","), {"format": "omicron"}),
        ("t.txt", THREE.replace(" ", "   "), {"format": "omicron"}),
        ("t.txt", "# central time [s]\n# central frequency [Hz]\n# snr []\n" + THREE, {}),
        ("t.txt", "# GPS time [s] - frequency [Hz] - SNR []\n" + THREE, {}),
        ("t.txt", "# time frequency snr\n" + THREE, {"format": "omicron"}),
        ("t.txt", "# time frequency snr\n" + THREE, {}),
    ],
)
def test_the_text_of_omicron_is_read(tmp_path, name, text, keys):
    path = table(tmp_path, text, name)
    assert kept(path, **keys) == [0.5, 10.5]
    assert kept(path, select={"snr": [8, None], "frequency": [60, 61]}, **keys) == [0.5]


def test_text_of_omicron_may_hold_no_trigger(tmp_path):
    table(tmp_path, HEADER, "a.txt")
    table(tmp_path, HEADER + ROWS, "b.txt")
    assert kept(str(tmp_path / "a.txt")) == []
    assert kept(str(tmp_path), select={"snr": [8, None]}, cluster=0.1) == [0.5]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1264000000.5 60.5\n", "first line must be the header"),
        ("1 2 3 4\n", "first line must be the header"),
        ("60.5 1264000000.5 20\n", "expected GPS times in the first column"),
        (THREE + "1264000000.5 60.5\n", "line 3: expected 3 values"),
    ],
)
def test_text_without_a_header_that_may_be_anything_is_refused(tmp_path, text, match):
    with pytest.raises(FormatError, match=match):
        read_table(TriggerSettings(path=table(tmp_path, text, "omicron.txt")))
    with pytest.raises(FormatError, match=r"first line must be the header"):
        read_table(TriggerSettings(path=table(tmp_path, THREE, "t.txt")))


# Many files


def many(tmp_path):
    folder = tmp_path / "omicron"
    folder.mkdir()
    events = pytest.importorskip("gwpy.table").EventTable
    (folder / "a.txt").write_text(HEADER + ROWS)
    (folder / "b.csv").write_text("time,snr\n1264000010.5,7\n1264000020.5,9\n")
    with h5py.File(folder / "c.h5", "w") as file:
        file["triggers/time"], file["triggers/snr"] = [1264000020.5, 1264000030.5], [9.0, 10.0]
    held = {"peak_time": [1264000040], "peak_time_ns": [500000000], "snr": [11.0]}
    events(held).write(str(folder / "d.xml.gz"), format="ligolw", tablename="sngl_burst")
    return folder


def test_a_folder_of_many_formats_is_one_list(tmp_path):
    folder = many(tmp_path)
    found = read_table(TriggerSettings(path=str(folder)))
    assert found.times.tolist() == [1264000000.5 + 10 * number for number in range(5)]
    assert (found.report.read, found.report.files, found.report.fell["repeated"]) == (7, 4, 2)
    assert kept(str(folder / "[ab].*")) == [0.5, 10.5, 20.5]
    assert kept(str(folder), select={"snr": [9, None]}) == [0.5, 20.5, 30.5, 40.5]


def test_a_broken_file_among_many_is_counted_and_the_others_go_on(tmp_path, caplog):
    folder = many(tmp_path)
    (folder / "e.csv").write_text("time,snr\nsoon,8\n")
    (folder / "f.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    (folder / "g.csv").write_text("time\n1264000050.5\n")
    (folder / "h.csv").write_text("time,snr\n-5,8\n")
    report = read_table(TriggerSettings(path=str(folder), select={"snr": [8, None]})).report
    assert sorted(report.unreadable) == ["e.csv", "f.h5", "g.csv", "h.csv"]
    assert "no column 'snr'" in report.unreadable["g.csv"]
    assert "expected a number, got 'soon'" in caplog.text
    assert (report.files, report.read) == (4, 7)
    assert report.read == report.events + sum(report.fell.values())
    for name in "abcd":
        next(folder.glob(f"{name}.*")).unlink()
    with pytest.raises(FormatError, match=r"none of 4 files can be read as triggers.*soon"):
        read_table(TriggerSettings(path=str(folder), select={"snr": [8, None]}))


def test_a_pattern_that_matches_nothing_is_told(tmp_path):
    with pytest.raises(FormatError, match=r"no such table of times.*pattern"):
        read_table(TriggerSettings(path=str(tmp_path / "*.h5")))


def test_hundreds_of_files_are_read_in_the_order_of_their_names(tmp_path):
    for number in reversed(range(300)):
        (tmp_path / f"V1-OMICRON-{1264000000 + 10 * number}-11.txt").write_text(
            "".join(f"{1264000000 + 10 * number + second}.25 50 8\n" for second in range(11))
        )
    found = read_table(TriggerSettings(path=str(tmp_path)), progress=True)
    assert found.times.tolist() == [1264000000.25 + second for second in range(3001)]
    assert (found.report.read, found.report.fell["repeated"]) == (3300, 299)


def test_a_misspelt_column_is_told_once_whatever_the_number_of_files(tmp_path, caplog, monkeypatch):
    for number in range(50):
        (tmp_path / f"{number:02d}.csv").write_text(f"time,snr\n{1264000000 + number}.5,9\n")
    opened = []
    monkeypatch.setattr(trigger_files, "read_csv", lambda path, **keys: opened.append(path) or read_csv(path, **keys))
    with pytest.raises(FormatError, match=r"no column 'snrr'; it has \['time', 'snr'\]\. Nearest: snr"):
        read_table(TriggerSettings(path=str(tmp_path), select={"snrr": [8, None]}))
    assert len(opened) < 10
    assert not caplog.text
