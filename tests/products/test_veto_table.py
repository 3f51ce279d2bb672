import numpy as np
import pandas as pd
import pytest

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.veto_table import (
    EVENT_COLUMNS,
    WINDOW_COLUMNS,
    WindowVerdicts,
    event_table,
    markdown_table,
    outcomes,
    veto_segments,
    window_table,
    write_table,
)

EDGES = np.array([0.0, 1.5, 3.0, 4.5, 6.0])
GPS = np.array([1238166018.123456, 1238166050.0, 1238166100.25])


@pytest.fixture
def windows():
    """Three events: one cleaned glitch, one quiet and falsely vetoed, one without strain."""
    peak_predicted = np.array([[1.0, 30, 1, 1], [1, 1, 20, 1], [1, 1, 1, 50]])
    peak_measured = np.array([[2.0, 40, 2, 17], [2, 2, 2, 2], [0, 0, 0, 0]])
    peak_cleaned = np.array([[2.0, 10, 2, 9], [2, 2, 18, 2], [0, 0, 0, 0]])
    area = np.array([[0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 0]])
    verdicts = WindowVerdicts(
        peak_predicted, peak_measured, peak_cleaned, area, np.array([True, True, False]), np.array([0, 2, 0])
    )
    return window_table(["a", "b", "c"], GPS - 3, GPS, EDGES, verdicts=verdicts, threshold=16.0)


def test_each_window_carries_its_event_and_time(windows):
    assert list(windows.columns) == list(WINDOW_COLUMNS)
    assert windows["event_id"].tolist() == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    for event, gps in zip("abc", GPS, strict=True):
        rows = windows[windows["event_id"] == event]
        np.testing.assert_array_equal(rows["gps_start"], gps - 3 + EDGES[:-1])
        np.testing.assert_array_equal(rows["gps_end"], gps - 3 + EDGES[1:])
        assert (rows["gps_event"] == gps).all()
    assert windows["gps_start"].dtype == np.float64


def test_verdicts_follow_the_threshold(windows):
    assert windows["veto"].tolist() == [False, True, False, False, False, False, True, False, False, False, False, True]
    assert windows["glitch"].tolist()[:8] == [False, True, False, True, False, False, False, False]
    assert windows["cleaned"].tolist()[:8] == [False, True, False, True, False, False, False, False]


def test_without_strain_nothing_is_claimed_about_it(windows):
    rows = windows[windows["event_id"] == "c"]
    for column in ("glitch", "cleaned", "peak_snr2_measured", "peak_snr2_cleaned", "residual_area_pixels"):
        assert rows[column].isna().all(), column
    assert rows["veto"].tolist() == [False, False, False, True]


def test_event_table_sums_up_windows(windows):
    events = event_table(windows).set_index("event_id")
    assert list(event_table(windows).columns) == list(EVENT_COLUMNS)
    assert events.index.tolist() == ["a", "b", "c"]
    assert events["veto"].tolist() == [True, True, True]
    assert (events.loc["a", "glitch"], events.loc["a", "cleaned"]) == (True, True)
    assert (events.loc["b", "glitch"], events.loc["b", "cleaned"]) == (False, False)
    assert pd.isna(events.loc["c", "glitch"])
    assert pd.isna(events.loc["c", "cleaned"])
    assert events["peak_snr2_predicted"].tolist() == [30, 20, 50]
    assert events.loc["b", "residual_area_pixels"] == 3
    assert pd.isna(events.loc["c", "residual_area_pixels"])
    assert events["windows_vetoed"].tolist() == [1, 1, 1]
    assert events["witnesses_missing"].tolist() == [0, 2, 0]
    np.testing.assert_array_equal(events["gps_end"] - events["gps_start"], 6.0)


def test_one_window_left_loud_makes_the_event_uncleaned(windows):
    windows.loc[2, "residual_area_pixels"] = 1  # where there was no glitch before
    assert not event_table(windows)["cleaned"].iloc[0]


def test_events_keep_their_order_whatever_their_names(windows):
    windows["event_id"] = windows["event_id"].map({"a": "z", "b": "m", "c": "a"}).astype("string")
    events = event_table(windows)
    assert events["event_id"].tolist() == ["z", "m", "a"]
    assert events["residual_area_pixels"].fillna(-1).tolist() == [0, 3, -1]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_come_back_from_disk_exactly(windows, tmp_path, suffix):
    for name, table in {"windows": windows, "events": event_table(windows)}.items():
        path = write_table(table, tmp_path, name)[suffix]
        types = {name: table[name].dtype for name in table}
        reread = pd.read_parquet(path) if suffix == "parquet" else pd.read_csv(path, dtype=types)
        pd.testing.assert_frame_equal(reread.astype(types), table)


def test_markdown_shows_full_times_and_says_what_is_missing(windows):
    text = markdown_table(windows, rows=2)
    assert "1238166015.123" in text
    assert text.splitlines()[0].startswith("| event_id | window |")
    assert "10 more rows" in text
    assert "more rows" not in markdown_table(windows)
    assert "nan" not in markdown_table(windows).lower()
    assert "NA" not in markdown_table(windows)


def test_arrays_that_do_not_belong_together_are_refused():
    one = np.zeros((1, 4))
    verdicts = WindowVerdicts(one, one, one, one.astype(int), np.array([True]), np.array([0]))
    with pytest.raises(FormatError, match="1 events of 4 windows"):
        window_table(["a", "b"], GPS[:2], GPS[:2], EDGES, verdicts=verdicts, threshold=16.0)
    with pytest.raises(FormatError, match="float64"):
        window_table(["a"], GPS[:1].astype(np.float32), GPS[:1], EDGES, verdicts=verdicts, threshold=16.0)


def test_neighbouring_vetoes_of_an_event_are_one_segment(windows):
    segments = veto_segments(windows)
    assert segments["event_id"].tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(segments["gps_start"], GPS - 3 + EDGES[[1, 2, 3]])
    windows["veto"] = [True, True, False, True] + [False] * 4 + [True] * 4
    joined = veto_segments(windows.sample(frac=1.0, random_state=0))
    assert joined["event_id"].tolist() == ["a", "a", "c"]
    np.testing.assert_array_equal(joined["gps_start"], GPS[[0, 0, 2]] - 3 + EDGES[[0, 3, 0]])
    np.testing.assert_array_equal(joined["gps_end"], GPS[[0, 0, 2]] - 3 + EDGES[[2, 4, 4]])
    assert joined["peak_snr2_predicted"].tolist() == [30, 1, 50]
    windows["veto"] = False
    assert veto_segments(windows).empty


def test_each_event_has_one_outcome():
    cases = [(True, True, True), (True, True, False), (False, True, False), (True, False, False), (False, False, False)]
    events = pd.DataFrame([*cases, (True, None, None)], columns=["veto", "glitch", "cleaned"]).astype("boolean")
    named = ["cleaned", "not cleaned", "missed", "false alarm", "quiet", "no strain"]
    assert outcomes(events).tolist() == named
