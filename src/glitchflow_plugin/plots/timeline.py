"""Events and vetoes along GPS time."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.scale import LogScale

from glitchflow_plugin.plots.style import BLUE, GREEN, GREY, ORANGE, RED, Picture, new_figure, picture
from glitchflow_plugin.verdict import GLITCH_THRESHOLD

OUTCOMES: Mapping[str, tuple[str, str]] = {
    "cleaned": (GREEN, "o"),
    "not cleaned": (BLUE, "s"),
    "missed": (RED, "v"),
    "false alarm": (ORANGE, "^"),
    "quiet": (GREY, "."),
    "no strain": ("black", "x"),
}
"""What can come of an event (see `verdict.OUTCOMES`), with colour and marker."""

_UNITS = ((3 * 86400.0, 86400.0, "d"), (3 * 3600.0, 3600.0, "h"), (0.0, 1.0, "s"))


def time_unit(length: float) -> tuple[float, str]:
    """Seconds in the unit in which an axis of some length (s) is told, and its name."""
    return next((scale, unit) for least, scale, unit in _UNITS if length >= least)


@picture
def plot_timeline(
    gps: Float[np.ndarray, " event"],
    peaks: Float[np.ndarray, " event"],
    outcomes: np.ndarray,
    vetoes: Float[np.ndarray, "segment 2"],
    *,
    gps_zero: float,
    threshold: float = GLITCH_THRESHOLD,
) -> Picture:
    """Loudness and outcome of each event, and the vetoed segments, against time.

    Args:
        gps: Trigger times, GPS s.
        peaks: Largest energy, measured or, where nothing is, predicted, SNR².
        outcomes: Keys of `OUTCOMES`, shape (event,).
        vetoes: GPS start and end of each vetoed segment, s.
        gps_zero: Zero of the time axis, GPS s.
        threshold: Marked by a line, SNR².

    Returns:
        The figure.
    """
    scale, unit = time_unit(float(max([*gps, *vetoes.ravel()], default=gps_zero)) - gps_zero)
    figure = new_figure(12.0, 4.4)
    axes, lane = figure.subplots(2, 1, sharex=True, height_ratios=(8, 1))
    for name, (colour, marker) in OUTCOMES.items():
        chosen = outcomes == name
        if chosen.any():
            since = (gps[chosen] - gps_zero) / scale
            label = f"{name} ({int(chosen.sum())})"
            axes.scatter(since, np.maximum(peaks[chosen], 1.0), s=26, color=colour, marker=marker, label=label)
    axes.set_yscale(LogScale(axes.yaxis))
    axes.axhline(threshold, color="black", linewidth=0.8, linestyle=":", label=f"threshold, SNR² {threshold:g}")
    axes.set_ylabel("largest energy [SNR²]")
    axes.grid(alpha=0.3)
    axes.tick_params(labelbottom=False)
    figure.legend(loc="outside upper center", ncols=7, frameon=False, fontsize=9)
    starts, ends = (vetoes - gps_zero).T / scale
    # an edge keeps segments visible that are shorter than a pixel
    lane.broken_barh(list(zip(starts, ends - starts, strict=True)), (0, 1), facecolor=RED, edgecolor=RED, linewidth=0.8)
    lane.set_ylim(0, 1)
    lane.set_yticks([0.5], [f"vetoed ({len(vetoes)})"])
    lane.tick_params(axis="y", length=0)
    lane.set_xlabel(f"time from GPS {gps_zero:.0f} [{unit}]")
    return figure
