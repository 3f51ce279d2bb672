"""itwinai's TorchTrainer with the faults of 0.4.2 mended; nothing here knows about glitches.

Each mend has a test in tests/components/test_torch_trainer.py. When itwinai mends one, its override goes.
"""

import logging
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from itwinai.torch.config import TrainingConfiguration
from itwinai.torch.distributed import NonDistributedStrategy, RayTorchDistributedStrategy, TorchDistributedStrategy
from itwinai.torch.trainer import TorchTrainer
from pydantic import ConfigDict, ValidationError
from torch import nn

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._ray_room import check_room, default_scaling
from glitchflow_plugin.components._strategies import (
    Backend,
    choose_backend,
    choose_strategy,
    peers_told,
    unwrapped,
)
from glitchflow_plugin.errors import ConfigurationError, FormatError, GlitchflowError

logger = logging.getLogger(__name__)

BEST, LAST = "best_model", "last"


class StrictConfiguration(TrainingConfiguration):
    """itwinai's training configuration, which refuses keys that it does not know, with defaults for this package.

    itwinai takes any key in silence, so that a misspelt learning rate has no effect.
    """

    model_config = ConfigDict(extra="forbid")

    batch_size: int = 32
    shuffle_train: bool = True
    num_workers_dataloader: int = 0
    loss: Literal["l1_ssim"] = "l1_ssim"  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]
    optimizer: Literal["adadelta", "adam", "adamw", "rmsprop", "sgd"] = "adamw"
    optim_lr: float = 1e-4
    optim_weight_decay: float = 1e-2
    lr_scheduler: Literal["plateau"] | None = "plateau"  # type: ignore[assignment]  # pyright: ignore
    lr_scheduler_gamma: float = 0.5
    lr_scheduler_patience: int = 5
    dist_backend: Literal["auto", "nccl", "gloo", "mpi"] = "auto"  # type: ignore[assignment]  # pyright: ignore
    dist_timeout: float = 600.0
    gradient_clip: float = 5.0
    loss_l1: float = 0.8
    loss_ssim: float = 0.2
    threshold: float = 16.0
    cache_mib: float = 2048.0
    channels_last: bool = True

    @classmethod
    def checked(cls, values: dict[str, Any] | None) -> "StrictConfiguration":
        """Build it from YAML.

        Raises:
            ConfigurationError: A key is unknown or a value has the wrong type; the message lists them.
        """
        try:
            return cls(**(values or {}))
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            message = f"training.config: {found}. Keys it takes: {', '.join(sorted(cls.model_fields))}."
            raise ConfigurationError(message) from error


