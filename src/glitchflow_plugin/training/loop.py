"""The loop of a training: epochs and steps, checkpoints, an end in good order, and going on from there to the last bit.

All that the next step depends on is in `LoopState`, in `NetworkInTraining` and in the random generators.
"""

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from glitchflow_plugin.errors import DataError, GlitchflowError
from glitchflow_plugin.training.batches import WindowBatches
from glitchflow_plugin.training.checkpoints import (
    BEST,
    LAST,
    PREVIOUS,
    random_state,
    restore_random_state,
    write_checkpoint,
)
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.interruption import Interrupted, Request, stop_requests
from glitchflow_plugin.training.learner import Learnable
from glitchflow_plugin.training.network import make_stepper, network_in_training, to_device
from glitchflow_plugin.training.processes import Processes
from glitchflow_plugin.training.progress import EpochResult, Progress
from glitchflow_plugin.training.steps import warm_up

logger = logging.getLogger(__name__)

_Batch = TypeVar("_Batch")
#: Steps after which processes on GPUs agree on ending: asking waits for the device.
_AGREE_EVERY = 10


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long a training goes on, and what it leaves; conf/training.yaml explains what has the name of a key there.

    Attributes:
        config: How the network learns.
        checkpoints: Folder of the checkpoints.
        notes: Records by name that each checkpoint holds as well.
        how_to_go_on: What to tell the user of a training that was asked to end.
    """

    config: TrainingConfiguration
    epochs: int
    random_seed: int | None
    checkpoints: Path
    checkpoint_every: int | None = 1
    checkpoint_minutes: float | None = None
    max_minutes: float | None = None
    disable_tqdm: bool = False
    notes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    how_to_go_on: str = ""


@dataclass
class LoopState:
    """Where a training is, and what it has seen; as checkpoints keep it.

    Attributes:
        epoch: Number of the epoch to go on with, from 0.
        visited: Windows of it that all processes together have visited.
        loss_sum: Sum of their losses in this process, on the device while an epoch runs.
        loss_count: Number of losses in it.
        step: Steps taken so far, the same number in all processes.
        best_loss: Smallest loss of a validation; infinite before the first.
        epochs_without_gain: Epochs since then.
        seconds: Time that training took before this process began, s.
        piece_size: Windows that a batch is worked through with at a time; None: all.
    """

    epoch: int = 0
    visited: int = 0
    loss_sum: Tensor | float = 0.0
    loss_count: int = 0
    step: int = 0
    best_loss: float = math.inf
    epochs_without_gain: int = 0
    seconds: float = 0.0
    piece_size: int | None = None

    @property
    def epochs_begun(self) -> int:
        """Epochs of which at least one window was visited."""
        return self.epoch + (self.visited > 0)

    def begin_epoch(self, epoch: int) -> None:
        """Count from nothing in an epoch."""
        self.epoch, self.visited, self.loss_sum, self.loss_count = epoch, 0, 0.0, 0

    @classmethod
    def from_checkpoint(cls, state: Mapping[str, Any], *, rank: int = 0, size: int = 1) -> "LoopState":
        """The state of one of some processes, from one of those that wrote the checkpoint.

        Where these were others, the first one takes the sums of all.
        """
        # checkpoints of version 0.2 and before are of whole epochs and lack most
        ranks = state.get("ranks", [])
        mine = ranks[rank : rank + 1] if len(ranks) == size else ranks if rank == 0 else []
        return cls(
            epoch=state["epoch"] + 1,
            visited=state.get("visited", 0),
            loss_sum=sum((each["loss_sum"] for each in mine), 0.0),
            loss_count=sum(each["loss_count"] for each in mine),
            step=state.get("step", 0),
            best_loss=math.inf if state["best_validation_metric"] is None else state["best_validation_metric"],
            epochs_without_gain=state.get("without_gain", 0),
            seconds=state.get("seconds", 0.0),
            piece_size=state.get("piece_size"),
        )


class Loop:
    """Visits windows and takes steps until an epoch, the time or the user's patience is the last.

    Args:
        learner: What is learnt, and from what.
        batches: Windows of this process.
        settings: How long, and what is left behind.
        device: Where this process computes.
        processes: Those who train together.
        progress: What is told.
        checkpoint: What to go on from, as `read_checkpoint` gives it; None: the beginning.

    Raises:
        ConfigurationError: The checkpoint is of another network.
        GlitchflowError: The processes would go on from different places.
    """

    def __init__(
        self,
        learner: Learnable,
        batches: WindowBatches,
        settings: LoopSettings,
        *,
        device: torch.device,
        processes: Processes,
        progress: Progress,
        checkpoint: Mapping[str, Any] | None = None,
    ) -> None:
        self.learner, self.batches, self.settings, self.config = learner, batches, settings, settings.config
        self.device, self.processes, self.progress = device, processes, progress
        self.model = network_in_training(learner, self.config, device, processes, checkpoint)
        self.state, self._random_state = LoopState(), None
        if checkpoint is not None:
            self._go_on(checkpoint["state"])
        places = processes.gather((self.state.epoch, self.state.visited))
        if len(set(places)) > 1:
            message = f"the processes would go on from different checkpoints (epoch, windows: {places}). Start again."
            raise GlitchflowError(message)
        self.stepper = make_stepper(
            learner, self.model, self.config, device, processes, piece_size=self.state.piece_size
        )
        steps = math.ceil(len(batches.order.order(self.state.epoch)) / batches.order.global_size)
        self._warmup_steps = round(self.config.warmup_epochs * steps)
        self._request = Request()
        self.time_is_up = False
        self._started = self._last_checkpoint = perf_counter()

    def _go_on(self, state: Mapping[str, Any]) -> None:
        """Take this process's share of a checkpoint."""
        rank, size = self.processes.rank, self.processes.size
        self.state = LoopState.from_checkpoint(state, rank=rank, size=size)
        ranks = state.get("ranks", [])
        if len(ranks) == size:  # of others than before the random numbers differ
            self._random_state = ranks[rank]["random"]
        order = state.get("order")  # checkpoints of version 0.3 and before do not know it
        if self.state.visited and order is not None and order != self._order_digest():
            logger.warning(
                "the windows come in another order than before (shuffling, balance, labels or memory differ): epoch %d "
                "begins anew",
                self.state.epoch + 1,
            )
            self.state.begin_epoch(self.state.epoch)

    def run(self) -> None:
        """Run all epochs that are left, or those that the time allows.

        Raises:
            Interrupted: A signal asked for the end; a checkpoint was written.
            DataError: A loss is no number, or memory is too short.
        """
        self._started = self._last_checkpoint = perf_counter()
        if self._random_state is not None:
            # only now: making the network has drawn numbers
            restore_random_state(self._random_state)
        with stop_requests() as self._request:
            try:
                self.run_epochs()
            except BaseException as error:
                self.batches.end_workers()
                if isinstance(error, Interrupted) and self.processes.rank == 0:
                    logger.warning("%s", error)
                raise

    def run_epochs(self) -> None:
        """One epoch after the other."""
        state, patience = self.state, self.config.early_stopping
        # what is resumed has had its step already, and a network that was judged
        if math.isfinite(state.best_loss) and self._agreed()[1]:
            logger.info("%.1f minutes are used: no further step", self._seconds() / 60)
            return
        while state.epoch < self.settings.epochs:
            if patience is not None and state.epochs_without_gain >= patience:
                logger.info("no improvement in %d epochs: training ends early", state.epochs_without_gain)
                return
            epoch = state.epoch
            self._run_epoch()
            asked, time_is_up, _ = self._agreed()
            if asked:
                self.interrupt()
            if self.time_is_up or time_is_up:
                place, minutes = "in" if self.time_is_up else "after", self._seconds() / 60
                logger.info("%.1f minutes are used: training ends %s epoch %d", minutes, place, epoch + 1)
                return

    def _run_epoch(self) -> None:
        """Train, validate and save, an epoch or what there is time for; one that was cut short is not over."""
        state, settings, model, epoch = self.state, self.settings, self.model, self.state.epoch
        started = perf_counter()
        train_loss = self.train_epoch()
        self.progress.trained(epoch, train_loss)
        loss, figures = self.validation_epoch()
        rate = float(model.optimizer.param_groups[0]["lr"])
        result = EpochResult(epoch, train_loss, loss, figures, rate)
        if model.scheduler is not None and state.step >= self._warmup_steps and not self.time_is_up:
            model.scheduler.step(loss)  # on validation, never on test
        self.progress.validated(result)
        gained = loss < state.best_loss
        if not self.time_is_up:
            state.epochs_without_gain = 0 if gained else state.epochs_without_gain + 1
            state.begin_epoch(epoch + 1)
        best = None
        if gained:
            state.best_loss = loss
            best = self.save_checkpoint(BEST)
        every, last = settings.checkpoint_every, None
        if self.time_is_up or (every and (epoch + 1) % every == 0):
            last = self.save_checkpoint(LAST)
        self.progress.saved(result, perf_counter() - started, best or last)

    def train_epoch(self) -> float:
        """Visit every training window once, or those that are left of the epoch, and give their mean loss."""
        state, order, model = self.state, self.batches.order, self.model
        model.wrapped.train()
        order.set_epoch(state.epoch, state.visited)
        # a sum on the device: reading it would wait for each step
        state.loss_sum = torch.tensor(state.loss_sum, dtype=torch.float64, device=self.device)
        bar = tqdm(
            self.batches.training,
            desc=f"training, epoch {state.epoch + 1}/{self.settings.epochs}",
            disable=self.settings.disable_tqdm or self.processes.rank != 0,
            leave=False,
        )
        dropout = getattr(model.network, "channel_dropout", 0.0)
        left_out = order.left_out(len(self.learner.witnesses), dropout, self.settings.random_seed or 0)
        for (witnesses, strain), (mine, whole), missing in zip(bar, order.shares(), left_out, strict=True):
            if missing.any():
                witnesses[torch.from_numpy(missing)] = 0.0
            warm_up(model.optimizer, self.config.optim_lr, state.step, self._warmup_steps)
            state.loss_sum += self.stepper.step(witnesses, strain, mine, whole)
            state.loss_count += mine
            state.visited += whole
            state.step += 1
            state.piece_size = self.stepper.piece_size
            self.after_step()
            if self.time_is_up:
                break
        totals = self.processes.gather((float(state.loss_sum), state.loss_count))
        loss = sum(total for total, _ in totals) / sum(number for _, number in totals)
        return _finite(loss, "training", state.epoch)

    def validation_epoch(self) -> tuple[float, dict[str, float]]:
        """Judge the network on all validation windows: mean loss and figures, the same in all processes."""
        twin = self.model.twin.eval()
        # the first process's running statistics are those that are saved: all judge with them
        self.processes.broadcast(twin.buffers())
        here = self.learner.judge(
            self.predict,
            self._until_stopped(self.batches.validation),
            twin,
            device=self.device,
            threshold=self.config.threshold,
        )
        figures = here.concatenate(self.processes.gather(here)).figures()
        return _finite(figures.pop("loss"), "validation", self.state.epoch), figures

    def predict(self, witnesses: Any) -> Any:
        """Strain as the network that is judged foretells it, from windows on whatever device."""
        return self.model.twin(to_device(witnesses, self.device, channels_last=self.config.channels_last))

    def after_step(self) -> None:
        """Between two steps: a checkpoint by the clock, or the end.

        Raises:
            Interrupted: A signal asked for the end; a checkpoint was written.
        """
        if self.processes.size > 1 and self.device.type != "cpu" and self.state.step % _AGREE_EVERY:
            return
        asked, self.time_is_up, due = self._agreed()
        if asked:
            self.interrupt()
        if due:
            self.save_checkpoint(LAST)

    def _until_stopped(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Batches of validation, which can end between two of them too; several processes end after the last."""
        for batch in batches:
            if self._request.name is not None and self.processes.size == 1:
                self.interrupt()
            yield batch

    def _agreed(self) -> tuple[bool, ...]:
        """Whether any process was asked to end, has used up the time, or is due to write a checkpoint."""
        longest, often = self.settings.max_minutes, self.settings.checkpoint_minutes
        unsaved = perf_counter() - self._last_checkpoint
        asked = self._request.name is not None
        time_is_up = longest is not None and self._seconds() > 60 * longest
        due = often is not None and unsaved > 60 * often
        return self.processes.any((asked, time_is_up, due))

    def interrupt(self) -> None:
        """End in good order: a checkpoint, and a message that says how to go on."""
        self.save_checkpoint(LAST)
        # whoever leaves first may take the one that writes with it
        self.processes.gather(None)
        epoch, visited = self.state.epoch, self.state.visited
        name = self._request.name or "a signal to another process"
        place = f"in epoch {epoch + 1}, after {visited} windows" if visited else f"after epoch {epoch}"
        raise Interrupted(f"{name} ends the training {place}. {self.settings.how_to_go_on}")

    def _seconds(self) -> float:
        """Time that training took up to now, that before a resumption included, s."""
        return self.state.seconds + perf_counter() - self._started

    def _order_digest(self) -> str:
        """Digest of the numbers of the epoch's windows in their order, in which `visited` counts."""
        return hashlib.sha256(self.batches.order.order(self.state.epoch).tobytes()).hexdigest()

    def save_checkpoint(self, name: str) -> Path | None:
        """Write a checkpoint, whole or not at all, that loads with any number of processes. All of them call this.

        Args:
            name: Folder; the `LAST` before is kept as `PREVIOUS`.

        Returns:
            The folder, in the process that wrote it; None in the others.
        """
        state, model, settings = self.state, self.model, self.settings
        mine = {"random": random_state(), "loss_sum": float(state.loss_sum), "loss_count": state.loss_count}
        ranks = self.processes.gather(mine)
        self._last_checkpoint = perf_counter()
        if self.processes.rank != 0:
            return None
        content = {
            "epoch": state.epoch - 1,  # the last one that is over
            "visited": state.visited,
            "order": self._order_digest() if state.visited else None,
            "step": state.step,
            "best_validation_metric": float(torch.tensor(state.best_loss)),  # float32, as in all versions
            "without_gain": state.epochs_without_gain,
            "seconds": self._seconds(),
            "piece_size": state.piece_size,
            "random_seed": settings.random_seed,
            "ranks": ranks,
            **model.state(),
        }
        folder = settings.checkpoints / name
        notes = {"config": self.config.model_dump(mode="json"), **settings.notes}
        previous = folder.with_name(PREVIOUS) if name == LAST else None
        write_checkpoint(folder, {"state": content, **model.weights()}, notes, previous=previous)
        return folder


def _finite(loss: float, kind: str, epoch: int) -> float:
    if not math.isfinite(loss):
        message = f"the {kind} loss became {loss} in epoch {epoch + 1}. Lower optim_lr."
        raise DataError(message)
    return loss
