"""A training by the loop as a step: in one process or several, tracked, and resumed; what is learnt, others say."""

import json
import logging
import math
import os
import uuid
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from itwinai.distributed import detect_distributed_environment
from itwinai.loggers import Logger, get_mlflow_logger
from itwinai.torch.distributed import (
    DeepSpeedStrategy,
    NonDistributedStrategy,
    RayTorchDistributedStrategy,
    TorchDistributedStrategy,
)
from itwinai.torch.trainer import TorchTrainer

from glitchflow_plugin.components._configuration import StrictConfiguration
from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._strategies import choose_strategy
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.parent import end_with_parent
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.environment import environment
from glitchflow_plugin.tracking.connection import guarded
from glitchflow_plugin.tracking.itwinai_tracker import (
    BufferedMLFlowLogger,
    ItwinaiTracker,
    buffered_mlflow,
    make_loggers,
    search_run,
)
from glitchflow_plugin.tracking.training_run import note_run, resume_or_close_run
from glitchflow_plugin.training.batches import WindowBatches
from glitchflow_plugin.training.checkpoints import (
    BEST,
    LAST,
    ORIGIN,
    RUN,
    check_origin,
    check_present,
    judged_weights,
    lies_in,
    load_weights,
    newest_usable,
    prepare_best,
    read_best,
    read_checkpoint,
    settle_earlier,
)
from glitchflow_plugin.training.interruption import Interrupted
from glitchflow_plugin.training.learner import Learnable
from glitchflow_plugin.training.loop import Loop, LoopSettings
from glitchflow_plugin.training.processes import OneProcess, Processes, SeveralProcesses, lost_processes_explained
from glitchflow_plugin.training.progress import EpochResult, Progress
from glitchflow_plugin.training.ray_room import copy_best, raise_failure, training_room
from glitchflow_plugin.training.registration import RegistrySettings

logger = logging.getLogger(__name__)
# where itwinai loads checkpoints from; the loop has its own words
logging.getLogger("itwinai.torch.trainer").setLevel(logging.WARNING)


