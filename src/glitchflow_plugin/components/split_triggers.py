"""Split: labelled times in training, validation and test, whole blocks of GPS time in each."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.triggers.labelled import LabelledSet
from glitchflow_plugin.data.triggers.labels import PARTS, TriggerSplitSettings, split_times
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built


class SplitTriggers(BaseComponent):
    """Divide labelled times.

    Args:
        settings: The keys of `split` in triggers.yaml.
        times: Folder of the labelled times, used where none come from the step before.
        folder: Where the divided times go.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(self, settings: Mapping[str, object], times: str, folder: str, name: str | None = None) -> None:
        super().__init__(name)
        self.settings = built(TriggerSplitSettings, settings, "triggers.split")
        self.times, self.folder = Path(times), Path(folder)

    @monitor_exec
    @holding("folder", reads=("times",))
    def execute(self, labelled: LabelledSet | None = None) -> LabelledSet:
        """Divide the times and write them."""
        started = now()
        given = labelled or LabelledSet.open(self.times)
        before = given.record
        times = split_times(given.times(), before.block_length, self.settings)
        record = replace(before, settings={**before.settings, "split": asdict(self.settings)})
        divided = record.write(self.folder, times)
        near = int((times.part == "").sum())
        report(
            RunSummary(
                pipeline="triggers_pipeline/Split",
                started=started,
                inputs={"times": str(given.folder)},
                events=EventCounts(
                    len(times), len(times) - near, {"near a block of another part": near} if near else {}
                ),
                metrics={
                    name: Metric(float(count))
                    for part in PARTS
                    for own in [times.of(part)]
                    for name, count in (
                        (f"glitch_times_{part}", own.glitch.sum()),
                        (f"quiet_times_{part}", (~own.glitch).sum()),
                        (f"blocks_{part}", len(np.unique(own.group))),
                    )
                },
                outputs={"times": str(self.folder)},
            ),
            self.folder,
        )
        return divided
