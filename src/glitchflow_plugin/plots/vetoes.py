"""What vetoes are worth: efficiency against deadtime, and whether false alarms are as often as they are said to be."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.plots.curves import COLOURS, Band
from glitchflow_plugin.plots.style import BLUE, Picture, new_figure, picture


@dataclass(frozen=True, eq=False)
class VetoCurve:
    """Efficiency by deadtime of one kind of veto.

    Attributes:
        deadtime: Share of the live time, (threshold,).
        efficiency: Share of the glitches, with its band, (threshold,).
    """

    deadtime: Float[np.ndarray, " threshold"]
    efficiency: Band


@picture
def plot_veto_efficiency(
    curves: Mapping[str, VetoCurve], *, written: tuple[float, float] | None = None, half: float = 0.5
) -> Picture:
    """Share of the glitches that are vetoed against the share of the time that this takes.

    Args:
        curves: By name, the model first.
        written: Deadtime and efficiency of the vetoes as they are written.
        half: Efficiency at which they are compared.
    """
    figure = new_figure(7.5, 5.6)
    axes = figure.subplots()
    shares = np.geomspace(1e-4, 1, 100)
    axes.plot(shares, shares, color="black", linestyle=":", linewidth=1, label="at random: efficiency = deadtime")
    axes.plot(shares, np.minimum(10 * shares, 1), color="black", linestyle="--", linewidth=0.8, label="ten times that")
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        taken = curve.deadtime > 0
        axes.plot(curve.deadtime[taken], curve.efficiency.value[taken], color=colour, linewidth=1.5, label=name)
        axes.fill_between(
            curve.deadtime[taken], curve.efficiency.low[taken], curve.efficiency.high[taken], color=colour, alpha=0.15
        )
    if written is not None:
        axes.plot(*written, marker="o", linestyle="none", color=COLOURS[0], label="vetoes as written")
    axes.axhline(half, color="black", linewidth=0.5)
    axes.set_xscale("log")
    axes.set_xlim(1e-3, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("deadtime: share of the live time that is vetoed")
    axes.set_ylabel("efficiency: share of the glitches that are vetoed")
    axes.set_title("Vetoes; bands: 95 % bootstrap by group", fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


@picture
def plot_reliability(claimed: Float[np.ndarray, " level"], observed: Band) -> Picture:
    """Share of clean time that claims a false-alarm probability or a smaller one, against this probability.

    Args:
        claimed: False-alarm probability.
        observed: Share of clean time, with its band.
    """
    figure = new_figure(5.6, 5.2)
    axes = figure.subplots()
    axes.plot([1e-4, 1], [1e-4, 1], color="black", linestyle=":", label="as often as said")
    shown = observed.value > 0
    errors = np.stack([observed.value - observed.low, observed.high - observed.value])[:, shown].clip(min=0)
    axes.errorbar(claimed[shown], observed.value[shown], errors, color=BLUE, marker="o", capsize=3, label="model")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("false-alarm probability that is claimed")
    axes.set_ylabel("share of clean time that claims this or less")
    axes.set_title("False alarms; bars: 95 % bootstrap by group", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
