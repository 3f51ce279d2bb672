"""What a spectrogram set shows: its loudest events as pictures and a summary, or all of it in TensorBoard."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.data.sharded import EventSet, SpectrogramBatch, SpectrogramSet
from glitchflow_plugin.plots.maps import FrequencyAxis, colour_image, energy_scale
from glitchflow_plugin.plots.spectrograms import plot_event, plot_peak_histograms
from glitchflow_plugin.plots.style import Picture, short_name
from glitchflow_plugin.products.pictures import PictureSettings, save_figure
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
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
    peaks = map_peaks(shown)
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


def map_peaks(shown: SpectrogramSet) -> Peaks:
    """Largest energy of each map."""
    return np.concatenate([batch.maps.max(axis=(2, 3)) for batch in shown.batches(16)])


def draw_loudest(
    shown: SpectrogramSet, peaks: Peaks, folder: Path, count: int, pictures: PictureSettings
) -> list[Path]:
    """Draw the events that are loud in the strain and in a witness, which a network will have to learn.

    Args:
        shown: The set.
        peaks: From `map_peaks`.
        folder: Folder for the pictures, in place of those of before.
        count: How many events.
        pictures: How they look.

    Returns:
        The files.
    """
    for old in folder.glob("event-*.png"):
        old.unlink(missing_ok=True)
    loud = np.minimum(peaks[:, 0], peaks[:, 1:].max(axis=1)) if peaks.shape[1] > 1 else peaks[:, 0]
    look = {"axis": pictures.frequency_axis, "classes": pictures.classes()}
    return [
        save_figure(_event_figure(shown, shown.read([int(row)]), **look), folder / f"event-{place:02d}.png")
        for place, row in enumerate(np.argsort(-loud, kind="stable")[:count], start=1)
    ]


def set_summary(
    made: SpectrogramSet,
    events: EventSet,
    peaks: Peaks,
    pictures: Sequence[Path],
    *,
    warnings: Sequence[str],
    started: str,
) -> RunSummary:
    """What was made of an event set.

    Args:
        made: The spectrogram set.
        events: The event set.
        peaks: From `map_peaks`.
        pictures: From `draw_loudest`.
        warnings: What a user must know of the witnesses.
        started: When, ISO 8601, UTC.
    """
    return RunSummary(
        pipeline="preproc_pipeline/QT-dataset",
        started=started,
        inputs={"events": str(events.folder), "target": made.target, "channels": ", ".join(made.channels[1:])},
        events=EventCounts.from_reasons(len(made), made.manifest.rejected.values()),
        metrics={
            "channels": Metric(float(len(made.channels))),
            "rows": Metric(float(len(made.frequencies))),
            "columns": Metric(float(len(made.times))),
            "median_target_peak_snr2": Metric(float(np.median(peaks[:, 0]))),
        },
        outputs={"spectrograms": str(made.folder), "pictures": ", ".join(map(str, pictures))},
        warnings=tuple(warnings),
    )


def _event_figure(
    shown: SpectrogramSet,
    batch: SpectrogramBatch,
    *,
    axis: FrequencyAxis,
    classes: Mapping[str, str],
    channels: Sequence[str] | None = None,
) -> Picture:
    """The maps of one event; of so many channels as are drawn by default, or of those that are named."""
    some = {} if channels is None else {"max_channels": len(channels)}
    return plot_event(
        batch.maps[0],
        shown.channels if channels is None else channels,
        shown.frequencies,
        shown.times,
        gps_start=float(batch.gps_start[0]),
        gps_event=float(batch.gps_event[0]),
        event_id=batch.event_ids[0],
        label=classes.get(batch.event_ids[0], ""),
        valid=batch.valid[0],
        axis=axis,
        **some,
    )


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
    figure = _event_figure(shown, batch, axis=axis, classes=classes, channels=channels)
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
