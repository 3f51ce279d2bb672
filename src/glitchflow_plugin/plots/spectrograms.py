"""Pictures of Q-transform maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.scale import LogScale

from glitchflow_plugin.plots.maps import FrequencyAxis, draw_map, energy_bar, energy_scale, frequency_axis
from glitchflow_plugin.plots.style import BLUE, GREY, RED, Picture, new_figure, picture, short_name
from glitchflow_plugin.signal.columns import Columns


@picture
def plot_event(
    maps: np.ndarray,
    channels: Sequence[str],
    frequencies: np.ndarray,
    times: np.ndarray,
    *,
    gps_start: float,
    gps_event: float,
    event_id: str = "",
    label: str = "",
    valid: np.ndarray | None = None,
    max_channels: int = 12,
    axis: FrequencyAxis = "log",
) -> Picture:
    """All channels of one event on one colour scale, the target first.

    Args:
        maps: Energy in SNR², shape (channel, frequency, time).
        channels: Channel names, target first.
        frequencies: Hz, shape (frequency,).
        times: s from `gps_start`, shape (time,).
        gps_start: GPS time of the left edge, s.
        gps_event: Trigger time, GPS s; the zero of the time axis.
        event_id: For the title.
        label: Class of the glitch, for the title; empty where unknown.
        valid: False for channels without data, shape (channel,).
        max_channels: With more channels, only the first so many are shown.
        axis: Axis of frequency.

    Returns:
        The figure.
    """
    shown = min(len(channels), max_channels)
    figure, panels, columns = _grid(shown, width=3.6, height=2.1, sharey=True)
    scale = energy_scale(maps[:shown])
    columns_shown = Columns(times, start=gps_start - gps_event)
    for index, panel in enumerate(panels):
        draw_map(panel, maps[index], frequencies, columns_shown, scale)
        _name(panel, channels[index], target=index == 0)
        if valid is not None and not valid[index]:
            panel.text(0.5, 0.5, "not valid", transform=panel.transAxes, ha="center", va="center", color="white")
        frequency_axis(panel, frequencies, axis)
        if index % columns:
            panel.set_ylabel("")
    energy_bar(figure, scale, ax=figure.axes, fraction=0.04, pad=0.01)
    figure.supxlabel(f"time from GPS {gps_event:.3f} [s]", fontsize=10)
    left_out = f"{shown} of {len(channels)} channels" if shown < len(channels) else ""
    # Events cut at trigger times are named by them; say it once.
    named = "" if event_id.startswith(f"{gps_event:.3f}") else short_name(event_id, 60)
    figure.suptitle(", ".join(filter(None, (named, f"GPS {gps_event:.3f}", label, left_out))), fontsize=11)
    return figure


@picture
def plot_peak_histograms(
    peaks: np.ndarray, channels: Sequence[str], *, valid: np.ndarray | None = None, max_channels: int = 12
) -> Picture:
    """How loud the channels get: histograms of the largest pixel of each map.

    Args:
        peaks: Largest energy, SNR², shape (event, channel).
        channels: Channel names, target first.
        valid: False where there are no data, shape (event, channel).
        max_channels: With more channels, only the first so many are shown.

    Returns:
        The figure.
    """
    shown = min(len(channels), max_channels)
    figure, panels, columns = _grid(shown, width=3.4, height=1.9, sharey=False)
    edges = np.geomspace(1.0, max(float(peaks.max(initial=0.0)), 100.0) * 1.01, 31)
    for index, panel in enumerate(panels):
        column = peaks[:, index] if valid is None else peaks[valid[:, index], index]
        panel.hist(np.maximum(column, 1.0), bins=edges.tolist(), color=BLUE if index == 0 else GREY)
        panel.set_xscale(LogScale(panel.xaxis))
        _name(panel, channels[index], target=index == 0)
        panel.spines[["top", "right"]].set_visible(False)
        if index % columns == 0:
            panel.set_ylabel("events", fontsize=9)
    figure.align_ylabels()
    figure.supxlabel("largest normalized energy in the map [SNR²]", fontsize=10)
    left_out = f", {shown} of {len(channels)} channels" if shown < len(channels) else ""
    figure.suptitle(f"Largest energy by channel, {len(peaks)} events{left_out}", fontsize=11)
    return figure


def _grid(number: int, *, width: float, height: float, sharey: bool) -> tuple[Picture, list[Axes], int]:
    """So many panels in rows of equal height; those of an incomplete last row are left empty. And the columns."""
    columns = 1 if number == 1 else 2 if number <= 4 else 3
    rows = -(-number // columns)
    figure = new_figure(width * columns + 1.4, height * rows + 0.9)
    panels = figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False).ravel()
    for panel in panels[number:]:
        panel.remove()
    for panel in panels[:number]:
        # every panel has its numbers: a panel above an empty place would be read without
        panel.tick_params(labelsize=8, labelbottom=True)
    return figure, list(panels[:number]), columns


def _name(panel: Axes, channel: str, *, target: bool) -> None:
    panel.set_title(
        f"{short_name(channel)}{'  (target)' if target else ''}", fontsize=9, color=RED if target else "black"
    )
