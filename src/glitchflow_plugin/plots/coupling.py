"""How the strain follows each witness along GPS time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.plots.style import BLUE, GREY, RED, Picture, new_figure, picture, short_name

#: Gains beyond these are drawn at the edge.
_LIMITS = (-3.0, 4.0)


@dataclass(frozen=True, eq=False)
class WitnessHistory:
    """Gains of one witness.

    Attributes:
        name: Name of the witness.
        gps: Time of each event, GPS s.
        gain: 1 where the strain holds just what is predicted.
        error: Standard deviation of each gain.
        ordinary: Range of ordinary events; None where it is not known.
        stopped_after: GPS s of the event with which it was stopped; None where it goes on.
    """

    name: str
    gps: Float[np.ndarray, " event"]
    gain: Float[np.ndarray, " event"]
    error: Float[np.ndarray, " event"]
    ordinary: tuple[float, float] | None
    stopped_after: float | None


@picture
def plot_coupling(histories: Sequence[WitnessHistory], *, gps_zero: float) -> Picture:
    """Gain of each witness in the strain, event by event, with the range of ordinary events and when it was stopped.

    Args:
        histories: One panel each.
        gps_zero: Zero of the time axis, GPS s.
    """
    figure = new_figure(10.0, 0.8 + 1.5 * max(1, len(histories)))
    panels = figure.subplots(max(1, len(histories)), 1, sharex=True, squeeze=False)[:, 0]
    for axes, history in zip(panels, histories, strict=False):
        since, gain = history.gps - gps_zero, np.clip(history.gain, *_LIMITS)
        if history.ordinary is not None:
            axes.axhspan(*history.ordinary, color=GREY, alpha=0.35, linewidth=0, label="ordinary")
        axes.axhline(0.0, color="black", linewidth=0.6)
        axes.errorbar(since, gain, history.error, fmt="o", markersize=3, linewidth=0.8, color=BLUE, label="gain")
        if history.stopped_after is not None:
            axes.axvline(history.stopped_after - gps_zero, color=RED, label="stopped")
        axes.set_ylim(_LIMITS[0] - 0.2, _LIMITS[1] + 0.2)
        axes.set_title(short_name(history.name, 60), fontsize=9, loc="left")
        axes.legend(loc="upper right", ncols=3, fontsize=7, frameon=False)
    figure.supylabel("gain in the strain, 1: as predicted", fontsize=9)
    panels[-1].set_xlabel(f"time from GPS {gps_zero:.0f} [s]")
    return figure
