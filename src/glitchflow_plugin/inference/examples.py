"""Which events to look at: the loudest, the worst, a typical one, those that were not cleaned, missed, or harmed."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from glitchflow_plugin.products.veto_table import outcomes

KINDS: Mapping[str, str] = {
    "loudest": "glitches with the largest measured energy",
    "median": "glitches about the median measured energy",
    "worst": "glitches with the largest energy left after cleaning",
    "uncleaned": "glitches with a pixel above the threshold after cleaning",
    "missed": "glitches without a veto in their time",
    "false_alarms": "vetoes without a glitch in the strain",
    "vetoed": "the largest predicted energies",
}
"""Kinds of examples and what they show."""


def pick_examples(events: pd.DataFrame, kind: str, count: int) -> list[int]:
    """Rows of the event table that are examples of a kind, the most telling first.

    Args:
        events: Event table, see `products.veto_table.EVENT_COLUMNS`.
        kind: One of `KINDS`.
        count: How many at most.

    Returns:
        Row numbers; fewer than `count`, or none, where there are not as many.
    """
    glitch = events["glitch"].fillna(value=False).to_numpy(dtype=bool)
    cleaned = events["cleaned"].fillna(value=False).to_numpy(dtype=bool)
    veto = events["veto"].to_numpy(dtype=bool)
    measured = events["peak_snr2_measured"].to_numpy(dtype=float, na_value=np.nan)
    left = events["peak_snr2_cleaned"].to_numpy(dtype=float, na_value=np.nan)
    predicted = events["peak_snr2_predicted"].to_numpy(dtype=float)
    came_of_it = outcomes(events)
    # which events belong, and what to sort by, largest first
    choices = {
        "loudest": (glitch, measured),
        "median": (glitch, -np.abs(measured - (np.median(measured[glitch]) if glitch.any() else 0))),
        "worst": (glitch, left),
        "uncleaned": (glitch & ~cleaned, left),
        "missed": (came_of_it == "missed", measured),
        "false_alarms": (came_of_it == "false alarm", predicted),
        "vetoed": (veto, predicted),
    }
    belongs, order = choices[kind]
    rows = np.flatnonzero(belongs)
    return rows[np.argsort(-order[rows], kind="stable")][:count].tolist()
