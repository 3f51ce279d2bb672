"""Train: models of triggers against each other; the one that validation chooses is registered."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itwinai.components import BaseComponent, monitor_exec
from itwinai.distributed import detect_distributed_environment

from glitchflow_plugin.components._configuration import StrictConfiguration
from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.components._trigger_trainer import TriggerTrainer
from glitchflow_plugin.data.files import content_hash, write_json
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.triggers.labelled import LabelledSet
from glitchflow_plugin.data.triggers.sets import SetSettings
from glitchflow_plugin.data.triggers.stream import StreamSettings
from glitchflow_plugin.inference.classify_triggers import TRUST
from glitchflow_plugin.models.triggers.trees import TREES
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.tracking.runs import named_for_test
from glitchflow_plugin.tracking.versions import ModelVersion
from glitchflow_plugin.training.registration import RegistrySettings, provenance
from glitchflow_plugin.training.triggers.contest import ContestSettings, Result
from glitchflow_plugin.training.triggers.learn import Lesson
from glitchflow_plugin.training.triggers.learner import Examples, TriggerLearner
from glitchflow_plugin.training.triggers.run import Trained, leaderboard, register_champion, train_triggers

LEADERBOARD_NAME = "leaderboard.json"


class TrainTriggers(BaseComponent):
    """Teach each entrant, write the leaderboard, and register the champion.

    conf/triggers.yaml and conf/training.yaml explain the keys that are not named here.

    Args:
        contest: The keys of `train.contest` in triggers.yaml.
        sets: The keys of `sets` there.
        stream: The keys of `train.stream` there.
        times: Folder of labelled times in parts, used where none come from the step before.
        folder: Where the leaderboard and, below it, the checkpoints go.
        config: `train.config`: keys of training.config.
        registry: The keys of registry.yaml; None: nothing is tracked or registered.
        registered_model: Name of the registered model.
        tensorboard: Folder for TensorBoard, with one for each network below it; None for none.
        run_name: Name of the run; those of networks have theirs after it.
        training: Other keys of `train`.
    """

    @keeping_arguments
    def __init__(
        self,
        *,
        contest: Mapping[str, Any],
        sets: Mapping[str, Any],
        times: str,
        folder: str,
        registered_model: str,
        stream: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        registry: Mapping[str, Any] | None = None,
        epochs: int = 30,
        strategy: str | None = None,
        device: str = "auto",
        random_seed: int = 0,
        tensorboard: str | None = None,
        resume: bool = True,
        checkpoint_minutes: float | None = None,
        disable_tqdm: bool = False,
        run_name: str = "triggers",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        check_name(str(run_name), "run_name")
        self.contest = built(ContestSettings, {**contest, "seed": random_seed}, "triggers.train.contest")
        self.sets = built(SetSettings, sets, "triggers.sets")
        self.stream = built(StreamSettings, stream, "triggers.train.stream")
        self.config = dict(config or {})
        for entrant in self.contest.asked.values():
            StrictConfiguration.checked({**self.config, **(entrant.get("config") or {})})
        self.registry = (
            built(RegistrySettings, {**registry, "name": registered_model}, "registry") if registry else None
        )
        self.times, self.folder, self.device = Path(times), Path(folder), choose_device(device)
        self.tensorboard, self.run_name = tensorboard, str(run_name)
        self.keywords = {
            "epochs": epochs,
            "strategy": strategy,
            "device": device,
            "random_seed": random_seed,
            "resume": resume,
            "checkpoint_minutes": checkpoint_minutes,
            "max_minutes": None,
            "checkpoint_every": 1,
            "disable_tqdm": disable_tqdm,
        }
        self.trainers: dict[str, TriggerTrainer] = {}

    @monitor_exec
    @holding("folder", reads=("times",))
    def execute(self, labelled: LabelledSet | None = None) -> ModelVersion | None:
        """Teach, judge, register; returns the version, None without a registry and in all processes but the first."""
        started = now()
        alone = all(entrant["model"] in TREES for entrant in self.contest.asked.values())
        if alone and detect_distributed_environment().global_rank != 0:
            return None  # trees need no company
        given = labelled or LabelledSet.open(self.times)
        store = given.check_store()
        times = given.times()
        trained = train_triggers(
            store,
            times,
            given.record.target,
            sets=self.sets,
            stream=self.stream,
            settings=self.contest,
            teach=self._teach,
            labels=given.record.labels,
            fingerprint=content_hash([given.record.fingerprint, given.record.times_sha256, vars(self.sets)]),
            device=self.device,
        )
        if trained is None:
            return None
        version = self._register(trained)
        result, figures = trained.result, leaderboard(trained.result)
        board = self.folder / LEADERBOARD_NAME
        write_json(board, figures)
        kept = sum(trained.model.notes["events"].values())
        report(
            RunSummary(
                pipeline="triggers_pipeline/Train",
                started=started,
                inputs={
                    "times": str(given.folder),
                    "triggers": str(store),
                    "target": given.record.target,
                    "champion": result.champion,
                },
                events=EventCounts(len(times), kept, {"in no part": len(times) - kept} if kept < len(times) else {}),
                metrics=metrics_of(result),
                outputs={
                    "leaderboard": str(board),
                    **({} if version is None else {"model": f"{version.name} version {version.version}"}),
                },
                warnings=() if version is None or version.promoted else (f"not promoted: {version.reason}",),
                details={"leaderboard": figures, TRUST: trained.model.notes[TRUST]},
            ),
            self.folder,
        )
        return version

    def _teach(
        self, name: str, learner: TriggerLearner, config: Mapping[str, Any], validation: Examples
    ) -> Lesson | None:
        checked = StrictConfiguration.checked({**self.config, **config})
        # what was learnt otherwise is not gone on with
        key = content_hash([learner.origin(), checked.model_dump(mode="json"), self.keywords["random_seed"]])[:12]
        trainer = TriggerTrainer(
            learner,
            config=checked,
            registry=self.registry,
            checkpoints=str(self.folder / "checkpoints" / f"{name}-{key}"),
            tensorboard=None if self.tensorboard is None else f"{self.tensorboard}/{name}",
            run_name=f"{self.run_name}-{name}",
            **self.keywords,
        )
        self.trainers[name] = trainer
        return trainer.taught(validation)

    def _register(self, trained: Trained) -> ModelVersion | None:
        """Log the test figures of each network, and send the champion."""
        result, runs = trained.result, {}
        for name, trainer in self.trainers.items():
            figures = {key: one.value for key, one in result.entrants[name].figures.items()}
            runs[name] = trainer.log_test(named_for_test("model", figures))
        if self.registry is None or not self.registry.reachable():
            return None
        made_from = provenance(trained.model.notes["dataset"])
        tags = {key: made_from[key] for key in ("dataset_fingerprint", "code_version", "git_commit")}
        return register_champion(trained, self.registry, run_id=runs.get(result.champion), tags=tags)


def metrics_of(result: Result) -> dict[str, Metric]:
    """Test figures of the champion, with those of all others as baselines; then its lead over the best trees."""
    champion = result.entrants[result.champion]
    found = {}
    for key, one in champion.figures.items():
        others = {name: each.figures[key].value for name, each in result.entrants.items() if name != result.champion}
        rivals = {name: each[key].value for name, each in result.rivals.items() if key in each}
        found[key] = Metric(one.value, one.low, one.high, {**others, **rivals})
    for key, one in champion.lead.items():
        found[f"lead_{key}"] = Metric(one.value, one.low, one.high)
    return found
