"""Subtract the predicted energy of a glitch from the measured map, and say what is left."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.verdict import above


def clean_maps(measured: Float[Tensor, "*batch"], predicted: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Residual energy after the prediction has been taken away: the absolute difference, pixel by pixel.

    This is a statement about energy, not a subtraction of strain. A Q-transform energy |X|² holds no phase, so the
    residual of the complex tiles |X - P|² cannot be known from |X|² and |P|² alone; it lies between
    (|X| - |P|)² (phases agree) and (|X| + |P|)² (phases are opposite). The absolute difference of the energies is used
    because it is zero only for a perfect prediction, counts too much prediction like too little, stays in the unit
    SNR² in which thresholds are set, and leaves the map alone where nothing is predicted. It says how well the twin
    explains the energy; it does not promise that a subtraction in the time domain reaches the same floor.

    Args:
        measured: Energies of the strain, SNR², any shape.
        predicted: Energies predicted from the witnesses, SNR², same shape.

    Returns:
        |measured - predicted|, SNR², same shape, never negative.

    Raises:
        ConfigurationError: The shapes differ.

    >>> import torch
    >>> clean_maps(torch.tensor([20.0, 1.0]), torch.tensor([18.0, 3.0]))
    tensor([2., 2.])
    """
    if measured.shape != predicted.shape:
        msg = (
            f"measured and predicted maps must have one shape, got {tuple(measured.shape)} and "
            f"{tuple(predicted.shape)}. Select the same events and windows for both."
        )
        raise ConfigurationError(msg)
    return (measured - predicted).abs()


def residual_area(cleaned: Float[Tensor, "*batch frequency time"], threshold: float) -> Int[Tensor, "*batch"]:
    """Number of pixels that are still loud after cleaning.

    Args:
        cleaned: Residual energies, SNR².
        threshold: A pixel above it is loud, SNR².

    Returns:
        Count of pixels above the threshold for each window or map.
    """
    return above(cleaned, threshold).sum(dim=(-2, -1))


def band_by_column(
    predicted: Float[Tensor, "*batch frequency time"], threshold: float, inside: Bool[Tensor, "frequency time"]
) -> Int[Tensor, "*batch time 2"]:
    """First and last row that is predicted to be loud at each time; the loudest row where none is.

    Args:
        predicted: Energies predicted from the witnesses, SNR².
        threshold: A pixel above it is loud, SNR².
        inside: Pixels that are looked at.

    Returns:
        Rows of frequency.

    >>> band_by_column(torch.tensor([[1.0, 17.0], [3.0, 20.0]]), 16.0, torch.ones(2, 2, dtype=torch.bool)).tolist()
    [[1, 1], [0, 1]]
    """
    predicted = torch.where(inside, predicted, 0.0)
    loud = above(predicted, threshold) | (predicted == predicted.amax(dim=-2, keepdim=True))
    first, last = loud.int().argmax(dim=-2), loud.flip(-2).int().argmax(dim=-2)
    return torch.stack([first, predicted.shape[-2] - 1 - last], dim=-1)


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
