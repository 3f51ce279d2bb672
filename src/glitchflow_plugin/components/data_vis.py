"""The step Data-Vis: a spectrogram set in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.results import claim, place
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.model_data import gps_of
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built


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

    @keeping_arguments
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
        self.shown = {"num_events": num_events, "num_channels": num_channels, "num_rows": num_rows}
        for key, value in self.shown.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"vis.yaml: {key} must be a whole number of at least 1, got {value!r}.")
        self.spectrograms_folder, self.folder = Path(spectrograms), Path(folder)
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
        from glitchflow_plugin.preprocessing.overview import show_set
        from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker

        started = now()
        claim(self.place, what)
        with TensorBoardTracker(self.place) as tracker:
            style = {"axis": self.pictures.frequency_axis, "classes": self.pictures.classes()}
            peaks = show_set(shown, tracker, **self.shown, **style)
        report(
            RunSummary(
                pipeline="vis_dts/Data-Vis",
                started=started,
                inputs={"spectrograms": str(shown.folder), "target": shown.target},
                events=EventCounts(read=len(shown), kept=len(shown)),
                metrics={
                    "events_shown": Metric(float(min(self.shown["num_events"], len(shown)))),
                    "channels_shown": Metric(float(min(self.shown["num_channels"], len(shown.channels)))),
                    "median_target_peak_snr2": Metric(float(np.median(peaks[:, 0]))),
                },
                outputs={"look at it with": f"tensorboard --logdir {self.place} --host 127.0.0.1 --port 6000"},
            ),
            self.place,
        )
