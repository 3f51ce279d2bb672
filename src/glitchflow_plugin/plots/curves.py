"""Accuracy against threshold, ROC and confusion counts, each beside its baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from glitchflow_plugin.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Picture, new_figure, picture
from glitchflow_plugin.verdict import GLITCH_THRESHOLD

COLOURS = (BLUE, ORANGE, GREY, GREEN, RED, PURPLE)
"""Of curves in their order."""


@dataclass(frozen=True, eq=False)
class Band:
    """A curve with its uncertainty; NaN where undefined, which leaves a gap.

    Attributes:
        value: (threshold,).
        low: Lower end, (threshold,); NaN for no band.
        high: Upper end, (threshold,).
    """

    value: Float[np.ndarray, " threshold"]
    low: Float[np.ndarray, " threshold"]
    high: Float[np.ndarray, " threshold"]


@picture
def plot_accuracy(
    thresholds: Float[np.ndarray, " threshold"],
    cleaned: Mapping[str, Band],
    veto: Mapping[str, Band],
    *,
    glitch_threshold: float = GLITCH_THRESHOLD,
    title: str = "",
) -> Picture:
    """Share of glitches cleaned and balanced veto accuracy against the SNR² threshold.

    Args:
        thresholds: SNR².
        cleaned: Curve by name, the model first, then its baselines.
        veto: The same for the veto.
        glitch_threshold: Marked by a line, SNR².
        title: Above both.

    Returns:
        The figure.
    """
    figure = new_figure(11.0, 4.6)
    left, right = figure.subplots(1, 2, sharey=True)
    figure.suptitle(title or "Accuracy against threshold, bands: 95 % bootstrap by group")
    _bands(left, thresholds, cleaned)
    _bands(right, thresholds, veto)
    left.set_title("cleaned: nothing above the threshold is left, and no energy was added", fontsize=10)
    left.set_ylabel("share of the events with a glitch")
    right.set_title("veto: balanced accuracy, glitches within their time", fontsize=10)
    right.set_ylabel("share of the events judged rightly")
    for axes in (left, right):
        label = f"threshold of a glitch, SNR² {glitch_threshold:g}"
        axes.axvline(glitch_threshold, color="black", linewidth=0.8, linestyle=":", label=label)
        axes.set_xlabel("threshold [SNR²]")
        axes.set_ylim(-0.03, 1.03)
        axes.tick_params(labelleft=True)
        axes.grid(alpha=0.3)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


@picture
def plot_roc(
    curves: Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]],
    areas: Mapping[str, float | None],
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    glitch_threshold: float = GLITCH_THRESHOLD,
) -> Picture:
    """Hit rate against false-alarm rate of the veto.

    Args:
        curves: (false-alarm rate, hit rate) by name, the model first; may be empty when only one class exists.
        areas: Area under each curve, None where undefined.
        points: (false-alarm rate, hit rate) of the veto at the glitch threshold, by name.
        glitch_threshold: SNR² that defines a glitch.

    Returns:
        The figure.
    """
    figure = new_figure(5.2, 4.8)
    axes = figure.subplots()
    for (name, (false_alarms, hits)), colour in zip(curves.items(), COLOURS, strict=False):
        area = areas.get(name)
        label = name if area is None else f"{name}, area {area:.3f}"
        axes.plot(false_alarms, hits, color=colour, label=label)
        if points and name in points:
            axes.plot(*points[name], "o", color=colour, markersize=6)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="chance")
    if not curves:
        axes.text(0.5, 0.6, "events with and without a glitch are needed", ha="center")
    axes.set_xlabel("false-alarm rate (quiet events that are vetoed)")
    axes.set_ylabel("hit rate (glitches that are vetoed within their time)")
    axes.set_title(f"Veto of glitches above SNR² {glitch_threshold:g}; dots: veto at this threshold", fontsize=10)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    return figure


@picture
def plot_confusion(
    *, hits: int, misses: int, false_alarms: int, correct_rejections: int, glitch_threshold: float = GLITCH_THRESHOLD
) -> Picture:
    """Counts of events by measurement (rows) and veto (columns).

    Args:
        hits: Glitch, vetoed within its time.
        misses: Glitch, not vetoed.
        false_alarms: No glitch, vetoed.
        correct_rejections: No glitch, not vetoed.
        glitch_threshold: SNR² of both.

    Returns:
        The figure.
    """
    counts = np.array([[hits, misses], [false_alarms, correct_rejections]])
    names = (("hits", "misses"), ("false alarms", "correct rejections"))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = new_figure(4.6, 3.8)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.4)
    for row in range(2):
        for column in range(2):
            text = f"{names[row][column]}\n{counts[row, column]}\n({100 * shares[row, column]:.1f} %)"
            axes.text(column, row, text, ha="center", va="center")
    axes.set_xticks([0, 1], ["vetoed", "not vetoed"])
    axes.set_yticks([0, 1], ["glitch", "no glitch"])
    axes.set_xlabel("predicted from the witnesses")
    axes.set_ylabel("measured in the strain")
    axes.set_title(f"Events at SNR² {glitch_threshold:g}; shares by row", fontsize=10)
    return figure


def _bands(axes: Axes, thresholds: np.ndarray, curves: Mapping[str, Band]) -> None:
    for (name, band), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(thresholds, band.value, color=colour, label=name)
        if np.isfinite(band.low).any():
            axes.fill_between(thresholds, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
