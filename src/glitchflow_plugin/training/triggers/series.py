"""Teach a masked autoencoder of series, and make classifiers of its encoder."""

import copy
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any, Literal

import torch
from torch import nn

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.models.triggers.seriesae import SeriesAutoencoder, SeriesClassifier, SeriesEncoder, hide
from glitchflow_plugin.settings import Count, CountOrNone, Fraction, NotNegative, Positive, section
from glitchflow_plugin.training.steps import build_optimizer, warm_up
from glitchflow_plugin.training.triggers.losses import TaskWeights, task_losses
from glitchflow_plugin.training.triggers.series_losses import SeriesLoss, series_loss
from glitchflow_plugin.types.series import SeriesSets
from glitchflow_plugin.types.triggers import TriggerLabels

logger = logging.getLogger(__name__)

Start = Literal["frozen", "fine_tuned", "scratch"]


@section
class SeriesLearning:
    """How an autoencoder of series, or a classifier, is taught.

    Attributes:
        hidden: Share of the samples that are hidden.
        epochs: Passes over the series.
        rate: Largest learning rate, of AdamW.
        weight_decay: Its decay of weights.
        warm_up_steps: Steps in which the rate rises to its full size.
        gradient_clip: Largest norm of the gradient.
        seed: Of what is hidden.
        loss: What is minimised.
    """

    hidden: Fraction = 0.3
    epochs: Count = 10
    rate: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    warm_up_steps: CountOrNone = 50
    gradient_clip: Positive = 1.0
    seed: int = 0
    loss: SeriesLoss = field(default_factory=SeriesLoss)


def teach_series(
    network: SeriesAutoencoder,
    batches: Callable[[int], Iterable[SeriesSets]],
    settings: SeriesLearning,
    device: torch.device | str = "cpu",
) -> tuple[float, ...]:
    """Teach an autoencoder to tell what it is not shown; what is hidden is drawn anew in each epoch.

    Args:
        network: To be taught; changed. Its scaling is fitted to the first epoch's batches.
        batches: From the number of an epoch to its batches.
        settings: How.
        device: Where.

    Returns:
        Mean loss by epoch.

    Raises:
        ConfigurationError: The loss is no longer finite.
        DataError: There are no series.
    """
    network.encoder.scaling.fit(batches(0))
    generator = torch.Generator().manual_seed(settings.seed)
    return _taught(
        network, batches, lambda series: hidden_loss(network, series, generator, settings, device), settings, device
    )


def teach_classifier(
    network: SeriesClassifier,
    batches: Callable[[int], Iterable[tuple[SeriesSets, TriggerLabels]]],
    settings: SeriesLearning,
    tasks: TaskWeights,
    device: torch.device | str = "cpu",
) -> tuple[float, ...]:
    """Teach a classifier of series; its scaling stays as it is.

    Args:
        network: To be taught; changed.
        batches: From the number of an epoch to its batches.
        settings: How; of what is hidden and of the loss nothing is used.
        tasks: Weights of the tasks.
        device: Where.

    Returns:
        Mean loss by epoch.

    Raises:
        ConfigurationError: The loss is no longer finite.
        DataError: There are no series.
    """

    def loss(batch: tuple[SeriesSets, TriggerLabels]) -> torch.Tensor:
        series, labels = batch
        return task_losses(network(series.to(device)), labels.to(device), tasks).mean()

    return _taught(network, batches, loss, settings, device)


def _taught(
    network: nn.Module,
    batches: Callable[[int], Iterable[Any]],
    loss_of: Callable[[Any], torch.Tensor],
    settings: SeriesLearning,
    device: torch.device | str,
) -> tuple[float, ...]:
    """Mean loss by epoch of a network that is in evaluation mode afterwards."""
    network.to(device).train()
    learnt = [one for one in network.parameters() if one.requires_grad]
    optimizer = build_optimizer(learnt, "adamw", rate=settings.rate, weight_decay=settings.weight_decay)
    means, steps = [], 0
    for epoch in range(settings.epochs):
        losses = []
        for batch in batches(epoch):
            warm_up(optimizer, settings.rate, steps, settings.warm_up_steps)
            optimizer.zero_grad()
            loss = loss_of(batch)
            loss.backward()
            nn.utils.clip_grad_norm_(learnt, settings.gradient_clip)
            optimizer.step()
            losses.append(float(loss.detach()))
            steps += 1
        if not losses:
            raise DataError("expected series to learn from, got none.")
        means.append(sum(losses) / len(losses))
        if not math.isfinite(means[-1]):
            raise ConfigurationError("the loss is no longer finite: set a smaller rate.")
        logger.info("epoch %d: loss %.4f", epoch, means[-1])
    network.eval()
    return tuple(means)


def hidden_loss(
    network: SeriesAutoencoder,
    series: SeriesSets,
    generator: torch.Generator,
    settings: SeriesLearning,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Hide some samples, and tell how well the network tells them."""
    shown, asked, hidden = hide(series, settings.hidden, generator)
    all_of_it = series.to(device)
    told, summary = network(shown.to(device), asked.to(device))
    true = network.encoder.scaling(all_of_it)
    return series_loss(
        told,
        true.values,
        weights=all_of_it.weights,
        hidden=hidden.to(device),
        summary=summary,
        settings=settings.loss,
    )


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
