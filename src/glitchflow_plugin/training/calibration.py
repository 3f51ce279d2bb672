"""Put a waveform twin's word about itself right, on validation events: variance by pixel, and what is new to it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.models.bundle import PROBABILITIES, WaveformTwin

#: Summaries of few events do not span all directions: their covariance is drawn towards its diagonal by this share.
_SHRINKAGE = 0.1
#: Pixels that take part in the fit, at most.
_MOST_PIXELS = 2_000_000
#: Loud pixels below which the limits of a Gaussian are kept.
_FEWEST_LOUD = 200


@dataclass(frozen=True)
class Coverage:
    """How often what is left lies within what was announced.

    Attributes:
        probability: Announced.
        share: Found, over all pixels.
        share_loud: Found, over the pixels in which a glitch was predicted.
        num_loud: Number of those.
    """

    probability: tuple[float, ...]
    share: tuple[float, ...]
    share_loud: tuple[float, ...]
    num_loud: int


def calibrate(
    twin: WaveformTwin, training: Iterable[tuple[Tensor, Tensor]], validation: Iterable[tuple[Tensor, Tensor]]
) -> None:
    """Fit the calibration of a twin, in place.

    The mean power that is left of a pixel is a + b (v - 1), v being the network's announcement; a and b are those of
    the largest likelihood of a complex Gaussian on validation events. Of a predicted glitch, a little is left as a rule
    and
    much at times, more than a Gaussian allows: the limits for given probabilities are quantiles of what was left there,
    in units of its expected power (split conformal prediction, Vovk et al. 2005, doi:10.1007/b106715), apart for pixels
    with and without a prediction. New is what lies far from the training events'
    summaries, in the metric of their covariance (Mahalanobis; Lee et al. 2018, arXiv:1807.03888); how far is usual is
    known from validation events.

    Args:
        twin: Its network must say how sure it is.
        training: Batches of witnesses and strain of training events.
        validation: The same of validation events.

    Raises:
        NoEventsError: There is no event.
    """
    device = twin.variance_noise.device
    seen = [_summaries(twin, witnesses.to(device)) for witnesses, _ in training]
    if not seen:
        raise NoEventsError("expected training events to calibrate on, got none.")
    summaries = torch.cat(seen)
    centred = summaries - summaries.mean(dim=0)
    covariance = centred.T @ centred / max(1, len(centred) - 1)
    diagonal = covariance.diagonal().clamp(min=1e-6)
    covariance = (1 - _SHRINKAGE) * covariance + torch.diag(_SHRINKAGE * diagonal + 1e-6)
    twin.summary_mean = summaries.mean(dim=0).float()
    twin.summary_axes = torch.linalg.inv(torch.linalg.cholesky(covariance)).T.float()
    power, announced, novelty = _observed(twin, validation)
    twin.novelty_reference = novelty.sort().values.float()
    noise, factor = _most_likely(power, announced)
    twin.variance_noise = torch.tensor(noise, device=device)
    twin.variance_factor = torch.tensor(factor, device=device)
    expected = noise + factor * (announced - 1)
    loud = twin.is_loud(expected.to(device)).cpu()
    for row, chosen in enumerate((~loud, loud)):
        if int(chosen.sum()) >= _FEWEST_LOUD:
            ratios = (power[chosen] / expected[chosen]).numpy()
            twin.limits[row] = torch.from_numpy(np.quantile(ratios, PROBABILITIES)).to(twin.limits)


def coverage(twin: WaveformTwin, batches: Iterable[tuple[Tensor, Tensor]]) -> Coverage:
    """Compare what is left with the calibrated variance, on events that did not take part in the calibration.

    Args:
        twin: Calibrated.
        batches: Witnesses and strain.
    """
    power, expected, _ = _observed(twin, batches, calibrated=True)
    device = twin.limits.device
    loud = twin.is_loud(expected.to(device)).cpu()
    inside = power[:, None] < twin.residual_limits(expected.to(device)).cpu()
    return Coverage(
        probability=PROBABILITIES,
        share=tuple(inside.double().mean(dim=0).tolist()),
        share_loud=tuple(inside[loud].double().mean(dim=0).tolist()),
        num_loud=int(loud.sum()),
    )


@torch.no_grad()
def _summaries(twin: WaveformTwin, witnesses: Tensor) -> Tensor:
    return twin.network(witnesses, explained=True).summary.double()


@torch.no_grad()
def _observed(
    twin: WaveformTwin, batches: Iterable[tuple[Tensor, Tensor]], *, calibrated: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Power that is left and announced variance of all pixels within the band, and the events' novelty."""
    device = twin.variance_noise.device
    powers, variances, novelties = [], [], []
    for witnesses, strain in batches:
        predicted, variance, novelty = twin.explain(witnesses.to(device))
        network: object = twin.network
        left = network.transform((strain.to(device) - predicted)[:, 0])  # type: ignore[attr-defined]  # `explains`
        power = torch.view_as_real(left).square().sum(dim=-1)
        if not calibrated:
            variance = 1 + (variance - twin.variance_noise) / twin.variance_factor
        # rows outside the band of the whitened strain hold nothing, and the first and last frames reach past its ends
        band = power.mean(dim=(0, 2)) > 0.5 * power.mean(dim=(0, 2)).median()
        inner = slice(4, power.shape[-1] - 4)
        powers.append(power[:, band, inner].flatten().cpu())
        variances.append(variance[:, band, inner].flatten().cpu())
        novelties.append(novelty.cpu())
    if not powers:
        raise NoEventsError("expected validation events to calibrate on, got none.")
    return torch.cat(powers).double(), torch.cat(variances).double(), torch.cat(novelties)


def _most_likely(power: Tensor, announced: Tensor) -> tuple[float, float]:
    """Noise a and factor b that maximise the likelihood of exponential powers with mean a + b (v - 1)."""
    # the loud pixels are few and decide about the factor: all of them are kept, of the others some, each for many
    loud = announced > 1.1
    step = max(1, int((~loud).sum()) // _MOST_PIXELS)
    quiet = torch.nonzero(~loud)[::step, 0]
    chosen = torch.cat([quiet, torch.nonzero(loud)[:, 0]])
    weight = torch.ones(len(chosen), dtype=torch.float64)
    weight[: len(quiet)] = step
    power, excess = power[chosen], announced[chosen] - 1
    logs = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logs], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        mean = logs[0].exp() + logs[1].exp() * excess
        loss = (weight * (mean.log() + power / mean)).sum() / weight.sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]  # pyright: ignore
    noise, factor = logs.detach().exp().tolist()
    return float(noise), float(factor)
