"""The step Trainer: learns the twin, judges it once, and registers it."""

import logging
import math
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from itwinai.components import monitor_exec
from itwinai.distributed import detect_distributed_environment
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._strategies import backward
from glitchflow_plugin.components._torch_trainer import BEST, LAST, SoundTorchTrainer, StrictConfiguration, unwrapped
from glitchflow_plugin.data.files import content_hash, read_json, write_json
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.window_dataset import WindowDataset, WindowSampler
from glitchflow_plugin.errors import ConfigurationError, ConnectionFailedError, DataError, RegistryError
from glitchflow_plugin.inference.score import Scores
from glitchflow_plugin.models.build import build_model
from glitchflow_plugin.models.bundle import EnergyTwin, ModelBundle
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now, versions
from glitchflow_plugin.tracking.itwinai_tracker import ItwinaiTracker, make_loggers
from glitchflow_plugin.tracking.registry import (
    ModelVersion,
    check_connection,
    ensure_experiment,
    guarded,
    promote_if_better,
    register,
)
from glitchflow_plugin.training.baseline import Baseline, BaselineSettings, fit_baseline
from glitchflow_plugin.training.evaluation import WindowResults, ZeroTwin, judge_events, judge_windows
from glitchflow_plugin.training.losses import LossSettings, map_loss

logger = logging.getLogger(__name__)

#: In a checkpoint: what it was trained on.
_ORIGIN = "trained_on.json"
_REGISTRY_KEYS = {"tracking_uri", "experiment", "artifacts", "name", "alias"}


