"""The U-Net of the twin: witness maps in, strain map out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.blocks import AttentionGate, ResidualBlock, RowResponse, SelfAttention
from glitchflow_plugin.types.tensors import StrainWindows, WindowBatch

#: Pixels of the coarsest maps above which self-attention is refused (it would build their square in weights).
MAX_ATTENTION_PIXELS = 1024

#: Sharpness of the positive output: what it gives for 0 is half the square root of this, about the scaled noise floor.
_ROUNDING = 0.01


class UNet(nn.Module):
    """U-Net (arXiv:1505.04597) with residual blocks, attention gates on the skips and a positive output.

    Args:
        in_channels: Number of witness channels, any.
        base: Features at full resolution; each halving doubles them.
        depth: Number of halvings.
        attention_heads: Heads of the self-attention at the coarsest level; 0 for none.
        window_size: Rows and columns of a window; divisible by 2**depth.

    Raises:
        ConfigurationError: A setting is out of range.

    >>> UNet(in_channels=3, base=4, depth=2)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self, in_channels: int, base: int = 64, depth: int = 4, attention_heads: int = 4, window_size: int = 64
    ) -> None:
        super().__init__()
        _check(in_channels, base, depth, attention_heads, window_size)
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
        self.head = nn.Conv2d(base, 1, kernel_size=1)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # the head has a bias; it starts at the noise floor

    def forward(self, witnesses: WindowBatch) -> StrainWindows:
        """Predict the scaled strain energy.

        Args:
            witnesses: Scaled witness energies, (window, witness, frequency, column).

        Returns:
            Scaled strain energy, never negative, (window, 1, frequency, column).
        """
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
        return squareplus(self.head(self.response_out(maps)))


def squareplus(values: StrainWindows) -> StrainWindows:
    """A positive number for any number, down to zero (arXiv:2112.11687).

    Its gradient falls off as the square of the distance, where that of ReLU ends and that of softplus falls off
    exponentially: a network that one bad step has sent to zero everywhere can come back.

    >>> values = torch.tensor([-100.0, 0.0, 100.0]).reshape(3, 1, 1, 1)
    >>> [round(value, 3) for value in squareplus(values).flatten().tolist()]
    [0.0, 0.05, 100.0]
    """
    root = torch.sqrt(values * values + _ROUNDING)
    # for large negative values the sum of nearly opposite numbers would lose all digits
    return torch.where(values > 0, 0.5 * (values + root), 0.5 * _ROUNDING / (root - values.clamp(max=0)))


def _check(in_channels: int, base: int, depth: int, attention_heads: int, window_size: int) -> None:
    if in_channels < 1 or base < 1 or depth < 1 or attention_heads < 0:
        message = (
            "expected in_channels, base and depth of at least 1 and attention_heads of at least 0, got "
            f"{in_channels}, {base}, {depth} and {attention_heads}. Correct model.yaml."
        )
        raise ConfigurationError(message)
    if window_size % 2**depth:
        message = (
            f"expected a window size that can be halved {depth} times (a multiple of {2**depth}), got {window_size}. "
            "Choose a smaller depth or another window size."
        )
        raise ConfigurationError(message)
    if attention_heads and (window_size // 2**depth) ** 2 > MAX_ATTENTION_PIXELS:
        message = (
            f"depth {depth} leaves {(window_size // 2**depth) ** 2} pixels at the coarsest level; self-attention "
            f"over more than {MAX_ATTENTION_PIXELS} is refused, its weights grow with the square. "
            "Choose a larger depth or attention_heads: 0."
        )
        raise ConfigurationError(message)
