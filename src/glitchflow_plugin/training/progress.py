"""What a training tells of itself, epoch by epoch."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from glitchflow_plugin.tracking.tracker import Tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochResult:
    """What came of an epoch, or of the part of it that there was time for.

    Attributes:
        epoch: Its number, from 0.
        train_loss: Mean loss of the training windows, while the network learnt from them.
        loss: Mean loss of the validation windows.
        figures: What else validation gave, by name.
        learning_rate: At its end.
    """

    epoch: int
    train_loss: float
    loss: float
    figures: Mapping[str, float]
    learning_rate: float


@dataclass(frozen=True)
class Progress:
    """Tells the tracker, the log and whoever else wants to know; all processes call it.

    Attributes:
        tracker: Gets the numbers.
        epochs: Epochs in all.
        first: Whether this process is the one that speaks for all.
        draw: Shows the tracker examples of an epoch, given by its number.
        report: Gets the figures of an epoch and the folder of its checkpoint, if this process wrote one.
    """

    tracker: Tracker
    epochs: int
    first: bool = True
    draw: Callable[[int], None] = lambda _: None
    report: Callable[[EpochResult, Path | None], None] = lambda *_: None

    def trained(self, epoch: int, loss: float) -> None:
        """The windows of an epoch are visited."""
        self.tracker.metric("train_loss", loss, epoch)

    def validated(self, result: EpochResult) -> None:
        """The network is judged, and not yet saved."""
        self.tracker.metric("validation_loss", result.loss, result.epoch)
        self.tracker.metric("learning_rate", result.learning_rate, result.epoch)
        for key, value in result.figures.items():
            self.tracker.metric(f"validation_{key}", value, result.epoch)
        if not self.first:
            return
        self.draw(result.epoch)
        logger.info(
            "epoch %d/%d: training loss %.4f, validation %.4f, %s, learning rate %.1e",
            result.epoch + 1,
            self.epochs,
            result.train_loss,
            result.loss,
            ", ".join(
                f"{key} {value:.3f}" for key, value in result.figures.items() if "accuracy" in key or key == "auc"
            ),
            result.learning_rate,
        )

    def saved(self, result: EpochResult, seconds: float, checkpoint: Path | None) -> None:
        """The epoch is over.

        Args:
            result: What came of it.
            seconds: Time that it took, s; the scalability report of itwinai reads it.
            checkpoint: Folder that this process has written for it.
        """
        if self.first:
            self.tracker.metric("global_validation_loss_epoch", result.loss, result.epoch)
            self.tracker.metric("epoch_time_s", seconds, result.epoch)
        self.report(result, checkpoint)
