"""What of a prediction the strain agrees with: the rest is not taken away."""

import torch
from jaxtyping import Float
from torch import Tensor

from glitchflow_plugin.verdict import TOLD_SNR2

#: Power (SNR²) from which the strain tells whether a prediction is in it. Its inner product with the strain has the
#: variance P, its own power, and the mean P where it is right and 0 where it is wrong: taking it away changes the power
#: by -P or +P, give or take 2 sqrt(P), so that its sign errs in 0.6 % of cases (2.5 standard deviations) for P = 25.
LEAST_POWER = TOLD_SNR2
#: SNR up to which the strain is not asked where answers go over into each other; from that of `LEAST_POWER` on it is.
_UNTOLD_SNR = 4.0
#: Fall of the power of the strain, over that of the prediction, from which an answer is a whole yes; at none it is no.
_CERTAIN = 0.1
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
    whole = predicted.double()
    parts = octaves(whole)
    power, gain, octave_power, octave_gain = _asked(whole, parts, measured.double())
    kept = (octave_power < LEAST_POWER) | (octave_gain > 0)
    some = (parts * kept[..., None]).sum(dim=1).to(predicted)
    taken = torch.where(kept.all(dim=-1, keepdim=True), predicted, some)
    return torch.where(((power >= LEAST_POWER) & (gain > 0))[:, None], taken, 0.0)


def agreed_shares(
    predicted: Float[Tensor, "event time"], measured: Float[Tensor, "event time"]
) -> Float[Tensor, "event octave"]:
    """By octave, what share of a prediction is taken away, as for `agreed`, but without a jump anywhere.

    Where the same data are looked at in two ways that differ by little (windows of a stream that are shifted), a yes
    and a no of two of them would differ by the whole prediction. So from no to yes an answer rises while the power of
    the strain falls by a tenth of what is predicted, and from the SNR of 4 on the strain is asked little by little.
    A share of an octave is less than the strain holds of it, so that the power does not rise by a part either.

    Args:
        predicted: As for `agreed`.
        measured: As there.
    """
    whole = predicted.double()
    power, gain, octave_power, octave_gain = _asked(whole, octaves(whole), measured.double())
    refused = _told(octave_power) * (1 - _yes(octave_gain, octave_power))
    return (_told(power) * _yes(gain, power))[:, None] * (1 - refused)


def _asked(
    whole: Float[Tensor, "event time"], parts: Float[Tensor, "event octave time"], strain: Float[Tensor, "event time"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Power of a prediction, and by how much that of the strain falls without it; both of the whole and by octave."""
    twice = 2 * strain - whole
    of_parts = parts.square().sum(dim=-1), (parts * twice[:, None]).sum(dim=-1)
    return whole.square().sum(dim=-1), (whole * twice).sum(dim=-1), *of_parts


def _told(power: Tensor) -> Tensor:
    return ((power.sqrt() - _UNTOLD_SNR) / (LEAST_POWER**0.5 - _UNTOLD_SNR)).clamp(0, 1)


def _yes(gain: Tensor, power: Tensor) -> Tensor:
    return (gain / (_CERTAIN * power).clamp(min=torch.finfo(power.dtype).tiny)).clamp(0, 1)


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
