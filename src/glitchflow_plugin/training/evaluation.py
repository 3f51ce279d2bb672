"""Judge a twin: on the windows of a part (during training) and on whole maps (once, at the end)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.inference.cases import CaseStatistics, map_statistics
from glitchflow_plugin.inference.predict import Predictor
from glitchflow_plugin.inference.score import Scores, score_statistics
from glitchflow_plugin.models.twins import EnergyTwin
from glitchflow_plugin.signal.columns import Columns, judged_pixels
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.training.losses import LossSettings, map_loss
from glitchflow_plugin.types.tensors import StrainWindows, WindowBatch
from glitchflow_plugin.verdict import GLITCH_THRESHOLD

Batches = Iterable[tuple[Tensor, Tensor]]
"""Pairs of witness energies (window, witness, f, t) and strain energies (window, 1, f, t), SNR²."""


@dataclass(frozen=True)
class WindowResults:
    """Sums over windows, so that the parts of several processes can be added.

    Attributes:
        loss_sum: Sum of the loss over windows.
        statistics: What scoring needs of each window.
    """

    loss_sum: float
    statistics: CaseStatistics

    @property
    def loss(self) -> float:
        """Mean loss of a window."""
        return self.loss_sum / len(self.statistics)

    @classmethod
    def concatenate(cls, parts: "list[WindowResults]") -> "WindowResults":
        """Join the results of several batches or processes."""
        statistics = CaseStatistics.concatenate([part.statistics for part in parts])
        return cls(sum(part.loss_sum for part in parts), statistics)

    def figures(self) -> dict[str, float]:
        """Loss and accuracies by name; what is undefined is left out."""
        estimates = score_statistics(self.statistics, thresholds=(), replicates=0).metrics()
        known = {name: estimate.value for name, estimate in estimates.items() if estimate.value is not None}
        return {"loss": self.loss, **known}


def judge_windows(
    predict: Callable[[Tensor], Tensor],
    batches: Batches,
    scaling: EnergyTwin,
    loss: LossSettings,
    *,
    device: torch.device,
    threshold: float = GLITCH_THRESHOLD,
) -> WindowResults:
    """Loss and statistics of a twin over batches of windows.

    Args:
        predict: Witness energies to strain energies.
        batches: Windows.
        scaling: Whose scaling the loss is counted in (two twins can only be compared in one scaling).
        loss: Weights.
        device: Where to compute.
        threshold: SNR² above which a window holds a glitch.

    Returns:
        Sums over all windows. No gradient is kept.
    """
    parts = []
    with torch.no_grad():
        for witnesses, strain in batches:
            measured = strain.to(device)
            predicted = predict(witnesses.to(device))
            losses = map_loss(scaling.scale_target(predicted), scaling.scale_target(measured), loss)
            statistics = map_statistics(measured[:, 0], predicted[:, 0], glitch_threshold=threshold)
            parts.append(WindowResults(float(losses.double().sum()), statistics))
    return WindowResults.concatenate(parts)


class ZeroTwin(nn.Module):
    """Predicts nothing: the least a twin has to beat."""

    def forward(self, witnesses: WindowBatch) -> StrainWindows:
        """Zeros in the shape of the strain."""
        return torch.zeros_like(witnesses[:, :1])


def pixels_inside(spectrograms: SpectrogramSet) -> Bool[np.ndarray, "frequency time"]:
    """Pixels that tell of their own time, see `judged_pixels`; all of maps that do not say how they were made."""
    transform, columns = Recipe.from_dict(spectrograms.recipe).qtransform, Columns(spectrograms.times)
    if transform is None:
        return np.ones((len(spectrograms.frequencies), len(columns)), dtype=bool)
    qs = QTransformSettings.from_recipe(transform).qs
    return judged_pixels(spectrograms.frequencies, columns, qs)


def judge_events(
    predictor: Predictor,
    spectrograms: SpectrogramSet,
    event_ids: Iterable[str],
    witnesses: tuple[str, ...],
    *,
    groups: Mapping[str, int] | None = None,
    batch_events: int = 16,
    threshold: float = GLITCH_THRESHOLD,
    seed: int = 0,
) -> Scores:
    """Score a twin on whole maps of some events, with intervals by group.

    Args:
        predictor: Events to measured, predicted and cleaned maps.
        spectrograms: The maps.
        event_ids: Events to judge; those whose strain is invalid are left out.
        witnesses: Witness channels in the order of the twin.
        groups: Number of each event's group; None: each event is independent of all others.
        batch_events: Events in memory at a time.
        threshold: SNR² above which an event holds a glitch.
        seed: Seed of the bootstrap.

    Returns:
        All figures.

    Raises:
        NoEventsError: No event is left.
    """
    wanted = set(event_ids)
    rows = np.array(
        [row for row, name in enumerate(spectrograms.event_ids) if name in wanted and spectrograms.valid[row, 0]],
        dtype=np.int64,
    )
    channels, inside = [spectrograms.target, *witnesses], pixels_inside(spectrograms)
    parts = []
    for first in range(0, len(rows), batch_events):
        batch = spectrograms.read(rows[first : first + batch_events], channels=channels)
        found = predictor(batch)
        parts.append(
            map_statistics(
                found.measured,
                found.predicted,
                batch.event_ids,
                threshold,
                cleaned=found.cleaned,
                inside=inside,
                groups=None if groups is None else [groups[event_id] for event_id in batch.event_ids],
            )
        )
    return score_statistics(CaseStatistics.concatenate(parts), seed=seed)
