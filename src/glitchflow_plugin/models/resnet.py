"""The ResNet generator: halve, think in residual blocks at the coarse level, enlarge."""

from torch import nn
from torch.nn import functional

from glitchflow_plugin.models.blocks import ResidualBlock, check_sizes, squareplus
from glitchflow_plugin.types.tensors import WindowBatch


class ResNetGenerator(nn.Module):
    """Image-transformation network of Johnson et al. 2016 (arXiv:1603.08155), without its normalisation.

    All detail passes through the coarse maps; there are no skip connections. Enlargement repeats pixels and convolves,
    which leaves no checkerboard (doi:10.23915/distill.00003).

    Args:
        in_channels: Number of witness channels, any.
        base: Features at full resolution; each halving doubles them.
        depth: Number of halvings.
        blocks: Residual blocks at the coarse level.
        window_size: Rows and columns of a window; divisible by 2**depth.
        out_channels: Channels of the prediction.
        positive: Predict energies, never negative; otherwise numbers of either sign.

    Raises:
        ConfigurationError: A setting is out of range.

    >>> import torch
    >>> ResNetGenerator(in_channels=3, base=4, blocks=1)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        base: int = 64,
        depth: int = 2,
        blocks: int = 6,
        window_size: int = 64,
        out_channels: int = 1,
        positive: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(window_size, depth, in_channels=in_channels, base=base, blocks=blocks, out_channels=out_channels)
        self.positive = positive
        widths = [base * 2**level for level in range(depth + 1)]
        self.stem = nn.Conv2d(in_channels, base, kernel_size=7, padding=3)
        self.downs = nn.ModuleList(
            [nn.Conv2d(width, 2 * width, kernel_size=3, stride=2, padding=1) for width in widths[:-1]]
        )
        self.blocks = nn.Sequential(*[ResidualBlock(widths[-1], widths[-1]) for _ in range(blocks)])
        self.ups = nn.ModuleList(
            [nn.Conv2d(2 * width, width, kernel_size=3, padding=1) for width in reversed(widths[:-1])]
        )
        self.head = nn.Conv2d(base, out_channels, kernel_size=7, padding=3)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # the head has a bias; it starts at the noise floor

    def forward(self, witnesses: WindowBatch) -> WindowBatch:
        """Predict the scaled strain.

        Args:
            witnesses: Scaled witnesses, (window, witness, frequency, column).

        Returns:
            Scaled strain, (window, out_channels, frequency, column); never negative where `positive`.
        """
        maps = self.stem(witnesses)
        for down in self.downs:
            maps = down(functional.silu(maps))
        maps = self.blocks(maps)
        for up in self.ups:
            # repeated after the activation: a quarter of the pixels to work on
            maps = up(functional.interpolate(functional.silu(maps), scale_factor=2.0, mode="nearest"))
        predicted = self.head(functional.silu(maps))
        return squareplus(predicted) if self.positive else predicted
