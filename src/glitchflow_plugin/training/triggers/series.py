"""What the loop of a training teaches of irregular series: a masked autoencoder, and classifiers of its encoder."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.triggers.seriesae import SeriesAutoencoder, SeriesClassifier, SeriesEncoder, hide
from glitchflow_plugin.settings import Fraction, section
from glitchflow_plugin.training.triggers.held import HeldRows
from glitchflow_plugin.training.triggers.learner import TriggerLearner
from glitchflow_plugin.training.triggers.series_losses import SeriesLoss, series_loss
from glitchflow_plugin.types.series import SeriesSets

Start = Literal["frozen", "fine_tuned", "scratch"]


@section
class SeriesLearning:
    """What an autoencoder of series is asked.

    Attributes:
        hidden: Share of the samples that are hidden.
        loss: What is minimised.
    """

    hidden: Fraction = 0.3
    loss: SeriesLoss = field(default_factory=SeriesLoss)


@dataclass(frozen=True, eq=False)
class SeriesResults:
    """How well hidden samples were told.

    Attributes:
        loss_sum: Sum over the series of the loss of their batch.
        number: Series.
    """

    loss_sum: float
    number: int

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self.loss_sum / self.number

    @classmethod
    def concatenate(cls, parts: "list[SeriesResults]") -> "SeriesResults":
        """Join the results of several batches or processes."""
        return cls(sum(one.loss_sum for one in parts), sum(one.number for one in parts))

    def figures(self) -> dict[str, float]:
        """The loss alone."""
        return {"loss": self.loss}


@dataclass(frozen=True, eq=False)
class SeriesLearner:
    """Teaches an autoencoder to tell what it is not shown; a `Learnable` of the loop.

    What is hidden is drawn anew for each step, and the same for each judgement. Losses that are no mean over series, as
    roots are, are those of a batch, or of the pieces that it is worked through in.

    Attributes:
        given: To be taught; changed.
        training: Series twice, as what is seen and what is true; the scaling is fitted to them.
        settings: What is asked.
        witnesses: None that could be left out.
    """

    given: SeriesAutoencoder
    training: HeldRows
    settings: SeriesLearning = field(default_factory=SeriesLearning)
    witnesses: tuple[str, ...] = ()

    def network(self) -> SeriesAutoencoder:
        """The one that was given."""
        return self.given

    def initialise(self, network: nn.Module) -> None:
        """Fit the scaling to the training series."""
        del network
        self.given.encoder.scaling.fit(series for series, _ in self.training.in_order())

    def twin(self, network: nn.Module) -> nn.Module:
        """The network itself, which holds its scaling."""
        return network

    def losses(self, network: Callable[..., Any], twin: Any, witnesses: SeriesSets, strain: SeriesSets) -> Tensor:
        """Loss of the batch, for each series; what the loop calls witnesses and strain are series."""
        del twin
        return self.hidden_loss(network, witnesses, strain, None).float().expand(len(witnesses))

    def judge(
        self,
        predict: Callable[[SeriesSets], Any],
        batches: Iterable[tuple[SeriesSets, SeriesSets]],
        twin: nn.Module,
        *,
        device: torch.device,
        threshold: float,
    ) -> SeriesResults:
        """Loss of what is hidden, always the same of a batch."""
        del predict, threshold
        generator, parts = torch.Generator().manual_seed(0), []
        with torch.no_grad():
            for series, true in batches:
                loss = self.hidden_loss(twin, series.to(device), true.to(device), generator)
                parts.append(SeriesResults(float(loss) * len(series), len(series)))
        return SeriesResults.concatenate(parts)

    def hidden_loss(
        self, network: Callable[..., Any], series: SeriesSets, true: SeriesSets, generator: torch.Generator | None
    ) -> Tensor:
        """Hide some samples, drawn by a generator on the CPU or by the one of all, and say how well they are told."""
        shown, asked, hidden = hide(series, self.settings.hidden, generator)
        told, summary = network(shown, asked)
        return series_loss(
            told,
            self.given.encoder.scaling(true).values,
            weights=true.weights,
            hidden=hidden,
            summary=summary,
            settings=self.settings.loss,
        )

    def origin(self) -> dict[str, str]:
        """Nothing that could be compared."""
        return {}


@dataclass(frozen=True, eq=False)
class ClassifierLearner(TriggerLearner):
    """Teaches a classifier of series; its scaling stays as it is.

    Attributes:
        given: To be taught; changed. Name and settings are not asked.
    """

    given: SeriesClassifier = field(kw_only=True)

    def network(self) -> Any:
        """The one that was given."""
        return self.given

    def initialise(self, network: nn.Module) -> None:
        """Leave all as it is."""


def classifier(
    encoder: SeriesEncoder, start: Start, num_kinds: int, *, dim: int, fresh: Callable[[], SeriesEncoder]
) -> SeriesClassifier:
    """A classifier that begins with a taught encoder, which stays as it is, or with a new one.

    Args:
        encoder: Taught.
        start: `frozen`: only the heads learn; `fine_tuned`: all of it; `scratch`: all of it, from drawn weights.
        num_kinds: Classes of glitches.
        dim: Features of a summary.
        fresh: Makes an encoder with drawn weights. Its scaling becomes that of the taught one, so that starts differ in
            their weights alone.

    Raises:
        ConfigurationError: There is no such start.
    """
    if start not in ("frozen", "fine_tuned", "scratch"):
        raise ConfigurationError(f"expected a start out of frozen, fine_tuned and scratch, got {start!r}.")
    if start != "scratch":
        return SeriesClassifier(copy.deepcopy(encoder), num_kinds, dim=dim, frozen=start == "frozen")
    drawn = fresh()
    drawn.scaling.load_state_dict(encoder.scaling.state_dict())
    return SeriesClassifier(drawn, num_kinds, dim=dim)
