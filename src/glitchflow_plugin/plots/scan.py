"""Pictures of a channel scan."""

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from glitchflow_plugin.plots.style import BLUE, GREY, ORANGE, RED, new_figure, short_name


def plot_ranking(
    channels: Sequence[str],
    values: np.ndarray,
    *,
    threshold: float,
    selected: Collection[str],
    quantity: str,
    target: str,
    chance: np.ndarray | None = None,
    unsafe: Collection[str] = (),
    max_channels: int = 30,
) -> Figure:
    """Channels as horizontal bars, best first, with the threshold and the selected ones in colour.

    Args:
        channels: Channel names.
        values: One value a channel, between 0 and 1; NaN = no information, shown as such at the end.
        threshold: Drawn as a line.
        selected: Names of the selected channels.
        quantity: What the values are, for the axis.
        target: The reference channel, for the title.
        chance: Value expected by accident, one a channel, drawn as ticks.
        unsafe: Names of channels that see the strain itself, marked as such.
        max_channels: With more channels, only the best so many are shown and the others are counted.

    Returns:
        The figure.
    """
    values = np.asarray(values, dtype=np.float64)
    order = np.argsort(-np.nan_to_num(values, nan=-1.0), kind="stable")
    shown = order[:max_channels]
    figure = new_figure(9.0, 1.6 + 0.26 * max(len(shown), 4))
    axes = figure.add_subplot()
    rows = np.arange(len(shown))
    known = np.isfinite(values[shown])
    colours = [BLUE if channels[index] in selected else GREY for index in shown]
    axes.barh(rows, np.where(known, values[shown], 0.0), color=colours, height=0.72)
    axes.axvline(threshold, color=RED, linewidth=1.4, linestyle="--")
    handles = [
        Patch(color=BLUE, label=f"selected ({len(selected)})"),
        Patch(color=GREY, label=f"not selected ({len(channels) - len(selected)})"),
        Line2D([], [], color=RED, linewidth=1.4, linestyle="--", label=f"threshold {threshold:g}"),
    ]
    if chance is not None and np.isfinite(chance).any():
        axes.scatter(chance[shown], rows, marker="|", s=70, linewidths=2.0, color=ORANGE, zorder=3)
        tick = {"marker": "|", "markersize": 9, "markeredgewidth": 2.0, "linestyle": "none"}
        handles.append(Line2D([], [], color=ORANGE, label="by chance", **tick))
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}  # the threshold may lie there
    for row, index in enumerate(shown):
        if known[row]:
            text = f"{values[index]:.2f}{'  unsafe' if channels[int(index)] in unsafe else ''}"
            place = max(values[index], chance[index] if chance is not None and np.isfinite(chance[index]) else 0.0)
        else:
            text, place = "no information", 0.0
        axes.text(place + 0.012, row, text, va="center", fontsize=8, color="0.25", bbox=behind)
    axes.set_yticks(rows, [short_name(channels[int(index)]) for index in shown], fontsize=8)
    axes.set_ylim(max(len(shown), 4) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel(quantity)
    hidden = len(channels) - len(shown)
    more = f"; best {len(shown)} of {len(channels)} channels" if hidden else ""
    axes.set_title(f"Coincidence with {target}{more}", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure
