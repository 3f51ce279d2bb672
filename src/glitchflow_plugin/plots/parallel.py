"""Parallel coordinates: what many settings have in common that led to the same figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from glitchflow_plugin.plots.maps import ENERGY_COLOURS
from glitchflow_plugin.plots.style import GREY, Picture, new_figure, picture


@dataclass(frozen=True, eq=False)
class Axis:
    """One upright axis.

    Attributes:
        name: Beneath it.
        values: Position of each line in the axis' own unit, (line,); NaN leaves the line out.
        logarithmic: Distances are ratios; all values above 0.
        labels: Names of the choices; `values` are then numbers into it.
    """

    name: str
    values: Float[np.ndarray, " line"]
    logarithmic: bool = False
    labels: Sequence[str] = ()

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value; a choice shows all that there is to choose."""
        if self.labels:
            return 0.0, max(len(self.labels) - 1.0, 0.0)
        known = self.values[np.isfinite(self.values)]
        return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)

    def heights(self) -> Float[np.ndarray, " line"]:
        """Values between 0, the lowest, and 1, the highest; a half where all are the same."""
        scale = np.log if self.logarithmic else np.asarray
        low, high = (float(scale(end)) for end in self.range)
        return (scale(self.values) - low) / (high - low) if high > low else np.where(np.isnan(self.values), np.nan, 0.5)


@picture
def plot_parallel(axes: Sequence[Axis], score: Float[np.ndarray, " line"], *, title: str = "") -> Picture:
    """One line a trial across the axes of its settings and figures.

    Args:
        axes: From left to right.
        score: Colours the lines, the best drawn last; a score that is not finite (a trial that is out of the question)
            is grey and dashed.
        title: Above all.

    Returns:
        The figure.
    """
    figure = new_figure(max(6.0, 1.6 * len(axes) + 1.5), 4.4)
    panel = figure.subplots()
    heights = np.stack([axis.heights() for axis in axes])
    ranked = np.isfinite(score)
    limits = (float(score[ranked].min()), float(score[ranked].max())) if ranked.any() else (0.0, 1.0)
    colours = ScalarMappable(Normalize(*limits), colormaps[ENERGY_COLOURS])
    positions = np.arange(len(axes))
    for line in np.argsort(np.where(ranked, score, -np.inf), kind="stable"):
        colour, style = (colours.to_rgba(np.asarray(score[line])), "-") if ranked[line] else (GREY, "--")
        panel.plot(positions, heights[:, line], linewidth=1.4, alpha=0.85, color=colour, linestyle=style)
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}  # lines lie there
    for position, axis in zip(positions, axes, strict=True):
        panel.axvline(position, color="black", linewidth=0.8)
        low, high = axis.range
        marks = list(axis.labels) or ([f"{low:.3g}", f"{high:.3g}"] if high > low else [f"{low:.3g}"])
        places = np.linspace(0, 1, len(marks)) if len(marks) > 1 else [0.5]
        for place, mark in zip(places, marks, strict=True):
            panel.annotate(mark, (position, place), xytext=(3, 3), textcoords="offset points", fontsize=8, bbox=behind)
    panel.set_xticks(positions, [axis.name for axis in axes], rotation=20, ha="right", fontsize=8)
    panel.set_yticks([])
    panel.set_ylim(-0.05, 1.08)
    panel.set_xlim(-0.2, len(axes) - 0.6)
    panel.set_title(title or "one line a trial", fontsize=10)
    for side in panel.spines.values():
        side.set_visible(False)
    figure.colorbar(colours, ax=panel, label="score")
    return figure
