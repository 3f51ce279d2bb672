"""Learning curves of entrants: table, picture, and both for a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from glitchflow_plugin.inference.intervals import Estimate
from glitchflow_plugin.inference.leaderboard_page import band_of, per_cent
from glitchflow_plugin.plots.curves import Band
from glitchflow_plugin.plots.leaderboard import plot_learning
from glitchflow_plugin.products.page import insert_block
from glitchflow_plugin.products.pictures import save_figure
from glitchflow_plugin.products.veto_table import markdown_table, write_table

#: Title and unit of what a curve shows, with waveforms that are known and without.
_SHOWN = {"power_removed": "median power removed, waveform", "median_net_removed": "median net power removed, maps"}
_TITLES = {"events": "training events", "groups": "groups of training glitches"}


@dataclass(frozen=True, eq=False)
class CurvePoint:
    """What entrants reached from some of the training events.

    Attributes:
        axis: What grows along the curve: `events` or `groups`.
        events: Training events.
        groups: Groups of those with a glitch.
        figures: Figures by entrant, those of the leaderboard.
        reference: The best linear entrant here, with which the others are compared; None if there is none.
    """

    axis: str
    events: int
    groups: int
    figures: Mapping[str, Mapping[str, Estimate]]
    reference: str | None


def write_curve(points: Sequence[CurvePoint], *, folder: Path, page: Path | None, name: str) -> dict[str, str]:
    """Write table and picture into a folder, and both into a page that people write.

    Args:
        points: Points of all curves.
        folder: The folder of the leaderboard.
        page: Markdown file with the markers of `name`, beside whose folder `pictures` is.
        name: Name of the leaderboard.

    Returns:
        Paths by what they hold.
    """
    shown = shown_figure(points)
    picture = folder / "learning-curve.png"
    save_figure(plot_learning(curves_of(points, shown), _SHOWN[shown]), picture, 120)
    table = write_table(curve_table(points), folder, "learning_curve")
    if page is not None:
        link = f"pictures/leaderboard-{name}-learning-curve.png"
        save_figure(plot_learning(curves_of(points, shown), _SHOWN[shown]), page.parent / link, 80)
        insert_block(page, "learning-curve", name, curve_block(points, link))
    return {"learning curve": str(table["csv"]), "picture of the learning curve": str(picture)}


def shown_figure(points: Sequence[CurvePoint]) -> str:
    """The power removed from waveforms, where every entrant has one; else that from maps."""
    known = all(row["power_removed"].value is not None for one in points for row in one.figures.values())
    return "power_removed" if known else "median_net_removed"


def curves_of(points: Sequence[CurvePoint], figure: str) -> dict[str, tuple[list[int], dict[str, Band]]]:
    """Numbers along each axis and curve by entrant."""
    curves = {}
    for axis, title in _TITLES.items():
        own = [one for one in points if one.axis == axis]
        if own:
            names = list(own[0].figures)
            numbers = [getattr(one, axis) for one in own]
            held = "" if axis == "events" else f"\n{own[0].events} events at all points"
            curves[f"{title}{held}"] = (numbers, {n: band_of([one.figures[n][figure] for one in own]) for n in names})
    return curves


def curve_table(points: Sequence[CurvePoint]) -> pd.DataFrame:
    """One row a point and entrant: every figure with the ends of its interval."""
    rows = []
    for one in points:
        for entrant, figures in one.figures.items():
            row = {"axis": one.axis, "events": one.events, "groups": one.groups, "entrant": entrant}
            for key, estimate in figures.items():
                row |= {key: estimate.value, f"{key}_low": estimate.low, f"{key}_high": estimate.high}
            rows.append(row)
    return pd.DataFrame(rows)


def curve_block(points: Sequence[CurvePoint], link: str) -> str:
    """What is put between the markers of a page: table in per cent, then the picture."""
    columns = {
        "net power removed, median": "median_net_removed",
        "power removed, waveform": "power_removed",
        "lead, waveform": "waveform_lead",
        "glitches made louder": "grown",
        "power added to quiet events, waveform": "added_strain",
    }
    rows = [
        {
            "training events": f"{one.events}",
            "groups of glitches": f"{one.groups}",
            "entrant": entrant,
            **{title: per_cent(figures[key], key) for title, key in columns.items()},
        }
        for one in points
        for entrant, figures in one.figures.items()
    ]
    named = sorted({one.reference for one in points if one.reference})
    told = (
        "In per cent [95 % interval, bootstrap by group] on the held-out events of the leaderboard. Events are drawn "
        "evenly from the groups, and those of a smaller number are among those of a larger one; channels, scaling, "
        "validation events and number of steps are those of the whole set at every point."
        + (f" Leads are over {' or '.join(named)} of the same point, paired." if named else "")
    )
    picture = f"![Power removed from held-out glitches against the training events]({link})"
    return "\n\n".join([told, markdown_table(pd.DataFrame(rows)), picture])
