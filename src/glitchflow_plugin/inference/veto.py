"""When the witnesses alone say that there is a glitch."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def loudest_by_column(
    predicted: Float[Tensor, "*batch frequency time"], inside: Bool[Tensor, "frequency time"] | None = None
) -> Float[Tensor, "*batch time"]:
    """Largest predicted energy at each time: a veto is where it is above the threshold.

    The strain is not looked at, so a gravitational wave without a trace in the witnesses is never vetoed.

    Args:
        predicted: Energies predicted from the witnesses, SNR².
        inside: Pixels that are looked at; all if None.

    Returns:
        SNR²; 0 where no pixel is looked at.

    >>> loudest_by_column(torch.tensor([[1.0, 17.0], [3.0, 2.0]])).tolist()
    [3.0, 17.0]
    """
    if inside is not None:
        predicted = torch.where(inside, predicted, 0.0)
    return predicted.amax(dim=-2)
