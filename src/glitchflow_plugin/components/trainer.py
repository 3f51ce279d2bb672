"""The step Trainer: learns the twin, judges it once, and registers it."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from itwinai.components import monitor_exec

from glitchflow_plugin.components._configuration import StrictConfiguration
from glitchflow_plugin.components._loop_trainer import LoopTrainer
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.build import check_network
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.tracking.itwinai_tracker import ItwinaiTracker, log_results, unsent
from glitchflow_plugin.tracking.training_run import last_status
from glitchflow_plugin.tracking.versions import ModelVersion
from glitchflow_plugin.training import run
from glitchflow_plugin.training.baseline import BaselineSettings
from glitchflow_plugin.training.batches import WindowBatches, window_batches
from glitchflow_plugin.training.checkpoints import BEST
from glitchflow_plugin.training.learner import Learner
from glitchflow_plugin.training.learners import choose_learner
from glitchflow_plugin.training.losses import LossSettings
from glitchflow_plugin.training.registration import (
    Outcome,
    RegistrySettings,
    provenance,
    register_trained,
    warn_of_a_small_gate,
)
from glitchflow_plugin.training.trained_twin import TrainedTwin


class Trainer(LoopTrainer):
    """Train a network on windows, keep the checkpoint that is best on validation, judge it on test events, register it.

    conf/training.yaml explains the keys that are not named here.

    Args:
        folder: Folder of the training set, used where none comes from the step before; summary.json goes here.
        model: Name and settings of the network, as in conf/model/.
        config: `training.config`.
        events: Folder of the event set that the maps were made of; models of waveforms need it.
        registry: The keys of registry.yaml; None: nothing is tracked or registered.
        checkpoints: Folder for checkpoints.
        tensorboard: Folder for TensorBoard; None for none.
        pictures: The keys of pictures.yaml.
        run_name: Name of the MLflow run.
        ray: `ray_*` arguments of itwinai's TorchTrainer.
    """

    learner: Learner

    @keeping_arguments
    def __init__(
        self,
        *,
        folder: str,
        model: dict[str, Any],
        config: dict[str, Any] | None = None,
        events: str | None = None,
        baseline: dict[str, Any] | None = None,
        registry: dict[str, Any] | None = None,
        epochs: int = 100,
        strategy: str | None = None,
        device: str = "auto",
        random_seed: int = 0,
        checkpoints: str = "checkpoints",
        tensorboard: str | None = None,
        from_checkpoint: str | None = None,
        resume: bool = False,
        checkpoint_minutes: float | None = None,
        max_minutes: float | None = None,
        checkpoint_every: int | None = 1,
        pictures_every: int = 5,
        pictures: Mapping[str, Any] | None = None,
        disable_tqdm: bool = False,
        run_name: str | None = None,
        name: str | None = None,
        **ray: Any,
    ) -> None:
        if not model or "name" not in model:
            raise ConfigurationError("model: expected `name` and settings of a network. Choose one: conf/model=unet.")
        check_network(model)
        checked = StrictConfiguration.checked(config)
        LossSettings(l1=checked.loss_l1, ssim=checked.loss_ssim)  # wrong weights are refused before anything is read
        self.baseline_settings = built(BaselineSettings, baseline, "training.baseline")
        self.folder, self.network_settings, self.pictures_every = Path(folder), dict(model), pictures_every
        self.events, self.pictures = events, built(PictureSettings, pictures, "pictures")
        super().__init__(
            config=checked,
            registry=built(RegistrySettings, registry, "registry") if registry else None,
            epochs=epochs,
            strategy=strategy,
            device=device,
            random_seed=random_seed,
            checkpoints=checkpoints,
            tensorboard=tensorboard,
            from_checkpoint=from_checkpoint,
            resume=resume,
            checkpoint_minutes=checkpoint_minutes,
            max_minutes=max_minutes,
            checkpoint_every=checkpoint_every,
            disable_tqdm=disable_tqdm,
            run_name=run_name,
            name=name,
            **ray,
        )

    @monitor_exec
    @holding("checkpoints_location", reads=("folder",))
    def execute(self, training_set: TrainingSet | None = None) -> ModelVersion | None:  # pyright: ignore
        """Train, judge, register.

        Args:
            training_set: Windows and scaling; opened from `folder` if None.

        Returns:
            The registered version; None without a registry, and in all processes but the first.
        """
        started = now()
        if not self.learn(training_set):
            return None
        with last_status(self._mlflow, self._run_id):
            return self._finish(self.best_twin(), started)

    def learn(self, training_set: TrainingSet | None = None) -> bool:
        """Train; no test event is looked at.

        Args:
            training_set: Windows and scaling; opened from `folder` if None.

        Returns:
            Whether this process is the one that goes on with what was learnt.
        """
        self.training_set = training_set or TrainingSet.open(self.folder)
        self.learner = self._choose_learner()
        windows = self.learner.training_windows(), self.learner.dataset("validation")
        trained_here = self.train_on(*windows)
        for dataset in windows:
            dataset.forget()
        return trained_here

    # what the training asks for

    def _make_batches(self, training: Any, validation: Any) -> WindowBatches:
        return window_batches(
            training,
            validation,
            self.config,
            seed=self.random_seed or 0,
            device=torch.device(self.device),
            processes=self.processes,
        )

    def _tell_run(self, tracker: ItwinaiTracker) -> None:
        if self.registry is not None:
            warn_of_a_small_gate(self.training_set.split, self.registry)
        used = self.training_set
        shown = run.parameters(used, self.network_settings, self.learner.witnesses, self.epochs)
        tracker.params(shown | provenance(used.fingerprint))
        tracker.data(used.spectrograms.name, used.fingerprint)

    def _draw_examples(self, epoch: int) -> None:
        if not self.pictures_every or epoch % self.pictures_every:
            return
        assert self.loop is not None  # noqa: S101
        figure = self.learner.examples(
            self.loop.predict,
            self.loop.batches.validation.dataset,
            title="validation events",
            threshold=self.config.threshold,
            axis=self.pictures.frequency_axis,
            classes=self._classes,
        )
        self._tracker.figure("examples", figure, epoch)

    def _choose_learner(self) -> Learner:
        model, baseline = self.network_settings, self.baseline_settings
        return choose_learner(self.training_set, model, self.config, baseline=baseline, events=self.events)

    # afterwards, in the first process

    def best_twin(self) -> TrainedTwin:
        """The twin that was best on validation, for whoever judges it."""
        self._load_best()
        return TrainedTwin(self.learner, self.twin, self.config)

    def _finish(self, trained: TrainedTwin, started: str) -> ModelVersion | None:
        registry = self.registry
        result = run.finish(trained, run.Conditions(self.run_name, self.epochs, self.random_seed, self._classes))
        run_id = self._log_result(trained, result)
        checkpoint, outcome = self._checkpoints / BEST, Outcome()
        if registry is not None:
            outcome = register_trained(
                result.bundle,
                registry,
                run.make_gate(trained, result.bundle, registry.gate).decide,
                training=self.training_set.folder,
                checkpoint=checkpoint,
                run_id=run_id,
                trained_by=self.run_id,
                unsent=unsent(self.logger),
            )
        report(run.summarize(result, self.training_set, outcome, started=started, checkpoint=checkpoint), self.folder)
        outcome.raise_if(registry is not None and registry.required)
        return outcome.version

    def _log_result(self, trained: TrainedTwin, result: run.TrainingResult) -> str | None:
        """Log test figures and pictures to the run of the training, and return its id."""
        if self.logger is None:
            return self._run_id
        axis, classes = self.pictures.frequency_axis, self._classes
        figures = run.pictures(trained, result.scores, axis=axis, classes=classes)
        return log_results(self.logger, self._run_id, self.run_name, result.test_figures, figures)

    @cached_property
    def _classes(self) -> Mapping[str, str]:
        return self.pictures.classes()
