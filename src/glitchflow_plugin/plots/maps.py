"""What all pictures of Q-transform maps share: colours, colour bar, frequency and time axis."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.scale import LogScale
from matplotlib.ticker import LogLocator

from glitchflow_plugin.signal.columns import Columns

#: Perceptually uniform and safe for colour-blind readers.
ENERGY_COLOURS = "viridis"
#: Energies below this are noise; white noise has median 1.
ENERGY_FLOOR = 1.0
ENERGY_LABEL = "normalized energy [SNR²]"

FrequencyAxis = Literal["log", "linear"]


def energy_scale(maps: np.ndarray) -> LogNorm:
    """Logarithmic colour scale from the noise's median to the peak, but never shorter than up to 30."""
    peak = float(np.nanmax(maps)) if np.size(maps) else 0.0
    return LogNorm(ENERGY_FLOOR, max(peak, 30.0), clip=True)


def energy_bar(figure: Figure, norm: LogNorm, **place: Any) -> None:
    """A colour bar of energies.

    Args:
        figure: Where.
        norm: The colour scale.
        place: `ax` or `cax` and what else `Figure.colorbar` takes.
    """
    mappable = ScalarMappable(norm, ENERGY_COLOURS)
    figure.colorbar(mappable, label=ENERGY_LABEL, format="{x:g}", ticks=LogLocator(subs=(1.0, 3.0)), **place)


def draw_map(
    axes: Axes,
    energy: Float[np.ndarray, "frequency time"],
    frequencies: Float[np.ndarray, " frequency"],
    columns: Columns,
    norm: LogNorm,
    *,
    judged: Bool[np.ndarray, "frequency time"] | None = None,
) -> QuadMesh:
    """Draw a map over the time of its columns; each row reaches half-way to its neighbours.

    Args:
        axes: Where; its horizontal axis becomes that of the columns.
        energy: SNR².
        frequencies: Centres of the rows, Hz.
        columns: Columns of the map.
        norm: The colour scale.
        judged: Pixels that are judged; the others are dimmed.
    """
    edges = columns.edges, centred_edges(frequencies)
    floored = np.maximum(energy, ENERGY_FLOOR)
    # pcolormesh keeps the axes true on any spacing of the rows, where imshow would stretch them
    drawn = axes.pcolormesh(*edges, floored, norm=norm, cmap=ENERGY_COLOURS, rasterized=True)
    if judged is not None and not judged.all():
        veil = np.ma.masked_array(np.full(judged.shape, 0.5), mask=judged)
        axes.pcolormesh(*edges, veil, cmap="gray", vmin=0, vmax=1, alpha=0.6, rasterized=True)
    axes.set_xlim(edges[0][0], edges[0][-1])
    return drawn


def frequency_axis(axes: Axes, frequencies: Sequence[float] | np.ndarray, kind: FrequencyAxis = "log") -> None:
    """Label the vertical axis in Hz, from the lowest to the highest row."""
    if kind == "log":
        axes.set_yscale(LogScale(axes.yaxis))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    if len(frequencies) > 1:
        axes.set_ylim(frequencies[0], frequencies[-1])
    axes.set_ylabel("frequency [Hz]")


def centred_edges(centres: Float[np.ndarray, " centre"]) -> Float[np.ndarray, " edge"]:
    """Edges of cells from their centres, half-way on the axis that is evenly spaced (linear or logarithmic).

    >>> centred_edges(np.array([10.0, 20.0, 30.0])).tolist()
    [5.0, 15.0, 25.0, 35.0]
    """
    steps = np.diff(centres)
    logarithmic = centres[0] > 0 and not np.allclose(steps, steps[0])
    places = np.log(centres) if logarithmic else np.asarray(centres)
    middle = 0.5 * (places[1:] + places[:-1])
    edges = np.concatenate([[2 * places[0] - middle[0]], middle, [2 * places[-1] - middle[-1]]])
    return np.exp(edges) if logarithmic else edges


def colour_image(maps: np.ndarray, scale: LogNorm) -> np.ndarray:
    """Energies as colours without axes, for viewers that show bare images.

    Args:
        maps: Energy in SNR², shape (frequency, time), lowest frequency first.
        scale: Colour scale.

    Returns:
        Red, green and blue, uint8, shape (frequency, time, 3), highest frequency in the first row.
    """
    colours = colormaps[ENERGY_COLOURS](scale(np.maximum(maps[::-1], ENERGY_FLOOR)))
    return np.round(np.asarray(colours)[..., :3] * 255).astype(np.uint8)
