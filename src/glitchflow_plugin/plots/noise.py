"""The noise of a detector before and after a subtraction: amplitude spectral density, and inspiral range over time."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.scale import LogScale

from glitchflow_plugin.plots.style import BLUE, GREY, ORANGE, Picture, new_figure, picture
from glitchflow_plugin.plots.timeline import time_unit
from glitchflow_plugin.signal.noise_change import BANDS

_SMALLEST_RATIO = 0.02
"""The panel of the ratio shows at least so much to either side of 1."""


@picture
def plot_noise(
    frequencies: Float[np.ndarray, " frequency"],
    before: Float[np.ndarray, " frequency"],
    after: Float[np.ndarray, " frequency"],
    span: Float[np.ndarray, "piece 2"],
    ranges: Float[np.ndarray, "piece 2"],
    *,
    strain: str,
) -> Picture:
    """Amplitude spectral density of quiet time with its ratio, and the range of each piece.

    Args:
        frequencies: Hz.
        before: Amplitude spectral density of the recorded strain in quiet time, 1/sqrt(Hz); zero where unknown.
        after: The same of the clean strain.
        span: Start and end of each piece, GPS s.
        ranges: Inspiral range before and after, Mpc; NaN where there is none.
        strain: Name of the channel.

    Returns:
        The figure.
    """
    figure = new_figure(12.0, 5.4)
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1), width_ratios=(1, 1.1))
    density = figure.add_subplot(grid[0, 0])
    ratio = figure.add_subplot(grid[1, 0], sharex=density)
    known = (frequencies >= BANDS[0]) & (before > 0)
    _draw_density(density, frequencies[known], before[known], after[known])
    _draw_ratio(ratio, frequencies[known], after[known] / before[known], float(frequencies[-1]))
    density.set_title(f"{strain}, quiet time", fontsize=10, loc="left")
    _draw_ranges(figure.add_subplot(grid[:, 1]), span, ranges)
    return figure


def _draw_density(axes: Axes, frequencies: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
    axes.set_ylabel("amplitude spectral density [1/√Hz]")
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.3)
    if not len(frequencies):
        axes.text(0.5, 0.5, "no quiet time", transform=axes.transAxes, ha="center", va="center")
        return
    axes.plot(frequencies, before, color=ORANGE, linewidth=1.6, label="recorded")
    axes.plot(frequencies, after, color=BLUE, linewidth=0.8, label="clean")
    axes.set_yscale(LogScale(axes.yaxis))
    axes.legend(frameon=False)


def _draw_ratio(axes: Axes, frequencies: np.ndarray, ratio: np.ndarray, highest: float) -> None:
    axes.axhline(1.0, color=GREY, linewidth=0.8)
    axes.plot(frequencies, ratio, color=BLUE, linewidth=0.8)
    away = max(_SMALLEST_RATIO, 1.1 * float(np.abs(ratio - 1).max(initial=0.0)))
    axes.set_ylim(1 - away, 1 + away)
    axes.set_xlim(BANDS[0], highest)
    axes.set_xscale(LogScale(axes.xaxis))
    axes.set_ylabel("clean / recorded")
    axes.set_xlabel("frequency [Hz]")
    axes.grid(alpha=0.3)


def _draw_ranges(axes: Axes, span: np.ndarray, ranges: np.ndarray) -> None:
    zero = float(span.min(initial=np.inf)) if len(span) else 0.0
    scale, unit = time_unit(float(span.max(initial=zero)) - zero)
    for row, (label, colour, width) in enumerate((("recorded", ORANGE, 2.4), ("clean", BLUE, 1.2))):
        # a gap between two pieces is no line
        times = np.column_stack([span, span[:, 1]]).ravel()
        values = np.column_stack([ranges[:, row], ranges[:, row], np.full(len(ranges), np.nan)]).ravel()
        axes.plot((times - zero) / scale, values, color=colour, linewidth=width, label=label)
    axes.set_title("glitches included", fontsize=10, loc="left")
    axes.set_ylabel("range of 1.4 + 1.4 solar masses at SNR 8 [Mpc]")
    axes.set_xlabel(f"time from GPS {zero:.0f} [{unit}]")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    if not np.isfinite(ranges).any():
        axes.text(0.5, 0.5, "no range: the strain does not reach 2048 Hz", transform=axes.transAxes, ha="center")
