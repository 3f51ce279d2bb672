"""Residual power of a run whose cleaning is known."""

import numpy as np
import pandas as pd
import pytest

from glitchflow_plugin.inference.residual import RESIDUAL_COLUMNS, residual_table
from glitchflow_plugin.signal.band_power import EDGES


@pytest.fixture
def run():
    """80 events, every second a glitch in the third band; of a tomte half is left, of a blip nothing."""
    power = np.full((80, len(EDGES) - 1, 2), 50.0)
    power[1::4] += 3.0
    power[3::4] -= 3.0
    power[::2, 2, 0] += 400.0
    power[::4, 2, 1] += 200.0
    events = pd.DataFrame(
        {
            "event_id": [f"event-{row}" for row in range(80)],
            "gps_event": 1e9 + 10.0 * np.arange(80),
            "glitch": pd.array([True, False] * 40, dtype="boolean"),
        }
    )
    return events, power, {f"event-{row}": "tomte" if row % 4 == 0 else "blip" for row in range(80)}


def test_what_is_left_is_told_by_time_class_and_band(run):
    table = residual_table(*run[:2], None, run[2])
    assert list(table.columns) == list(RESIDUAL_COLUMNS)
    assert len(table) == 3 * 4 * len(EDGES)  # all and two classes, four periods of 20 events, each band and their sum
    whole = table[table["frequency_low"].eq(EDGES[0]) & table["frequency_high"].eq(EDGES[-1])]
    assert whole.groupby("name")["left"].unique().map(list).to_dict() == {"all": [0.25], "blip": [0.0], "tomte": [0.5]}
    band = table[(table["frequency_low"] == 32) & (table["name"] == "tomte")]
    assert band["power_before"].tolist() == [450.0] * 4
    assert band["power_after"].tolist() == [250.0] * 4
    assert table[(table["frequency_low"] == 64)]["left"].isna().all()  # no power beyond the noise
    assert whole[whole["name"] == "all"]["glitches"].sum() == 40
    assert band["left_error"].tolist() == pytest.approx([3.0 * (1 / 5 + 1 / 40) ** 0.5 / 400] * 4)


def test_without_quiet_events_or_strain_nothing_is_made_up(run):
    events, power, classes = run
    loud = events.assign(glitch=pd.array([True] * 80, dtype="boolean"))
    assert residual_table(loud, power, None, classes)["left"].isna().all()
    unmeasured = events.assign(glitch=pd.array([pd.NA] * 80, dtype="boolean"))
    assert residual_table(unmeasured, power, None, {}).empty
