"""Transfer functions by frequency band: the classical linear subtraction, with its delays no longer than a frame."""

import torch
from torch import Tensor, nn

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.stft import ShortTimeFourier
from glitchflow_plugin.models.wiener import WienerSums
from glitchflow_plugin.types.tensors import SeriesBatch, StrainSeries

FRAME_SIZE = 256
"""Samples of a frame: a band of 4 Hz at 1024 Hz."""


class TransferFunctions(nn.Module):
    """One complex number for each witness and band: the strain's frames are a weighted sum of the witnesses' frames.

    The response H = S_xx^-1 S_xy of several inputs (Bendat and Piersol, Random Data, 4th ed. 2010,
    doi:10.1002/9781118032428, section 7.2).

    Args:
        in_channels: Number of witnesses.
        window_size: Accepted for the sake of a common signature and not needed.
        frame_size: Samples of a frame, a multiple of 4; the sample rate over it is the width of a band.

    Raises:
        ConfigurationError: There is no witness, or the frame cannot be divided by 4.

    >>> TransferFunctions(in_channels=2, frame_size=64)(torch.zeros(3, 2, 512)).shape
    torch.Size([3, 1, 512])
    """

    def __init__(self, in_channels: int, window_size: int = 64, *, frame_size: int = FRAME_SIZE) -> None:
        super().__init__()
        del window_size
        if in_channels < 1:
            raise ConfigurationError(f"expected at least one witness, got {in_channels}. Correct it in conf/model/.")
        self.fourier = ShortTimeFourier(frame_size)
        # real and imaginary part, (witness, band, 2)
        self.response = nn.Parameter(torch.zeros(in_channels, self.fourier.num_frequencies, 2))

    def forward(self, witnesses: SeriesBatch) -> StrainSeries:
        """Predict the whitened strain, (event, 1, time)."""
        return self.fourier.inverse(self._parts(witnesses).sum(dim=1, keepdim=True), witnesses.shape[-1])

    def contributions(self, witnesses: SeriesBatch) -> SeriesBatch:
        """What each witness adds to the prediction, (event, witness, time); their sum is the predicted strain."""
        return self.fourier.inverse(self._parts(witnesses), witnesses.shape[-1])

    def _parts(self, witnesses: SeriesBatch) -> Tensor:
        return self.fourier(witnesses) * torch.view_as_complex(self.response)[..., None]


def transfer_sums(in_channels: int, frame_size: int = FRAME_SIZE) -> WienerSums:
    """Cross spectra by Welch's method, of segments that are as long as a frame.

    Args:
        in_channels: Number of witnesses.
        frame_size: Samples of a frame, a multiple of 4.
    """
    return WienerSums(in_channels, frame_size // 2 - 1)


def solve_transfer(sums: WienerSums, ridge: float) -> TransferFunctions:
    """The functions that minimise the mean power of what is left in the segments.

    Args:
        sums: Made by `transfer_sums`.
        ridge: Power added to each witness, relative to its own in the band.
    """
    result = TransferFunctions(sums.in_channels, frame_size=sums.segment_size)
    with torch.no_grad():
        result.response.copy_(torch.view_as_real(sums.response(ridge).T.contiguous()))
    return result.eval()
