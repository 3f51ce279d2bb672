"""What cleaning does to signals: SNR before and after, and its change against the distance to the nearest glitch."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.plots.style import BLUE, GREEN, GREY, ORANGE, Picture, new_figure, picture

_MARKERS = ("o", "s", "^", "D", "v")
_PLACES = {"quiet": BLUE, "beside": GREEN, "near": ORANGE}


@picture
def plot_recovered(
    found: Mapping[str, Mapping[str, tuple[Float[np.ndarray, " signal"], Float[np.ndarray, " signal"]]]],
    *,
    threshold: float,
) -> Picture:
    """SNR of each signal after cleaning against that before, plain and punished for chi-squared.

    Args:
        found: By panel (what is shown of the SNR) and place the values before and after.
        threshold: SNR from which a signal is found.
    """
    figure = new_figure(5.2 * len(found), 5.0)
    for axes, (panel, parts) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        values = np.concatenate([np.empty(0), *(each for pair in parts.values() for each in pair)])
        ends = max(float(values.min(initial=threshold)), 0.5) / 1.2, float(values.max(initial=threshold)) * 1.2
        for (place, (before, after)), marker in zip(parts.items(), _MARKERS, strict=False):
            axes.plot(
                *(np.maximum(before, ends[0]), np.maximum(after, ends[0])),
                color=_PLACES.get(place, GREY),
                marker=marker,
                linestyle="none",
                markersize=4,
                label=f"{place} ({len(before)})",
            )
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.axvline(threshold, color="black", linewidth=0.5, linestyle=":")
        axes.axhline(threshold, color="black", linewidth=0.5, linestyle=":")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
        axes.set_xlabel(f"{panel} before")
        axes.set_ylabel(f"{panel} after")
        if parts:
            axes.legend(loc="upper left")
    return figure


@picture
def plot_change(
    changes: Mapping[str, tuple[Float[np.ndarray, " signal"], Float[np.ndarray, " signal"]]],
    *,
    near: float,
    quiet: float,
) -> Picture:
    """Change of the SNR of signals against their distance to the nearest glitch.

    Args:
        changes: By kind of signal the distance, s, and the change, %.
        near: Distance up to which a signal is near, s.
        quiet: Distance from which it is in quiet data, s.
    """
    figure = new_figure(8.0, 4.6)
    axes = figure.subplots()
    # before anything is drawn: margins are those of the scale
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=1.0)
    far = max([quiet, *(float(distance[np.isfinite(distance)].max(initial=0)) for distance, _ in changes.values())])
    for (kind, (distance, change)), marker, colour in zip(
        changes.items(), _MARKERS, (BLUE, ORANGE, GREEN, GREY), strict=False
    ):
        shown = np.clip(distance, near / 10, 2 * far)
        axes.plot(shown, change, color=colour, marker=marker, linestyle="none", markersize=4, label=kind)
    axes.axhline(0, color="black", linewidth=0.8)
    for place in (near, quiet):
        axes.axvline(place, color="black", linewidth=0.5, linestyle=":")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"distance to the nearest glitch [s]; up to {near / 10:g} s at the left end")
    axes.set_ylabel("change of the SNR by cleaning [%]")
    if changes:
        axes.legend()
    return figure
