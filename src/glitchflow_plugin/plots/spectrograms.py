"""Pictures of Q-transform maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from glitchflow_plugin.plots.style import (
    BLUE,
    ENERGY_COLOURS,
    ENERGY_FLOOR,
    ENERGY_LABEL,
    GREY,
    RED,
    energy_scale,
    frequency_axis,
    new_figure,
    short_name,
)


def plot_event(
    maps: np.ndarray,
    channels: Sequence[str],
    frequencies: np.ndarray,
    times: np.ndarray,
    *,
    gps_start: float,
    gps_event: float,
    event_id: str = "",
    valid: np.ndarray | None = None,
    max_channels: int = 12,
) -> Figure:
    """All channels of one event on one colour scale, the target first.

    Args:
        maps: Energy in SNR², shape (channel, frequency, time).
        channels: Channel names, target first.
        frequencies: Hz, shape (frequency,).
        times: s from `gps_start`, shape (time,).
        gps_start: GPS time of the left edge, s.
        gps_event: Trigger time, GPS s; the zero of the time axis.
        event_id: For the title.
        valid: False for channels without data, shape (channel,).
        max_channels: With more channels, only the first so many are shown.

    Returns:
        The figure.
    """
    shown = min(len(channels), max_channels)
    columns = 1 if shown == 1 else 2 if shown <= 4 else 3
    rows = -(-shown // columns)
    figure = new_figure(3.6 * columns + 1.4, 2.2 * rows + 0.7)
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
    scale = energy_scale(maps[:shown])
    since = times + (gps_start - gps_event)
    mesh = None
    for index, panel in enumerate(panels):
        if index >= shown:
            panel.remove()
            continue
        floor = np.maximum(maps[index], ENERGY_FLOOR)
        mesh = panel.pcolormesh(
            since, frequencies, floor, norm=scale, cmap=ENERGY_COLOURS, shading="nearest", rasterized=True
        )
        role = "  (target)" if index == 0 else ""
        panel.set_title(f"{short_name(channels[index])}{role}", fontsize=9, color=RED if index == 0 else "black")
        if valid is not None and not valid[index]:
            panel.text(0.5, 0.5, "not valid", transform=panel.transAxes, ha="center", va="center", color="white")
        frequency_axis(panel, frequencies)
        panel.tick_params(labelsize=8)
        if index % columns:
            panel.set_ylabel("")
        if index + columns >= shown:
            panel.set_xlabel(f"time from GPS {gps_event:.3f} (s)", fontsize=8)
            panel.tick_params(labelbottom=True)
    if mesh is not None:
        figure.colorbar(mesh, ax=list(panels[:shown]), label=ENERGY_LABEL, fraction=0.04, pad=0.01)
    left_out = f" ({shown} of {len(channels)} channels)" if shown < len(channels) else ""
    # Events cut at trigger times are named by them; say it once.
    named = "" if event_id.startswith(f"{gps_event:.3f}") else event_id
    figure.suptitle(f"{named}  GPS {gps_event:.3f}{left_out}".strip(), fontsize=11)
    return figure


def plot_peak_histograms(
    peaks: np.ndarray, channels: Sequence[str], *, valid: np.ndarray | None = None, max_channels: int = 12
) -> Figure:
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
    columns = 1 if shown == 1 else 2 if shown <= 4 else 3
    rows = -(-shown // columns)
    figure = new_figure(3.4 * columns + 0.6, 1.9 * rows + 0.8)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    top = max(float(peaks.max(initial=0.0)), 100.0)
    edges = np.geomspace(1.0, top * 1.01, 31)
    for index, panel in enumerate(panels):
        if index >= shown:
            panel.remove()
            continue
        column = peaks[:, index] if valid is None else peaks[valid[:, index], index]
        panel.hist(np.maximum(column, 1.0), bins=edges, color=BLUE if index == 0 else GREY)
        panel.set_xscale("log")
        panel.set_title(f"{short_name(channels[index])}{'  (target)' if index == 0 else ''}", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        if index % columns == 0:
            panel.set_ylabel("events", fontsize=8)
        if index + columns >= shown:
            panel.set_xlabel("largest energy (SNR²)", fontsize=8)
            panel.tick_params(labelbottom=True)
    figure.suptitle(f"Largest energy by channel, {len(peaks)} events", fontsize=11)
    return figure
