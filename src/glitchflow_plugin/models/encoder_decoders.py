"""Encoder-decoders of the literature beside the `UNet`: what attention, skip connections and depth are worth."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.models.blocks import (
    DoubleConvolution,
    EnergyNetwork,
    ResidualBlock,
    check_sizes,
    start_for_relu,
)
from glitchflow_plugin.types.tensors import WindowBatch


class PlainUNet(EnergyNetwork):
    """U-Net as first published (arXiv:1505.04597), with padding: no shortcuts, no gates, no attention.

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
        super().__init__(positive=positive)
        check_sizes(window_size, depth, in_channels=in_channels, base=base, out_channels=out_channels)
        widths = [base * 2**level for level in range(depth + 1)]
        self.encoders = nn.ModuleList(
            [DoubleConvolution(before, width) for before, width in zip([in_channels, *widths], widths, strict=False)]
        )
        self.ups = nn.ModuleList(
            [start_for_relu(nn.Conv2d(2 * width, width, kernel_size=1)) for width in reversed(widths[:-1])]
        )
        self.decoders = nn.ModuleList([DoubleConvolution(2 * width, width) for width in reversed(widths[:-1])])
        self.head = start_for_relu(nn.Conv2d(base, out_channels, kernel_size=1))

    def predict(self, witnesses: WindowBatch) -> WindowBatch:
        """See `EnergyNetwork`."""
        maps, skips = self.encoders[0](witnesses), list[Tensor]()
        for encoder in self.encoders[1:]:
            skips.append(maps)
            maps = encoder(functional.max_pool2d(maps, kernel_size=2))
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            maps = functional.interpolate(up(maps), scale_factor=2.0, mode="nearest")
            maps = decoder(torch.cat([skips.pop(), maps], dim=1))
        return self.head(maps)


class ResNetGenerator(EnergyNetwork):
    """Image-transformation network of Johnson et al. 2016 (arXiv:1603.08155), without its normalisation.

    All detail passes through the coarse maps; there are no skip connections. Enlargement repeats pixels and convolves,
    which leaves no checkerboard (doi:10.23915/distill.00003).

    Args:
        in_channels: As for every `EnergyNetwork`, and so are those that are not named here.
        blocks: Residual blocks at the coarse level.

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
        super().__init__(positive=positive)
        check_sizes(window_size, depth, in_channels=in_channels, base=base, blocks=blocks, out_channels=out_channels)
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

    def predict(self, witnesses: WindowBatch) -> WindowBatch:
        """See `EnergyNetwork`."""
        maps = self.stem(witnesses)
        for down in self.downs:
            maps = down(functional.silu(maps))
        maps = self.blocks(maps)
        for up in self.ups:
            # repeated after the activation: a quarter of the pixels to work on
            maps = up(functional.interpolate(functional.silu(maps), scale_factor=2.0, mode="nearest"))
        return self.head(functional.silu(maps))


class ShallowDecoder(EnergyNetwork):
    """Encoder-decoder with one layer a level and no skip connections, in the manner of SRCNN (arXiv:1501.00092).

    Wide kernels make up for the missing depth. Each pixel of the strain is drawn from a neighbourhood of the witnesses
    of a few ten pixels: what it cannot do shows what depth is worth. `base` counts features after the first
    halving.

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
        super().__init__(positive=positive)
        check_sizes(window_size, depth, in_channels=in_channels, base=base, out_channels=out_channels)
        widths = [in_channels, *(base * 2**level for level in range(depth))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [start_for_relu(nn.Conv2d(before, after, kernel_size=5, stride=2, padding=2)), nn.ReLU()]
        for before, after in pairwise(reversed(widths[1:])):
            layers += [start_for_relu(nn.Conv2d(before, after, kernel_size=3, padding=1)), nn.ReLU()]
            layers += [nn.Upsample(scale_factor=2.0, mode="nearest")]
        # four times the channels, which become the four pixels of each: no layer works at full resolution
        layers += [start_for_relu(nn.Conv2d(base, 4 * out_channels, kernel_size=5, padding=2)), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers)

    def predict(self, witnesses: WindowBatch) -> WindowBatch:
        """See `EnergyNetwork`."""
        return self.layers(witnesses)


class DeepDecoder(EnergyNetwork):
    """Encoder-decoder down to the coarsest pixels and back, without skip connections.

    The decoder follows the Deep Decoder (arXiv:1810.03982): the same number of features at every level, bilinear
    enlargement, and little at full resolution, which makes smooth maps easy and noise hard to draw. Unlike there, its
    start is no fixed noise but what an encoder found in the witnesses, and its layers see neighbouring pixels.

    Args:
        in_channels: As for every `EnergyNetwork`, and so are those that are not named here.
        features: Features of the decoder at every level, and the most that the encoder has.

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
        super().__init__(positive=positive)
        counts = {"in_channels": in_channels, "base": base, "features": features, "out_channels": out_channels}
        check_sizes(window_size, depth, **counts)
        widths = [in_channels, *(min(base * 2**level, features) for level in range(depth)), features]
        self.encoders = nn.ModuleList([DoubleConvolution(before, after) for before, after in pairwise(widths)])
        self.decoders = nn.ModuleList([DoubleConvolution(features, features) for _ in range(depth)])
        self.head = start_for_relu(nn.Conv2d(features, out_channels, kernel_size=3, padding=1))

    def predict(self, witnesses: WindowBatch) -> WindowBatch:
        """See `EnergyNetwork`."""
        maps = self.encoders[0](witnesses)
        for encoder in self.encoders[1:]:
            maps = encoder(functional.max_pool2d(maps, kernel_size=2))
        for decoder in self.decoders:
            maps = functional.interpolate(decoder(maps), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(maps)
