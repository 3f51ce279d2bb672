"""The deep decoder: many layers between witnesses and strain, all through a few coarse pixels."""

from itertools import pairwise

from torch import nn
from torch.nn import functional

from glitchflow_plugin.models.blocks import DoubleConvolution, check_sizes, squareplus, start_for_relu
from glitchflow_plugin.types.tensors import WindowBatch


class DeepDecoder(nn.Module):
    """Encoder-decoder down to the coarsest pixels and back, without skip connections.

    The decoder follows the Deep Decoder (arXiv:1810.03982): the same number of features at every level, bilinear
    enlargement, and little at full resolution, which makes smooth maps easy and noise hard to draw. Unlike there, its
    start is no fixed noise but what an encoder found in the witnesses, and its layers see neighbouring pixels.

    Args:
        in_channels: Number of witness channels, any.
        base: Features at full resolution in the encoder; each halving doubles them, up to `features`.
        depth: Number of halvings.
        features: Features of the decoder at every level.
        window_size: Rows and columns of a window; divisible by 2**depth.
        out_channels: Channels of the prediction.
        positive: Predict energies, never negative; otherwise numbers of either sign.

    Raises:
        ConfigurationError: A setting is out of range.

    >>> import torch
    >>> DeepDecoder(in_channels=3, base=4, features=8)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        base: int = 32,
        depth: int = 4,
        features: int = 128,
        window_size: int = 64,
        out_channels: int = 1,
        positive: bool = True,
    ) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "base": base, "features": features, "out_channels": out_channels}
        check_sizes(window_size, depth, **counts)
        self.positive = positive
        widths = [in_channels, *(min(base * 2**level, features) for level in range(depth)), features]
        self.encoders = nn.ModuleList([DoubleConvolution(before, after) for before, after in pairwise(widths)])
        self.decoders = nn.ModuleList([DoubleConvolution(features, features) for _ in range(depth)])
        self.head = start_for_relu(nn.Conv2d(features, out_channels, kernel_size=3, padding=1))

    def forward(self, witnesses: WindowBatch) -> WindowBatch:
        """Predict the scaled strain.

        Args:
            witnesses: Scaled witnesses, (window, witness, frequency, column).

        Returns:
            Scaled strain, (window, out_channels, frequency, column); never negative where `positive`.
        """
        maps = self.encoders[0](witnesses)
        for encoder in self.encoders[1:]:
            maps = encoder(functional.max_pool2d(maps, kernel_size=2))
        for decoder in self.decoders:
            maps = functional.interpolate(decoder(maps), scale_factor=2.0, mode="bilinear", align_corners=False)
        predicted = self.head(maps)
        return squareplus(predicted) if self.positive else predicted
