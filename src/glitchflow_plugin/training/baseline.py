"""Fit the linear witness filter that the network has to beat."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from glitchflow_plugin.models.linear import DEFAULT_LAGS, RidgeSums
from glitchflow_plugin.models.twins import EnergyTwin, Twin
from glitchflow_plugin.settings import section
from glitchflow_plugin.training.evaluation import Batches, judge_windows
from glitchflow_plugin.training.losses import LossSettings

logger = logging.getLogger(__name__)


@section
class BaselineSettings:
    """The linear filter; conf/training.yaml explains the keys."""

    lags: Annotated[tuple[int, ...], Field(min_length=1)] = DEFAULT_LAGS
    ridges: Annotated[tuple[float, ...], Field(min_length=1)] = (1e-4, 1e-2, 1e-1)


@dataclass(frozen=True)
class Baseline:
    """The filter that was chosen.

    Attributes:
        twin: The filter as a twin.
        representation: `raw` (energies), `scaled` (as the network sees them) or `waveform` (whitened series).
        ridge: Strength of the regularisation.
        validation: Figures on the validation windows.
    """

    twin: Twin
    representation: str
    ridge: float
    validation: dict[str, float]


def fit_baseline(
    training: Callable[[], Batches],
    validation: Callable[[], Batches],
    scaling: EnergyTwin,
    settings: BaselineSettings,
    loss: LossSettings,
    *,
    num_witnesses: int,
    window_size: int,
) -> Baseline:
    """Ridge regression on training windows, in closed form, once over raw and once over scaled energies.

    The baseline shall be as strong as a linear filter can be: representation and ridge are chosen on the validation
    windows, by the same loss that chooses the network's checkpoint.

    Args:
        training: Gives the training windows afresh.
        validation: Gives the validation windows afresh.
        scaling: The twin whose scaling is used.
        settings: Lags and ridges to try.
        loss: Weights of the loss.
        num_witnesses: Number of witness channels.
        window_size: Rows and columns of a window.

    Returns:
        The best filter.
    """
    device = scaling.clamp.device
    sums = {name: RidgeSums(num_witnesses, window_size, settings.lags) for name in ("raw", "scaled")}
    with torch.no_grad():
        for witnesses, strain in training():
            sums["raw"].add(torch.clamp(witnesses, max=float(scaling.clamp)), strain)
            x, y = scaling.scale_witnesses(witnesses.to(device)), scaling.scale_target(strain.to(device))
            sums["scaled"].add(x, y)
    candidates = []
    for name, gathered in sums.items():
        for ridge in settings.ridges:
            twin = EnergyTwin(
                gathered.solve(ridge),
                clamp=float(scaling.clamp),
                witness_scale=scaling.witness_scale.flatten().tolist(),
                target_scale=float(scaling.target_scale),
                transform="none" if name == "raw" else scaling.transform,
            )
            twin = twin.to(device).eval()
            figures = judge_windows(twin, validation(), scaling, loss, device=device).figures()
            candidates.append(Baseline(twin, name, ridge, figures))
    best = min(candidates, key=lambda candidate: candidate.validation["loss"])
    logger.info(
        "Linear witness filter: %s energies, ridge %g, validation loss %.4f (of %d tried)",
        best.representation,
        best.ridge,
        best.validation["loss"],
        len(candidates),
    )
    return best
