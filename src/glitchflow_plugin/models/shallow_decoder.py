"""The shallow decoder: a few wide layers between witnesses and strain."""

from itertools import pairwise

from torch import nn

from glitchflow_plugin.models.blocks import check_sizes, squareplus, start_for_relu
from glitchflow_plugin.types.tensors import WindowBatch


class ShallowDecoder(nn.Module):
    """Encoder-decoder with one layer a level and no skip connections, in the manner of SRCNN (arXiv:1501.00092).

    Wide kernels make up for the missing depth. Each pixel of the strain is drawn from a neighbourhood of the witnesses
    of a few ten pixels: what it cannot do shows what depth is worth.

    Args:
        in_channels: Number of witness channels, any.
        base: Features after the first halving; each further one doubles them.
        depth: Number of halvings.
        window_size: Rows and columns of a window; divisible by 2**depth.
        out_channels: Channels of the prediction.
        positive: Predict energies, never negative; otherwise numbers of either sign.

    Raises:
        ConfigurationError: A setting is out of range.

    >>> import torch
    >>> ShallowDecoder(in_channels=3, base=4)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        base: int = 64,
        depth: int = 2,
        window_size: int = 64,
        out_channels: int = 1,
        positive: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(window_size, depth, in_channels=in_channels, base=base, out_channels=out_channels)
        self.positive = positive
        widths = [in_channels, *(base * 2**level for level in range(depth))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [start_for_relu(nn.Conv2d(before, after, kernel_size=5, stride=2, padding=2)), nn.ReLU()]
        for before, after in pairwise(reversed(widths[1:])):
            layers += [start_for_relu(nn.Conv2d(before, after, kernel_size=3, padding=1)), nn.ReLU(), _Enlarge()]
        # four times the channels, which become the four pixels of each: no layer works at full resolution
        layers += [start_for_relu(nn.Conv2d(base, 4 * out_channels, kernel_size=5, padding=2)), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, witnesses: WindowBatch) -> WindowBatch:
        """Predict the scaled strain.

        Args:
            witnesses: Scaled witnesses, (window, witness, frequency, column).

        Returns:
            Scaled strain, (window, out_channels, frequency, column); never negative where `positive`.
        """
        predicted = self.layers(witnesses)
        return squareplus(predicted) if self.positive else predicted


class _Enlarge(nn.Upsample):
    def __init__(self) -> None:
        super().__init__(scale_factor=2.0, mode="nearest")
