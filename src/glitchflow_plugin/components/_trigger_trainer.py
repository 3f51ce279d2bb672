"""The training of one network of triggers among the entrants of Train."""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from glitchflow_plugin.components._loop_trainer import LoopTrainer
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.tracking.itwinai_tracker import ItwinaiTracker, log_results
from glitchflow_plugin.tracking.training_run import last_status
from glitchflow_plugin.training.batches import WindowBatches
from glitchflow_plugin.training.registration import provenance
from glitchflow_plugin.training.triggers.learn import Lesson
from glitchflow_plugin.training.triggers.learner import Examples, TriggerLearner, set_batches


class TriggerTrainer(LoopTrainer):
    """Teaches what a learner has; nothing is judged on test times, nothing registered.

    Args:
        learner: Network, tasks, and what it learns from.
        keywords: Those of `LoopTrainer`.
    """

    learner: TriggerLearner
    _begun = 0

    def __init__(self, learner: TriggerLearner, **keywords: Any) -> None:
        self.learner = learner
        super().__init__(name=None, from_checkpoint=None, **keywords)
        if self.uses_ray:
            raise ConfigurationError("triggers.train.strategy: Ray trains twins alone. Use ddp with torchrun, or null.")

    def taught(self, validation: Examples) -> Lesson | None:
        """Teach it; None in all processes but the first."""
        started = perf_counter()
        if not self.train_on(self.learner.training, validation):
            return None
        seconds = perf_counter() - started
        with last_status(self._mlflow, self._run_id):
            self._load_best()
        network: Any = self.model
        assert isinstance(network, TriggerNetwork)  # noqa: S101
        return Lesson(network, self.current_epoch + 1 - self._begun, seconds)

    def log_test(self, figures: Mapping[str, float]) -> str | None:
        """Add figures of the test to the run; returns its id."""
        with last_status(self._mlflow, self._run_id):
            return log_results(self.logger, self._run_id, self.run_name, figures, {})

    def how_to_go_on(self) -> str:
        """What to tell the user of a training that was asked to end."""
        again = "the same command" if self.resume else "triggers.train.resume=true"
        return f"What is learnt so far is in {Path(self.checkpoints_location)}: it goes on from there with {again}."

    def create_model_loss_optimizer(self) -> None:
        """The loop; which epochs an earlier process has ended is kept in mind."""
        super().create_model_loss_optimizer()
        assert self.loop is not None  # noqa: S101
        self._begun = self.loop.state.epoch

    def _make_batches(self, training: Examples, validation: Examples) -> WindowBatches:
        return set_batches(training, validation, self.config, seed=self.random_seed or 0, processes=self.processes)

    def _tell_run(self, tracker: ItwinaiTracker) -> None:
        learner = self.learner
        shown = {
            "model": learner.name,
            **learner.settings,
            "epochs": self.epochs,
            "random_seed": self.random_seed,
            "times": len(learner.training),
            **{f"task_{name}": weight for name, weight in vars(learner.tasks).items()},
            **{name: getattr(self.config, name) for name in _SHOWN},
        }
        tracker.params(shown | provenance(learner.times))
        tracker.data("triggers", learner.times)


_SHOWN = ("batch_size", "optimizer", "optim_lr", "optim_weight_decay", "gradient_clip", "warmup_epochs", "precision")
"""What of the configuration an MLflow run shows."""
