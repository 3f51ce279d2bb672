"""Label: times with a glitch in the strain, of which class, and quiet times beside them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from itwinai.components import BaseComponent, monitor_exec
from numpy.typing import NDArray

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.files import sha256
from glitchflow_plugin.data.readers.segments import as_given, read_segments
from glitchflow_plugin.data.triggers.classes import classes_near, read_classes
from glitchflow_plugin.data.triggers.labelled import Labelled, LabelledSet, chosen_target
from glitchflow_plugin.data.triggers.labels import LabelSettings, label_times, loudest_times
from glitchflow_plugin.data.triggers.live import LiveTime
from glitchflow_plugin.data.triggers.store import TRUTH_NAME, open_triggers, read_manifest
from glitchflow_plugin.data.triggers.table import in_order
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built


class LabelTriggers(BaseComponent):
    """Label times by the triggers of the strain; other channels say at most which times these are.

    Args:
        settings: The keys of `label.settings` in triggers.yaml.
        triggers: Folder of the store, used where none comes from the step before.
        folder: Where the labelled times go.
        target: Channel of the strain; None: the one whose live time lies beside the store.
        segments: Live time of the strain, as of `find.segments`; None: what lies beside the store.
        segments_flag: Name of the flag in such files where they hold several.
        classes: Table with times and classes of glitches; None: `truth.parquet` beside the store, if it is there.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        settings: Mapping[str, object],
        triggers: str,
        folder: str,
        *,
        target: str | None = None,
        segments: object = None,
        segments_flag: str | None = None,
        classes: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.settings = built(LabelSettings, settings, "triggers.label.settings")
        self.triggers, self.folder, self.target, self.classes = Path(triggers), Path(folder), target, classes
        self.segments, self.segments_flag = None if segments is None else as_given(segments), segments_flag

    @monitor_exec
    @holding("folder", reads=("triggers",))
    def execute(self, triggers: Path | None = None) -> LabelledSet:
        """Label the times and write them."""
        started, settings = now(), self.settings
        store = Path(triggers or self.triggers)
        manifest, known = read_manifest(store), LiveTime.read(store)
        target = chosen_target(self.target, None if known is None else known.target, manifest.channels, store)
        if self.segments is not None:
            live = read_segments(self.segments, self.segments_flag)
        elif known is not None and known.target == target:
            live = known.segments
        else:
            raise ConfigurationError(
                f"{store} does not tell when {target} was looked at, and where it was not nothing is quiet. Give its "
                "science segments: triggers.label.segments."
            )
        strain = in_order(open_triggers(store).to_table(filter=pc.field("channel") == target))
        time = strain["time"].to_numpy()
        source = self._classes(store)
        kinds = np.full(len(time), "", dtype="U1")
        if source is not None:
            kinds = classes_near(time, *read_classes(source), settings.class_within)
        asked = None
        if settings.times == "witnesses":
            others = [one for one in manifest.channels if one != target]
            asked = loudest_times(open_triggers(store), others, settings.separation)
        times = label_times(time, strain["snr"].to_numpy(), kinds, live, settings, asked=asked)
        record = Labelled(
            str(store),
            manifest.fingerprint,
            target,
            settings.block_length,
            settings={
                "label": asdict(settings),
                "live": live.tolist(),
                "classes": None if source is None or not source.is_file() else sha256(source),
            },
        )
        labelled = record.write(self.folder, times)
        counts = Counter(times.kind[times.glitch].tolist())
        unknown = counts.pop("", 0)
        report(
            RunSummary(
                pipeline="triggers_pipeline/Label",
                started=started,
                inputs={
                    "triggers": str(store),
                    "target": target,
                    "classes": str(source) if source else "none",
                    "live seconds": float(np.diff(live, axis=1).sum()),
                },
                events=_counts(strain["snr"].to_numpy(), int(times.glitch.sum()), settings),
                metrics={
                    "glitch_times": Metric(float(times.glitch.sum())),
                    "quiet_times": Metric(float((~times.glitch).sum())),
                    "blocks": Metric(len(np.unique(times.group))),
                    "classes": Metric(len(counts)),
                },
                outputs={"times": str(self.folder)},
                warnings=(f"{unknown} of {times.glitch.sum()} glitches have no class",) if unknown and source else (),
                details={"glitches_by_class": dict(sorted(counts.items()))},
            ),
            self.folder,
        )
        return labelled

    def _classes(self, store: Path) -> Path | None:
        if self.classes is not None:
            return Path(self.classes)
        truth = store / TRUTH_NAME
        return truth if truth.is_file() else None


def _counts(snr: NDArray[np.float64], glitches: int, settings: LabelSettings) -> EventCounts:
    """Triggers of the strain, and why those that are no glitch are none."""
    faint = int((snr < settings.snr).sum())
    rest = "near a louder one, or without live time"
    if settings.times == "witnesses":
        rest = f"no time of witnesses within {settings.coincidence:g} s, {rest}"
    reasons = {f"SNR below {settings.snr:g}": faint, rest: len(snr) - faint - glitches}
    return EventCounts(len(snr), glitches, {reason: number for reason, number in reasons.items() if number})
