"""The look that all figures share: readable in print, on screen and by colour-blind readers.

Figures are made through matplotlib's object interface: no pyplot, no global state, so that figures made in several
threads or processes do not meet.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

#: Colours that stay apart for colour-blind readers (Okabe and Ito, https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#9A9A9A",
)
#: Perceptually uniform and safe for colour-blind readers.
ENERGY_COLOURS = "viridis"
#: Energies below this are noise; white noise has median 1.
ENERGY_FLOOR = 1.0
ENERGY_LABEL = "energy (SNR²)"


def new_figure(width: float = 8.0, height: float = 4.5) -> Figure:
    """An empty figure, sizes in inches, whose parts find their own places."""
    return Figure(figsize=(width, height), layout="constrained")


def energy_scale(maps: np.ndarray, *, ceiling: float | None = None) -> LogNorm:
    """Logarithmic colour scale from the noise's median to the peak, but never shorter than up to 30."""
    peak = float(np.nanmax(maps)) if ceiling is None and np.size(maps) else float(ceiling or 0.0)
    return LogNorm(ENERGY_FLOOR, max(peak, 30.0), clip=True)


def frequency_axis(axes: Axes, frequencies: Sequence[float] | np.ndarray) -> None:
    """Label the vertical axis in Hz, logarithmic if the frequencies are."""
    spacing = np.diff(np.asarray(frequencies, dtype=np.float64))
    if len(spacing) and spacing[-1] > 1.5 * spacing[0]:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("frequency (Hz)")


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


def short_name(channel: str, length: int = 34) -> str:
    """A channel name that fits beside a plot: the middle gives way, since both ends tell channels apart."""
    if len(channel) <= length:
        return channel
    head = (length - 1) // 2
    return f"{channel[:head]}…{channel[-(length - 1 - head) :]}"
