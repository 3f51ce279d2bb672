"""What learners of both representations share: both are judged on maps, and registered with how these were made."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.inference.predict import Prediction, Predictor
from glitchflow_plugin.inference.score import Scores
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.twins import Twin
from glitchflow_plugin.products.summary import versions
from glitchflow_plugin.training.baseline import Baseline
from glitchflow_plugin.training.evaluation import ZeroTwin, judge_events


class JudgedOnMaps(ABC):
    """Part of a `Learner`. A subclass has a training set and the settings of a network, and says how a twin predicts.

    Attributes:
        training_set: Windows, split and scaling.
        events: The event set that the maps were made of; None if it is not at hand.
        model: Name and settings of the network, as in conf/model/.
    """

    training_set: TrainingSet
    events: EventSet | None
    model: Mapping[str, Any]

    @cached_property
    def maps(self) -> SpectrogramSet:
        """The maps that twins are judged on."""
        return self.training_set.open_spectrograms()

    @property
    def witnesses(self) -> tuple[str, ...]:
        """Witness channels, in the order of the network's input."""
        return self.maps.channels[1:]

    @abstractmethod
    def predictor(self, twin: nn.Module) -> Predictor:
        """What predicts whole events with a twin."""

    @abstractmethod
    def event_losses(self, prediction: Prediction, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of whole events, and that of trivial predictions, which a champion has to beat.

        Args:
            prediction: What a twin says of some events.
            inside: 1 for the pixels that count, else 0, (frequency, time).

        Returns:
            (event,), and (event, trivial).
        """

    def test_scores(self, twin: nn.Module, baseline: Baseline, *, threshold: float) -> dict[str, Scores]:
        """Scores of the network, the linear filter and the zero prediction on whole maps of the test events."""
        events = self.training_set.split.test.event_ids
        usable = set(np.asarray(self.maps.event_ids)[self.maps.valid[:, 0]])
        if not usable.intersection(events):
            return {}
        twins: dict[str, nn.Module] = {"model": twin, "linear": baseline.twin, "zero": ZeroTwin()}
        split = self.training_set.split
        groups = split.test.group_of(split.block_length)
        return {
            key: judge_events(
                self.predictor(each), self.maps, events, self.witnesses, groups=groups, threshold=threshold
            )
            for key, each in twins.items()
        }

    def bundle(
        self, twin: Twin, baseline: Baseline, metrics: Mapping[str, float], notes: Mapping[str, Any]
    ) -> ModelBundle:
        """What is registered."""
        return ModelBundle(
            twin=twin,
            target=self.maps.target,
            witnesses=self.witnesses,
            recipe=self.maps.recipe,
            window_size=self.training_set.settings.size,
            frequencies=tuple(self.maps.frequencies.tolist()),
            times=tuple(self.maps.times.tolist()),
            scaling=self.training_set.scaling,
            metrics=metrics,
            versions=versions(),
            dataset=self.maps.manifest.fingerprint,
            model=self.model,
            notes=notes,
            baseline=baseline.twin,
        )
