"""The plain U-Net: double convolutions and skip connections, nothing else."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.models.blocks import DoubleConvolution, check_sizes, squareplus, start_for_relu
from glitchflow_plugin.types.tensors import WindowBatch


class PlainUNet(nn.Module):
    """U-Net as first published (arXiv:1505.04597), with padding: no shortcuts, no gates, no attention.

    Args:
        in_channels: Number of witness channels, any.
        base: Features at full resolution; each halving doubles them.
        depth: Number of halvings.
        window_size: Rows and columns of a window; divisible by 2**depth.
        out_channels: Channels of the prediction.
        positive: Predict energies, never negative; otherwise numbers of either sign.

    Raises:
        ConfigurationError: A setting is out of range.

    >>> PlainUNet(in_channels=3, base=4, depth=2)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        base: int = 64,
        depth: int = 4,
        window_size: int = 64,
        out_channels: int = 1,
        positive: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(window_size, depth, in_channels=in_channels, base=base, out_channels=out_channels)
        self.positive = positive
        widths = [base * 2**level for level in range(depth + 1)]
        self.encoders = nn.ModuleList(
            [DoubleConvolution(before, width) for before, width in zip([in_channels, *widths], widths, strict=False)]
        )
        self.ups = nn.ModuleList(
            [start_for_relu(nn.Conv2d(2 * width, width, kernel_size=1)) for width in reversed(widths[:-1])]
        )
        self.decoders = nn.ModuleList([DoubleConvolution(2 * width, width) for width in reversed(widths[:-1])])
        self.head = start_for_relu(nn.Conv2d(base, out_channels, kernel_size=1))

    def forward(self, witnesses: WindowBatch) -> WindowBatch:
        """Predict the scaled strain.

        Args:
            witnesses: Scaled witnesses, (window, witness, frequency, column).

        Returns:
            Scaled strain, (window, out_channels, frequency, column); never negative where `positive`.
        """
        maps, skips = self.encoders[0](witnesses), list[Tensor]()
        for encoder in self.encoders[1:]:
            skips.append(maps)
            maps = encoder(functional.max_pool2d(maps, kernel_size=2))
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            maps = functional.interpolate(up(maps), scale_factor=2.0, mode="nearest")
            maps = decoder(torch.cat([skips.pop(), maps], dim=1))
        predicted = self.head(maps)
        return squareplus(predicted) if self.positive else predicted
