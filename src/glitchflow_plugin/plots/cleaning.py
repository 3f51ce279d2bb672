"""Maps of real, generated and cleaned strain side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from glitchflow_plugin.plots.style import (
    ENERGY_COLOURS,
    ENERGY_FLOOR,
    ENERGY_LABEL,
    energy_scale,
    frequency_axis,
    new_figure,
)

PANELS = ("real", "generated", "cleaned")
"""Titles of the panels: measured, predicted from the witnesses, |measured - predicted|."""


@dataclass(frozen=True, eq=False)
class CleaningExample:
    """Maps of one event.

    Attributes:
        event_id: Name of the event.
        gps_start: GPS time of the left edge of the maps, s.
        predicted: Generated from the witnesses, SNR².
        measured: Of the strain, SNR²; None where there is no usable strain.
        cleaned: |measured - predicted|, SNR²; None likewise.
        note: Said in the title, for instance the verdict.
    """

    event_id: str
    gps_start: float
    predicted: Float[np.ndarray, "frequency time"]
    measured: Float[np.ndarray, "frequency time"] | None = None
    cleaned: Float[np.ndarray, "frequency time"] | None = None
    note: str = ""


def plot_cleaning(
    examples: Sequence[CleaningExample],
    frequencies: Float[np.ndarray, " frequency"],
    times: Float[np.ndarray, " time"],
    *,
    threshold: float = 16.0,
    title: str = "",
) -> Figure:
    """One row an event: real, generated, cleaned, on one logarithmic colour scale for each row.

    Args:
        examples: Events to show; an empty list gives a figure that says so.
        frequencies: Centre of each row of the maps, Hz.
        times: Left edge of each column, s from the left edge of the maps.
        threshold: Its contour is drawn, SNR².
        title: Above all rows.

    Returns:
        The figure.
    """
    if not examples:
        figure = new_figure(9.0, 1.6)
        figure.text(0.5, 0.5, f"{title}: no such event" if title else "no such event", ha="center", va="center")
        return figure
    figure, rows, bars = _panels(len(examples), title)
    for row, bar, example in zip(rows, bars, examples, strict=True):
        maps = (example.measured, example.predicted, example.cleaned)
        peak = max(float(energy.max()) for energy in maps if energy is not None)
        norm = energy_scale(example.predicted, ceiling=peak)
        for axes, panel, energy in zip(row, PANELS, maps, strict=True):
            _draw(axes, energy, frequencies, times, norm=norm, threshold=threshold)
            largest = "" if energy is None else f", peak SNR² {energy.max():.0f}"
            axes.set_title(f"{panel}{largest}", fontsize=9, loc="left")
        named = ", ".join(filter(None, (example.event_id, f"GPS {example.gps_start:.3f} s", example.note)))
        row[0].set_title(f"{named}\n{row[0].get_title(loc='left')}", fontsize=9, loc="left")
        frequency_axis(row[0], frequencies)
        figure.colorbar(ScalarMappable(norm, ENERGY_COLOURS), cax=bar, label=ENERGY_LABEL)
    for axes in rows[-1]:
        axes.set_xlabel("time from the GPS time at the left (s)")
    return figure


def _panels(num_rows: int, title: str) -> tuple[Figure, list[list[Axes]], list[Axes]]:
    """Three panels and a place for the colour bar in each row.

    Margins are given rather than found: finding them takes ten times as long as drawing.
    """
    height = 0.9 + 2.9 * num_rows
    figure = Figure(figsize=(12, height))
    if title:
        figure.suptitle(title, y=1 - 0.2 / height, fontsize=11)
    grid = figure.add_gridspec(
        num_rows,
        len(PANELS) + 1,
        width_ratios=[1, 1, 1, 0.04],
        left=0.055,
        right=0.935,
        top=1 - 0.85 / height,
        bottom=0.5 / height,
        hspace=0.3,
        wspace=0.06,
    )
    rows: list[list[Axes]] = []
    for row in range(num_rows):
        first = rows[0][0] if rows else None
        panels = [figure.add_subplot(grid[row, 0], sharex=first, sharey=first)]
        panels += [figure.add_subplot(grid[row, column], sharex=panels[0], sharey=panels[0]) for column in (1, 2)]
        for axes in panels[1:]:
            axes.tick_params(labelleft=False)
        for axes in panels:
            axes.tick_params(labelbottom=row == num_rows - 1)
        rows.append(panels)
    return figure, rows, [figure.add_subplot(grid[row, len(PANELS)]) for row in range(num_rows)]


def _draw(
    axes: Axes,
    energy: np.ndarray | None,
    frequencies: np.ndarray,
    times: np.ndarray,
    *,
    norm: LogNorm,
    threshold: float,
) -> None:
    if energy is None:
        axes.text(0.5, 0.5, "no usable strain", transform=axes.transAxes, ha="center", va="center")
        return
    # pcolormesh keeps the axes true on logarithmic frequency spacing, where imshow would stretch them
    floored = np.maximum(energy, ENERGY_FLOOR)
    axes.pcolormesh(
        _edges(times), frequencies_edges(frequencies), floored, norm=norm, cmap=ENERGY_COLOURS, rasterized=True
    )
    if energy.max() > threshold > energy.min():
        middle = times + 0.5 * (times[1] - times[0])
        axes.contour(middle, frequencies, energy, levels=[threshold], colors="white", linewidths=0.6)


def frequencies_edges(frequencies: Float[np.ndarray, " frequency"]) -> Float[np.ndarray, " edge"]:
    """Edges of rows from their centres, half-way on the axis that is evenly spaced (linear or logarithmic).

    >>> frequencies_edges(np.array([10.0, 20.0, 30.0])).tolist()
    [5.0, 15.0, 25.0, 35.0]
    """
    logarithmic = _is_logarithmic(frequencies)
    centres = np.log(frequencies) if logarithmic else np.asarray(frequencies)
    middle = 0.5 * (centres[1:] + centres[:-1])
    edges = np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
    return np.exp(edges) if logarithmic else edges


def _is_logarithmic(frequencies: np.ndarray) -> bool:
    return bool(frequencies[0] > 0 and not np.allclose(np.diff(frequencies), frequencies[1] - frequencies[0]))


def _edges(times: np.ndarray) -> np.ndarray:
    return np.append(times, 2 * times[-1] - times[-2])
