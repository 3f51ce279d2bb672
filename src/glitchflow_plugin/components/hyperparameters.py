"""The step Hyperparameter-search: many trainings with drawn settings, judged on validation windows."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import GlitchflowError
from glitchflow_plugin.models.build import check_network
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.training.objectives import ObjectiveSettings
from glitchflow_plugin.training.ray_trials import draw, prepare_environment, run_trials
from glitchflow_plugin.training.search import (
    Drawn,
    Search,
    SearchSettings,
    Trial,
    ranked,
    summarize,
    track,
    trouble,
    write_results,
)
from glitchflow_plugin.training.trained_twin import TrainedTwin

logger = logging.getLogger(__name__)


class HyperparameterSearch(BaseComponent):
    """Draw settings, train with each, and tell which were best on validation. Test events are not looked at.

    What was drawn depends on the seed alone, each finished trial leaves a file, and a search that is started again goes
    on with the trials that are missing. Ray Tune runs them.

    The arguments are the sections hpo, model, training.config and registry (None: nothing is tracked), `random_seed`
    and `device` of training, and folders: of the training set (where none comes from the step before), of the events
    that its maps were made of, and of the search.
    """

    @keeping_arguments
    def __init__(
        self,
        *,
        search: dict[str, Any],
        training: str,
        folder: str,
        model: dict[str, Any],
        events: str | None = None,
        config: dict[str, Any] | None = None,
        random_seed: int = 0,
        device: str = "auto",
        registry: dict[str, Any] | None = None,
        run_name: str = "search",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.settings = built(SearchSettings, search, "hpo")
        self.objective = built(ObjectiveSettings, self.settings.objective, "hpo.objective")
        self.folder, self.training, self.registry, self.run_name = Path(folder), Path(training), registry, run_name
        check_name(str(run_name), "run_name")
        self.trainer = {
            "model": model,
            "config": config or {},
            "random_seed": random_seed,
            "device": device,
            "events": events,
        }

    @monitor_exec
    @holding("folder", reads=("training",))
    def execute(self, training_set: TrainingSet | None = None) -> list[dict[str, Any]]:
        """Run the trials that are missing and write table, picture and summary.

        Args:
            training_set: Windows and scaling; opened from `training` if None.

        Returns:
            The records of all trials, the best first.

        Raises:
            GlitchflowError: A trial failed, and `allow_failures` is not set; or time ran out before any was finished.
            ConfigurationError: The folder holds another search, or a setting cannot work.
        """
        started = now()
        found = training_set or TrainingSet.open(self.training)
        prepare_environment(self.settings)
        if self.registry is not None:
            from glitchflow_plugin.tracking.connection import check_connection

            # a server that is not there shall be noticed before hours of training
            check_connection(self.registry["tracking_uri"])
        trainer = {**self.trainer, "folder": str(found.folder), "epochs": self.settings.epochs}
        search = Search(self.settings, self.objective, self.folder, trainer, self.drawn())
        search.claim(found)
        known = search.trials()
        pending = [trial.number for trial in known if trial.status != "finished"]
        if len(pending) < len(known):
            logger.info("%d of %d trials are there already", len(known) - len(pending), len(known))
        if pending:
            run_trials(search, pending, train_trial)
        trials = ranked(search.trials(), self.objective)
        report(summarize(trials, found, write_results(trials, self.folder), started), self.folder)
        wrong = trouble(trials, allow_failures=self.settings.allow_failures)
        self._track(trials, "FAILED" if wrong else "FINISHED")
        if wrong:
            raise GlitchflowError(wrong)
        return [trial.to_dict() | {"score": trial.score} for trial in trials]

    def drawn(self) -> list[Drawn]:
        """Settings of all trials, each of which a training can have."""
        from itwinai.torch.tuning import search_space

        from glitchflow_plugin.components._configuration import StrictConfiguration

        trials = draw(self.settings, search_space)
        for drawn in trials:
            StrictConfiguration.checked({**self.trainer["config"], **drawn.get("config", {})})
            check_network({**self.trainer["model"], **drawn.get("model", {})})
        return trials

    def _track(self, trials: Sequence[Trial], status: str) -> None:
        if self.registry is None:
            return
        from glitchflow_plugin.tracking.itwinai_tracker import tracked_run

        where = [self.registry[key] for key in ("tracking_uri", "experiment", "artifacts")]
        with tracked_run(*where, name=f"{self.run_name}-hpo", status=status, scratch=self.folder / "logs") as tracker:
            track(tracker, trials, self.settings)


def train_trial(keywords: Mapping[str, Any]) -> TrainedTwin:
    """Train as one trial of a search, in a process of Ray's; it goes on from its last checkpoint."""
    from glitchflow_plugin.components._twin_trainer import TwinTrainer

    return TwinTrainer(**keywords, resume=True, checkpoint_every=1, disable_tqdm=True).execute()
