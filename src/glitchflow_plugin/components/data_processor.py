"""Data-processor: from what detectors write to the event set."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from itwinai.components import DataGetter, monitor_exec

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.preprocessing.channel_recipe import whitening_of
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.ingest import IngestSettings, ingest, jitter_lacking
from glitchflow_plugin.preprocessing.quality import QUALITY_NAME, RECORDS_NAME, read_quality
from glitchflow_plugin.products.summary import EventCounts, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built


class DataProcessor(DataGetter):
    """Read, condition and store the events of the data sets.

    Args:
        datasets: The list in datasets.yaml.
        folder: Folder for the event set.
        whiten: The keys of whiten.yaml.
        ingest: How the work is divided: `shard_size`.
        engine: The keys of engine.yaml, or an engine's name.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        datasets: Sequence[Mapping[str, object]],
        folder: str,
        whiten: Mapping[str, object] | None = None,
        ingest: Mapping[str, object] | None = None,
        *,
        engine: Mapping[str, object] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        # Built here so that a misspelt key ends the pipeline before its first step runs.
        self.datasets = DatasetSettings.listed(datasets)
        self.folder, self.whiten = Path(folder), whiten
        whitening_of(whiten)
        self.settings, self.engine = built(IngestSettings, ingest, "ingest"), EngineSettings.of(engine)

    @monitor_exec
    @holding("folder")
    def execute(self, _before: object = None) -> EventSet:
        """Make the event set, or what a killed run left to make of it, and return its handle."""
        started = now()
        size = self.settings.shard_size
        events = ingest(self.datasets, self.whiten, self.folder, engine=self.engine, shard_size=size)
        report(_summary(events, self.datasets, started), self.folder)
        return events


def _summary(events: EventSet, datasets: Sequence[DatasetSettings], started: str) -> RunSummary:
    quality = read_quality(events.folder)
    labels = [label for label in events.groups if label]
    return RunSummary(
        pipeline="preproc_pipeline/Data-processor",
        started=started,
        inputs={
            "datasets": [str(entry.path or entry.format) for entry in datasets],
            "target": events.target,
            "channels": len(events.channels),
            "channels masked in all events": len(quality.never_usable),
            "groups": f"{len(set(labels))}, of {len(labels)} events" if labels else "no labels: GPS blocks",
            **{f"triggers of data set {number}": str(one) for number, one in enumerate(quality.triggers, 1)},
        },
        events=EventCounts(quality.events_read, quality.events_kept, quality.events_rejected),
        outputs={
            "event set": str(events.folder),
            "quality": str(events.folder / QUALITY_NAME),
            "quality by event": str(events.folder / RECORDS_NAME),
        },
        warnings=(*quality.warnings(), *jitter_lacking(events)),
        details={"triggers": [asdict(one) for one in quality.triggers]} if quality.triggers else {},
    )
