"""Retrain: looks whether the latest events are no longer what the champion was trained for, and trains if so."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.buffer import buffered_events, is_event_set
from glitchflow_plugin.data.files import content_hash, read_json, write_json
from glitchflow_plugin.data.names import LONGEST_MODEL, check_alias, check_name
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.splits import Split, SplitSettings
from glitchflow_plugin.errors import ConfigurationError, ConnectionFailedError, GlitchflowError, RegistryError
from glitchflow_plugin.inference.drift import drift_or_refuse, drift_warnings
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.products.summary import EventCounts, RunSummary, now
from glitchflow_plugin.settings import built
from glitchflow_plugin.training import retraining
from glitchflow_plugin.training.retraining import Finding, GateNeeds, RetrainDecision, RetrainSettings

if TYPE_CHECKING:
    from glitchflow_plugin.inference.closed_loop import ClosedLoop
    from glitchflow_plugin.models.bundle import ModelBundle
    from glitchflow_plugin.signal.residual_watch import ResidualReport
    from glitchflow_plugin.tracking.versions import ModelVersion

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
        from glitchflow_plugin.inference.closed_loop import loop_details, loop_warnings
        from glitchflow_plugin.tracking.registry import load
        from glitchflow_plugin.tracking.versions import find

        settings, uri = self.settings, self.registry["tracking_uri"]
        before = read_json(self.status, "Retrain") if self.status.exists() else {}
        champion = find(self.registry["name"], self.registry.get("alias", "champion"), uri)
        plan = retraining.resume(self.cycle, before.get("state"))
        if plan is None:
            events = buffered_events(settings.buffer, settings.max_events)
            buffer, reason = content_hash(events), retraining.too_few(len(events), settings, self.needs)
            same = before.get("buffer") == buffer and before.get("champion") == champion.version
            if reason is None and same and not settings.force:
                status["buffer"], reason = buffer, "no new event and no new champion since the last run"
            if reason is not None:
                return Finding(champion, RetrainDecision("wait", reason), EventCounts(len(events), 0))
            plan = retraining.begin(self.cycle, buffer, settings)
        status |= {"buffer": plan.buffer, "attempt": plan.attempts}
        write_json(self.status, status)
        bundle = load(champion.name, champion.version, uri)
        maps, counts, quality = self._maps(bundle)
        drift = None if settings.force else drift_or_refuse(maps, bundle.witnesses, bundle.notes, settings.drift)
        loop = None if settings.force else self._loop(bundle, maps)
        left = None if loop is None else self._left(bundle, maps, loop)
        found = Finding(
            champion,
            retraining.decide(drift, None if loop is None else loop.stopped, None if left is None else left.grown),
            counts,
            drift,
            None if loop is None else loop_details(loop, maps),
            left,
            (*quality, *drift_warnings(drift), *loop_warnings(loop, maps), *retraining.residual_warnings(left)),
        )
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

    def _maps(self, bundle: "ModelBundle") -> tuple[SpectrogramSet, EventCounts, tuple[str, ...]]:
        """The events through the champion's recipe, so that both can be judged on the same maps."""
        from glitchflow_plugin.inference.model_data import make_maps

        events = retraining.pinned(self.cycle)
        return make_maps(
            bundle,
            EventSet.open(events) if is_event_set(events) else [{"path": str(events)}],
            self.cycle,
            engine=self.engine,
            device=choose_device(self.device, self.engine),
            require_target=True,
        )

    @property
    def _events(self) -> Path:
        """The event set that the maps are made of."""
        from glitchflow_plugin.inference.model_data import EVENTS

        events = retraining.pinned(self.cycle)
        return events if is_event_set(events) else self.cycle / EVENTS

    def _loop(self, bundle: "ModelBundle", maps: SpectrogramSet) -> "ClosedLoop | None":
        """Whether the strain still follows the champion's witnesses as it did."""
        from glitchflow_plugin.inference.closed_loop import close_loop

        events = EventSet.open(self._events) if bundle.representation == "waveform" else None
        return close_loop(bundle, maps, events, self.settings.closed_loop, device=choose_device(self.device))

    def _left(self, bundle: "ModelBundle", maps: SpectrogramSet, loop: "ClosedLoop") -> "ResidualReport | None":
        """Whether the champion leaves more of some kind of glitch than it did."""
        from glitchflow_plugin.training.residual import watch_residual

        classes = built(PictureSettings, self.trainer.get("pictures"), "pictures").classes()
        block_length = built(SplitSettings, self.split, "split").block_length
        return watch_residual(bundle, maps, loop, classes, self.settings.residual, block_length=block_length)

    def _train(self, maps: SpectrogramSet, split: Split) -> "ModelVersion | None":
        from glitchflow_plugin.components.trainer import Trainer

        training, checkpoints, outbox = (self.cycle / name for name in ("training", "checkpoints", "outbox"))
        windows = Processor(self.windows, str(maps.folder), str(training)).execute(split)
        if checkpoints.exists():
            # what a run could not register is made again from the checkpoint, and then compared with the champion
            shutil.rmtree(outbox, ignore_errors=True)
        return Trainer(
            **self.trainer,
            folder=str(training),
            events=str(self._events),
            checkpoints=str(checkpoints),
            registry={**self.registry, "outbox": str(outbox)},
            resume=True,
        ).execute(windows)
