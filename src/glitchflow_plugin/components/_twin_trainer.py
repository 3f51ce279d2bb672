"""The Trainer for those who judge its twin themselves: leaderboard and search."""

from dataclasses import replace
from time import perf_counter
from typing import Any

from itwinai.components import monitor_exec

from glitchflow_plugin.components._step import holding
from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.training.trained_twin import TrainedTwin


class TwinTrainer(Trainer):
    """A Trainer that stops at the twin which is best on validation: no test event is looked at, nothing is registered.

    Args:
        keywords: Those of Trainer.
    """

    minutes = 0.0

    def __init__(self, **keywords: Any) -> None:
        super().__init__(registry=None, pictures_every=0, **keywords)

    def train(self) -> None:
        """Train, and note the time."""
        begun = perf_counter()
        super().train()
        self.minutes = (perf_counter() - begun) / 60

    @monitor_exec
    @holding("checkpoints_location", reads=("folder",))
    def execute(self, training_set: TrainingSet | None = None) -> TrainedTwin:  # pyright: ignore
        """Train in this process alone, and return the twin."""
        self.learn(training_set)
        return replace(self.best_twin(), minutes=self.minutes, epochs=self.current_epoch + 1)

    def how_to_go_on(self) -> str:
        """What to tell the user of a training that was asked to end."""
        if self.resume:
            return super().how_to_go_on()
        return "The same command goes on: entrants that are finished are kept, this one begins anew."
