"""Maps of real, generated and cleaned strain side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from glitchflow_plugin.plots.maps import FrequencyAxis, draw_map, energy_bar, energy_scale, frequency_axis
from glitchflow_plugin.plots.style import Picture, new_figure, picture, short_name
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.verdict import GLITCH_THRESHOLD

PANELS = ("real", "generated", "cleaned")
"""Titles of the panels: measured, predicted from the witnesses, |measured - predicted|."""


@dataclass(frozen=True, eq=False)
class CleaningExample:
    """Maps of one event.

    Attributes:
        event_id: Name of the event.
        gps_start: GPS time of the left edge of the maps, s.
        gps_event: Trigger time, GPS s; the zero of the time axis.
        predicted: Generated from the witnesses, SNR².
        measured: Map of the strain, SNR²; None where there is no usable strain.
        cleaned: |measured - predicted|, SNR²; None likewise.
        note: Said in the title, for instance class and verdict.
    """

    event_id: str
    gps_start: float
    gps_event: float
    predicted: Float[np.ndarray, "frequency time"]
    measured: Float[np.ndarray, "frequency time"] | None = None
    cleaned: Float[np.ndarray, "frequency time"] | None = None
    note: str = ""


@picture
def plot_cleaning(
    examples: Sequence[CleaningExample],
    frequencies: Float[np.ndarray, " frequency"],
    times: Float[np.ndarray, " time"],
    *,
    threshold: float = GLITCH_THRESHOLD,
    title: str = "",
    axis: FrequencyAxis = "log",
    judged: Bool[np.ndarray, "frequency time"] | None = None,
) -> Picture:
    """One row an event: real, generated, cleaned, on one logarithmic colour scale for each row.

    Args:
        examples: Events to show; an empty list gives a figure that says so.
        frequencies: Rows of the maps, Hz.
        times: Columns of the maps, s from `gps_start`.
        threshold: Its contour is drawn, SNR².
        title: Above all rows.
        axis: Axis of frequency.
        judged: Pixels that are judged, in real and cleaned maps; the others are dimmed.

    Returns:
        The figure.
    """
    if not examples:
        figure = new_figure(9.0, 1.6)
        figure.text(0.5, 0.5, f"{title}: no such event" if title else "no such event", ha="center", va="center")
        return figure
    dim = "" if judged is None or judged.all() else "; dimmed: within one tile of an edge, not judged"
    caption = [*([title] if title else []), f"white contour: SNR² {threshold:g}, the threshold{dim}"]
    figure, rows, bars = _panels(len(examples), "\n".join(caption))
    for row, bar, example in zip(rows, bars, examples, strict=True):
        maps = (example.measured, example.predicted, example.cleaned)
        norm = energy_scale(np.stack([energy for energy in maps if energy is not None]))
        columns = Columns(times, start=example.gps_start - example.gps_event)
        for axes, panel, energy in zip(row, PANELS, maps, strict=True):
            counted = None if energy is None or energy is example.predicted else judged
            if energy is None:
                axes.text(0.5, 0.5, "no usable strain", transform=axes.transAxes, ha="center", va="center")
            else:
                draw_map(axes, energy, frequencies, columns, norm, judged=counted)
                if energy.max() > threshold > energy.min():
                    axes.contour(
                        columns.centre, frequencies, energy, levels=[threshold], colors="white", linewidths=0.8
                    )
            peak = 0.0 if energy is None else np.max(energy, initial=0.0, where=True if counted is None else counted)
            largest = "" if energy is None else f", peak SNR² {peak:.0f}"
            axes.set_title(f"{panel}{largest}", fontsize=9, loc="left")
        named = ", ".join(filter(None, (short_name(example.event_id, 60), example.note)))
        row[0].annotate(
            named, (0, 1), xytext=(0, 20), xycoords="axes fraction", textcoords="offset points", fontsize=10
        )
        # labels at both ends would run into those of the next panel
        row[0].xaxis.set_major_locator(MaxNLocator(7, prune="both"))
        frequency_axis(row[0], frequencies, axis)
        row[1].set_xlabel(f"time from GPS {example.gps_event:.3f} [s]")
        energy_bar(figure, norm, cax=bar)
    return figure


def _panels(num_rows: int, caption: str) -> tuple[Picture, list[list[Axes]], list[Axes]]:
    """Three panels and a place for the colour bar in each row.

    Margins are given rather than found: finding them takes ten times as long as drawing.
    """
    top = 0.62 + 0.17 * len(caption.splitlines())
    height = top + 3.1 * num_rows
    figure = new_figure(12.0, height, layout=None)
    figure.text(0.055, 1 - 0.08 / height, caption, va="top", fontsize=10)
    grid = figure.add_gridspec(
        num_rows,
        len(PANELS) + 1,
        width_ratios=[1, 1, 1, 0.04],
        left=0.055,
        right=0.93,
        top=1 - top / height,
        bottom=0.5 / height,
        hspace=0.42,
        wspace=0.06,
    )
    rows: list[list[Axes]] = []
    for row in range(num_rows):
        first = figure.add_subplot(grid[row, 0])
        panels = [first, *(figure.add_subplot(grid[row, column], sharex=first, sharey=first) for column in (1, 2))]
        for axes in panels[1:]:
            axes.tick_params(labelleft=False)
        rows.append(panels)
    return figure, rows, [figure.add_subplot(grid[row, len(PANELS)]) for row in range(num_rows)]