class LoopTrainer(TorchTrainer):
    """Train what a learner has, keep the checkpoint that is best on validation, and load it.

    conf/training.yaml explains the keys that are not named here. Who derives from this sets `learner` before
    `train_on`, makes its batches, and says what a run is of.

    Args:
        config: `training.config`.
        registry: Where runs are tracked; None: nowhere.
        checkpoints: Folder for checkpoints.
        tensorboard: Folder for TensorBoard; None for none.
        run_name: Name of the MLflow run.
        ray: `ray_*` arguments of itwinai's TorchTrainer.
    """

    config: StrictConfiguration  # pyright: ignore[reportIncompatibleVariableOverride]
    learner: Learnable
    # set in the processes that train
    checkpoint: Mapping[str, Any] | None = None
    batches: WindowBatches | None = None
    loop: Loop | None = None

    def __init__(
        self,
        *,
        config: StrictConfiguration,
        registry: RegistrySettings | None,
        epochs: int,
        strategy: str | None,
        device: str,
        random_seed: int,
        checkpoints: str,
        tensorboard: str | None,
        from_checkpoint: str | None,
        resume: bool,
        checkpoint_minutes: float | None,
        max_minutes: float | None,
        checkpoint_every: int | None,
        disable_tqdm: bool,
        run_name: str | None,
        name: str | None,
        **ray: Any,
    ) -> None:
        unknown = sorted(key for key in ray if not key.startswith("ray_"))
        if unknown:
            raise TypeError(f"{type(self).__name__} got unexpected arguments {unknown}")
        if run_name is not None:
            check_name(str(run_name), "run_name")
        self.registry = registry
        loggers = _loggers(registry, tensorboard, Path(checkpoints))
        self._device = choose_device(device)
        self.resume, self.checkpoint_minutes, self.max_minutes = resume, checkpoint_minutes, max_minutes
        for key, minutes in (("checkpoint_minutes", checkpoint_minutes), ("max_minutes", max_minutes)):
            if minutes is not None and minutes <= 0:
                raise ConfigurationError(
                    f"expected {key} of more than 0, or null, got {minutes}. Correct training.yaml."
                )
        if from_checkpoint:
            check_present(Path(from_checkpoint))
        super().__init__(
            config=config,
            epochs=epochs,
            strategy=strategy,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            random_seed=random_seed,
            logger=loggers,
            checkpoints_location=checkpoints,
            checkpoint_every=checkpoint_every,
            disable_tqdm=disable_tqdm,
            from_checkpoint=from_checkpoint,
            run_name=run_name,
            name=name,
            **ray,
        )
        if resume and self.uses_ray:
            raise ConfigurationError(
                "resume has no effect under Ray, which restores its trials by itself. Set training.resume=false."
            )
        self._is_main = True
        self.run_id = uuid.uuid4().hex
        #: Runs whose best network may be registered: this one, and the one that it goes on from.
        self._accepted_runs = {self.run_id}

    # what those who derive from this say

    @abstractmethod
    def _make_batches(self, training: Any, validation: Any) -> WindowBatches:
        """Batches of two data sets, for this process."""

    @abstractmethod
    def _tell_run(self, tracker: ItwinaiTracker) -> None:
        """Tell what the run is of, once, before the first step."""

    def _draw_examples(self, epoch: int) -> None:
        """Show the tracker examples of an epoch; without any, nothing."""

    def _choose_learner(self) -> Learnable:
        """The learner anew, where a search has changed the configuration."""
        return self.learner

    # the training

    def train_on(self, training: Any, validation: Any) -> bool:
        """Train on two data sets.

        Returns:
            Whether this process is the one that goes on with what was learnt.
        """
        if "TORCHELASTIC_RUN_ID" in os.environ:
            end_with_parent()
        with guarded(self.registry.tracking_uri if self.registry else None):
            TorchTrainer.execute.__wrapped__(self, training, validation)  # type: ignore[attr-defined]  # pyright: ignore
        # what follows opens its own
        if self.batches is not None:
            self.batches.end_workers()
        return self._is_main

    # what itwinai asks for, in one process among possibly several

    @property
    def device(self) -> str:
        """Where this process computes."""
        return self._device if isinstance(self.strategy, NonDistributedStrategy) else self.strategy.device()

    @property
    def uses_ray(self) -> bool:
        """Whether Ray runs the training."""
        return isinstance(self.strategy, RayTorchDistributedStrategy)

    def _detect_distributed_strategy(self, strategy: str | None) -> TorchDistributedStrategy:  # pyright: ignore
        return choose_strategy(
            strategy, device=self._device, backend=self.config.dist_backend, timeout=self.config.dist_timeout
        )

    def _run_worker(self, *arguments: Any, **keywords: Any) -> None:
        """Train as one process, in the MLflow run of the training that is resumed, which ends as the training does."""
        self.mlflow_logger = get_mlflow_logger(self.logger)  # Ray's workers are sent this trainer without
        if detect_distributed_environment().global_rank == 0 and not self.uses_ray:
            goes_on = self.resume or lies_in(self.from_checkpoint, self._checkpoints)
            resume_or_close_run(self._mlflow, self._checkpoints, resume=goes_on)
            # the figures of the test and the registration belong to it
            self._tracker.end_as("RUNNING")
        try:
            with lost_processes_explained(self.config.dist_timeout):
                super()._run_worker(*arguments, **keywords)
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            self._tracker.close(status)
            if isinstance(error, Interrupted):
                self.strategy.clean_up()
            self._note_run(status)
            raise

    def load_checkpoint(self) -> None:
        """Read the checkpoint to go on from, if there is one."""
        if self.resume:
            newest = newest_usable(self._checkpoints)
            if newest is None:
                logger.info("resume: no checkpoint in %s yet", self.checkpoints_location)
            self.from_checkpoint = newest or self.from_checkpoint
        super().load_checkpoint()

    def _load_checkpoint(self, checkpoint_dir: str | Path) -> None:
        self.checkpoint = read_checkpoint(Path(checkpoint_dir))
        self.random_seed = self.checkpoint["state"]["random_seed"]

    def _override_config(self, config: Mapping[str, object]) -> None:
        """Take a sample of a search space; it may concern the learner."""
        if config:
            self.config = self.config.changed(config)
            self.learner = self._choose_learner()

    def create_dataloaders(self, train_dataset: Any, validation_dataset: Any = None, test_dataset: Any = None) -> None:
        """Batches whose order depends on seed and epoch alone (itwinai's shuffling ignores the seeded generator)."""
        del test_dataset
        self.processes: Processes = OneProcess()
        if self.strategy.is_distributed:
            options, deepspeed = self.get_default_distributed_kwargs(), isinstance(self.strategy, DeepSpeedStrategy)
            self.processes = SeveralProcesses(self.strategy, options, through_engine=deepspeed)
        self.batches = self._make_batches(train_dataset, validation_dataset)

    def create_model_loss_optimizer(self) -> None:
        """The loop, where the checkpoint has left it."""
        assert self.batches is not None  # noqa: S101
        origin = self.learner.origin()
        if self.checkpoint is not None and self.from_checkpoint is not None:
            check_origin(Path(self.from_checkpoint), origin)
        self.loop = Loop(
            self.learner,
            self.batches,
            LoopSettings(
                config=self.config,
                epochs=self.epochs,
                random_seed=self.random_seed,
                checkpoints=self._checkpoints,
                checkpoint_every=self.checkpoint_every,
                checkpoint_minutes=self.checkpoint_minutes,
                max_minutes=self.max_minutes,
                disable_tqdm=self.disable_tqdm,
                notes={ORIGIN: origin, RUN: {"id": self.run_id}},
                how_to_go_on=self.how_to_go_on(),
            ),
            device=torch.device(self.device),
            processes=self.processes,
            progress=Progress(
                self._tracker, self.epochs, self.processes.rank == 0, self._draw_examples, self._report_to_ray
            ),
            checkpoint=self.checkpoint,
        )
        self.model, self.optimizer, self.checkpoint = self.loop.model.wrapped, self.loop.model.optimizer, None

    def train(self) -> None:
        """Run all epochs (under whatever strategy); itwinai's own loop can neither begin within one nor end in one."""
        assert self.loop is not None  # noqa: S101
        self._is_main, state = self.strategy.is_main_worker, self.loop.state
        if self._is_main:
            start = Path(self.from_checkpoint) if self.from_checkpoint else None
            judged = math.isfinite(state.best_loss)
            taken = prepare_best(self._checkpoints, start, resume=self.resume, judged=judged)
            self._accepted_runs.add(taken or self.run_id)
            self._note_run()
            tracker = self._tracker
            self._tell_run(tracker)
            tracker.text("environment.json", json.dumps(environment(), indent=2))
        self.loop.run()
        self.best_validation_metric, self.current_epoch = state.best_loss, state.epochs_begun - 1

    def _execute_with_ray(self, *arguments: Any, **keywords: Any) -> Any:
        """Run under Ray; what has no room there, and a trial that failed, are errors (itwinai: waits; exit code 0)."""
        self.ray_scaling_config, self.ray_torch_config = training_room(
            self.ray_scaling_config, self.ray_torch_config, self.config.dist_timeout
        )
        with search_run(self.mlflow_logger, self.run_name) as self.mlflow_tune_run_id:
            # itwinai would begin one too, and end it as finished before the first trial begins
            self.mlflow_logger = None
            try:
                result = super()._execute_with_ray(*arguments, **keywords)
            finally:
                self.mlflow_logger = get_mlflow_logger(self.logger)
            raise_failure(self.tune_result_grid)
        return result

    # what is told meanwhile

    def _report_to_ray(self, result: EpochResult, checkpoint: Path | None) -> None:
        aim = getattr(self.ray_tune_config, "metric", None) or "loss"
        self.ray_report({aim: result.loss, "loss": result.loss, **result.figures}, checkpoint_dir=checkpoint)

    def how_to_go_on(self) -> str:
        """What to tell the user of a training that was asked to end."""
        with_what = "the same command" if self.resume else "training.resume=true"
        return f"It goes on from {self._checkpoints / LAST} with {with_what}."

    def _note_run(self, status: str = "KILLED") -> None:
        note_run(self._mlflow, self._checkpoints, None if self.uses_ray else self.mlflow_worker_run_id, status)

    # afterwards, in the first process

    def _load_best(self) -> None:
        """Take the network that was best on validation, in a fresh twin on the device of this process."""
        network, root = self.learner.network(), self._checkpoints
        if self.uses_ray:
            copy_best(self.tune_result_grid, self.ray_tune_config, root / BEST)
        load_weights(network, judged_weights(read_best(root, self._accepted_runs)))
        settle_earlier(root, self.learner.origin(), float(self.best_validation_metric))
        self.model = network.to(self._device).eval()
        self.twin = self.learner.twin(self.model).eval()

    # small things

    @property
    def _checkpoints(self) -> Path:
        return Path(self.checkpoints_location)

    @property
    def _mlflow(self) -> BufferedMLFlowLogger | None:
        return buffered_mlflow(self.logger)

    @property
    def _run_id(self) -> str | None:
        return self.mlflow_worker_run_id or self.mlflow_tune_run_id

    @property
    def _tracker(self) -> ItwinaiTracker:
        return ItwinaiTracker(self.logger)


def _loggers(registry: RegistrySettings | None, tensorboard: str | None, checkpoints: Path) -> Logger | None:
    """Loggers of a training, once the registry is known to be there."""
    tracked, first = registry, detect_distributed_environment().global_rank == 0
    # all processes must agree on whether the run is tracked
    if tracked is not None and (first or not tracked.required) and not tracked.reachable():
        tracked = None
    return make_loggers(
        tracked.tracking_uri if tracked else None,
        registry.experiment if registry else "glitchflow",
        tensorboard,
        checkpoints / "logs",
        system_metrics=bool(tracked and tracked.system_metrics),
        provenance=checkpoints / "provenance" if registry and registry.provenance else None,
    )
