import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.products.veto_table import (
    EVENT_COLUMNS,
    SEGMENT_COLUMNS,
    EventVerdicts,
    covered_seconds,
    event_table,
    markdown_table,
    outcomes,
    veto_segments,
    write_table,
)
from glitchflow_plugin.signal.columns import Columns

COLUMNS = Columns(np.arange(12) * 0.5)
GPS = np.array([1238166018.123456, 1238166050.0, 1238166100.25])
NAMES = ["a", "b", "c"]
JUDGED = np.ones((4, 12), dtype=bool)
JUDGED[:, 0] = False


@pytest.fixture
def verdicts():
    """Three events: one cleaned glitch, one quiet and falsely vetoed, one without strain."""
    loudest = np.ones((3, 12))
    loudest[0, 4:6], loudest[1, 7], loudest[2, [0, 1, 11]] = (30, 25), 20, (17, 50, 40)
    return EventVerdicts(
        loudest,
        peak_measured=np.array([40.0, 2, 0]),
        peak_in_time=np.array([25.0, 1, 0]),
        peak_cleaned=np.array([10.0, 18, 0]),
        residual_area=np.array([0, 3, 0]),
        measured_valid=np.array([True, True, False]),
        witnesses_missing=np.array([0, 2, 0]),
    )


def tables(verdicts, *, names=NAMES, padding=0.0):
    segments = veto_segments(names, GPS - 3, COLUMNS, verdicts.loudest_predicted, threshold=16.0, padding=padding)
    events = event_table(
        names,
        GPS - 3,
        GPS,
        COLUMNS,
        verdicts=verdicts,
        segments=segments,
        threshold=16.0,
        judged=JUDGED,
        groups=np.array([0, 0, 1]),
    )
    return segments, events


def test_a_veto_reaches_from_the_left_edge_of_its_first_column_to_the_right_edge_of_its_last(verdicts):
    segments, _ = tables(verdicts)
    assert list(segments.columns) == list(SEGMENT_COLUMNS)
    assert segments["event_id"].tolist() == ["a", "b", "c", "c"]
    starts, ends = [1.75, 3.25, 0.0, 5.25], [2.75, 3.75, 0.75, 6.0]
    np.testing.assert_allclose(segments["gps_start"] - (GPS - 3)[[0, 1, 2, 2]], starts, rtol=0, atol=5e-7)
    np.testing.assert_allclose(segments["gps_end"] - (GPS - 3)[[0, 1, 2, 2]], ends, rtol=0, atol=5e-7)
    assert segments["peak_snr2_predicted"].tolist() == [30, 20, 50, 40]


def test_segments_that_touch_are_one_and_none_reaches_out_of_its_event():
    loudest = np.zeros((2, 12))
    loudest[0, [0, 2, 5]], loudest[1, 11] = (20, 30, 40), 50
    found = veto_segments(NAMES[:2], GPS[:2], COLUMNS, loudest, threshold=16.0, padding=0.25)
    # the first two touch; between the second and the third are two columns, and a half-second is left of them
    np.testing.assert_allclose(found["gps_start"] - GPS[[0, 0, 1]], [0.0, 2.0, 5.0], rtol=0, atol=5e-7)
    np.testing.assert_allclose(found["gps_end"] - GPS[[0, 0, 1]], [1.5, 3.0, 6.0], rtol=0, atol=5e-7)
    assert found["peak_snr2_predicted"].tolist() == [30, 40, 50]


@settings(deadline=None)
@given(
    loudest=arrays(np.float64, (3, 12), elements=st.sampled_from([0.0, 16.0, 16.5, 40.0])),
    padding=st.floats(0.0, 7.0),
)
def test_a_time_is_vetoed_if_and_only_if_a_loud_column_is_within_the_padding(loudest, padding):
    found = veto_segments(NAMES, GPS - 3, COLUMNS, loudest, threshold=16.0, padding=padding)
    assert found["gps_start"].is_monotonic_increasing
    for row, (name, gps) in enumerate(zip(NAMES, GPS - 3, strict=True)):
        own = found[found["event_id"] == name]
        loud = loudest[row] > 16
        for time in np.linspace(0.01, 5.99, 60):
            reach = (COLUMNS.left[loud] - padding, COLUMNS.right[loud] + padding)
            if np.abs(np.concatenate(reach) - time).min(initial=1.0) < 2e-6:
                continue  # at an edge, within the rounding of GPS times
            expected = bool(((reach[0] < time) & (time < reach[1])).any())
            assert bool(((own["gps_start"] <= gps + time) & (gps + time <= own["gps_end"])).any()) == expected
        assert (own["gps_start"].to_numpy()[1:] > own["gps_end"].to_numpy()[:-1]).all()
        assert own["peak_snr2_predicted"].max() == loudest[row].max() if loud.any() else own.empty


def test_nothing_predicted_gives_an_empty_table_of_the_same_columns(tmp_path):
    found = veto_segments(NAMES, GPS, COLUMNS, np.zeros((3, 12)), threshold=16.0, padding=0.1)
    assert found.empty
    assert {name: str(found[name].dtype) for name in found} == dict(SEGMENT_COLUMNS)
    assert pd.read_csv(write_table(found, tmp_path, "segments")["csv"]).empty


