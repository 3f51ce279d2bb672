"""Simulate: triggers of a detector with known truth, without samples."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
from itwinai.components import DataGetter, monitor_exec

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.triggers.store import LIVE_NAME, TRUTH_NAME
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation.trigger_level import TriggerLevelSettings, simulate_triggers


class SimulateTriggers(DataGetter):
    """Draw triggers of all channels, with the classes and SNRs of the strain's glitches beside them.

    Args:
        settings: The keys of `simulate` in triggers.yaml.
        folder: Where they go; triggers that are there are replaced.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(self, settings: Mapping[str, object], folder: str, name: str | None = None) -> None:
        super().__init__(name)
        self.settings, self.folder = built(TriggerLevelSettings, settings, "triggers.simulate"), Path(folder)

    @monitor_exec
    @holding("folder")
    def execute(self, _before: object = None) -> Path:
        """Draw them, and return their folder."""
        started = now()
        manifest = simulate_triggers(self.settings, self.folder)
        truth = pq.read_table(self.folder / TRUTH_NAME)
        report(
            RunSummary(
                pipeline="simulated_triggers_pipeline/Simulate",
                started=started,
                inputs={"seed": self.settings.seed, "seconds": self.settings.duration, "strain": self.settings.strain},
                events=EventCounts(manifest.rows, manifest.rows),
                metrics={
                    "channels": Metric(len(manifest.channels)),
                    "glitches": Metric(len(truth)),
                    "glitches_witnessed": Metric(float(truth["witnessed"].to_numpy().sum())),
                },
                outputs={
                    "triggers": str(self.folder),
                    "truth": str(self.folder / TRUTH_NAME),
                    "live time": str(self.folder / LIVE_NAME),
                },
                details={
                    "triggers_by_channel": manifest.channels,
                    "glitches_by_class": dict(sorted(Counter(truth["kind"].to_pylist()).items())),
                },
            ),
            self.folder,
        )
        return self.folder
