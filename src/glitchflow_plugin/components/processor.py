"""The step Processor: the windows to learn from, and how energies are scaled."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.reference_file import write_reference
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.splits import PARTS, Split
from glitchflow_plugin.data.training_set import TrainingSet, WindowSettings, index_windows
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.drift import ExceedanceCount, Reference
from glitchflow_plugin.signal.scaling import ScaleFit, Scaling, ScalingSettings
from glitchflow_plugin.signal.windows import window_starts


class Processor(BaseComponent):
    """Index the windows of a split, fit the scaling on its training events, and write both; no map is copied.

    Args:
        windows: The keys of windows.yaml.
        spectrograms: Folder of the spectrogram set.
        folder: Folder for the results; split.json is read there where no split comes from the step before.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(self, windows: Mapping[str, object], spectrograms: str, folder: str, name: str | None = None) -> None:
        super().__init__(name)
        self.settings = built(WindowSettings, windows, "windows")
        # a wrong clamp or quantile shall fail now, not after the steps before
        self.scaling = ScalingSettings(
            clamp=self.settings.clamp, quantile=self.settings.scale_quantile, transform=self.settings.transform
        )
        self.spectrograms_folder, self.folder = Path(spectrograms), Path(folder)

    @monitor_exec
    @holding("folder", reads=("spectrograms_folder",))
    def execute(self, split: Split | None = None) -> TrainingSet:
        """Make the index and the scaling, write them, and return the training set."""
        started = now()
        split = split or Split.open(self.folder)
        maps = SpectrogramSet.open(self.spectrograms_folder)
        if split.source.get("fingerprint") not in (None, maps.manifest.fingerprint):
            raise FormatError(
                f"the split was made for another spectrogram set than {maps.folder}. Run the Splitter again."
            )
        if len(maps.frequencies) != self.settings.size:
            raise FormatError(
                f"windows are square: expected maps of {self.settings.size} rows (windows.size), got "
                f"{len(maps.frequencies)} in {maps.folder}. Give maps.num_f_bins and windows.size the same value."
            )
        index = index_windows(maps, split, window_starts(len(maps.times), self.settings.size), self.settings)
        scaling, reference = self._fit(maps, split)
        training = TrainingSet(
            folder=self.folder,
            spectrograms=maps.folder,
            fingerprint=maps.manifest.fingerprint,
            split=split,
            windows=index,
            scaling=scaling.to_dict(),
            settings=self.settings,
        )
        # before the training set, whose description is written last
        write_reference(self.folder, reference.to_dict())
        training.save()
        counts = training.counts()
        report(
            RunSummary(
                pipeline="training_pipeline/Processor",
                started=started,
                inputs={"spectrograms": str(maps.folder), "witnesses": ", ".join(maps.channels[1:])},
                events=EventCounts.from_reasons(len(set(index["event_id"])), training.unused_events()),
                metrics={
                    f"{name}_{kind}_windows": Metric(float(counts[name][kind]))
                    for name in PARTS
                    for kind in ("glitch", "background")
                },
                outputs={"training set": str(self.folder)},
                warnings=self._warnings(split, counts),
            ),
            self.folder / "processor",
        )
        return training

    def _fit(self, maps: SpectrogramSet, split: Split) -> tuple[Scaling, Reference]:
        """Scales, and statistics to recognise drift by, from training events alone, a few in memory at a time."""
        rows = np.flatnonzero(np.isin(maps.event_ids, split.train.event_ids))
        fit, count = ScaleFit(maps.channels, self.scaling), ExceedanceCount(maps.channels)
        for first in range(0, len(rows), self.settings.batch_events):
            batch = maps.read(rows[first : first + self.settings.batch_events])
            fit.add(batch.maps, batch.valid)
            count.add(batch.maps, batch.valid)
        return fit.result(), count.reference()

    def _warnings(self, split: Split, counts: dict[str, dict[str, int]]) -> tuple[str, ...]:
        without = [name for name in PARTS if len(split.part(name)) and not counts[name]["glitch"]]
        if not without:
            return ()
        return (
            f"no window above SNR² {self.settings.threshold:g} in {', '.join(without)}: "
            "its share of cleaned glitches is undefined. Lower threshold in windows.yaml or bring more events.",
        )
