"""The step Data-Vis: a spectrogram set in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.data.results import claim, place
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.fresh import gps_of
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.settings import built

if TYPE_CHECKING:
    from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker

#: Pixels of the shown image for one of the map.
_ENLARGED = 3


class DataVis(BaseComponent):
    """Show maps, statistics by channel and a table of the events in TensorBoard.

    Args:
        spectrograms: Folder of the spectrogram set, used where no set comes from a step before.
        folder: TensorBoard's folder; each set gets one of its own below it, named after its GPS seconds.
        num_events: How many events are shown as images, from the first on.
        num_channels: How many channels are shown as images, from the target on.
        num_rows: How many events the table lists.
        pictures: The keys of pictures.yaml.
        name: Name of the step.
    """

    def __init__(
        self,
        spectrograms: str,
        folder: str,
        *,
        num_events: int = 12,
        num_channels: int = 16,
        num_rows: int = 500,
        pictures: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.save_parameters(
            spectrograms=spectrograms,
            folder=folder,
            num_events=num_events,
            num_channels=num_channels,
            num_rows=num_rows,
            pictures=pictures,
            name=name,
        )
        for key, value in (("num_events", num_events), ("num_channels", num_channels), ("num_rows", num_rows)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"vis.yaml: {key} must be a whole number of at least 1, got {value!r}.")
        self.spectrograms_folder, self.folder = Path(spectrograms), Path(folder)
        self.num_events, self.num_channels, self.num_rows = num_events, num_channels, num_rows
        self.pictures = built(PictureSettings, pictures, "pictures")

    @monitor_exec
    @holding()
    def execute(self, spectrograms: SpectrogramSet | None = None) -> SpectrogramSet:
        """Write the TensorBoard folder and return the set."""
        shown = spectrograms or SpectrogramSet.open(self.spectrograms_folder)
        what = {"data": shown.manifest.fingerprint}
        self.place = place(self.folder, gps_of(shown), what)
        self._show(shown, what)
        return shown

    @holding("place")
    def _show(self, shown: SpectrogramSet, what: dict[str, str]) -> None:
        from glitchflow_plugin.plots.spectrograms import plot_peak_histograms
        from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker

        started = now()
        claim(self.place, what)
        peaks = np.concatenate([batch.maps.max(axis=(2, 3)) for batch in shown.batches(16)])
        with TensorBoardTracker(self.place) as tracker:
            self._show_events(shown, tracker)
            for column, channel in enumerate(shown.channels):
                tracker.histogram(f"peak energy/{channel}", peaks[shown.valid[:, column], column])
            tracker.figure("statistics/peak energy", plot_peak_histograms(peaks, shown.channels, valid=shown.valid), 0)
            _event_table(tracker, shown, peaks, self.num_rows, self.num_events)
            _channel_table(tracker, shown, peaks)
            tracker.params({"recipe": shown.recipe, "set": {"folder": str(shown.folder), "events": len(shown)}})
        report(
            RunSummary(
                pipeline="vis_dts/Data-Vis",
                started=started,
                inputs={"spectrograms": str(shown.folder), "target": shown.target},
                events=EventCounts(read=len(shown), kept=len(shown)),
                metrics={
                    "events_shown": Metric(float(min(self.num_events, len(shown)))),
                    "channels_shown": Metric(float(min(self.num_channels, len(shown.channels)))),
                    "median_target_peak_snr2": Metric(float(np.median(peaks[:, 0]))),
                },
                outputs={"look at it with": f"tensorboard --logdir {self.place} --host 127.0.0.1 --port 6000"},
            ),
            self.place,
        )

    def _show_events(self, shown: SpectrogramSet, tracker: "TensorBoardTracker") -> None:
        from glitchflow_plugin.plots.maps import colour_image, energy_scale
        from glitchflow_plugin.plots.spectrograms import plot_event
        from glitchflow_plugin.tracking.tensorboard import picture_name

        classes = self.pictures.classes()
        channels = shown.channels[: self.num_channels]
        for step in range(min(self.num_events, len(shown))):
            batch = shown.read([step], channels)
            figure = plot_event(
                batch.maps[0],
                channels,
                shown.frequencies,
                shown.times,
                gps_start=float(batch.gps_start[0]),
                gps_event=float(batch.gps_event[0]),
                event_id=batch.event_ids[0],
                label=classes.get(batch.event_ids[0], ""),
                valid=batch.valid[0],
                max_channels=len(channels),
                axis=self.pictures.frequency_axis,
            )
            tracker.figure(picture_name(step), figure, step, gps=float(batch.gps_event[0]))
            scale = energy_scale(batch.maps)
            for column, channel in enumerate(channels):
                pixels = colour_image(batch.maps[0, column], scale)
                large = pixels.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
                tracker.image(f"maps/{channel}", large, step, gps=float(batch.gps_event[0]))


def _event_table(
    tracker: "TensorBoardTracker", shown: SpectrogramSet, peaks: np.ndarray, num_rows: int, num_pictures: int
) -> None:
    from glitchflow_plugin.plots.style import short_name
    from glitchflow_plugin.tracking.tensorboard import picture_name

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


def _channel_table(tracker: "TensorBoardTracker", shown: SpectrogramSet, peaks: np.ndarray) -> None:
    from glitchflow_plugin.plots.style import short_name

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
