import numpy as np
import pandas as pd
import pytest

from glitchflow_plugin.inference.examples import KINDS, pick_examples
from glitchflow_plugin.products.veto_table import EVENT_COLUMNS


@pytest.fixture
def events():
    rows = [
        # event, veto, glitch, cleaned, measured, predicted, left
        ("a", True, True, True, 500.0, 480.0, 12.0),
        ("b", True, True, False, 90.0, 60.0, 30.0),
        ("c", False, True, False, 40.0, 3.0, 39.0),
        ("d", False, False, False, 9.0, 2.0, 9.0),
        ("e", True, False, False, 8.0, 25.0, 20.0),
        ("f", True, None, None, None, 70.0, None),
        ("g", True, True, True, 60.0, 55.0, 6.0),
    ]
    names = ["event_id", "veto", "glitch", "cleaned", "peak_snr2_measured", "peak_snr2_predicted", "peak_snr2_cleaned"]
    table = pd.DataFrame(rows, columns=names).reindex(columns=list(EVENT_COLUMNS))
    table["veto_in_time"] = table["veto"] & table["glitch"]
    table[["gps_start", "gps_end", "gps_event"]] = 0.0
    return table.astype(dict(EVENT_COLUMNS))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("loudest", "abgc"),
        ("worst", "cbag"),
        ("uncleaned", "cb"),
        ("missed", "c"),
        ("false_alarms", "e"),
        ("vetoed", "afbge"),
    ],
)
def test_examples_are_what_they_are_called(events, kind, expected):
    assert "".join(events["event_id"].iloc[pick_examples(events, kind, 10)]) == expected
    assert "".join(events["event_id"].iloc[pick_examples(events, kind, 2)]) == expected[:2]


def test_the_median_example_is_near_the_median(events):
    assert events["event_id"].iloc[pick_examples(events, "median", 2)].tolist() == ["b", "g"]  # median of four: 75


def test_uncleaned_never_shows_a_cleaned_event(events):
    rows = events.iloc[pick_examples(events, "uncleaned", 10)]
    assert not rows["cleaned"].any()
    assert rows["glitch"].all()


def test_nothing_to_show_is_an_empty_list(events):
    quiet = events.iloc[[3]].reset_index(drop=True)
    assert all(pick_examples(quiet, kind, 3) == [] for kind in KINDS)
    assert all(isinstance(row, int) for row in pick_examples(events, "worst", 3))
    assert np.isfinite(pick_examples(events, "loudest", 0)).all()
