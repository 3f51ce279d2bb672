"""A twin between its training and whoever judges it."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader

from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.learner import Batches, Learner, Results, Review


@dataclass(frozen=True, eq=False)
class TrainedTwin:
    """A twin that was trained and neither calibrated nor judged.

    Attributes:
        learner: Data, loss and judgement of its representation.
        twin: The twin that is best on validation.
        config: `training.config`.
        minutes: Time of training; 0 where nobody measures it.
        epochs: Epochs that were begun; 0 of a fit in closed form.
    """

    learner: Learner
    twin: nn.Module
    config: TrainingConfiguration
    minutes: float = 0.0
    epochs: int = 0

    @property
    def num_parameters(self) -> int:
        """Weights that are learned."""
        return sum(weights.numel() for weights in self.twin.parameters())

    @property
    def device(self) -> torch.device:
        """Where the twin is."""
        return next(self.twin.parameters(), torch.empty(0)).device

    def batches(self, part: str) -> Batches:
        """Windows of a part in the order of the index."""
        return DataLoader(self.learner.dataset(part), batch_size=self.config.batch_size)  # type: ignore[arg-type]

    def calibrate(self) -> None:
        """Put what the twin says about itself right, on validation windows."""
        self.learner.calibrate(self.twin, self.batches)

    def review(self) -> Review:
        """Calibrate and judge on validation windows, which are gone through once."""
        return self.learner.review(self.twin, self.batches, threshold=self.config.threshold)

    def judge(self, part: str) -> Results:
        """Loss and figures of the windows of a part."""
        return self.learner.judge(
            self.twin, self.batches(part), self.twin, device=self.device, threshold=self.config.threshold
        )
