"""How strongly, and how late, the strain follows what a twin predicts of each witness, event by event."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from glitchflow_plugin.signal.gain_watch import MeasuredGains
from glitchflow_plugin.types.tensors import host

#: Variance that the gain of each other witness has about 1 while one is measured: it may be reversed or threefold.
_OTHERS = 4.0
#: Samples over which the power of a part is averaged, and how far above its median it is where there is a transient.
_LOCAL, _ABOVE = 33, 5.0


class WitnessGains(NamedTuple):
    """Gains of the parts of a prediction: 1 where the strain holds just what is predicted, -1 where it is reversed.

    Attributes:
        gain: Least-squares gain, (event, part); NaN of a part that predicts nothing.
        variance: Variance of the gain, by the noise and whatever else the strain holds at that time, (event, part).
        power: What of the part's transients no other one predicts as well, SNR², (event, part): the gain of less than
            some tens is that of noise.
        lag: By how much the strain follows the part later than predicted, samples, (event, part); 0 where nothing is
            predicted.
    """

    gain: Float[Tensor, "event part"]
    variance: Float[Tensor, "event part"]
    power: Float[Tensor, "event part"]
    lag: Float[Tensor, "event part"]


def witness_gains(
    strain: Float[Tensor, "event time"], parts: Float[Tensor, "event part time"], longest_lag: int
) -> WitnessGains:
    """Measure the gain of each part of a prediction in the whitened strain.

    The strain is a sum of the parts, each with its gain, and of noise of variance 1; what is more than that at the time
    of a part counts as noise too, so that a signal or another glitch there makes its gain uncertain. While the gain of
    one part is measured nothing is known of it, and those of the others are normal about 1: where two parts are alike,
    neither can be told from the other, and both have little power (the cavity of a Gaussian linear model; Minka 2001,
    arXiv:1301.2294). Transients of the parts alone count: a linear filter passes the noise of its witness on as well,
    and the strain does not follow that.

    Args:
        strain: Measured, whitened.
        parts: What each witness adds to the prediction, whitened.
        longest_lag: Samples by which a part is moved to either side at most.
    """
    strain, parts = strain.double(), _transients(parts.double())
    products = parts @ parts.mT
    targets = (parts @ strain[..., None])[..., 0]
    prior = torch.eye(parts.shape[1], dtype=parts.dtype, device=parts.device) / _OTHERS
    covariance = torch.linalg.inv(products + prior)
    joint = (covariance @ (targets + 1 / _OTHERS)[..., None])[..., 0]
    own = covariance.diagonal(dim1=-2, dim2=-1)
    power = (1 / own - 1 / _OTHERS).clamp(min=0)
    squares = parts.square()
    gain = torch.where(squares.sum(dim=-1) > 0, (joint / own - 1 / _OTHERS) / power, torch.nan)
    left = strain - (joint[..., None] * parts).sum(dim=1)
    noise = (squares @ left.square()[..., None])[..., 0] / squares.sum(dim=-1)
    lag = _lags(left[:, None] + joint[..., None] * parts, parts, longest_lag)
    return WitnessGains(gain, noise.clamp(min=1) / power, power, lag)


def measured_gains(
    strain: Float[Tensor, "event time"],
    parts: Float[Tensor, "event part time"],
    sample_rate: float,
    longest_lag: float,
) -> MeasuredGains:
    """Gains as from `witness_gains`, in seconds and on the CPU; a strain of zeros, where there is none, tells nothing.

    Args:
        strain: Measured, whitened.
        parts: What each witness adds to the prediction, whitened.
        sample_rate: Hz.
        longest_lag: How far a part is moved to either side at most, s.
    """
    gains = witness_gains(strain, parts, round(longest_lag * sample_rate))
    power = torch.where((strain.abs().amax(dim=-1) > 0)[:, None], gains.power, 0)
    return MeasuredGains(*map(host, (gains.gain, gains.variance, power, gains.lag / sample_rate)))


def _transients(parts: Float[Tensor, "event part time"]) -> Float[Tensor, "event part time"]:
    """The parts where they are far louder than usual, zero elsewhere."""
    local = functional.avg_pool1d(parts.square(), _LOCAL, stride=1, padding=_LOCAL // 2)
    return torch.where(local > _ABOVE * local.median(dim=-1, keepdim=True).values, parts, 0)


def _lags(
    strain: Float[Tensor, "event part time"], parts: Float[Tensor, "event part time"], longest: int
) -> Float[Tensor, "event part"]:
    """Samples by which the strain follows each part, from the largest of their correlations of either sign."""
    size = next_fast_len(parts.shape[-1] + longest, real=True)
    spectrum = torch.fft.rfft(parts, size).conj() * torch.fft.rfft(strain, size)
    correlation = torch.fft.irfft(spectrum, size).abs()
    # from the shortest lag outwards, so that a part of zeros has none
    order = torch.tensor(sorted(range(-longest, longest + 1), key=abs), device=parts.device)
    return order[correlation[..., order].argmax(dim=-1)].double()
