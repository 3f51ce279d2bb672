"""What the training loop must know of a representation, and nothing else."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.window_dataset import CachedEvents
from glitchflow_plugin.inference.predict import Prediction, Predictor
from glitchflow_plugin.inference.residual import EventsLeft
from glitchflow_plugin.inference.score import Scores
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.plots.maps import FrequencyAxis
from glitchflow_plugin.plots.style import Picture
from glitchflow_plugin.signal.gain_watch import GainReference
from glitchflow_plugin.training.baseline import Baseline

Batches = Iterable[tuple[Tensor, Tensor]]
"""Pairs of witnesses and strain, (window, channel, ...), as the learner's data sets hold them."""


class Results(Protocol):
    """What judging some windows gave; the parts of several processes can be joined."""

    @property
    def loss(self) -> float:
        """Mean loss of a window."""
        ...

    @classmethod
    def concatenate(cls, parts: list[Any]) -> "Results":
        """Join the results of several batches or processes."""
        ...

    def figures(self) -> dict[str, float]:
        """Loss (`loss`) and whatever else is worth following, by name."""
        ...


@dataclass(frozen=True, eq=False)
class Review:
    """What a learner finds in the validation windows after training, each of which the twin predicts once.

    Attributes:
        results: Loss and figures.
        gains: How the strain follows each witness; None where that cannot be told.
        left: What cleaning leaves of each event; None likewise.
        ranks: Largest predicted energy of each column of whole maps, SNR², (time,), by event id; of events that are not
            there nobody has predicted it yet.
    """

    results: Results
    gains: GainReference | None = None
    left: EventsLeft | None = None
    ranks: Mapping[str, Float[np.ndarray, " time"]] = field(default_factory=dict)


class Learnable(Protocol):
    """What the loop must know of whatever it teaches: network, loss and judgement.

    The loop owns devices, order, steps and checkpoints; it passes batches to `losses` and to the `predict` of `judge`
    and looks at neither. What it calls witnesses and strain, input and truth of a batch, can be cut into rows, has a
    length and goes to a device. A learner must survive pickling (Ray).
    """

    @property
    def witnesses(self) -> tuple[str, ...]:
        """Witness channels, in the order of the network's input."""
        ...

    def network(self) -> nn.Module:
        """The network, its weights random."""
        ...

    def initialise(self, network: nn.Module) -> None:
        """Set, in place, the weights that a new training does not begin with at random."""
        ...

    def twin(self, network: nn.Module) -> Any:
        """The network with the scaling about it, an nn.Module on the network's device that shares its weights."""
        ...

    def losses(self, network: Callable[..., Any], twin: Any, witnesses: Any, strain: Any) -> Tensor:
        """One float32 number a window, differentiable.

        `network` runs the one that learns (distributed, compiled, in low precision); that of the twin may be its moving
        average: of the twin, only the scaling is used here.
        """
        ...

    def judge(
        self,
        predict: Callable[[Any], Any],
        batches: Iterable[tuple[Any, Any]],
        twin: Any,
        *,
        device: torch.device,
        threshold: float,
    ) -> Results:
        """Loss and figures of predictions over batches, in the scaling of `twin`. No gradient is kept."""
        ...

    def origin(self) -> dict[str, str]:
        """Checksums by name of what a resumed run must share with the one that it goes on from."""
        ...


class Learner(Learnable, Protocol):
    """One way to show witnesses and strain to a network: data, network, loss, judgement and what is registered."""

    @property
    def training_set(self) -> TrainingSet:
        """Windows, split and scaling."""
        ...

    @property
    def events(self) -> EventSet | None:
        """The event set that the maps were made of, where it is at hand."""
        ...

    def dataset(self, part: str) -> CachedEvents:
        """Windows of `train`, `validation` or `test`."""
        ...

    def training_windows(self) -> CachedEvents:
        """Windows of `train` as `losses` wants them, which may have more strain channels than was measured."""
        ...

    def examples(
        self,
        predict: Callable[[Tensor], Tensor],
        dataset: Any,
        *,
        title: str,
        threshold: float,
        axis: FrequencyAxis = "log",
        classes: Mapping[str, str] | None = None,
    ) -> Picture:
        """Figure of a few telling windows of a data set: measured, predicted, what is left; see `plot_cleaning`."""
        ...

    # once, after training

    def calibrate(self, twin: Any, batches: Callable[[str], Batches]) -> None:
        """Put what the twin says about itself right, in place, on validation windows."""
        ...

    def review(self, twin: Any, batches: Callable[[str], Batches], *, threshold: float) -> Review:
        """Calibrate as `calibrate` does, and judge the validation windows on the way."""
        ...

    def predictor(self, twin: nn.Module) -> Predictor:
        """What predicts whole events with a twin of this representation."""
        ...

    def event_losses(self, prediction: Prediction, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of whole events (event,), and that of trivial predictions (event, trivial), for the gate."""
        ...

    def baseline(self, twin: Any, batches: Callable[[str], Batches]) -> Baseline:
        """The linear rival, fitted to the training windows; `batches` gives those of a part afresh."""
        ...

    def test_scores(self, twin: nn.Module, baseline: Baseline, *, threshold: float) -> dict[str, Scores]:
        """Scores of `model`, `linear` and `zero` on the test events: the only look at them. Empty without any."""
        ...

    def bundle(
        self, twin: Any, baseline: Baseline, metrics: Mapping[str, float], notes: Mapping[str, Any]
    ) -> ModelBundle:
        """What is registered."""
        ...
