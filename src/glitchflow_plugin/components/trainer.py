"""The step Trainer: learns the twin, judges it once, and registers it."""

import hashlib
import json
import logging
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from itwinai.components import monitor_exec
from itwinai.distributed import detect_distributed_environment
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from tqdm import tqdm

from glitchflow_plugin.components._configuration import StrictConfiguration
from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.components._strategies import backward
from glitchflow_plugin.components._torch_trainer import SoundTorchTrainer, unwrapped
from glitchflow_plugin.data.files import read_json, write_json
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.parent import end_with_parent
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.window_dataset import BatchOrder, Share, share_cache
from glitchflow_plugin.data.window_order import WindowOrder, balancing_weights, read_labels
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.inference.fresh import check_events
from glitchflow_plugin.models.build import check_network, representation
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.environment import environment
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.settings import built
from glitchflow_plugin.tracking.connection import guarded
from glitchflow_plugin.tracking.itwinai_tracker import BufferedMLFlowLogger, ItwinaiTracker, make_loggers, unsent
from glitchflow_plugin.tracking.runs import Unsent
from glitchflow_plugin.tracking.versions import ModelVersion
from glitchflow_plugin.training.baseline import BaselineSettings
from glitchflow_plugin.training.checkpoints import (
    BEST,
    EARLIER,
    ORIGIN,
    RUN,
    bring_earlier_back,
    forget_damaged,
    judged_weights,
    recover,
    replace_folder,
    run_of,
    set_earlier_aside,
)
from glitchflow_plugin.training.energy import EnergyLearner
from glitchflow_plugin.training.gate import GateSettings
from glitchflow_plugin.training.interruption import ignore_signals
from glitchflow_plugin.training.judged_events import Gate
from glitchflow_plugin.training.learner import Learner
from glitchflow_plugin.training.losses import LossSettings
from glitchflow_plugin.training.precision import choose_precision, in_precision
from glitchflow_plugin.training.registration import Outcome, RegistrySettings, provenance, register_trained
from glitchflow_plugin.training.run import (
    Conditions,
    Trained,
    finish,
    network_settings,
    part_batches,
    pictures,
    read_best,
    settle_earlier,
    summarize,
)
from glitchflow_plugin.training.steps import Stepper, moving_average, warm_up
from glitchflow_plugin.training.waveform import WaveformLearner, WaveformLoss

logger = logging.getLogger(__name__)

#: Beside the checkpoints: the MLflow run of the training.
_RUN = "mlflow_run.json"
#: A block of the shuffled order is this part of the cache, so that up to seven loader workers can hold it.
_BLOCKS = 8