class Trainer(SoundTorchTrainer):
    """Train a network on windows, keep the checkpoint that is best on validation, judge it on test events, register it.

    Args:
        folder: Of the training set, used where none comes from the step before; summary.json goes here.
        model: The keys of model.yaml.
        config: `training.config`; see `StrictConfiguration`.
        baseline: `training.baseline`; see `BaselineSettings`.
        registry: The keys of registry.yaml; None: nothing is tracked or registered.
        epochs: Epochs in all, those before a resumption included.
        strategy: None, `ddp`, `deepspeed` or `horovod`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        random_seed: Of weights and order.
        checkpoints: Folder for checkpoints.
        tensorboard: Folder for TensorBoard; None for none.
        from_checkpoint: Checkpoint to go on from.
        checkpoint_every: Epochs between checkpoints.
        pictures_every: Epochs between example pictures; 0 for none.
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
        baseline: dict[str, Any] | None = None,
        registry: dict[str, Any] | None = None,
        epochs: int = 100,
        strategy: str | None = None,
        device: str = "auto",
        random_seed: int = 0,
        checkpoints: str = "checkpoints",
        tensorboard: str | None = None,
        from_checkpoint: str | None = None,
        checkpoint_every: int | None = 1,
        pictures_every: int = 5,
        disable_tqdm: bool = False,
        run_name: str | None = None,
        name: str | None = None,
        **ray: Any,
    ) -> None:
        arguments = {key: value for key, value in locals().items() if key not in ("self", "ray", "__class__")}
        unknown = sorted(key for key in ray if not key.startswith("ray_"))
        if unknown:
            raise TypeError(f"Trainer got unexpected arguments {unknown}")
        if "name" not in model:
            raise ConfigurationError("model.yaml: expected `name`, for instance unet.")
        registry_unknown = sorted(set(registry or {}) - _REGISTRY_KEYS)
        if registry_unknown:
            raise ConfigurationError(f"registry.yaml: unknown {registry_unknown}; known are {sorted(_REGISTRY_KEYS)}.")
        checked = StrictConfiguration.checked(config)
        self.loss_settings = LossSettings(l1=checked.loss_l1, ssim=checked.loss_ssim)
        self.baseline_settings = BaselineSettings(**(baseline or {}))
        self.registry = dict(registry) if registry else None
        if self.registry is not None and detect_distributed_environment().global_rank == 0:
            # a server that is not there shall be noticed before hours of training
            check_connection(self.registry["tracking_uri"])
            ensure_experiment(self.registry["tracking_uri"], self.registry["experiment"], self.registry["artifacts"])
        self.folder, self.network_settings, self.pictures_every = Path(folder), dict(model), pictures_every
        super().__init__(
            device=device,
            config=checked,
            epochs=epochs,
            strategy=strategy,
            random_seed=random_seed,
            logger=make_loggers(
                self.registry["tracking_uri"] if self.registry else None,
                self.registry["experiment"] if self.registry else "",
                tensorboard,
                Path(checkpoints) / "logs",
            ),
            checkpoints_location=checkpoints,
            checkpoint_every=checkpoint_every,
            disable_tqdm=disable_tqdm,
            from_checkpoint=from_checkpoint,
            run_name=run_name,
            name=name,
            **ray,
        )
        self.save_parameters(**arguments, **ray)
        self._epoch_loss = math.inf
        self._is_main = True

    @monitor_exec
    def execute(self, training_set: TrainingSet | None = None) -> ModelVersion | None:  # pyright: ignore
        """Train, judge, register.

        Args:
            training_set: Windows and scaling; opened from `folder` if None.

        Returns:
            The registered version; None without a registry, and in all processes but the first.
        """
        started = now()
        self.training_set = training_set or TrainingSet.open(self.folder)
        maps = self.training_set.open_spectrograms()
        self.witnesses = maps.channels[1:]
        dataset = partial(WindowDataset, self.training_set, cache_mib=self.config.cache_mib)
        with guarded(self.registry["tracking_uri"] if self.registry else None, patient=True):
            super().execute(dataset("train"), dataset("validation"))
        if not self._is_main:
            return None
        self.device_for_judging = torch.device(self._device)
        self._load_best()
        return self._finish(maps, started)

    def train(self) -> None:
        """Run all epochs (under whatever strategy)."""
        self._is_main = self.strategy.is_main_worker
        if self._is_main:
            self._prepare_best()
        ItwinaiTracker(self.logger).params(self._settings())
        super().train()

    # training, one process among possibly several

    def create_dataloaders(self, train_dataset: Any, validation_dataset: Any = None, test_dataset: Any = None) -> None:
        """Loaders whose order depends on seed and epoch alone (itwinai's shuffling ignores the seeded generator)."""
        del test_dataset
        rank, processes = self.strategy.global_rank(), self.strategy.global_world_size()
        size = min(self.config.batch_size, max(1, len(train_dataset) // processes))
        loader = partial(
            DataLoader,
            batch_size=size,
            num_workers=self.config.num_workers_dataloader,
            pin_memory=self.config.pin_gpu_memory,
            persistent_workers=self.config.num_workers_dataloader > 0,
        )
        shuffled = WindowSampler(
            len(train_dataset),
            shuffle=self.config.shuffle_train,
            seed=self.random_seed or 0,
            rank=rank,
            world_size=processes,
            even=True,
        )
        exact = WindowSampler(len(validation_dataset), rank=rank, world_size=processes)
        self.train_dataloader = loader(train_dataset, sampler=shuffled)
        self.validation_dataloader = loader(validation_dataset, sampler=exact)

    def create_model_loss_optimizer(self) -> None:
        """Network, optimiser and scheduler, from the checkpoint where there is one."""
        network = self._network()
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
        self.twin = self._twin(network)
        if self.strategy.is_distributed:
            together: Any = self.strategy
            self.model, self.optimizer, self.lr_scheduler = together.distributed(
                network, self.optimizer, self.lr_scheduler, **self.get_default_distributed_kwargs()
            )

    def save_checkpoint(self, *arguments: Any, **named: Any) -> str | None:
        """Save a checkpoint, and beside it what it was trained on."""
        written = super().save_checkpoint(*arguments, **named)
        if written is not None:
            write_json(Path(written) / _ORIGIN, self._origin())
        return written

    def _origin(self) -> dict[str, str]:
        """Checksums of what a resumed run must share with the one that it goes on from."""
        split = {name: self.training_set.split.part(name).event_ids for name in PARTS}
        maps = self.training_set.open_spectrograms()
        parts = {"spectrograms": maps.manifest.fingerprint, "split": split, "scaling": self.training_set.scaling}
        return {name: content_hash(part) for name, part in parts.items()}

    def _check_origin(self) -> None:
        path = Path(self.from_checkpoint or "") / _ORIGIN
        if not path.exists():
            return
        here, there = self._origin(), read_json(path)
        other = [name for name in here if here[name] != there.get(name)]
        if other:
            raise ConfigurationError(
                f"{path.parent} was trained with another {' and '.join(other)}: going on would mix its training events "
                "with the present validation and test. Make the split and windows as they were, or start anew with "
                "training.from_checkpoint=null."
            )

    def train_epoch(self) -> Tensor:
        """Visit every training window once."""
        assert self.model is not None and self.train_dataloader is not None and self.optimizer is not None  # noqa: S101, PT018
        self.model.train()
        loss_sum, count = 0.0, 0
        bar = tqdm(
            self.train_dataloader,
            desc=f"training, epoch {self.current_epoch + 1}/{self.epochs}",
            disable=self.disable_tqdm or not self.strategy.is_main_worker,
            leave=False,
        )
        for witnesses, strain in bar:
            x, y = self.twin.scale_witnesses(self._on_device(witnesses)), self.twin.scale_target(strain.to(self.device))
            self.optimizer.zero_grad(set_to_none=True)
            losses = map_loss(self.model(x), y, self.loss_settings)
            backward(self.model, losses.mean())
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
            self.optimizer.step()
            self.train_glob_step += 1
            loss_sum, count = loss_sum + float(losses.detach().sum()), count + len(losses)
            bar.set_postfix(loss=f"{loss_sum / count:.4f}", refresh=False)
        totals = self.strategy.allgather_obj((loss_sum, count))
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
        here = judge_windows(
            lambda x: self.twin(self._on_device(x)),
            self.validation_dataloader,
            self.twin,
            self.loss_settings,
            device=torch.device(self.device),
            threshold=self.config.threshold,
        )
        figures = WindowResults.concatenate(self.strategy.allgather_obj(here)).figures()
        loss = figures.pop("loss")
        if not math.isfinite(loss):
            raise DataError(f"the validation loss became {loss} in epoch {self.current_epoch + 1}. Lower optim_lr.")
        rate = float(self.optimizer.param_groups[0]["lr"])
        if self.lr_scheduler is not None:
            self.lr_scheduler.step(loss)  # type: ignore[arg-type]  # pyright: ignore  # on validation, never on test
        self._epoch_loss = loss
        self._tell(loss, figures, rate)
        return torch.tensor(loss)

    @property
    def best_so_far(self) -> float:
        """Best validation loss, that of the epoch just finished included."""
        return min(float(self.best_validation_metric), self._epoch_loss)

    def _tell(self, loss: float, figures: dict[str, float], rate: float) -> None:
        tracker = self._tracker
        tracker.metric("validation_loss", loss, self.current_epoch)
        tracker.metric("learning_rate", rate, self.current_epoch)
        for key, value in figures.items():
            tracker.metric(f"validation_{key}", value, self.current_epoch)
        if not self.strategy.is_main_worker:
            return
        if self.pictures_every and self.current_epoch % self.pictures_every == 0:
            tracker.figure("examples", self._examples(), self.current_epoch)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if "accuracy" in key)
        line = (
            f"epoch {self.current_epoch + 1}/{self.epochs}: training loss {self._train_loss:.4f}, validation {loss:.4f}"
        )
        logger.info("%s, %s, learning rate %.1e", line, shown, rate)

    def _examples(self) -> Any:
        """Figure of the validation windows with the loudest strain: measured, predicted, what is left."""
        from glitchflow_plugin.plots.cleaning import CleaningExample, plot_cleaning

        dataset: Any = self.validation_dataloader.dataset  # type: ignore[union-attr]  # pyright: ignore
        loudest = np.argsort(-dataset.windows["peak"].to_numpy(), kind="stable")
        # the loudest window of each of three events
        chosen = list({dataset.event_ids[index]: int(index) for index in loudest[::-1]}.values())[-3:][::-1]
        examples = []
        for index in chosen:
            witnesses, strain = dataset[index]
            with torch.no_grad():
                predicted = self.twin(self._on_device(witnesses[None]))[0, 0].cpu().numpy()
            measured = strain[0].numpy()
            examples.append(
                CleaningExample(
                    event_id=str(dataset.event_ids[index]),
                    gps_start=float(dataset.gps_start[index]),
                    predicted=predicted,
                    measured=measured,
                    cleaned=np.abs(measured - predicted),
                )
            )
        maps = dataset.spectrograms
        times = maps.times[: dataset.size] - maps.times[0]
        return plot_cleaning(examples, maps.frequencies, times, threshold=self.config.threshold, title="validation")

    # afterwards, in the first process

    def _finish(self, maps: SpectrogramSet, started: str) -> ModelVersion | None:
        validation = partial(self._batches, "validation")
        judge = partial(judge_windows, scaling=self.twin, loss=self.loss_settings, device=self.device_for_judging)
        baseline = fit_baseline(
            partial(self._batches, "train"),
            validation,
            self.twin,
            self.baseline_settings,
            self.loss_settings,
            num_witnesses=len(self.witnesses),
            window_size=self.training_set.settings.size,
        )
        figures = judge(self.twin, validation(), threshold=self.config.threshold).figures()
        scores = self._test_scores(maps, baseline)
        bundle = self._bundle(maps, figures, baseline)
        known = {"maps": maps, "started": started, "scores": scores, "figures": figures, "baseline": baseline}
        summary = partial(self._summary, **known)
        if self.registry is None:
            self._log_final(None, scores)
            report(summary(), self.folder)
            return None
        version = None
        try:
            with guarded(self.registry["tracking_uri"]):
                run = self._log_final(self.mlflow_worker_run_id, scores)
            keys = ("tracking_uri", "experiment", "artifacts")
            version = register(bundle, self.registry["name"], run_id=run, **{key: self.registry[key] for key in keys})
            version = promote_if_better(version, bundle, partial(self._loss_of, judge), alias=self.registry["alias"])
        except (ConnectionFailedError, RegistryError) as error:
            kept = Path(self.checkpoints_location) / BEST
            advice = f"Nothing is lost: register it later with training.from_checkpoint={kept.parent / LAST}"
            report(summary(version=version, trouble=str(error)), self.folder)
            raise type(error)(f"{error} The trained network is kept in {kept}. {advice}") from error
        report(summary(version=version), self.folder)
        return version

    def _test_scores(self, maps: SpectrogramSet, baseline: Baseline) -> dict[str, Scores]:
        """Figures of the network, the linear filter and the zero prediction on test events: the only look at them."""
        events = self.training_set.split.test.event_ids
        usable = set(np.asarray(maps.event_ids)[maps.valid[:, 0]])
        if not usable.intersection(events):
            return {}
        twins = {"model": self.twin, "linear": baseline.twin, "zero": ZeroTwin()}
        size = self.training_set.settings.size
        judge = partial(judge_events, window_size=size, threshold=self.config.threshold)
        return {key: judge(twin.eval(), maps, events, self.witnesses) for key, twin in twins.items()}

    def _log_final(self, run_id: str | None, scores: dict[str, Scores]) -> str | None:
        if self.logger is None:
            return run_id
        self.logger.create_logger_context(rank=0, run_id=run_id, run_name=None if run_id else self.run_name)
        tracker = ItwinaiTracker(self.logger)
        for key, found in scores.items():
            for metric, estimate in found.metrics().items():
                if estimate.value is not None:
                    tracker.metric(f"test_{metric}" if key == "model" else f"test_{key}_{metric}", estimate.value, 0)
        found_run = getattr(self.mlflow_logger, "active_run", None)
        self.logger.destroy_logger_context()
        return run_id or (found_run.info.run_id if found_run is not None else None)

    def _loss_of(self, judge: Any, bundle: ModelBundle, without: frozenset[str] = frozenset()) -> float:
        """Validation loss of a bundle in this run's scaling, its witnesses in its own order; NaN without events."""
        order = [self.witnesses.index(channel) for channel in bundle.witnesses]
        twin = bundle.twin.to(self.device_for_judging)
        batches = self._batches("validation", without)
        return judge(lambda x: twin(x[:, order]), batches).loss if len(batches) else math.nan

    def _bundle(self, maps: SpectrogramSet, figures: dict[str, float], baseline: Baseline) -> ModelBundle:
        scaling = self.training_set.scaling
        return ModelBundle(
            twin=self.twin,
            target=maps.target,
            witnesses=self.witnesses,
            recipe=maps.recipe,
            window_size=self.training_set.settings.size,
            frequencies=tuple(maps.frequencies.tolist()),
            times=tuple(maps.times.tolist()),
            scaling=scaling,
            metrics={f"validation_{key}": value for key, value in figures.items()},
            versions=versions(),
            dataset=maps.manifest.fingerprint,
            model=self.network_settings,
            notes={
                "epochs": self.epochs,
                "config": self.config.model_dump(mode="json"),
                "random_seed": self.random_seed,
                "events": {name: len(self.training_set.split.part(name)) for name in PARTS},
                "training_events": list(self.training_set.split.train.event_ids),
                "threshold": self.config.threshold,
                "baseline": {"representation": baseline.representation, "ridge": baseline.ridge},
            },
            baseline=baseline.twin,
        )

    def _summary(
        self,
        *,
        maps: SpectrogramSet,
        started: str,
        scores: dict[str, Scores],
        figures: dict[str, float],
        baseline: Baseline,
        version: ModelVersion | None = None,
        trouble: str = "",
    ) -> RunSummary:
        metrics = {}
        for key, estimate in (scores["model"].metrics() if scores else {}).items():
            rivals = {rival: scores[rival].metrics()[key].value for rival in ("linear", "zero")}
            metrics[key] = Metric(estimate.value, estimate.low, estimate.high, rivals)
        for key, value in figures.items():
            metrics[f"validation_{key}"] = Metric(value, baseline={"linear": baseline.validation.get(key)})
        warnings = [f"{key} is undefined: {estimate.reason}" for key, estimate in self._undefined(scores)]
        if not scores:
            warnings.append("no test event: the figures above are of validation, which chose the checkpoint")
        if trouble:
            warnings.append(trouble)
        outputs: dict[str, str] = {"checkpoint": str(Path(self.checkpoints_location) / BEST)}
        if version is not None:
            outputs["registered model"] = f"{version.name} version {version.version} at {version.tracking_uri}"
            if version.promoted is not None:
                outputs["champion"] = f"{'yes' if version.promoted else 'no'}: {version.reason}"
        kept = len(set(self.training_set.windows["event_id"]))
        return RunSummary(
            pipeline="training_pipeline/Trainer",
            started=started,
            inputs={
                "training set": str(self.training_set.folder),
                "spectrograms": str(maps.folder),
                "witnesses": ", ".join(self.witnesses),
                "model": ", ".join(f"{key} {value}" for key, value in self.network_settings.items()),
            },
            events=EventCounts.from_reasons(kept, self.training_set.unused_events()),
            metrics=metrics,
            outputs=outputs,
            warnings=tuple(warnings),
            details={"test": {key: found.to_dict() for key, found in scores.items()}},
        )

    @staticmethod
    def _undefined(scores: dict[str, Scores]) -> Iterable[tuple[str, Any]]:
        if not scores:
            return []
        return [(key, estimate) for key, estimate in scores["model"].metrics().items() if estimate.value is None]

    # small things

    @property
    def _tracker(self) -> ItwinaiTracker:
        return ItwinaiTracker(self.logger)

    def _network(self) -> nn.Module:
        settings = {key: value for key, value in self.network_settings.items() if key != "name"}
        size = self.training_set.settings.size
        return build_model(self.network_settings["name"], in_channels=len(self.witnesses), window_size=size, **settings)

    def _twin(self, network: nn.Module) -> EnergyTwin:
        scale = self.training_set.scaling["scale"]
        maps = self.training_set.open_spectrograms()
        twin = EnergyTwin(
            network,
            clamp=self.training_set.scaling["clamp"],
            witness_scale=[scale[channel] for channel in maps.channels[1:]],
            target_scale=scale[maps.target],
            transform=self.training_set.scaling["transform"],
        )
        return twin.to(next(network.parameters()).device)

    def _batches(self, part: str, without: frozenset[str] = frozenset()) -> DataLoader[Any]:
        """Windows of a part in the order of the index, but for those of some events."""
        dataset = WindowDataset(self.training_set, part, cache_mib=self.config.cache_mib)
        kept = [row for row, event_id in enumerate(dataset.event_ids) if event_id not in without]
        return DataLoader(Subset(dataset, kept), batch_size=self.config.batch_size)

    def _on_device(self, witnesses: Tensor) -> Tensor:
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return witnesses.to(self.device, memory_format=layout)

    def _settings(self) -> dict[str, Any]:
        settings = {f"model_{key}": value for key, value in self.network_settings.items()}
        counts = self.training_set.counts()
        windows = {f"windows_{name}_{kind}": counts[name][kind] for name in PARTS for kind in ("glitch", "background")}
        return {**settings, **windows, "witnesses": ", ".join(self.witnesses), "epochs": self.epochs}

    def _prepare_best(self) -> None:
        """Begin with the best network of the training that is resumed, and never with that of another one."""
        best = Path(self.checkpoints_location) / BEST
        source = None
        if self.from_checkpoint:
            beside = Path(self.from_checkpoint).parent / BEST
            source = beside if beside.exists() else Path(self.from_checkpoint)
        if source is not None and source.resolve() == best.resolve():
            return
        shutil.rmtree(best, ignore_errors=True)
        if source is not None:
            shutil.copytree(source, best)

    def _load_best(self) -> None:
        """Take the network that was best on validation, in a fresh twin on the device of this process."""
        network = self._network()
        best = Path(self.checkpoints_location) / BEST
        if self.uses_ray:
            self._fetch_from_ray(best)
        if not best.exists():
            raise DataError("training left no checkpoint: epochs must be at least 1.")
        self.load_weights(network, torch.load(best / "model.pt", map_location="cpu", weights_only=True))
        self.model = network.to(choose_device(self._device)).eval()
        self.twin = self._twin(self.model).eval()

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
