"""Models of triggers against each other: the leaderboard of a training."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from glitchflow_plugin.report.page import Section
from glitchflow_plugin.report.tables import table

_FIGURES: Mapping[str, str] = {
    "auc": "AUC",
    "efficiency_0.01": "efficiency at 0.01",
    "efficiency_0.001": "efficiency at 0.001",
    "macro_f1": "macro-F1",
    "snr_r2": "R² of ln(1 + SNR)",
    "snr_coverage": "coverage",
    "channel_accuracy": "channel",
}
"""Figures of `training.triggers.judge` and their headings."""

_CAPTION = (
    "Entrants and what they must beat, on held-out times, with 95 % intervals by block of time. The least validation "
    "loss chose the champion. AUC: area under the ROC of glitch or not; efficiency: share of the glitches found where "
    "that share of the quiet times is called one; macro-F1: of the class; coverage: how often the SNR lies in its "
    "interval."
)
_LEAD = "By how much an entrant's figures exceed those of the best trees, on the same draws of blocks of time."


def contest_sections(board: Mapping[str, Any]) -> Iterator[Section]:
    """The leaderboard, and the leads over the best trees where there are some.

    Args:
        board: Content of `leaderboard.json`.
    """
    entrants, rivals = board["entrants"], board["rivals"]
    rows = [
        {
            "entrant": name + (" (champion)" if name == board["champion"] else ""),
            "validation loss": one["validation_loss"],
            **_figures(one["figures"]),
            "sets/s in training": one["sets_per_second"]["training"],
            "in inference": one["sets_per_second"]["inference"],
        }
        for name, one in sorted(entrants.items(), key=lambda one: one[1]["validation_loss"])
    ]
    rows += [{"entrant": f"{name} (rival)", **_figures(one)} for name, one in rivals.items()]
    content = pd.DataFrame(rows)
    numbers = ["validation loss", "sets/s in training", "in inference"]
    content[numbers] = content[numbers].astype(np.float64)
    yield Section("leaderboard", "Leaderboard", [table("table-leaderboard", content, _CAPTION)])
    leads = [
        {"entrant": name, **_figures(one["lead_over_trees"])}
        for name, one in entrants.items()
        if one["lead_over_trees"]
    ]
    if leads:
        yield Section("leads", "Leads over the best trees", [table("table-leads", pd.DataFrame(leads), _LEAD)])


def _figures(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Values with their intervals, by heading."""
    return {heading: _told(figures[name]) for name, heading in _FIGURES.items() if name in figures}


def _told(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return ""
    ends = "" if one["low"] is None else f" [{one['low']:.3f}, {one['high']:.3f}]"
    return f"{one['value']:.3f}{ends}"
