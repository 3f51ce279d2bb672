"""Retrain: looks whether the latest events have drifted away from the champion's training data, and trains if so."""

import logging
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._drift import drift_metrics, drift_or_refuse, drift_warnings
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.components.load_infdata import EVENTS, make_maps
from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.buffer import buffered_events, is_event_set, pin_events
from glitchflow_plugin.data.files import content_hash, read_json, read_record, write_json
from glitchflow_plugin.data.names import LONGEST_MODEL, check_alias, check_name
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.splits import Split, SplitSettings
from glitchflow_plugin.errors import (
    ConfigurationError,
    ConnectionFailedError,
    GlitchflowError,
    RegistryError,
)
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.drift import DriftReport, DriftSettings
from glitchflow_plugin.training.retraining import RetrainSettings

if TYPE_CHECKING:
    from glitchflow_plugin.models.bundle import ModelBundle
    from glitchflow_plugin.tracking.versions import ModelVersion

logger = logging.getLogger(__name__)

STATUS_NAME = "status.json"
_PLAN = "plan.json"
#: A cycle that has failed so often is given up, and the next run begins a new one with fresh events. Failures of the
#: registry do not count.
_MOST_ATTEMPTS = 3


class Retrain(BaseComponent):
    """Check the latest events for drift; where there is some, split, process, train, and let the gate decide.

    It needs nobody who watches: two at once are impossible, a killed run continues with the events that it began with,
    and status.json says what was done and why.

    Args:
        retrain: The keys of retrain.yaml.
        registry: The keys of registry.yaml; its champion is compared with and, perhaps, replaced.
        folder: For everything that is made.
        split: The keys of split.yaml.
        windows: The keys of windows.yaml.
        trainer: Arguments of the Trainer but for folders and registry.
        engine: Where the shards are made: the keys of engine.yaml, or an engine's name.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        name: Of the step.
    """

    def __init__(
        self,
        retrain: Mapping[str, Any],
        registry: Mapping[str, Any],
        folder: str,
        *,
        split: dict[str, Any],
        windows: dict[str, Any],
        trainer: dict[str, Any],
        engine: Mapping[str, Any] | str | None = None,
        device: str = "auto",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.save_parameters(
            retrain=retrain,
            registry=registry,
            folder=folder,
            split=split,
            windows=windows,
            trainer=trainer,
            engine=engine,
            device=device,
            name=name,
        )
        self.settings = built(RetrainSettings, retrain, "retrain")
        self.drift = built(DriftSettings, self.settings.drift, "retrain.drift")
        check_name(registry["name"], "registry.yaml: name", LONGEST_MODEL)
        check_alias(registry.get("alias", "champion"), "registry.yaml: alias")
        if trainer.get("run_name") is not None:
            check_name(str(trainer["run_name"]), "run_name")
        self.registry, self.folder, self.trainer = dict(registry), Path(folder), dict(trainer)
        self.split, self.windows, self.device = split, windows, device
        self.engine = EngineSettings.of(engine)
        self.split_settings = built(SplitSettings, split, "split")
        if self.settings.max_events < self._needed_events:
            raise ConfigurationError(
                f"retrain.yaml: with max_events {self.settings.max_events} the gate can never decide. "
                f"{self._needed()} Raise max_events or split.gate."
            )

    @monitor_exec
    @holding("folder", together=False)
    def execute(self) -> RunSummary:
        """Do what is to be done, and say it.

        Raises:
            GlitchflowError: Another run is at it, or what the steps raise. The next run continues.
        """
        status = {"state": "running", "started": now(), "pid": os.getpid()}
        try:
            summary = self._run(status)
        except GlitchflowError as error:
            if isinstance(error, ConnectionFailedError | RegistryError) and "attempt" in status:
                self._uncount()
            self._say({**status, "state": "failed", "finished": now(), "reason": str(error)})
            raise
        return report(summary, self.folder)

    @property
    def cycle(self) -> Path:
        """Folder of what belongs to one set of events."""
        return self.folder / "cycle"

    def _run(self, status: dict[str, Any]) -> RunSummary:
        from glitchflow_plugin.tracking.registry import load
        from glitchflow_plugin.tracking.versions import find

        uri, before = self.registry["tracking_uri"], self._status()
        champion = find(self.registry["name"], self.registry.get("alias", "champion"), uri)
        plan = self._plan(before)
        if plan is None:
            events = buffered_events(self.settings.buffer, self.settings.max_events)
            buffer = content_hash(events)
            if len(events) < self.settings.min_events:
                reason = f"{len(events)} events in the buffer, at least {self.settings.min_events} are needed"
                return self._end(status, champion, "wait", reason, EventCounts(len(events), 0))
            if len(events) < self._needed_events and not self.settings.force:
                reason = f"{len(events)} events in the buffer are too few for the gate to decide. {self._needed()}"
                return self._end(status, champion, "wait", reason, EventCounts(len(events), 0))
            same = before.get("buffer") == buffer and before.get("champion") == champion.version
            if same and not self.settings.force:
                reason = "no new event and no new champion since the last run"
                return self._end({**status, "buffer": buffer}, champion, "wait", reason, EventCounts(len(events), 0))
            plan = self._begin(buffer)
        status |= {"buffer": plan["buffer"], "attempt": plan["attempts"]}
        self._say(status)
        bundle = load(champion.name, champion.version, uri)
        maps, counts, quality = self._maps(bundle)
        drift, warnings = None, quality
        decision, reason = "train", "forced"
        if not self.settings.force:
            drift = drift_or_refuse(maps, bundle.witnesses, bundle.notes, self.drift)
            warnings = (*quality, *drift_warnings(drift))
            drifted = [channel.channel for channel in drift.drifted]
            decision = "train" if drifted else "keep"
            reason = f"drifted: {', '.join(drifted)}" if drifted else "no channel has drifted"
        if decision == "keep":
            return self._end(status, champion, decision, reason, counts, drift=drift, warnings=warnings)
        split = self._split(maps)
        groups = split.gate.num_groups(split.block_length)
        if groups < self._min_groups:
            few = f"with {groups} groups in its part the gate could promote nothing. {self._needed()}"
            if not self.settings.force:
                return self._end(
                    status, champion, "wait", f"{reason}; but {few}", counts, drift=drift, warnings=warnings
                )
            logger.warning("Training all the same (retrain.force): %s", few)
        self._say({**status, "decision": decision, "reason": reason})
        version = self._train(maps, split)
        return self._end(status, champion, decision, reason, counts, drift=drift, warnings=warnings, version=version)

    @property
    def _min_groups(self) -> int:
        """Groups of events below which the gate promotes nothing."""
        from glitchflow_plugin.training.gate import GateSettings

        return built(GateSettings, self.registry.get("gate"), "registry.gate").min_groups

    @property
    def _needed_events(self) -> int:
        """Events of which the gate's part has enough groups, if each is a group of its own."""
        share = self.split_settings.gate
        # shares such as 0.15 are not exact: 50 / 0.25 shall not become 201
        return math.ceil(self._min_groups / share - 1e-9) if share else self.settings.max_events + 1

    def _needed(self) -> str:
        return (
            f"It needs {self._min_groups} independent groups (registry.gate.min_groups) in a share of "
            f"{self.split_settings.gate:g} (split.gate)"
            + (f": {self._needed_events} events or more." if self.split_settings.gate else ".")
        )

    def _plan(self, before: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a killed or failed run had begun; None if nothing is to be continued."""
        path = self.cycle / _PLAN
        if before.get("state") not in ("running", "failed") or not path.exists():
            return None
        plan = self._read_plan()
        if plan["attempts"] >= _MOST_ATTEMPTS:
            logger.warning("The last run failed %d times: beginning anew with the latest events.", plan["attempts"])
            return None
        plan["attempts"] += 1
        write_json(path, plan)
        logger.info("Continuing a run that did not end (attempt %d)", plan["attempts"])
        return plan

    def _read_plan(self) -> dict[str, Any]:
        return asdict(read_record(self.cycle / _PLAN, _Plan, "Retrain"))

    def _uncount(self) -> None:
        """Take an attempt back: a registry that is away must not cost a twin that is trained."""
        plan = self._read_plan()
        write_json(self.cycle / _PLAN, {**plan, "attempts": plan["attempts"] - 1})

    def _begin(self, buffer: str) -> dict[str, Any]:
        shutil.rmtree(self.cycle, ignore_errors=True)
        pin_events(self.settings.buffer, self.cycle / "buffer", self.settings.max_events)
        plan = {"buffer": buffer, "attempts": 1}
        write_json(self.cycle / _PLAN, plan)
        return plan

    def _maps(self, bundle: "ModelBundle") -> tuple[SpectrogramSet, EventCounts, tuple[str, ...]]:
        """The events through the champion's recipe, so that both can be judged on the same maps."""
        pinned = self.cycle / "buffer"
        return make_maps(
            bundle,
            EventSet.open(pinned) if is_event_set(pinned) else [{"path": str(pinned)}],
            self.cycle,
            engine=self.engine,
            device=choose_device(self.device, self.engine),
            require_target=True,
        )

    def _split(self, maps: SpectrogramSet) -> Split:
        return Splitter(self.split, str(maps.folder), str(self.cycle / "training")).execute(maps)

    def _train(self, maps: SpectrogramSet, split: Split) -> "ModelVersion | None":
        from glitchflow_plugin.components.trainer import Trainer

        training, checkpoints, outbox = self.cycle / "training", self.cycle / "checkpoints", self.cycle / "outbox"
        windows = Processor(self.windows, str(maps.folder), str(training)).execute(split)
        if checkpoints.exists():
            # what a run could not register is made again from the checkpoint, and then compared with the champion
            shutil.rmtree(outbox, ignore_errors=True)
        pinned = self.cycle / "buffer"
        trainer = Trainer(
            **self.trainer,
            folder=str(training),
            events=str(pinned if is_event_set(pinned) else self.cycle / EVENTS),
            checkpoints=str(checkpoints),
            registry={**self.registry, "outbox": str(outbox)},
            resume=True,
        )
        return trainer.execute(windows)

    def _end(
        self,
        status: Mapping[str, Any],
        champion: "ModelVersion",
        decision: str,
        reason: str,
        counts: EventCounts,
        *,
        drift: DriftReport | None = None,
        warnings: tuple[str, ...] = (),
        version: "ModelVersion | None" = None,
    ) -> RunSummary:
        made = (
            None
            if version is None
            else {"version": version.version, "promoted": version.promoted, "reason": version.reason}
        )
        promoted = version is not None and version.promoted
        # the next failure must not take this finished cycle for one to continue
        (self.cycle / _PLAN).unlink(missing_ok=True)
        self._say(
            {
                **status,
                "state": "done",
                "finished": now(),
                "decision": decision,
                "reason": reason,
                "champion": version.version if promoted and version is not None else champion.version,
                "trained": made,
                "drift": None if drift is None else drift.to_dict(),
            }
        )
        outputs = {"status": str(self.folder / STATUS_NAME), "decision": f"{decision}: {reason}"}
        if version is not None:
            outputs["registered model"] = f"{version.name} version {version.version}"
            outputs["champion"] = f"{'yes' if version.promoted else 'no'}: {version.reason}"
        return RunSummary(
            pipeline="retrain_pipeline/Retrain",
            started=str(status["started"]),
            inputs={"buffer": self.settings.buffer, "champion": f"{champion.name} version {champion.version}"},
            events=counts,
            metrics={**drift_metrics(drift), "trained": Metric(float(decision == "train"))},
            outputs=outputs,
            warnings=warnings,
        )

    def _status(self) -> dict[str, Any]:
        path = self.folder / STATUS_NAME
        return read_json(path, "Retrain") if path.exists() else {}

    def _say(self, status: Mapping[str, Any]) -> None:
        write_json(self.folder / STATUS_NAME, dict(status))


@dataclass(frozen=True)
class _Plan:
    """What a run has begun: the events it has pinned, and how often it was tried."""

    buffer: str
    attempts: int