def test_the_event_table_says_what_came_of_each_event(verdicts):
    _, table = tables(verdicts)
    assert list(table.columns) == list(EVENT_COLUMNS)
    events = table.set_index("event_id")
    assert events.index.tolist() == NAMES
    assert events["group"].tolist() == [0, 0, 1]
    assert events["veto"].tolist() == [True, True, True]
    of_glitch = ["glitch", "veto_in_time", "cleaned"]
    assert events.loc["a", of_glitch].tolist() == [True, True, True]
    assert events.loc["b", of_glitch].tolist() == [False, False, False]
    assert events["peak_snr2_predicted"].tolist() == [30, 20, 50]
    assert events.loc["b", "residual_area_pixels"] == 3
    assert events["segments"].tolist() == [1, 1, 2]
    assert events["vetoed_seconds"].tolist() == [1.0, 0.5, 1.5]
    assert events["judged_seconds"].tolist()[:2] == [5.75, 5.75]
    assert events["witnesses_missing"].tolist() == [0, 2, 0]
    np.testing.assert_array_equal(events["gps_end"] - events["gps_start"], 6.0)
    assert outcomes(table).tolist() == ["cleaned", "false alarm", "no strain"]


def test_without_strain_nothing_is_claimed_about_it(verdicts):
    row = tables(verdicts)[1].iloc[2]
    for column in (
        "glitch",
        "veto_in_time",
        "cleaned",
        "peak_snr2_measured",
        "peak_snr2_cleaned",
        "residual_area_pixels",
    ):
        assert pd.isna(row[column]), column
    assert pd.isna(row["judged_seconds"])
    assert row["veto"]


def test_one_pixel_left_loud_makes_the_event_uncleaned(verdicts):
    verdicts.residual_area[0] = 1  # where there was no glitch before
    assert not tables(verdicts)[1]["cleaned"].iloc[0]


def test_a_glitch_that_is_vetoed_at_another_time_is_missed(verdicts):
    verdicts.peak_in_time[0] = 16.0
    events = tables(verdicts)[1]
    assert events.loc[0, ["veto", "veto_in_time", "cleaned"]].tolist() == [True, False, True]
    assert outcomes(events).tolist() == ["missed", "false alarm", "no strain"]


def test_events_keep_their_order_whatever_their_names(verdicts):
    events = tables(verdicts, names=["z", "m", "a"])[1]
    assert events["event_id"].tolist() == ["z", "m", "a"]
    assert events["segments"].tolist() == [1, 1, 2]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_come_back_from_disk_exactly(verdicts, tmp_path, suffix):
    segments, events = tables(verdicts, padding=0.05)
    for name, table in {"segments": segments, "events": events}.items():
        path = write_table(table, tmp_path, name)[suffix]
        types = {name: table[name].dtype for name in table}
        reread = pd.read_parquet(path) if suffix == "parquet" else pd.read_csv(path, dtype=types)
        pd.testing.assert_frame_equal(reread.astype(types), table)


def test_markdown_shows_full_times_and_says_what_is_missing(verdicts):
    events = tables(verdicts)[1]
    text = markdown_table(events, rows=2)
    assert "1238166015.123" in text
    assert text.splitlines()[0].startswith("| event_id | group |")
    assert "1 more rows" in text
    assert "more rows" not in markdown_table(events)
    assert "nan" not in markdown_table(events).lower()
    assert "NA" not in markdown_table(events)


def test_arrays_that_do_not_belong_together_are_refused():
    loudest = np.zeros((1, 12))
    with pytest.raises(FormatError, match="expected 2 events of 12 columns"):
        veto_segments(["a", "b"], GPS[:2], COLUMNS, loudest, threshold=16.0)
    with pytest.raises(FormatError, match="expected 1 events"):
        veto_segments(["a"], GPS[:1], COLUMNS, loudest[:, :4], threshold=16.0)
    with pytest.raises(FormatError, match="float64"):
        veto_segments(["a"], GPS[:1].astype(np.float32), COLUMNS, loudest, threshold=16.0)
    for padding in (-0.1, np.nan, np.inf):
        with pytest.raises(ConfigurationError, match="veto_padding"):
            veto_segments(["a"], GPS[:1], COLUMNS, loudest, threshold=16.0, padding=padding)


def test_time_that_several_intervals_cover_counts_once():
    intervals = pd.DataFrame({"gps_start": [10.0, 0.0, 2.0, 11.0, 20.0], "gps_end": [16.0, 6.0, 3.0, 17.0, 21.0]})
    assert covered_seconds(intervals) == 6 + 7 + 1
    assert covered_seconds(intervals.iloc[:0]) == 0


def test_each_event_has_one_outcome():
    # veto, glitch, veto in time, cleaned
    cases = {
        "cleaned": (True, True, True, True),
        "not cleaned": (True, True, True, False),
        "missed": (True, True, False, True),
        "false alarm": (True, False, False, False),
        "quiet": (False, False, False, False),
        "no strain": (True, None, None, None),
    }
    events = pd.DataFrame([*cases.values()], columns=["veto", "glitch", "veto_in_time", "cleaned"]).astype("boolean")
    assert outcomes(events).tolist() == list(cases)


def test_a_segment_is_a_box_of_what_is_predicted_to_be_loud():
    loudest = np.ones((2, 12))
    loudest[0, 4:7], loudest[1, 2] = 20.0, 30.0
    bands = np.zeros((2, 12, 2))
    bands[0, 4:7] = [[40, 60], [30, 50], [45, 90]]
    bands[1, 2] = 100, 200
    found = veto_segments(["a", "b"], GPS[:2], COLUMNS, loudest, threshold=16.0, padding=0.25, bands=bands)
    assert found[["frequency_low", "frequency_high"]].to_numpy().tolist() == [[30, 90], [100, 200]]
