"""The step Processor: the windows to learn from, and how energies are scaled."""

from collections.abc import Mapping
from pathlib import Path

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.splits import Split
from glitchflow_plugin.data.training_set import TrainingSet, WindowSettings
from glitchflow_plugin.preprocessing.training_windows import make_training_set, scaling_of, training_summary
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built


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
        scaling_of(self.settings)  # a wrong clamp or quantile shall fail now, not after the steps before
        self.spectrograms_folder, self.folder = Path(spectrograms), Path(folder)

    @monitor_exec
    @holding("folder", reads=("spectrograms_folder",))
    def execute(self, split: Split | None = None) -> TrainingSet:
        """Make the index and the scaling, write them, and return the training set."""
        started = now()
        split = split or Split.open(self.folder)
        maps = SpectrogramSet.open(self.spectrograms_folder)
        training = make_training_set(maps, split, self.settings, self.folder)
        report(training_summary(training, started), self.folder / "processor")
        return training
