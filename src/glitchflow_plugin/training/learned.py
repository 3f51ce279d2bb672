"""A twin between its training and whoever judges it."""

from dataclasses import dataclass

import torch
from torch import nn

from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.learner import Batches, Learner, Results
from glitchflow_plugin.training.run import part_batches


@dataclass(frozen=True, eq=False)
class Learned:
    """A twin that was trained and neither calibrated nor judged.

    Attributes:
        learner: Data, loss and judgement of its representation.
        twin: Best on validation.
        config: `training.config`.
        minutes: That training took.
        epochs: Epochs that were begun; 0 of a fit in closed form.
    """

    learner: Learner
    twin: nn.Module
    config: TrainingConfiguration
    minutes: float
    epochs: int

    @property
    def num_parameters(self) -> int:
        """Weights that are learned."""
        return sum(weights.numel() for weights in self.twin.parameters())

    def batches(self, part: str) -> Batches:
        """Windows of a part in the order of the index."""
        return part_batches(self.learner, self.config.batch_size, part)

    def calibrate(self) -> None:
        """Put what the twin says about itself right, on validation windows."""
        self.learner.calibrate(self.twin, self.batches)

    def judge(self, part: str) -> Results:
        """Loss and figures of the windows of a part."""
        device = next(self.twin.parameters(), torch.empty(0)).device
        return self.learner.judge(
            self.twin, self.batches(part), self.twin, device=device, threshold=self.config.threshold
        )