class Trainer(SoundTorchTrainer):
    """Train a network on windows, keep the checkpoint that is best on validation, judge it on test events, register it.

    Args:
        folder: Of the training set, used where none comes from the step before; summary.json goes here.
        model: Name and settings of the network, as in conf/model/.
        config: `training.config`; see `StrictConfiguration`.
        events: Folder of the event set that the maps were made of; models of waveforms need it.
        baseline: `training.baseline`; see `BaselineSettings`.
        registry: The keys of registry.yaml; None: nothing is tracked or registered.
        epochs: Epochs in all, those before a resumption included.
        strategy: None, `ddp`, `deepspeed` or `horovod`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        random_seed: Of weights and order.
        checkpoints: Folder for checkpoints.
        tensorboard: Folder for TensorBoard; None for none.
        from_checkpoint: Checkpoint to go on from.
        resume: Go on from the newest usable checkpoint in `checkpoints`, where there is one.
        checkpoint_minutes: Minutes after which a checkpoint is written within an epoch; None: never.
        max_minutes: Minutes of training after which it ends in good order; None: no limit.
        checkpoint_every: Epochs between checkpoints.
        pictures_every: Epochs between example pictures; 0 for none.
        pictures: The keys of pictures.yaml.
        disable_tqdm: No progress bars.
        run_name: Of the MLflow run.
        name: Name of the step.
        ray: `ray_*` arguments of itwinai's TorchTrainer.
    """

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
        arguments = {key: value for key, value in locals().items() if key not in ("self", "ray", "__class__")}
        unknown = sorted(key for key in ray if not key.startswith("ray_"))
        if unknown:
            raise TypeError(f"Trainer got unexpected arguments {unknown}")
        if not model or "name" not in model:
            raise ConfigurationError("model: expected `name` and settings of a network. Choose one: conf/model=unet.")
        check_network(model)
        if run_name is not None:
            check_name(str(run_name), "run_name")
        checked = StrictConfiguration.checked(config)
        LossSettings(l1=checked.loss_l1, ssim=checked.loss_ssim)  # wrong weights are refused before anything is read
        self.baseline_settings = built(BaselineSettings, baseline, "training.baseline")
        self.registry = built(RegistrySettings, registry, "registry") if registry else None
        tracked = self.registry
        first = detect_distributed_environment().global_rank == 0
        # all processes must agree on whether the run is tracked
        if tracked is not None and (first or not tracked.required) and not tracked.reachable():
            tracked = None
        self.folder, self.network_settings, self.pictures_every = Path(folder), dict(model), pictures_every
        self.events, self.pictures = events, built(PictureSettings, pictures, "pictures")
        super().__init__(
            device=device,
            config=checked,
            epochs=epochs,
            strategy=strategy,
            random_seed=random_seed,
            logger=make_loggers(
                tracked.tracking_uri if tracked else None,
                self.registry.experiment if self.registry else "glitchflow",
                tensorboard,
                Path(checkpoints) / "logs",
                system_metrics=bool(tracked and tracked.system_metrics),
                provenance=Path(checkpoints) / "provenance" if self.registry and self.registry.provenance else None,
            ),
            checkpoints_location=checkpoints,
            checkpoint_every=checkpoint_every,
            disable_tqdm=disable_tqdm,
            from_checkpoint=from_checkpoint,
            resume=resume,
            checkpoint_minutes=checkpoint_minutes,
            max_minutes=max_minutes,
            run_name=run_name,
            name=name,
            **ray,
        )
        self.save_parameters(**arguments, **ray)
        self._is_main = True
        self.run_id = uuid.uuid4().hex
        #: Runs whose best network may be registered: this one, and the one that it goes on from.
        self._runs = {self.run_id}

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
        if "TORCHELASTIC_RUN_ID" in os.environ:
            end_with_parent()
        self.training_set = training_set or TrainingSet.open(self.folder)
        self.learner = self._choose_learner()
        self.witnesses = self.learner.witnesses
        training, validation = self.learner.lessons(), self.learner.dataset("validation")
        with guarded(self.registry.tracking_uri if self.registry else None):
            super().execute(training, validation)  # pyright: ignore[reportArgumentType]
        # what follows opens its own
        self.train_dataloader = self.validation_dataloader = None
        for dataset in (training, validation):
            dataset.forget()
        if not self._is_main:
            return None
        self.device_for_judging = torch.device(self._device)
        with self._run_to_the_end():
            self._load_best()
            return self._finish(self.training_set.open_spectrograms(), started)

    def train(self) -> None:
        """Run all epochs (under whatever strategy)."""
        self._is_main = self.strategy.is_main_worker
        if self._is_main:
            self._prepare_best()
            self._remember_run()
            self._tell_of_a_small_gate()
            self._tracker.params(self._settings() | provenance(self.training_set.fingerprint))
            self._tracker.data(self.training_set.spectrograms.name, self.training_set.fingerprint)
            self._tracker.text("environment.json", json.dumps(environment(), indent=2))
        super().train()

    def _tell_of_a_small_gate(self) -> None:
        """Say before training, not after it, that nothing can be promoted."""
        if self.registry is None:
            return
        split, wanted = self.training_set.split, self.registry.gate.min_groups
        groups = split.gate.num_groups(split.block_length)
        if groups < wanted:
            logger.warning(
                "The gate's part has %d group(s) of %d event(s), and with fewer than %d (registry.gate.min_groups) "
                "nothing becomes %s by itself. The model is trained and registered all the same, to be used by number.",
                groups,
                len(split.gate),
                wanted,
                self.registry.alias,
            )

    def _run_worker(self, *arguments: Any, **keywords: Any) -> None:
        """Train as one of possibly several processes, in the MLflow run of the training that is resumed."""
        if detect_distributed_environment().global_rank == 0 and not self.uses_ray:
            self._take_up_run()
            # the figures of the test and the registration belong to it
            self._tracker.end_as("RUNNING")
        try:
            super()._run_worker(*arguments, **keywords)
        except BaseException as error:
            status, mlflow = "FAILED" if isinstance(error, Exception) else "KILLED", self.mlflow_logger
            self._tracker.end_as(status)
            if mlflow is not None and mlflow.is_initialized:
                mlflow.destroy_logger_context()
            self._remember_run(status)
            raise

    def _take_up_run(self) -> None:
        """Continue the MLflow run of the training that is resumed; one that is not resumed has been killed."""
        path, mlflow = Path(self.checkpoints_location) / _RUN, self.mlflow_logger
        if not isinstance(mlflow, BufferedMLFlowLogger) or not path.exists():
            return
        before = read_json(path)
        if not isinstance(before, dict) or before.get("tracking_uri") != mlflow.tracking_uri:
            return
        run_id, kept = str(before.get("run_id")), [Unsent(**item) for item in before.get("unsent", ())]
        if self.resume or self._goes_on_here():
            mlflow.resume_run(run_id, kept)
        else:
            mlflow.close_abandoned_run(run_id, kept, before.get("status", "KILLED"))

    def _remember_run(self, status: str = "KILLED") -> None:
        """Write down which MLflow run this training has, and what that lacks, for whoever trains here next.

        Args:
            status: Of the run, if nobody resumes it.
        """
        mlflow = self.mlflow_logger
        if isinstance(mlflow, BufferedMLFlowLogger) and self.mlflow_worker_run_id and not self.uses_ray:
            known = {"tracking_uri": mlflow.tracking_uri, "run_id": self.mlflow_worker_run_id, "status": status}
            waits = [asdict(item) for item in unsent(self.logger)]
            write_json(Path(self.checkpoints_location) / _RUN, {**known, "unsent": waits})

    @contextmanager
    def _run_to_the_end(self) -> Iterator[None]:
        """Give the MLflow run its status when all is over: what fails after the last epoch fails the run."""
        status = "KILLED"
        try:
            yield
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            run_id = self.mlflow_worker_run_id or self.mlflow_tune_run_id
            if isinstance(self.mlflow_logger, BufferedMLFlowLogger) and run_id:
                self.mlflow_logger.end_as(run_id, status)

    def _goes_on_here(self) -> bool:
        """Whether the training goes on from a checkpoint of its own folder."""
        root = Path(self.checkpoints_location).resolve()
        return self.from_checkpoint is not None and Path(self.from_checkpoint).resolve().parent == root

    # training, one process among possibly several

    def create_dataloaders(self, train_dataset: Any, validation_dataset: Any = None, test_dataset: Any = None) -> None:
        """Loaders whose order depends on seed and epoch alone (itwinai's shuffling ignores the seeded generator)."""
        del test_dataset
        rank, processes = self.strategy.global_rank(), self.strategy.global_world_size()
        share_cache(int(self.config.cache_mib * 2**20), train_dataset, validation_dataset)
        places = train_dataset.places
        labels = read_labels(self.config.labels) if self.config.labels else None
        block_mib = self.config.shuffle_mib or self.config.cache_mib / _BLOCKS
        order = WindowOrder(
            places,
            shuffle=self.config.shuffle_train,
            seed=self.random_seed or 0,
            block_bytes=int(block_mib * 2**20),
            weights=balancing_weights(places, self.config.balance, train_dataset.event_ids, labels),
        )
        self.batch_order = BatchOrder(order, self.config.batch_size, rank=rank, world_size=processes)
        loader = partial(
            DataLoader,
            num_workers=self.config.num_workers_dataloader,
            pin_memory=self.config.pin_gpu_memory or torch.device(self.device).type == "cuda",
            persistent_workers=self.config.num_workers_dataloader > 0,
            worker_init_fn=ignore_signals,
            # of its own: a loader draws a number whenever it starts, and a resumed run starts it once more
            generator=torch.Generator(),
        )
        self.train_dataloader = loader(train_dataset, batch_sampler=self.batch_order)
        exact = Share(len(validation_dataset), rank=rank, world_size=processes)
        self.validation_dataloader = loader(validation_dataset, batch_size=self.config.batch_size, sampler=exact)

    def create_model_loss_optimizer(self) -> None:
        """Network, optimiser and scheduler, from the checkpoint where there is one."""
        network = self.learner.network()
        if self.model_state_dict:
            self._check_origin()
            self.load_weights(network, self.model_state_dict)
        network = network.to(self.device)
        if self.config.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = network
        self._set_optimizer_from_config()
        if self.config.lr_scheduler == "plateau":
            self.lr_scheduler = ReduceLROnPlateau(  # type: ignore[assignment]  # pyright: ignore
                self.optimizer,  # type: ignore[arg-type]  # pyright: ignore
                factor=self.config.lr_scheduler_gamma,
                patience=self.config.lr_scheduler_patience,
            )
        if self.optimizer_state_dict:
            self.optimizer.load_state_dict(self.optimizer_state_dict)  # type: ignore[union-attr]  # pyright: ignore
        if self.lr_scheduler_state_dict and self.lr_scheduler:
            self.lr_scheduler.load_state_dict(self.lr_scheduler_state_dict)
        if self.config.ema is not None:
            self.average = moving_average(network, self.config.ema)
            if self.average_state_dict:
                self.load_weights(self.average.module, self.average_state_dict)
                self.average.n_averaged.fill_(self._average_count)
        self.twin = self.learner.twin(network if self.average is None else self.average.module)
        if self.strategy.is_distributed:
            together: Any = self.strategy
            self.model, self.optimizer, self.lr_scheduler = together.distributed(
                network, self.optimizer, self.lr_scheduler, **self.get_default_distributed_kwargs()
            )

        self.take_up()
        self.stepper = self._stepper()

    def _stepper(self) -> Stepper:
        assert self.model is not None and self.optimizer is not None  # noqa: S101, PT018
        dtype = choose_precision(self.config.precision, torch.device(self.device))
        logger.info("training on %s in %s", self.device, str(dtype).removeprefix("torch."))
        # the compiled network is another object: checkpoints keep the names of this one
        runs: Any = torch.compile(self.model) if self.config.compile else self.model
        return Stepper(
            partial(self.learner.losses, in_precision(runs, dtype), self.twin),
            self._on_device,
            self.model,
            self.optimizer,
            gradient_clip=self.config.gradient_clip,
            average=self.average,
            world_size=self.strategy.global_world_size(),
            piece_size=self.piece_size,
            backward=partial(backward, self.model),
        )

    def _override_config(self, config: dict[str, Any]) -> None:
        """Take a sample of the search space, which may concern the learner."""
        super()._override_config(config)
        self.learner = self._choose_learner()

    def order_digest(self) -> str:
        """Digest of the numbers of the present epoch's windows in their order."""
        return hashlib.sha256(self.batch_order.order(self.current_epoch).tobytes()).hexdigest()

    def checkpoint_notes(self) -> dict[str, Any]:
        """What a checkpoint was trained on, and by which run."""
        return {ORIGIN: self.learner.origin(), RUN: {"id": self.run_id}}

    def _check_origin(self) -> None:
        path = Path(self.from_checkpoint or "") / f"{ORIGIN}.json"
        if not path.exists():
            return
        here, there = self.learner.origin(), read_json(path)
        other = [name for name in here if here[name] != there.get(name)]
        if other:
            raise ConfigurationError(
                f"{path.parent} was trained with another {' and '.join(other)}: going on would mix its training events "
                "with the present validation and test. Make the split and windows as they were, or start anew with "
                "training.from_checkpoint=null."
            )

    def train_epoch(self) -> Tensor:
        """Visit every training window once, or those that are left of the epoch."""
        assert self.model is not None and self.train_dataloader is not None and self.optimizer is not None  # noqa: S101, PT018
        self.model.train()
        self.batch_order.set_epoch(self.current_epoch, self.visited)
        shares = self.batch_order.shares()
        in_epoch = math.ceil(len(self.batch_order.order(self.current_epoch)) / self.batch_order.global_size)
        warming = round(self.config.warmup_epochs * in_epoch)
        # a sum on the device: reading it would wait for each step
        self.loss_sum = torch.tensor(self.loss_sum, dtype=torch.float64, device=self.device)
        bar = tqdm(
            self.train_dataloader,
            desc=f"training, epoch {self.current_epoch + 1}/{self.epochs}",
            disable=self.disable_tqdm or not self.strategy.is_main_worker,
            leave=False,
        )
        dropout = getattr(unwrapped(self.model), "channel_dropout", 0.0)
        left_out = self.batch_order.left_out(len(self.witnesses), dropout, self.random_seed or 0)
        for (witnesses, strain), (mine, whole), missing in zip(bar, shares, left_out, strict=True):
            witnesses[torch.from_numpy(missing)] = 0.0
            warm_up(self.optimizer, self.config.optim_lr, self.train_glob_step, warming)
            self.loss_sum += self.stepper.step(witnesses, strain, mine, whole)
            self.loss_count += mine
            self.visited += whole
            self.train_glob_step += 1
            self.piece_size = self.stepper.piece_size
            if self.after_step(self.train_glob_step):
                break
        self._warm = self.train_glob_step >= warming
        totals = self.strategy.allgather_obj((float(self.loss_sum), self.loss_count))
        loss = sum(total for total, _ in totals) / sum(number for _, number in totals)
        if not math.isfinite(loss):
            raise DataError(f"the training loss became {loss} in epoch {self.current_epoch + 1}. Lower optim_lr.")
        self._tracker.metric("train_loss", loss, self.current_epoch)
        self._train_loss = loss
        return torch.tensor(loss)

    def validation_epoch(self) -> Tensor:
        """Judge the network on all validation windows; the same number on all processes."""
        assert self.validation_dataloader is not None and self.optimizer is not None  # noqa: S101, PT018
        self.twin.eval()
        if self.strategy.is_distributed:
            # the first process's running statistics are those that are saved: all judge with them
            for statistics in self.twin.buffers():
                torch.distributed.broadcast(statistics, src=0)
        here = self.learner.judge(
            self._predict,
            self.interruptible(self.validation_dataloader),
            self.twin,
            device=torch.device(self.device),
            threshold=self.config.threshold,
        )
        figures = here.concatenate(self.strategy.allgather_obj(here)).figures()
        loss = figures.pop("loss")
        if not math.isfinite(loss):
            raise DataError(f"the validation loss became {loss} in epoch {self.current_epoch + 1}. Lower optim_lr.")
        rate = float(self.optimizer.param_groups[0]["lr"])
        # an epoch that was cut short is validated again when it is over
        if self.lr_scheduler is not None and self._warm and not self._cut:
            self.lr_scheduler.step(loss)  # type: ignore[arg-type]  # pyright: ignore  # on validation, never on test
        self.epoch_figures = figures
        self._tell(loss, figures, rate)
        return torch.tensor(loss, dtype=torch.float64)

    @cached_property
    def _classes(self) -> Mapping[str, str]:
        return self.pictures.classes()

    def _examples(self, predict: Callable[[Tensor], Tensor], dataset: Any, part: str) -> Any:
        return self.learner.examples(
            predict,
            dataset,
            title=f"{part} events",
            threshold=self.config.threshold,
            axis=self.pictures.frequency_axis,
            classes=self._classes,
        )

    def _tell(self, loss: float, figures: dict[str, float], rate: float) -> None:
        tracker = self._tracker
        tracker.metric("validation_loss", loss, self.current_epoch)
        tracker.metric("learning_rate", rate, self.current_epoch)
        for key, value in figures.items():
            tracker.metric(f"validation_{key}", value, self.current_epoch)
        if not self.strategy.is_main_worker:
            return
        if self.pictures_every and self.current_epoch % self.pictures_every == 0:
            dataset: Any = self.validation_dataloader.dataset  # type: ignore[union-attr]  # pyright: ignore
            tracker.figure("examples", self._examples(self._predict, dataset, "validation"), self.current_epoch)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if "accuracy" in key)
        line = (
            f"epoch {self.current_epoch + 1}/{self.epochs}: training loss {self._train_loss:.4f}, validation {loss:.4f}"
        )
        logger.info("%s, %s, learning rate %.1e", line, shown, rate)

    # afterwards, in the first process

    def _finish(self, _: SpectrogramSet, started: str) -> ModelVersion | None:
        trained = finish(self.learner, self.twin, self._conditions, self.device_for_judging)
        run_id, registry = self._log_trained(trained), self.registry
        checkpoint, outcome = Path(self.checkpoints_location) / BEST, Outcome()
        if registry is not None:
            outcome = register_trained(
                trained.bundle,
                registry,
                self._gate(trained.bundle, registry.gate).decide,
                training=self.training_set.folder,
                checkpoint=checkpoint,
                run_id=run_id,
                trained_by=self.run_id,
                unsent=unsent(self.logger),
            )
        report(summarize(trained, self.training_set, outcome, started=started, checkpoint=checkpoint), self.folder)
        outcome.raise_if(registry is not None and registry.required)
        return outcome.version

    @property
    def _conditions(self) -> Conditions:
        return Conditions(self.run_name, self.epochs, self.random_seed, self.config)

    def _log_trained(self, trained: Trained) -> str | None:
        """Log test figures and pictures to the run of the training, and return its id."""
        run_id = self.mlflow_worker_run_id or self.mlflow_tune_run_id
        if self.logger is None:
            return run_id
        self.logger.create_logger_context(rank=0, run_id=run_id, run_name=None if run_id else self.run_name)
        tracker = ItwinaiTracker(self.logger)
        for name, value in trained.test_figures.items():
            tracker.metric(name, value, 0)
        shown = {"axis": self.pictures.frequency_axis, "classes": self._classes}
        for name, figure in pictures(
            self.learner, trained, threshold=self.config.threshold, device=self.device_for_judging, **shown
        ).items():
            tracker.picture(name, figure)
        found_run = getattr(self.mlflow_logger, "active_run", None)
        self.logger.destroy_logger_context()
        return run_id or (found_run.info.run_id if found_run is not None else None)

    def _gate(self, bundle: ModelBundle, settings: GateSettings) -> Gate:
        """What decides about a bundle, on events that chose nothing."""
        learner, device = self.learner, self.device_for_judging
        return Gate(
            self.training_set, learner.events, learner.event_losses, bundle, settings, device, self.config.threshold
        )

    # small things

    @property
    def _tracker(self) -> ItwinaiTracker:
        return ItwinaiTracker(self.logger)

    def _choose_learner(self) -> Learner:
        """The learner of what the network looks at."""
        if representation(self.network_settings["name"]) == "waveform":
            if self.events is None:
                raise ConfigurationError(
                    f"the model {self.network_settings['name']} looks at whitened series: give the Trainer `events`, "
                    "the event set that the maps were made of."
                )
            return WaveformLearner(
                training_set=self.training_set,
                events=EventSet.open(self.events),
                model=self.network_settings,
                loss=WaveformLoss(floor=self.config.loss_floor, variance=self.config.loss_variance),
                baseline_settings=self.baseline_settings,
                cache_mib=self.config.cache_mib,
                truth=Path(self.config.truth) if self.config.truth else None,
            )
        return EnergyLearner(
            training_set=self.training_set,
            model=self.network_settings,
            loss=LossSettings(l1=self.config.loss_l1, ssim=self.config.loss_ssim),
            baseline_settings=self.baseline_settings,
            cache_mib=self.config.cache_mib,
            events=self._events_of_maps(),
        )

    def _events_of_maps(self) -> EventSet | None:
        """The event set that the maps were made of, where it is at hand: the gate injects signals into it."""
        if self.events is None:
            return None
        try:
            events = EventSet.open(self.events)
            check_events(self.training_set.open_spectrograms(), events)
        except FormatError as error:
            logger.warning("%s Whether signals stay in the strain cannot be tested.", error)
            return None
        return events

    def _batches(self, part: str) -> DataLoader[Any]:
        return part_batches(self.learner, self.config.batch_size, part)

    def _predict(self, witnesses: Tensor) -> Tensor:
        return self.twin(self._on_device(witnesses))

    def _on_device(self, windows: Tensor) -> Tensor:
        images = self.config.channels_last and windows.dim() == 4
        layout = torch.channels_last if images else torch.contiguous_format
        return windows.to(self.device, memory_format=layout, non_blocking=True)

    def _settings(self) -> dict[str, Any]:
        network = network_settings(self.network_settings, len(self.witnesses))
        settings = {f"model_{key}": value for key, value in network.items()}
        counts = self.training_set.counts()
        windows = {f"windows_{name}_{kind}": counts[name][kind] for name in PARTS for kind in ("glitch", "background")}
        return {**settings, **windows, "witnesses": ", ".join(self.witnesses), "epochs": self.epochs}

    def _prepare_best(self) -> None:
        """Begin with the best network of the training that is resumed, and never with that of another one."""
        root = Path(self.checkpoints_location)
        best, start = root / BEST, Path(self.from_checkpoint) if self.from_checkpoint else None
        recover(best)
        if start is not None and start.resolve().parent == (root / EARLIER).resolve():
            bring_earlier_back(root)
            start = root / start.name
        elif not self._goes_on_here():
            set_earlier_aside(root)
        elif self.resume and start is not None:
            forget_damaged(root, start)
        if start is None:
            return
        source = start.parent / BEST
        if source.resolve() == best.resolve() and best.exists():
            # one that was never judged has none yet: the best that lies there is an earlier training's
            if math.isfinite(float(self.best_validation_metric)) or run_of(best) == run_of(start):
                self._runs.add(run_of(best))
            return
        replace_folder(source if source.exists() else start, best)
        self._runs.add(run_of(best))

    def _load_best(self) -> None:
        """Take the network that was best on validation, in a fresh twin on the device of this process."""
        network, root = self.learner.network(), Path(self.checkpoints_location)
        if self.uses_ray:
            self._fetch_from_ray(root / BEST)
        self.load_weights(network, judged_weights(read_best(root, self._runs)))
        settle_earlier(root, self.learner.origin(), float(self.best_validation_metric))
        self.model = network.to(choose_device(self._device)).eval()
        self.twin = self.learner.twin(self.model).eval()

    def _fetch_from_ray(self, best: Path) -> None:
        mode = getattr(self.ray_tune_config, "mode", None) or "min"
        metric = getattr(self.ray_tune_config, "metric", None) or "loss"
        result = self.tune_result_grid.get_best_result(metric=metric, mode=mode)
        checkpoint = result.get_best_checkpoint(metric, mode) or result.checkpoint
        if checkpoint is None:
            raise DataError("the best Ray trial left no checkpoint. Set checkpoint_every: 1.")
        with checkpoint.as_directory() as folder:
            shutil.rmtree(best, ignore_errors=True)
            shutil.copytree(folder, best)


__all__ = ["Trainer", "unwrapped"]
