"""The step Splitter: training, validation, gate and test events, kept apart by group and in time."""

from collections.abc import Mapping
from pathlib import Path

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.split_drawing import make_split, share_warnings
from glitchflow_plugin.data.splits import PARTS, Split, SplitSettings
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.columns import Columns


class Splitter(BaseComponent):
    """Divide the events of a spectrogram set and write split.json.

    Args:
        split: The keys of split.yaml.
        spectrograms: Folder of the spectrogram set, used where no set comes from the step before.
        folder: Folder for split.json.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(self, split: Mapping[str, object], spectrograms: str, folder: str, name: str | None = None) -> None:
        super().__init__(name)
        self.settings = built(SplitSettings, split, "split")
        self.spectrograms_folder, self.folder = Path(spectrograms), Path(folder)

    @monitor_exec
    @holding("folder")
    def execute(self, spectrograms: SpectrogramSet | None = None) -> Split:
        """Divide the events, write the split, and return it."""
        started = now()
        maps = spectrograms or SpectrogramSet.open(self.spectrograms_folder)
        span = Columns(maps.times).duration
        split = make_split(
            maps.event_ids,
            maps.gps_start,
            maps.gps_start + span,
            maps.gps_event,
            settings=self.settings,
            groups=maps.groups,
            source={"folder": str(maps.folder), "fingerprint": maps.manifest.fingerprint},
        )
        path = split.save(self.folder)
        report(
            RunSummary(
                pipeline="training_pipeline/Splitter",
                started=started,
                inputs={"spectrograms": str(maps.folder)},
                events=EventCounts(read=len(maps), kept=len(maps)),
                metrics={
                    f"{what}_{name}": Metric(float(count))
                    for name in PARTS
                    for what, count in (
                        ("events", len(split.part(name))),
                        ("groups", split.part(name).num_groups(split.block_length)),
                    )
                },
                outputs={"split": str(path)},
                warnings=share_warnings(split, self.settings),
            ),
            self.folder / "splitter",
        )
        return split
