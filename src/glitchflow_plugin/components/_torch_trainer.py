"""itwinai's TorchTrainer with the faults of 0.4.2 mended; nothing here knows about glitches.

Each mend has a test in tests/components/test_torch_trainer.py. When itwinai mends one, its override goes.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import torch
from itwinai.loggers import get_mlflow_logger
from itwinai.torch.distributed import NonDistributedStrategy, RayTorchDistributedStrategy, TorchDistributedStrategy
from itwinai.torch.trainer import TorchTrainer
from torch import nn

from glitchflow_plugin.components._configuration import StrictConfiguration
from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._ray_room import check_room, default_scaling
from glitchflow_plugin.components._strategies import (
    Backend,
    choose_backend,
    choose_strategy,
    lost_processes_explained,
    unwrapped,
)
from glitchflow_plugin.errors import ConfigurationError, GlitchflowError, causes
from glitchflow_plugin.tracking.itwinai_tracker import end_as_killed, search_run
from glitchflow_plugin.training.checkpoints import (
    BEST,
    LAST,
    PREVIOUS,
    newest_usable,
    random_state,
    read_checkpoint,
    restore_random_state,
    write_checkpoint,
)
from glitchflow_plugin.training.interruption import Interrupted, Request, end_workers, stop_requests
from glitchflow_plugin.training.steps import build_optimizer, parameter_groups

logger = logging.getLogger(__name__)

_Batch = TypeVar("_Batch")
#: Steps after which processes on GPUs agree on ending: asking waits for the device.
_AGREE_EVERY = 10


class SoundTorchTrainer(TorchTrainer):
    """TorchTrainer that fails loudly, keeps whole checkpoints, and does not ask for Ray when nobody wants it.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`; for one process. Several processes take one device each.
        resume: Go on from the newest usable checkpoint of the checkpoints' folder, where there is one.
        checkpoint_minutes: Minutes after which a checkpoint is written within an epoch; None: never.
        max_minutes: Minutes of training in all, those before a resumption included, after which it ends in good order.
        keywords: As for TorchTrainer.

    Raises:
        ConfigurationError: A setting cannot work here.
    """

    config: StrictConfiguration  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        *,
        device: str = "auto",
        resume: bool = False,
        checkpoint_minutes: float | None = None,
        max_minutes: float | None = None,
        **keywords: Any,
    ) -> None:
        self._device = choose_device(device)
        self.resume, self.checkpoint_minutes, self.max_minutes = resume, checkpoint_minutes, max_minutes
        for name, minutes in (("checkpoint_minutes", checkpoint_minutes), ("max_minutes", max_minutes)):
            if minutes is not None and minutes <= 0:
                message = f"expected {name} of more than 0, or null, got {minutes}. Correct training.yaml."
                raise ConfigurationError(message)
        if keywords.get("test_every"):
            message = "test_every is not available: the test events are looked at once, after training."
            raise ConfigurationError(message)
        checkpoint = keywords.get("from_checkpoint")
        if checkpoint and not (Path(checkpoint) / "state.pt").exists():
            around = Path(checkpoint).parent
            nearby = sorted(str(path.parent) for path in (*around.glob("*/state.pt"), *around.glob("*/*/state.pt")))
            message = (
                f"from_checkpoint: no checkpoint in {checkpoint} (state.pt is missing). "
                f"There are: {', '.join(nearby) or 'none beside it'}."
            )
            raise ConfigurationError(message)
        super().__init__(**keywords)
        if resume and self.uses_ray:
            message = "resume has no effect under Ray, which restores its trials by itself. Set training.resume=false."
            raise ConfigurationError(message)
        self._begin()
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
        self.mlflow_logger = get_mlflow_logger(self.logger)  # Ray's workers are sent this trainer without
        try:
            with lost_processes_explained(self.config.dist_timeout):
                super()._run_worker(*arguments, **keywords)
        except KeyboardInterrupt:  # before the first step; from there on it is a request
            self._end_as_killed()
            raise

    def _override_config(self, config: dict[str, Any]) -> None:
        """Take a sample of the search space, keys and types checked as in YAML."""
        if config:
            self.config = type(self.config).checked({**self.config.model_dump(), **config})

    def _set_optimizer_from_config(self) -> None:
        """The optimiser of the configuration, fused where torch has that (itwinai never is)."""
        assert self.model is not None  # noqa: S101
        self.optimizer = build_optimizer(
            parameter_groups(self.model, self.config.optim_lr),
            self.config.optimizer,
            rate=self.config.optim_lr,
            weight_decay=self.config.optim_weight_decay,
            betas=self.config.optim_betas,
            momentum=self.config.optim_momentum,
        )

    # the loop

    def _begin(self) -> None:
        """The state of a training that has not begun, apart from what itwinai keeps."""
        #: Windows of the present epoch that all processes together have visited.
        self.visited = 0
        self.loss_sum, self.loss_count = 0.0, 0
        self.piece_size: int | None = None
        self.average: Any = None
        self.average_state_dict: dict[str, torch.Tensor] | None = None
        self.epoch_figures: dict[str, float] = {}
        self._without_gain = 0
        self._cut = False
        self._seconds_before = 0.0
        self._random_state: dict[str, Any] | None = None
        self._ranks: list[dict[str, Any]] = []
        self._order: str | None = None
        self._request = Request()
        self._started = self._checkpointed = perf_counter()

    def train(self) -> None:
        """Run all epochs that are left, or those that the time allows.

        itwinai's own loop can neither begin within an epoch nor end in one.

        Raises:
            Interrupted: A signal asked for the end; a checkpoint was written.
        """
        self._started = self._checkpointed = perf_counter()
        if self._random_state is not None:
            # only now: making the network has drawn numbers
            restore_random_state(self._random_state)
            self._random_state = None
        with stop_requests() as self._request:
            try:
                self._run_epochs()
            except BaseException as error:
                # deaf to signals, they would keep this process from ending
                end_workers(self.train_dataloader, self.validation_dataloader)
                if isinstance(error, Interrupted):
                    if self.strategy.is_main_worker:
                        logger.warning("%s", error)
                    self._end_as_killed()
                    self.strategy.clean_up()
                raise
        self._seconds_before, self._started = self._seconds(), perf_counter()

    def _end_as_killed(self) -> None:
        if self.logger:
            end_as_killed(self.logger)
            self.logger.destroy_logger_context()

    def _run_epochs(self) -> None:
        patience = self.config.early_stopping
        # what is resumed has had its step already, and a network that was judged
        if math.isfinite(float(self.best_validation_metric)) and self._agreed()[1]:
            logger.info("%.1f minutes are used: no further step", self._seconds() / 60)
            return
        for epoch in range(self.current_epoch, self.epochs):
            self.current_epoch = epoch
            if patience is not None and self._without_gain >= patience:
                logger.info("no improvement in %d epochs: training ends early", self._without_gain)
                return
            started = perf_counter()
            self.set_epoch()
            self._cut = False
            self.train_epoch()
            loss = float(self.validation_epoch())  # type: ignore[arg-type]  # pyright: ignore  # never None here
            best = None
            gained = loss < float(self.best_validation_metric)
            if not self._cut:
                self._without_gain = 0 if gained else self._without_gain + 1
                self.visited, self.loss_sum, self.loss_count = 0, 0.0, 0
            if gained:
                self.best_validation_metric = loss
                best = self.save_checkpoint(BEST, force=True, inside=self._cut)
            last = self.save_checkpoint(LAST, force=self._cut, inside=self._cut)
            if self.strategy.is_main_worker:
                self.log(loss, "global_validation_loss_epoch", kind="metric", step=self.current_epoch)
                self.log(perf_counter() - started, "epoch_time_s", kind="metric", step=self.current_epoch)
            aim = getattr(self.ray_tune_config, "metric", None) or "loss"
            self.ray_report({aim: loss, "loss": loss, **self.epoch_figures}, checkpoint_dir=best or last)
            asked, time_is_up, _ = self._agreed()
            if asked:
                self._interrupt(inside=self._cut)
            if self._cut or time_is_up:
                place = "in" if self._cut else "after"
                minutes = self._seconds() / 60
                logger.info("%.1f minutes are used: training ends %s epoch %d", minutes, place, epoch + 1)
                return

    def after_step(self, step: int) -> bool:
        """What may happen between two steps: a checkpoint by the clock, or the end.

        Args:
            step: Steps taken so far, the same number in all processes.

        Returns:
            Whether the epoch shall end here because the time is up.

        Raises:
            Interrupted: A signal asked for the end; a checkpoint was written.
        """
        if self.strategy.is_distributed and self.device != "cpu" and step % _AGREE_EVERY:
            return False
        asked, time_is_up, due = self._agreed()
        if asked:
            self._interrupt(inside=True)
        if due:
            self.save_checkpoint(LAST, force=True, inside=True)
        self._cut = time_is_up
        return time_is_up

    def interruptible(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Batches of validation, which can end between two of them too; several processes end after the last."""
        for batch in batches:
            if self._request.name is not None and not self.strategy.is_distributed:
                self._interrupt(inside=True)
            yield batch

    def _agreed(self) -> tuple[bool, bool, bool]:
        """Whether any process was asked to end, has used up the time, or is due to write a checkpoint."""
        now = perf_counter()
        asked = self._request.name is not None
        time_is_up = self.max_minutes is not None and self._seconds() > 60 * self.max_minutes
        due = self.checkpoint_minutes is not None and now - self._checkpointed > 60 * self.checkpoint_minutes
        if not self.strategy.is_distributed:
            return asked, time_is_up, due
        if torch.distributed.is_initialized():
            device = self.device if torch.distributed.get_backend() == "nccl" else "cpu"
            flags = torch.tensor([asked, time_is_up, due], dtype=torch.int32, device=device)
            torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
            asked, time_is_up, due = (bool(flag) for flag in flags.tolist())
            return asked, time_is_up, due
        everyone = self.strategy.allgather_obj((asked, time_is_up, due))
        asked, time_is_up, due = (any(flags) for flags in zip(*everyone, strict=True))
        return asked, time_is_up, due

    def _interrupt(self, *, inside: bool) -> None:
        self.save_checkpoint(LAST, force=True, inside=inside)
        # whoever leaves first may take the one that writes with it
        self.strategy.allgather_obj(None)
        name = self._request.name or "a signal to another process"
        place = f"in epoch {self.current_epoch + 1}, after {self.visited} windows" if inside else ""
        place = place or f"after epoch {self.current_epoch + 1}"
        raise Interrupted(f"{name} ends the training {place}. {self.how_to_go_on()}")

    def how_to_go_on(self) -> str:
        """What to tell the user of a training that was asked to end."""
        with_what = "the same command" if self.resume else "training.resume=true"
        return f"It goes on from {Path(self.checkpoints_location) / LAST} with {with_what}."

    def _seconds(self) -> float:
        """Time that training took up to now, that before a resumption included, s."""
        return self._seconds_before + perf_counter() - self._started

    def set_epoch(self) -> None:
        """Begin an epoch. The scheduler does not step here but on the validation loss (itwinai: before epoch 0)."""
        if self.profiler and self.current_epoch > 0:
            self.profiler.step()

    def save_checkpoint(
        self,
        name: str,
        best_validation_metric: torch.Tensor | None = None,
        checkpoints_root: str | Path | None = None,
        force: bool = False,
        inside: bool = False,
    ) -> str | None:
        """Save a checkpoint, whole or not at all, that loads with or without distributed training.

        itwinai writes the files of a checkpoint one by one in place, with the names of the distributed wrapper, one
        folder an epoch, forgets the best validation metric in all but the best one, and sends each to the tracking
        server. Here periodic checkpoints share the folder `last`, the one before is kept as `previous`, and nothing is
        sent. All processes must call this; the first one writes.

        Args:
            name: Of the folder.
            best_validation_metric: Best loss so far; what this trainer knows if None.
            checkpoints_root: Folder of checkpoints; that of this trainer if None.
            force: Save whatever `checkpoint_every` says.
            inside: The present epoch is not over.

        Returns:
            The folder; None if nothing was written (here).
        """
        name = LAST if name.startswith("epoch_") else name
        every = self.checkpoint_every
        if not (force or (every and (self.current_epoch + 1) % every == 0)):
            return None
        mine = {"random": random_state(), "loss_sum": float(self.loss_sum), "loss_count": self.loss_count}
        ranks = self.strategy.allgather_obj(mine)
        self._checkpointed = perf_counter()
        if not self.strategy.is_main_worker:
            return None
        assert self.model is not None and self.optimizer is not None  # noqa: S101, PT018
        if best_validation_metric is None:
            best_validation_metric = torch.as_tensor(float(self.best_validation_metric))
        scheduler = self.lr_scheduler
        state = {
            "epoch": self.current_epoch - inside,  # the last one that is over
            "visited": self.visited if inside else 0,
            "order": self.order_digest() if inside else None,
            "step": self.train_glob_step,
            "best_validation_metric": float(best_validation_metric),
            "without_gain": self._without_gain,
            "seconds": self._seconds(),
            "piece_size": self.piece_size,
            "random_seed": self.random_seed,
            "ranks": ranks,
            "optimizer_state_dict": self.optimizer.state_dict(),
            "lr_scheduler_state_dict": scheduler.state_dict() if scheduler is not None else None,
            "average_count": int(self.average.n_averaged) if self.average is not None else 0,
        }
        tensors = {"state": state, "model": unwrapped(self.model).state_dict()}
        if self.average is not None:
            tensors["average"] = self.average.module.state_dict()
        folder = Path(checkpoints_root or self.checkpoints_location) / name
        notes = {"config": self.config.model_dump(mode="json"), **self.checkpoint_notes()}
        previous = folder.with_name(PREVIOUS) if name == LAST else None
        write_checkpoint(folder, tensors, notes, previous=previous)
        return str(folder)

    def order_digest(self) -> str | None:
        """Digest of the order of the present epoch, in which `visited` counts; None where it is not known."""
        return None

    def checkpoint_notes(self) -> dict[str, Any]:
        """JSON-like values by name that a checkpoint shall hold as well."""
        return {}

    def load_checkpoint(self) -> None:
        """Load the checkpoint to go on from, if there is one."""
        if self.resume:
            newest = newest_usable(Path(self.checkpoints_location))
            if newest is None:
                logger.info("resume: no checkpoint in %s yet", self.checkpoints_location)
            self.from_checkpoint = newest or self.from_checkpoint
        super().load_checkpoint()

    def _load_checkpoint(self, checkpoint_dir: str | Path) -> None:
        """Load a checkpoint onto the CPU, whatever it was written on, with the wrapper's names removed."""
        content = read_checkpoint(Path(checkpoint_dir))
        state = content["state"]
        self.model_state_dict = {key.removeprefix("module."): value for key, value in content["model"].items()}
        self.average_state_dict = content.get("average")
        self._average_count = state.get("average_count", 0)
        self.optimizer_state_dict = state["optimizer_state_dict"]
        self.lr_scheduler_state_dict = state["lr_scheduler_state_dict"]
        self.random_seed = state["random_seed"]
        self.current_epoch = state["epoch"] + 1
        if state["best_validation_metric"] is not None:
            self.best_validation_metric = state["best_validation_metric"]
        # checkpoints of version 0.2 and before are of whole epochs and have none of these
        self.visited = state.get("visited", 0)
        self.train_glob_step = state.get("step", 0)
        self.piece_size = state.get("piece_size")
        self._without_gain = state.get("without_gain", 0)
        self._seconds_before = state.get("seconds", 0.0)
        self._ranks = state.get("ranks", [])
        self._order = state.get("order")

    def take_up(self) -> None:
        """Give this process its own share of a checkpoint, once the processes know each other."""
        rank, processes = self.strategy.global_rank(), self.strategy.global_world_size()
        places = self.strategy.allgather_obj((self.current_epoch, self.visited))
        if len(set(places)) > 1:
            message = f"the processes would go on from different checkpoints (epoch, windows: {places}). Start again."
            raise GlitchflowError(message)
        if not self._ranks:
            return
        if len(self._ranks) == processes:
            mine = self._ranks[rank]
            self._random_state = mine["random"]
            self.loss_sum, self.loss_count = mine["loss_sum"], mine["loss_count"]
        elif rank == 0:
            # other processes than before: random numbers differ, sums must not
            self.loss_sum = sum(each["loss_sum"] for each in self._ranks)
            self.loss_count = sum(each["loss_count"] for each in self._ranks)
        self._ranks = []
        # checkpoints of version 0.3 and before do not know their order
        if self.visited and self._order is not None and self._order != self.order_digest():
            logger.warning(
                "the windows come in another order than before (shuffling, balance, labels or memory differ): epoch %d "
                "begins anew",
                self.current_epoch + 1,
            )
            self.visited, self.loss_sum, self.loss_count = 0, 0.0, 0

    def load_weights(self, model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
        """Load weights and refuse any that do not fit (itwinai leaves those out in silence).

        Raises:
            ConfigurationError: The checkpoint is of another network.
        """
        try:
            model.load_state_dict({key.removeprefix("module."): value for key, value in weights.items()}, strict=True)
        except RuntimeError as error:
            message = f"the checkpoint is of another network: {str(error)[:300]} Give it the settings it was made with."
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
        with search_run(self.mlflow_logger, self.run_name) as self.mlflow_tune_run_id:
            # itwinai would begin one too, and end it as finished before the first trial begins
            self.mlflow_logger = None
            try:
                result = super()._execute_with_ray(*arguments, **keywords)
            finally:
                self.mlflow_logger = get_mlflow_logger(self.logger)
            if self.tune_result_grid.num_errors:
                failed = list(causes(self.tune_result_grid.errors[0]))
                first = next((cause for cause in failed if isinstance(cause, GlitchflowError)), failed[-1])
                message = f"{self.tune_result_grid.num_errors} Ray trial(s) failed; the first: {first}"
                raise GlitchflowError(message) from first
        return result

    def execute(self, *arguments: Any, **keywords: Any) -> Any:
        """Train, and return the network with the data sets (itwinai returns None in its place)."""
        train, validation, test, _ = TorchTrainer.execute.__wrapped__(self, *arguments, **keywords)  # type: ignore
        return train, validation, test, (unwrapped(self.model) if self.model is not None else None)
