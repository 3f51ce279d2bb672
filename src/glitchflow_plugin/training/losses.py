"""What training minimises: the absolute error and the loss of structure of scaled maps."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import NotNegative, Positive, section
from glitchflow_plugin.types.tensors import WindowBatch

PerWindow: TypeAlias = Float[Tensor, " window"]
"""One number a window."""


@section
class LossSettings:
    """Weights of the mean absolute error (`l1`) and of 1 - SSIM, whose Gaussian window is `sigma` pixels wide."""

    l1: NotNegative = 0.8
    ssim: NotNegative = 0.2
    sigma: Positive = 1.5

    def __post_init__(self) -> None:
        """Refuse a loss that is always 0."""
        if not self.l1 + self.ssim > 0:
            raise ConfigurationError("expected weights l1 and ssim of at least 0, not both 0. Correct training.yaml.")


def structural_similarity(
    first: WindowBatch, second: WindowBatch, data_range: float = 1.0, sigma: float = 1.5
) -> PerWindow:
    """Structural similarity (SSIM) of pairs of maps, averaged over each map.

    Local means and variances under a Gaussian window cut off at 3.5 sigma, constants 0.01 and 0.03 (Wang et al. 2004,
    doi:10.1109/TIP.2003.819861). Only places where the window lies inside the map count.

    Args:
        first: Maps, (window, channel, frequency, column).
        second: Maps to compare with, same shape.
        data_range: Range of the values.
        sigma: Width of the Gaussian, pixels.

    Returns:
        One number a window, 1 for equal maps.

    Raises:
        ConfigurationError: The maps are smaller than the Gaussian window.

    >>> structural_similarity(torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16))
    tensor([1.])
    """
    rows, columns = first.shape[-2:]
    kernel = _gaussian(sigma, first)
    if min(rows, columns) < len(kernel):
        message = f"expected maps of at least {len(kernel)} x {len(kernel)} pixels for SSIM, got {rows} x {columns}."
        raise ConfigurationError(message)
    # the window is separable: two small matrix products are faster on a CPU than any convolution
    down, across = _band(kernel, rows), _band(kernel, columns).T

    def blur(maps: Tensor) -> Tensor:
        return down @ maps @ across

    mean_first, mean_second = blur(first), blur(second)
    variance_first = blur(first * first) - mean_first**2
    variance_second = blur(second * second) - mean_second**2
    covariance = blur(first * second) - mean_first * mean_second
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = ((2 * mean_first * mean_second + c1) * (2 * covariance + c2)) / (
        (mean_first**2 + mean_second**2 + c1) * (variance_first + variance_second + c2)
    )
    return similarity.mean(dim=(-3, -2, -1))


def map_loss(predicted: WindowBatch, wanted: WindowBatch, settings: LossSettings) -> PerWindow:
    """The loss of each window: l1 x mean absolute error + ssim x (1 - SSIM).

    Args:
        predicted: Scaled strain maps, (window, 1, frequency, column).
        wanted: The measured ones, same shape.
        settings: Weights.

    Returns:
        One number a window, so that sums over batches of different size stay exact.
    """
    loss = settings.l1 * (predicted - wanted).abs().mean(dim=(-3, -2, -1))
    if settings.ssim:
        loss = loss + settings.ssim * (1 - structural_similarity(predicted, wanted, sigma=settings.sigma))
    return loss


def _gaussian(sigma: float, like: Tensor) -> Tensor:
    reach = int(3.5 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return kernel / kernel.sum()


def _band(kernel: Tensor, size: int) -> Tensor:
    """Matrix that slides the kernel along an axis of this size, inside only: (size - len(kernel) + 1, size)."""
    places = size - len(kernel) + 1
    band = kernel.new_zeros(places, size)
    index = torch.arange(places, device=kernel.device)[:, None] + torch.arange(len(kernel), device=kernel.device)
    return band.scatter(1, index, kernel.expand(places, -1))
