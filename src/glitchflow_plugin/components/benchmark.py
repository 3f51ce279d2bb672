"""The step Leaderboard: entrants trained on the same events, with the same seed and time, judged on the same others."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._configuration import StrictConfiguration
from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.components._twin_trainer import TwinTrainer
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.results import keep_former
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.leaderboard import LeaderboardSettings, Standings
from glitchflow_plugin.inference.leaderboard_page import write_leaderboard
from glitchflow_plugin.inference.learning_curve import write_curve
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.training.contest import Budget, Contest, Entrant, compete, entrants_of, hold_out, summarize
from glitchflow_plugin.training.learning_curve import CurveSettings, draw_samples, learning_curve
from glitchflow_plugin.training.trained_twin import TrainedTwin

#: Folders whose content says by itself what it is of.
_KNOWN = ("entrants", "checkpoints", "events", "spectrograms")


class Leaderboard(BaseComponent):
    """Train every entrant and compare them on held-out events, with the glitches of a simulation where there is one.

    What was found of an entrant is kept; a run that was killed goes on with the next one. Where asked to, it then
    trains some of them on fewer events.

    The arguments are the keys of benchmark.yaml, `training.baseline`, engine.yaml, and folders: of the training set
    (where none comes from the step before), of the events that its maps were made of, and where everything goes.
    """

    @keeping_arguments
    def __init__(
        self,
        *,
        entrants: Mapping[str, Mapping[str, Any]],
        held_out: Mapping[str, Any],
        settings: Mapping[str, Any],
        training: str,
        events: str,
        folder: str,
        learning_curve: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        baseline: Mapping[str, Any] | None = None,
        minutes: float | None = 5.0,
        epochs: int = 1000,
        random_seed: int = 0,
        device: str = "auto",
        engine: Mapping[str, Any] | str | None = None,
        page: str | None = None,
        run_name: str = "demo",
        disable_tqdm: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if set(held_out) != {"datasets", "truth"}:
            raise ConfigurationError(
                f"benchmark.yaml: held_out has the keys datasets and truth, got {sorted(held_out)}."
            )
        check_name(str(run_name), "run_name")
        self.entrants = entrants_of(entrants)
        self.settings, self.held_out = built(LeaderboardSettings, settings, "benchmark.settings"), dict(held_out)
        self.curve = built(CurveSettings, dict(learning_curve or {}), "benchmark.learning_curve")
        self.curve.chosen(self.entrants)
        self.training, self.events, self.folder = Path(training), Path(events), Path(folder)
        self.config, self.baseline = dict(config or {}), dict(baseline or {})
        for entrant in self.entrants.values():
            StrictConfiguration.checked({**self.config, **entrant.config})
        self.budget = Budget(epochs, random_seed, minutes)
        self.device, self.engine = choose_device(device), EngineSettings.of(engine)
        self.page = None if page is None else Path(page)
        self.run_name, self.disable_tqdm = run_name, disable_tqdm

    @monitor_exec
    @holding("folder", reads=("training",))
    def execute(self, training_set: TrainingSet | None = None) -> Standings:
        """Train, judge and compare all entrants; write tables, pictures and summary."""
        started = now()
        training_set = training_set or TrainingSet.open(self.training)
        samples = draw_samples(training_set, self.curve)
        held_out = hold_out(
            **self.held_out,
            training_set=training_set,
            folder=self.folder,
            threshold=self.settings.threshold,
            device=self.device,
            engine=self.engine,
        )
        contest = Contest(
            training_set,
            EventSet.open(self.events),
            held_out,
            self.settings,
            self.config,
            self.baseline,
            self.budget,
            self.device,
        )
        entrants = self.folder / "entrants"
        result, judgements = compete(contest, self.entrants, self._train, entrants)
        curve = learning_curve(contest, self.curve.chosen(self.entrants), samples, self._train, entrants)
        former = keep_former(self.folder, contest.identity(self.entrants) | {"curve": asdict(self.curve)}, stay=_KNOWN)
        outputs = write_leaderboard(
            result,
            judgements,
            truth=held_out.truth,
            settings=self.settings,
            conditions=contest.conditions(),
            folder=self.folder,
            page=self.page,
            name=self.run_name,
        )
        if curve:
            outputs |= write_curve(curve, folder=self.folder, page=self.page, name=self.run_name)
        report(summarize(contest, result, outputs, former, started), self.folder)
        return result

    def _train(self, name: str, entrant: Entrant, training_set: TrainingSet) -> TrainedTwin:
        return TwinTrainer(
            folder=str(training_set.folder),
            model=dict(entrant.model),
            config={**self.config, **entrant.config},
            events=str(self.events),
            baseline=self.baseline,
            device=self.device,
            checkpoints=str(self.folder / "checkpoints" / name),
            disable_tqdm=self.disable_tqdm,
            run_name=f"{self.run_name}-{name}",
            **self.budget.keywords(),
        ).execute(training_set)
