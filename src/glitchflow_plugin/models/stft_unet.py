"""A U-Net between complex short-time spectra: those of the witnesses in, that of the glitch out."""

import torch
from torch import nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.blocks import start_at_zero
from glitchflow_plugin.models.stft import ShortTimeFourier
from glitchflow_plugin.models.unet import UNet
from glitchflow_plugin.types.tensors import SeriesBatch, StrainSeries

#: Coefficients of transients are some tens of the noise; the U-Net sees them divided by this.
_TYPICAL_PEAK = 5.0


class SpectrumUNet(nn.Module):
    """Real and imaginary parts of the witnesses' coefficients through the `UNet` into those of the strain.

    The phase is kept on both sides, and nothing is said about how a disturbance reaches the strain: everything has to
    be learnt. It begins at a prediction of nothing.

    Args:
        in_channels: Number of witnesses.
        window_size: Accepted for the sake of a common signature and not needed: any length will do.
        frame_size: Samples of a short-time frame; half of it, the rows, must be divisible by 2**depth.
        base: Features at full resolution; each halving doubles them.
        depth: Halvings.
        attention_heads: Heads of the self-attention over the coarsest pixels; 0 for none.
        channel_dropout: Probability with which whoever trains it leaves a witness out (`BatchOrder.left_out`).

    Raises:
        ConfigurationError: A setting is out of range.

    >>> SpectrumUNet(in_channels=2, frame_size=32, base=4, depth=2)(torch.zeros(3, 2, 500)).shape
    torch.Size([3, 1, 500])
    """

    def __init__(
        self,
        in_channels: int,
        window_size: int = 64,
        *,
        frame_size: int = 128,
        base: int = 8,
        depth: int = 3,
        attention_heads: int = 0,
        channel_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        del window_size
        if in_channels < 1 or not 0 <= channel_dropout < 1:
            raise ConfigurationError(
                f"expected at least one witness and a channel_dropout from 0 to below 1, got {in_channels} and "
                f"{channel_dropout}. Correct it in conf/model/."
            )
        self.channel_dropout, self.multiple = channel_dropout, 2**depth
        self.fourier = ShortTimeFourier(frame_size)
        self.unet = UNet(
            2 * in_channels,
            base=base,
            depth=depth,
            attention_heads=attention_heads,
            window_size=self.fourier.num_frequencies - 1,
            out_channels=2,
            positive=False,
        )
        start_at_zero(self.unet.head)

    def forward(self, witnesses: SeriesBatch) -> StrainSeries:
        """Predict the whitened strain, (event, 1, time)."""
        # without the row of 0 Hz the number of rows can be halved
        coefficients = torch.view_as_real(self.fourier(witnesses)[:, :, 1:])
        frames = coefficients.shape[-2]
        parts = coefficients.permute(0, 1, 4, 2, 3).flatten(1, 2) / _TYPICAL_PEAK
        found = self.unet(functional.pad(parts, (0, -frames % self.multiple)))[..., :frames]
        spectrum = torch.complex(*(_TYPICAL_PEAK * functional.pad(found, (0, 0, 1, 0)).float()).unbind(dim=1))
        return self.fourier.inverse(spectrum, witnesses.shape[-1])[:, None]
