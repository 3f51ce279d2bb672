"""A spectrogram set in TensorBoard: maps of its first events, statistics by channel, and tables."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.plots.maps import FrequencyAxis, colour_image, energy_scale
from glitchflow_plugin.plots.spectrograms import plot_event, plot_peak_histograms
from glitchflow_plugin.plots.style import short_name
from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker, picture_name

#: Pixels of the shown image for one of the map.
_ENLARGED = 3

Peaks = Float[np.ndarray, "event channel"]
"""Largest energy of each map, SNR²."""


def show_set(
    shown: SpectrogramSet,
    tracker: TensorBoardTracker,
    *,
    num_events: int,
    num_channels: int,
    num_rows: int,
    axis: FrequencyAxis = "log",
    classes: Mapping[str, str] | None = None,
) -> Peaks:
    """Show a spectrogram set.

    Args:
        shown: The set.
        tracker: Where it is shown.
        num_events: Events with pictures, from the first on.
        num_channels: Channels with pictures, from the target on.
        num_rows: Events in the table.
        axis: Kind of the frequency axis.
        classes: Class of glitch by event id, in words.

    Returns:
        Largest energy of each map.
    """
    peaks = np.concatenate([batch.maps.max(axis=(2, 3)) for batch in shown.batches(16)])
    channels = shown.channels[:num_channels]
    for row in range(min(num_events, len(shown))):
        _show_event(shown, tracker, row, channels=channels, axis=axis, classes=classes or {})
    for column, channel in enumerate(shown.channels):
        tracker.histogram(f"peak energy/{channel}", peaks[shown.valid[:, column], column])
    tracker.figure("statistics/peak energy", plot_peak_histograms(peaks, shown.channels, valid=shown.valid), 0)
    _event_table(tracker, shown, peaks, num_rows=num_rows, num_pictures=num_events)
    _channel_table(tracker, shown, peaks)
    tracker.params({"recipe": shown.recipe, "set": {"folder": str(shown.folder), "events": len(shown)}})
    return peaks


def _show_event(
    shown: SpectrogramSet,
    tracker: TensorBoardTracker,
    row: int,
    *,
    channels: Sequence[str],
    axis: FrequencyAxis,
    classes: Mapping[str, str],
) -> None:
    batch = shown.read([row], channels)
    gps = float(batch.gps_event[0])
    figure = plot_event(
        batch.maps[0],
        channels,
        shown.frequencies,
        shown.times,
        gps_start=float(batch.gps_start[0]),
        gps_event=gps,
        event_id=batch.event_ids[0],
        label=classes.get(batch.event_ids[0], ""),
        valid=batch.valid[0],
        max_channels=len(channels),
        axis=axis,
    )
    tracker.figure(picture_name(row), figure, row, gps=gps)
    scale = energy_scale(batch.maps)
    for column, channel in enumerate(channels):
        pixels = colour_image(batch.maps[0, column], scale)
        large = pixels.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
        tracker.image(f"maps/{channel}", large, row, gps=gps)


def _event_table(
    tracker: TensorBoardTracker, shown: SpectrogramSet, peaks: Peaks, *, num_rows: int, num_pictures: int
) -> None:
    rows = []
    for row in range(min(num_rows, len(shown))):
        witness, loudest = "-", "-"
        if len(shown.channels) > 1:
            column = 1 + int(np.argmax(peaks[row, 1:]))
            witness, loudest = short_name(shown.channels[column], 30), f"{peaks[row, column]:.0f}"
        place = picture_name(row) if row < num_pictures else row
        gps, name = f"{shown.gps_event[row]:.3f}", short_name(shown.event_ids[row], 20)
        rows.append((place, gps, name, f"{peaks[row, 0]:.0f}", loudest, witness))
    columns = ("row", "GPS of trigger", "event", "SNR²", "witness", "loudest witness")
    note = (
        "SNR²: largest energy of the target and of the loudest witness. Row: name of the picture and step of the maps "
        f"under Images; a bare number has none. {len(rows)} of {len(shown)} events."
    )
    tracker.table("events", columns, rows, note)


def _channel_table(tracker: TensorBoardTracker, shown: SpectrogramSet, peaks: Peaks) -> None:
    rows = []
    for column, channel in enumerate(shown.channels):
        there = peaks[shown.valid[:, column], column]
        figures = (
            (f"{np.median(there):.1f}", f"{there.max():.0f}", f"{100 * np.mean(there > 16):.0f} %")
            if len(there)
            else "---"
        )
        role = "target" if column == 0 else "witness"
        rows.append((short_name(channel, 44), role, f"{len(there)} of {len(shown)}", *figures))
    columns = ("channel", "role", "valid", "median SNR²", "largest", "above 16")
    note = "SNR²: of the largest energy of each event, its median, its largest, and the share of events above 16."
    tracker.table("channels", columns, rows, note)
