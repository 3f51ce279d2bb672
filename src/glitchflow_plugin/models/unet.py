"""The U-Net of the twin: witness maps in, strain map out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.blocks import (
    AttentionGate,
    EnergyNetwork,
    ResidualBlock,
    RowResponse,
    SelfAttention,
    check_sizes,
)
from glitchflow_plugin.types.tensors import WindowBatch

#: Pixels of the coarsest maps above which self-attention is refused (it would build their square in weights).
MAX_ATTENTION_PIXELS = 1024


class UNet(EnergyNetwork):
    """U-Net (arXiv:1505.04597) with residual blocks, attention gates on the skips and a positive output.

    Args:
        in_channels: As for every `EnergyNetwork`, and so are those that are not named here.
        attention_heads: Heads of the self-attention at the coarsest level; 0 for none.

    >>> UNet(in_channels=3, base=4, depth=2)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        base: int = 64,
        depth: int = 4,
        attention_heads: int = 4,
        window_size: int = 64,
        out_channels: int = 1,
        positive: bool = True,
    ) -> None:
        super().__init__(positive=positive)
        check_sizes(window_size, depth, in_channels=in_channels, base=base, out_channels=out_channels)
        _check_attention(attention_heads, window_size // 2**depth)
        widths = [base * 2**level for level in range(depth + 1)]
        self.stem = nn.Conv2d(in_channels, base, kernel_size=3, padding=1)
        self.response = RowResponse(base, window_size)
        self.encoders = nn.ModuleList([ResidualBlock(width, width) for width in widths[:-1]])
        self.downs = nn.ModuleList(
            [nn.Conv2d(width, 2 * width, kernel_size=3, stride=2, padding=1) for width in widths[:-1]]
        )
        self.bottom = ResidualBlock(widths[-1], widths[-1])
        self.attention = SelfAttention(widths[-1], attention_heads) if attention_heads else nn.Identity()
        self.ups = nn.ModuleList([nn.Conv2d(2 * width, width, kernel_size=1) for width in reversed(widths[:-1])])
        self.gates = nn.ModuleList([AttentionGate(width, width, max(1, width // 2)) for width in reversed(widths[:-1])])
        self.decoders = nn.ModuleList([ResidualBlock(2 * width, width) for width in reversed(widths[:-1])])
        self.response_out = RowResponse(base, window_size)
        self.head = nn.Conv2d(base, out_channels, kernel_size=1)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # the head has a bias; it starts at the noise floor

    def predict(self, witnesses: WindowBatch) -> WindowBatch:
        """See `EnergyNetwork`."""
        maps = self.response(self.stem(witnesses))
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            maps = encoder(maps)
            skips.append(maps)
            maps = down(maps)
        maps = self.attention(self.bottom(maps))
        for up, gate, decoder in zip(self.ups, self.gates, self.decoders, strict=True):
            skip = skips.pop()
            # channels are halved before the enlargement, which then moves a quarter of the data
            maps = functional.interpolate(up(maps), scale_factor=2.0, mode="nearest")
            maps = decoder(torch.cat([gate(skip, maps), maps], dim=1))
        return self.head(self.response_out(maps))


def _check_attention(heads: int, coarsest: int) -> None:
    if heads < 0:
        raise ConfigurationError(f"expected attention_heads of at least 0, got {heads}. Correct it in conf/model/.")
    if heads and coarsest**2 > MAX_ATTENTION_PIXELS:
        raise ConfigurationError(
            f"this depth leaves {coarsest**2} pixels at the coarsest level; self-attention over more than "
            f"{MAX_ATTENTION_PIXELS} is refused, its weights grow with the square. "
            "Choose a larger depth or attention_heads: 0."
        )
