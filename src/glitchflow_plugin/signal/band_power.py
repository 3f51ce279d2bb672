"""Power of whitened series by octave."""

import torch
from jaxtyping import Float
from torch import Tensor

EDGES = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Edges of the bands, Hz; those beyond half the sample rate are empty."""


def band_power(series: Float[Tensor, "event time"], sample_rate: float) -> Float[Tensor, "event band"]:
    """Power of each event between neighbouring `EDGES`, SNR²: the sum of the squares of what lies in the band.

    Args:
        series: Whitened, so that a signal's power is its SNR² and noise has about 1 a sample.
        sample_rate: Hz.
    """
    num_samples = series.shape[-1]
    power = torch.fft.rfft(series.double()).abs().square() / num_samples
    power[..., 1 : (num_samples + 1) // 2] *= 2  # negative frequencies, but for 0 and half the sample rate
    frequency = torch.arange(power.shape[-1], device=series.device) * (sample_rate / num_samples)
    below = torch.stack([(power * (frequency < edge)).sum(dim=-1) for edge in EDGES], dim=-1)
    return below.diff(dim=-1)


def power_left(
    measured: Float[Tensor, "event time"], taken: Float[Tensor, "event time"], sample_rate: float
) -> Float[Tensor, "event band 2"]:
    """Power by band before and after something is taken away, SNR².

    Args:
        measured: Whitened strain.
        taken: What is taken away of it, whitened.
        sample_rate: Hz.
    """
    return torch.stack([band_power(each, sample_rate) for each in (measured, measured - taken)], dim=-1)
