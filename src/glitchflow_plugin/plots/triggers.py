"""Pictures of triggers."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.scale import LogScale
from matplotlib.ticker import LogLocator

from glitchflow_plugin.data.triggers.glitchgram import Glitchgram
from glitchflow_plugin.plots.style import BLUE, Picture, new_figure, picture, short_name
from glitchflow_plugin.plots.timeline import time_unit


@picture
def plot_glitchgram(found: Glitchgram, channel: str, *, threshold: float) -> Picture:
    """Triggers of a channel as Omicron's pages show them: in time and frequency, their rate, and how loud they are.

    Args:
        found: The triggers in bins.
        channel: Its name.
        threshold: Least SNR that was looked for.

    Returns:
        The figure.
    """
    scale, unit = time_unit(float(found.times[-1] - found.times[0]))
    since = (found.times - found.times[0]) / scale
    figure = new_figure(13.0, 5.4)
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1), width_ratios=(2.4, 1))
    where = figure.add_subplot(grid[0, 0])
    rate = figure.add_subplot(grid[1, 0], sharex=where)
    loud = figure.add_subplot(grid[:, 1])
    norm = LogNorm(threshold, max(4 * threshold, float(found.loudest.max(initial=0.0))), clip=True)
    shown = np.ma.masked_equal(found.loudest, 0.0)
    drawn = where.pcolormesh(since, found.frequencies, shown, norm=norm, cmap="viridis", rasterized=True)
    where.set_yscale(LogScale(where.yaxis))
    where.set_ylabel("frequency [Hz]")
    where.tick_params(labelbottom=False)
    where.set_title(f"{short_name(channel, 60)}: {int(found.counts.sum())} triggers", fontsize=10, loc="left")
    figure.colorbar(drawn, ax=where, label="SNR of the loudest", format="{x:g}", ticks=LogLocator(subs=(1.0, 2.0, 5.0)))
    rate.stairs(found.counts / np.diff(found.times), since, color=BLUE, fill=True)
    rate.set_ylabel("rate [Hz]")
    rate.set_xlabel(f"time from GPS {found.times[0]:.0f} [{unit}]")
    rate.set_xlim(since[0], since[-1])
    _draw_loudness(loud, found, threshold)
    return figure


def _draw_loudness(axes: Axes, found: Glitchgram, threshold: float) -> None:
    told = found.louder > 0
    axes.set_xlabel("SNR")
    axes.set_ylabel("triggers at least as loud")
    axes.grid(alpha=0.3)
    if not told.any():
        axes.text(0.5, 0.5, "no triggers", transform=axes.transAxes, ha="center", va="center")
        return
    axes.step(found.snrs[told], found.louder[told], where="post", color=BLUE)
    axes.set_xscale(LogScale(axes.xaxis))
    axes.set_yscale(LogScale(axes.yaxis))
    axes.set_xlim(left=threshold)