class SoundTorchTrainer(TorchTrainer):
    """TorchTrainer that fails loudly, keeps whole checkpoints, and does not ask for Ray when nobody wants it.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`; for one process. Several processes take one device each.
        keywords: As for TorchTrainer.

    Raises:
        ConfigurationError: A setting cannot work here.
    """

    config: StrictConfiguration  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *, device: str = "auto", **keywords: Any) -> None:
        self._device = choose_device(device)
        if keywords.get("test_every"):
            message = "test_every is not available: the test events are looked at once, after training."
            raise ConfigurationError(message)
        checkpoint = keywords.get("from_checkpoint")
        if checkpoint and not (Path(checkpoint) / "state.pt").exists():
            nearby = sorted(str(path.parent) for path in Path(checkpoint).parent.glob("*/state.pt"))
            message = (
                f"from_checkpoint: no checkpoint in {checkpoint} (state.pt is missing). "
                f"There are: {', '.join(nearby) or 'none beside it'}."
            )
            raise ConfigurationError(message)
        super().__init__(**keywords)
        # four lines an epoch about where checkpoints go
        logging.getLogger("itwinai.torch.trainer").setLevel(logging.WARNING)
        if not self.measure_gpu_data:
            # a warning at each start that nothing is wrong
            logging.getLogger("itwinai.torch.monitoring.monitoring").setLevel(logging.ERROR)

    @property
    def device(self) -> str:
        """Where this process computes."""
        return self._device if isinstance(self.strategy, NonDistributedStrategy) else self.strategy.device()

    @property
    def uses_ray(self) -> bool:
        """Whether Ray runs the training."""
        return isinstance(self.strategy, RayTorchDistributedStrategy)

    @property
    def dist_backend(self) -> Backend:
        """What processes talk through: nccl (itwinai's default) exists on GPUs only."""
        return choose_backend(self.config.dist_backend)

    def _detect_distributed_strategy(self, strategy: str | None) -> TorchDistributedStrategy:  # pyright: ignore
        """Choose the strategy; without one Ray is not asked (5 s), and one that cannot start is an error."""
        return choose_strategy(
            strategy, device=self._device, backend=self.config.dist_backend, timeout=self.config.dist_timeout
        )

    def _run_worker(self, *arguments: Any, **keywords: Any) -> None:
        """Train as one of possibly several processes; losing the others is said in so many words."""
        with peers_told(self.config.dist_timeout):
            super()._run_worker(*arguments, **keywords)

    def _override_config(self, config: dict[str, Any]) -> None:
        """Take a sample of the search space, keys and types checked as in YAML."""
        if config:
            self.config = type(self.config).checked({**self.config.model_dump(), **config})

    def set_epoch(self) -> None:
        """Begin an epoch. The scheduler does not step here but on the validation loss (itwinai: before epoch 0)."""
        if self.profiler and self.current_epoch > 0:
            self.profiler.step()
        for loader in (self.train_dataloader, self.validation_dataloader):
            sampler: Any = getattr(loader, "sampler", None)
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(self.current_epoch)

    def save_checkpoint(
        self,
        name: str,
        best_validation_metric: torch.Tensor | None = None,
        checkpoints_root: str | Path | None = None,
        force: bool = False,
    ) -> str | None:
        """Save a checkpoint, whole or not at all, that loads with or without distributed training.

        itwinai writes the files of a checkpoint one by one in place, with the names of the distributed wrapper, one
        folder an epoch, forgets the best validation metric in all but the best one, and sends each to the tracking
        server. Here periodic checkpoints share the folder `last` and nothing is sent.
        """
        name = LAST if name.startswith("epoch_") else name
        root = Path(checkpoints_root or self.checkpoints_location)
        if best_validation_metric is None:
            best_validation_metric = torch.as_tensor(float(self.best_so_far))
        model, loggers = self.model, self.logger
        self.model, self.logger = unwrapped(model) if model is not None else None, None
        try:
            written = super().save_checkpoint(f".{name}.new", best_validation_metric, root, force)
        finally:
            self.model, self.logger = model, loggers
        if written is None:
            return None
        final, old = root / name, root / f".{name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        Path(written).rename(final)
        shutil.rmtree(old, ignore_errors=True)
        return str(final)

    @property
    def best_so_far(self) -> float:
        """Best validation metric, that of the epoch just finished included."""
        return float(self.best_validation_metric)

    def _load_checkpoint(self, checkpoint_dir: str | Path) -> None:
        """Load a checkpoint onto the CPU, whatever it was written on, with the wrapper's names removed."""
        folder = Path(checkpoint_dir)
        try:
            state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
            weights = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
            self.model_state_dict = {key.removeprefix("module."): value for key, value in weights.items()}
            self.optimizer_state_dict = state["optimizer_state_dict"]
            self.lr_scheduler_state_dict = state["lr_scheduler_state_dict"]
            self.torch_rng_state = state["torch_rng_state"]
            self.random_seed = state["random_seed"]
            self.current_epoch = state["epoch"] + 1
            if state["best_validation_metric"] is not None:
                self.best_validation_metric = state["best_validation_metric"]
        except Exception as error:
            message = f"{folder} is not a usable checkpoint ({type(error).__name__}: {error}). Choose another one."
            raise FormatError(message) from error

    def load_weights(self, model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
        """Load weights and refuse any that do not fit (itwinai leaves those out in silence).

        Raises:
            ConfigurationError: The checkpoint is of another network.
        """
        try:
            model.load_state_dict({key.removeprefix("module."): value for key, value in weights.items()}, strict=True)
        except RuntimeError as error:
            message = (
                f"the checkpoint is of another network: {str(error)[:300]} Give it the model.yaml it was made with."
            )
            raise ConfigurationError(message) from error

    def _execute_with_ray(self, *arguments: Any, **keywords: Any) -> Any:
        """Run under Ray; what has no room there, and a trial that failed, are errors (itwinai: waits; exit code 0)."""
        import ray
        from ray.train.torch import TorchConfig

        if self.ray_scaling_config is None:
            self.ray_scaling_config = default_scaling(ray.cluster_resources())
        if self.ray_torch_config is None:
            self.ray_torch_config = TorchConfig(timeout_s=int(self.config.dist_timeout))
        advice = (
            "Lower num_workers or resources_per_worker in ray_scaling_config (trainer_resources: {CPU: 0} keeps none "
            "for the coordinator)"
        )
        check_room(self.ray_scaling_config.as_placement_group_factory().bundles, advice)
        result = super()._execute_with_ray(*arguments, **keywords)
        if self.tune_result_grid.num_errors:
            first = self.tune_result_grid.errors[0]
            message = f"{self.tune_result_grid.num_errors} Ray trial(s) failed; the first: {first}"
            raise GlitchflowError(message) from first
        return result

    def execute(self, *arguments: Any, **keywords: Any) -> Any:
        """Train, and return the network with the data sets (itwinai returns None in its place)."""
        train, validation, test, _ = TorchTrainer.execute.__wrapped__(self, *arguments, **keywords)  # type: ignore
        return train, validation, test, (unwrapped(self.model) if self.model is not None else None)
