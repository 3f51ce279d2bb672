"""Classify: what a registered model says of the triggers in a store or in files of others."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from itwinai.components import BaseComponent, monitor_exec
from numpy.typing import NDArray

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.readers.segments import as_given, read_segments
from glitchflow_plugin.data.readers.tables import gps_nanoseconds, time_columns
from glitchflow_plugin.data.readers.trigger_files import table_columns, table_kind
from glitchflow_plugin.data.results import claim, name_of_path, place
from glitchflow_plugin.data.triggers.formats import store_triggers
from glitchflow_plugin.data.triggers.labels import loudest_times
from glitchflow_plugin.data.triggers.live import LiveTime
from glitchflow_plugin.data.triggers.store import MANIFEST_NAME, open_triggers, read_manifest
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.inference.classify_triggers import (
    OTHER_TIMES,
    TRUST,
    classified,
    known_labels,
    unknown_channels,
)
from glitchflow_plugin.models.triggers.bundle import TriggerModel
from glitchflow_plugin.products.classified import write_classified
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.products.veto_flag import flag_name, veto_flag
from glitchflow_plugin.products.veto_formats import write_flag
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import Fraction, NotNegative, built, section
from glitchflow_plugin.tracking.trigger_models import load_trigger_model
from glitchflow_plugin.tracking.versions import ModelVersion
from glitchflow_plugin.types.intervals import common, union
from glitchflow_plugin.types.plain import plain

STORE = "triggers"
"""Store below a result, of triggers that came in files of others."""


@section
class ClassifySettings:
    """What is asked and written; conf/triggers.yaml explains the keys."""

    false_alarm: Fraction = 0.01
    padding: NotNegative = 0.1
    vetoes: tuple[str, ...] = ("hdf5", "segwizard")
    csv: bool = True


class ClassifyTriggers(BaseComponent):
    """Ask a registered model about times.

    Args:
        settings: The keys of `classify.settings` in triggers.yaml.
        model: `name` and `version` (a number or an alias), used where no version comes from the step before.
        tracking_uri: Address of the registry.
        triggers: A store, or a file, folder or pattern in any format of triggers.
        folder: Below it everything goes, in a folder named after triggers and model.
        table: Name of the table within files of others.
        channel: Channel of their triggers, where they do not tell it.
        times: Table of the times that are asked about; None: the loudest triggers of the channels that the model knows.
        segments: Live time for the flag of vetoes; None: what lies beside a store.
        segments_flag: Name of the flag in such files where they hold several.
        series: Entries as in datasets.yaml: of what they hold, the page of the result has scans.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        settings: Mapping[str, object],
        model: Mapping[str, Any],
        tracking_uri: str,
        triggers: str,
        folder: str,
        *,
        table: str | None = None,
        channel: str | None = None,
        times: str | None = None,
        segments: object = None,
        segments_flag: str | None = None,
        series: Sequence[Mapping[str, Any]] = (),
        device: str = "auto",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.settings = built(ClassifySettings, settings, "triggers.classify.settings")
        self.model, self.tracking_uri, self.device = dict(model), tracking_uri, choose_device(device)
        check_name(str(self.model["name"]), "triggers.classify.model.name")
        self.triggers, self.folder, self.table, self.channel = triggers, Path(folder), table, channel
        self.times, self.segments_flag = times, segments_flag
        DatasetSettings.listed(series)  # what is wrong with them is told before work begins
        self.series = plain(series)
        self.segments = None if segments is None else as_given(segments)

    @monitor_exec
    @holding()
    def execute(self, version: ModelVersion | None = None) -> Path:
        """Ask, and write table, flag and summary; returns their folder."""
        started = now()
        asked = (self.model["name"], self.model["version"]) if version is None else (version.name, version.version)
        model, found = load_trigger_model(*asked, self.tracking_uri)
        label = f"{name_of_path(str(self.triggers))}-v{found.version}"
        self.what = {"model": found.name, "version": found.version, "triggers": str(self.triggers), "times": self.times}
        self.place = place(self.folder, label, self.what)
        return self._classify(model, found, started)

    @holding("place")
    def _classify(self, model: TriggerModel, version: ModelVersion, started: str) -> Path:
        claim(self.place, self.what, replace=True, section="triggers.classify")
        store, bad = self._store()
        channels = read_manifest(store).channels
        unknown = unknown_channels(model, channels, f"{version.name} version {version.version}", str(self.triggers))
        triggers = open_triggers(store)
        labels = known_labels(model)
        times = self._times(triggers, model.channels, labels.separation)
        paths, told = write_classified(
            classified(model, triggers, times, self.device), self.place, text=self.settings.csv
        )
        flags, live = self._flags(model, version, store, told)
        missing = sorted(set(model.channels) - set(channels))
        kinds = Counter(told["kind"].to_pylist()) if "kind" in told.column_names else Counter[str]()
        report(
            RunSummary(
                pipeline="triggers_pipeline/Classify",
                started=started,
                inputs={
                    "triggers": str(self.triggers),
                    "model": f"{version.name} version {version.version}",
                    "target": model.target,
                    "times": str(self.times or "the loudest triggers of the witnesses"),
                },
                events=EventCounts(sum(channels.values()) + sum(bad.values()), sum(channels.values()), bad),
                metrics={
                    "times": Metric(len(told)),
                    "glitches_expected": Metric(float(np.sum(told["glitch"].to_numpy()))),
                    **_vetoed(told, self.settings.false_alarm),
                    "channels_unknown": Metric(len(unknown)),
                    "triggers_unknown": Metric(sum(unknown.values())),
                    "channels_missing": Metric(len(missing)),
                },
                outputs={path.suffix[1:]: str(path) for path in paths}
                | {f"veto {kind}": ", ".join(map(str, files)) for kind, files in flags.items()},
                warnings=(
                    *_named(unknown, "channels that the model does not know count as UNKNOWN"),
                    *_named(missing, "channels of the model have no trigger here"),
                    *live,
                    *((OTHER_TIMES[labels.times],) if (labels.times == "witnesses") == bool(self.times) else ()),
                ),
                details={
                    "kinds": dict(sorted(kinds.items())),
                    "unknown_channels": unknown,
                    TRUST: model.notes.get(TRUST),  # a model of an earlier version has none
                    "series": self.series,
                },
            ),
            self.place,
        )
        return self.place

    def _store(self) -> tuple[Path, dict[str, int]]:
        """The triggers as a store, and by reason how many rows are none."""
        given = Path(self.triggers)
        if (given / MANIFEST_NAME).is_file():
            return given, {}
        recipe = {"source": str(self.triggers)}
        bad = store_triggers(self.triggers, self.place / STORE, recipe=recipe, table=self.table, channel=self.channel)
        return self.place / STORE, bad

    def _times(self, triggers: ds.Dataset, channels: Sequence[str], separation: float) -> NDArray[np.int64]:
        """Times that are asked about, rising, each once."""
        if self.times is not None:
            path = Path(self.times)
            columns = table_columns(path, table_kind(path, "auto"), None, lambda names: time_columns(names, path)[1])
            found = np.unique(gps_nanoseconds(columns, path))
        else:
            found = loudest_times(triggers, channels, separation)
        if not len(found):
            raise NoEventsError(f"{self.times or self.triggers} holds no time to ask about. Give other triggers.")
        return found

    def _flags(
        self, model: TriggerModel, version: ModelVersion, store: Path, told: pa.Table
    ) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
        """The flag of what ranks high, where it is known when the data were looked at; else why there is none."""
        settings, beside = self.settings, LiveTime.read(store)
        if not settings.vetoes or "false_alarm" not in told.column_names:
            return {}, ()
        if self.segments is not None:
            live = read_segments(self.segments, self.segments_flag)
        elif beside is not None:
            live = beside.segments
        else:
            return {}, ("no veto flag: it is not known when the data were looked at (triggers.classify.segments)",)
        false_alarm = told["false_alarm"].to_numpy()
        raised = told["time"].to_numpy()[false_alarm <= settings.false_alarm] / NANOSECONDS
        active = union(np.stack([raised - settings.padding, raised + settings.padding], axis=1))
        name = flag_name(model.target, version.name, version.version)
        words = f"false-alarm probability of {version.name} at most {settings.false_alarm:g}"
        flag = veto_flag(name, common(active, live), live, padding=settings.padding, description=words)
        none = (
            f"nothing is vetoed: no time has a false-alarm probability of at most {settings.false_alarm:g}; the least "
            f"is {false_alarm.min():.3g} (few blocks of validation vouch for no smaller one)",
        )
        files = {kind: write_flag(flag, self.place / "vetoes", "vetoes", kind) for kind in settings.vetoes}
        return files, () if len(raised) else none


def _vetoed(told: pa.Table, most: float) -> dict[str, Metric]:
    if "false_alarm" not in told.column_names:
        return {}
    return {"times_vetoed": Metric(float((told["false_alarm"].to_numpy() <= most).sum()))}


def _named(channels: Any, what: str) -> tuple[str, ...]:
    names = sorted(channels)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (f"{len(names)} {what}: {', '.join(names[:5])}{more}",) if names else ()
