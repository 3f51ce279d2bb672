"""What of a prediction the strain agrees with: the rest is not taken away."""

import torch
from jaxtyping import Float
from torch import Tensor

#: Power (SNR²) from which the strain tells whether a prediction is in it. Its inner product with the strain has the
#: variance P, its own power, and the mean P where it is right and 0 where it is wrong: taking it away changes the power
#: by -P or +P, give or take 2 sqrt(P), so that its sign errs in 0.6 % of cases (2.5 standard deviations) for P = 25.
LEAST_POWER = 25.0
#: Octaves below half the sample rate that are asked apart; the last holds all that lies below.
_OCTAVES = 8


def agreed(
    predicted: Float[Tensor, "event time"], measured: Float[Tensor, "event time"]
) -> Float[Tensor, "event time"]:
    """What is taken away of a prediction: nothing by which the power of the strain would rise.

    An event as a whole decides first, then each octave in which enough is predicted for the strain to tell
    (`LEAST_POWER`); the others follow the event. The answer is yes or no and never a gain, so nothing is taken that the
    witnesses did not foretell: of a signal at most what some octaves of the prediction hold of it. A signal can turn
    either answer by chance: it keeps a glitch from being taken away, or has a wrong prediction taken that is like it
    and would be refused without it. What is lost then has one sign, where taking all would have either.

    Args:
        predicted: Whitened strain as the witnesses foretell it.
        measured: Whitened strain, whose noise has variance 1 a sample.

    Returns:
        The prediction where all octaves agree, exactly; parts of it, or exactly zero, elsewhere.
    """
    whole, strain = predicted.double(), measured.double()
    twice = 2 * strain - whole
    power, gain = whole.square().sum(dim=-1), (whole * twice).sum(dim=-1)
    parts = octaves(whole)
    octave_power, octave_gain = parts.square().sum(dim=-1), (parts * twice[:, None]).sum(dim=-1)
    kept = (octave_power < LEAST_POWER) | (octave_gain > 0)
    some = (parts * kept[..., None]).sum(dim=1).to(predicted)
    taken = torch.where(kept.all(dim=-1, keepdim=True), predicted, some)
    return torch.where(((power >= LEAST_POWER) & (gain > 0))[:, None], taken, 0.0)


def octaves(series: Float[Tensor, "event time"]) -> Float[Tensor, "event octave time"]:
    """Parts of a series by octave, which add up to it: each gives way to the next along a squared cosine.

    Args:
        series: Real series; octaves are counted downwards from half its rate, whatever that is.
    """
    spectrum = torch.fft.rfft(series)
    share = torch.linspace(0, 1, spectrum.shape[-1], dtype=series.dtype, device=series.device)
    # centres lie half an octave below the edges; what is above the first or below the last belongs to it
    place = (torch.log2(share.clamp(min=2.0**-_OCTAVES)) + _OCTAVES - 0.5).clamp(0, _OCTAVES - 1)
    away = (place - torch.arange(_OCTAVES, device=series.device)[:, None]).abs().clamp(max=1)
    return torch.fft.irfft(spectrum[:, None] * torch.cos(0.5 * torch.pi * away).square(), n=series.shape[-1])
