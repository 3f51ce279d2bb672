"""Retrain: looks whether the latest events are no longer what the champion was trained for, and trains if so."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.files import read_json, write_json
from glitchflow_plugin.data.names import LONGEST_MODEL, check_alias, check_name
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.splits import Split, SplitSettings
from glitchflow_plugin.errors import ConfigurationError, ConnectionFailedError, GlitchflowError, RegistryError
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.products.summary import EventCounts, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.training import retraining
from glitchflow_plugin.training.retraining import Finding, GateNeeds, RetrainDecision, RetrainSettings, Waiting

if TYPE_CHECKING:
    from glitchflow_plugin.tracking.versions import ModelVersion
    from glitchflow_plugin.training.latest_events import Look

STATUS_NAME = "status.json"


class Retrain(BaseComponent):
    """Look at the latest events; where something has changed, split, process, train, and let the gate decide.

    It needs nobody who watches: two at once are impossible, a killed run continues with the events that it began with,
    and status.json says what was done and why.

    Args:
        retrain: The keys of retrain.yaml.
        registry: The keys of registry.yaml; its champion is compared with and, perhaps, replaced.
        folder: Where everything is made.
        split: The keys of split.yaml.
        windows: The keys of windows.yaml.
        trainer: Arguments of the Trainer but for folders and registry.
        engine: Where the shards are made: the keys of engine.yaml, or an engine's name.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        name: Name of the step.
    """

    @keeping_arguments
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
        from glitchflow_plugin.training.gate import GateSettings

        super().__init__(name)
        self.settings = built(RetrainSettings, retrain, "retrain")
        check_name(registry["name"], "registry.yaml: name", LONGEST_MODEL)
        check_alias(registry.get("alias", "champion"), "registry.yaml: alias")
        if trainer.get("run_name") is not None:
            check_name(str(trainer["run_name"]), "run_name")
        self.registry, self.trainer = dict(registry), dict(trainer)
        self.folder, self.status, self.cycle = Path(folder), Path(folder) / STATUS_NAME, Path(folder) / "cycle"
        self.split, self.windows, self.device = split, windows, device
        self.engine = EngineSettings.of(engine)
        share = built(SplitSettings, split, "split").gate
        self.needs = GateNeeds(built(GateSettings, registry.get("gate"), "registry.gate").min_groups, share)
        if self.settings.max_events < self.needs.events:
            raise ConfigurationError(
                f"retrain.yaml: with max_events {self.settings.max_events} the gate can never decide. {self.needs} "
                "Raise max_events or split.gate."
            )

    @monitor_exec
    @holding("folder", together=False)
    def execute(self) -> RunSummary:
        """Do what is to be done, and say it.

        Raises:
            GlitchflowError: Another run is at it, or what the steps raise. The next run continues.
        """
        status: dict[str, Any] = {"state": "running", "started": now(), "pid": os.getpid()}
        try:
            found = self._look(status)
            retraining.end(self.cycle)
            write_json(self.status, {**status, "state": "done", "finished": now(), **found.to_status()})
        except GlitchflowError as error:
            if isinstance(error, ConnectionFailedError | RegistryError) and "attempt" in status:
                retraining.forgive(self.cycle)
            write_json(self.status, {**status, "state": "failed", "finished": now(), "reason": str(error)})
            raise
        summary = found.summary(started=status["started"], buffer=self.settings.buffer, status=self.status)
        return report(summary, self.folder)

    def _look(self, status: dict[str, Any]) -> Finding:
        """Look at the latest events, and train if that is to be done; what is known goes into `status` meanwhile."""
        from glitchflow_plugin.tracking.registry import load
        from glitchflow_plugin.tracking.versions import find

        settings, uri = self.settings, self.registry["tracking_uri"]
        last = read_json(self.status, "Retrain") if self.status.exists() else {}
        champion = find(self.registry["name"], self.registry.get("alias", "champion"), uri)
        plan = retraining.next_plan(self.cycle, last, champion.version, settings, self.needs)
        if isinstance(plan, Waiting):
            status |= {} if plan.seen is None else {"buffer": plan.seen}
            return Finding(champion, RetrainDecision("wait", plan.reason), EventCounts(plan.num_events, 0))
        status |= {"buffer": plan.buffer, "attempt": plan.attempts}
        write_json(self.status, status)
        maps, found = self.look.at(champion, load(champion.name, champion.version, uri))
        if found.decision.action == "keep":
            return found
        split = Splitter(self.split, str(maps.folder), str(self.cycle / "training")).execute(maps)
        groups = split.gate.num_groups(split.block_length)
        decision = retraining.with_groups(found.decision, groups, self.needs, force=settings.force)
        found = replace(found, decision=decision)
        if decision.action == "wait":
            return found
        write_json(self.status, {**status, "decision": "train", "reason": decision.reason})
        return replace(found, trained=self._train(maps, split))

    @property
    def look(self) -> "Look":
        """How the latest events are looked at."""
        from glitchflow_plugin.training.latest_events import Look

        pictures = built(PictureSettings, self.trainer.get("pictures"), "pictures")
        block_length = built(SplitSettings, self.split, "split").block_length
        devices = choose_device(self.device), choose_device(self.device, self.engine)
        return Look(self.cycle, self.settings, pictures, block_length, self.engine, *devices)

    def _train(self, maps: SpectrogramSet, split: Split) -> "ModelVersion | None":
        from glitchflow_plugin.components.trainer import Trainer
        from glitchflow_plugin.training.latest_events import event_set_of

        training, checkpoints, outbox = (self.cycle / name for name in ("training", "checkpoints", "outbox"))
        windows = Processor(self.windows, str(maps.folder), str(training)).execute(split)
        if checkpoints.exists():
            # what a run could not register is made again from the checkpoint, and then compared with the champion
            shutil.rmtree(outbox, ignore_errors=True)
        return Trainer(
            **self.trainer,
            folder=str(training),
            events=str(event_set_of(self.cycle)),
            checkpoints=str(checkpoints),
            registry={**self.registry, "outbox": str(outbox)},
            resume=True,
        ).execute(windows)
