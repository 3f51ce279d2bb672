"""Flag windows from the witnesses alone."""

from jaxtyping import Bool, Float
from torch import Tensor

from glitchflow_plugin.inference.clean import peak_energy


def veto_flags(predicted: Float[Tensor, "*batch frequency time"], threshold: float) -> Bool[Tensor, "*batch"]:
    """Windows to be vetoed: the witnesses predict a glitch, whatever the strain holds.

    The strain is not looked at, so a gravitational wave without a trace in the witnesses is never vetoed.

    Args:
        predicted: Energies predicted from the witnesses, SNR²; one window or map in the last two axes.
        threshold: SNR² above which a predicted pixel means a glitch. A value equal to it does not.

    Returns:
        True where the largest predicted energy is above the threshold.

    >>> import torch
    >>> veto_flags(torch.tensor([[[1.0, 17.0]], [[16.0, 2.0]]]), threshold=16.0)
    tensor([ True, False])
    """
    return peak_energy(predicted) > threshold
