"""A network of dilated convolutions on series: witnesses in, strain out, nothing known about the coupling."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.types.tensors import SeriesBatch, StrainSeries

#: Peaks of witnesses are a few to some tens of their noise; the network sees them divided by this.
_TYPICAL_PEAK = 5.0


class GatedBlock(nn.Module):
    """One dilated convolution through a gate, around which the input is added back (WaveNet, arXiv:1609.03499).

    The way through the gate has no offset: silence stays silence.

    Args:
        features: Features in and out.
        kernel_size: Taps, odd: as many samples of the past as of the future.
        dilation: Samples from tap to tap.
    """

    def __init__(self, features: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.signal = nn.Conv1d(features, features, kernel_size, padding=padding, dilation=dilation, bias=False)
        self.gate = nn.Conv1d(features, features, kernel_size, padding=padding, dilation=dilation)
        self.mix = nn.Conv1d(features, features, kernel_size=1, bias=False)

    def forward(self, series: Float[Tensor, "event feature time"]) -> Float[Tensor, "event feature time"]:
        """Return (event, feature, time)."""
        return series + self.mix(torch.tanh(self.signal(series)) * torch.sigmoid(self.gate(series)))


class TemporalConvolutions(nn.Module):
    """Convolutions whose dilation doubles from block to block (temporal convolutional network, arXiv:1803.01271).

    The reach to either side is (2**blocks - 1) x (kernel_size // 2) samples. Witnesses that are silent or missing give
    nothing, by construction; it begins at a prediction of nothing.

    Args:
        in_channels: Number of witnesses.
        window_size: Accepted for the sake of a common signature and not needed: any length will do.
        features: Features of every block.
        blocks: Blocks, each with twice the dilation of the one before.
        kernel_size: Taps of each convolution, odd.
        channel_dropout: Probability with which whoever trains it leaves a witness out (`BatchOrder.left_out`).

    Raises:
        ConfigurationError: A setting is out of range.

    >>> TemporalConvolutions(in_channels=2, features=4, blocks=3)(torch.zeros(3, 2, 500)).shape
    torch.Size([3, 1, 500])
    """

    def __init__(
        self,
        in_channels: int,
        window_size: int = 64,
        *,
        features: int = 16,
        blocks: int = 8,
        kernel_size: int = 3,
        channel_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        del window_size
        counts = {"in_channels": in_channels, "features": features, "blocks": blocks, "kernel_size": kernel_size}
        if min(counts.values()) < 1 or kernel_size % 2 == 0 or not 0 <= channel_dropout < 1:
            raise ConfigurationError(
                "expected in_channels, features and blocks of at least 1, an odd kernel_size and a channel_dropout "
                f"from 0 to below 1, got {counts} and {channel_dropout}. Correct it in conf/model/."
            )
        self.channel_dropout = channel_dropout
        self.stem = nn.Conv1d(in_channels, features, kernel_size=1, bias=False)
        self.blocks = nn.Sequential(*[GatedBlock(features, kernel_size, 2**level) for level in range(blocks)])
        self.head = nn.Conv1d(features, 1, kernel_size=1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, witnesses: SeriesBatch) -> StrainSeries:
        """Predict the whitened strain, (event, 1, time)."""
        return _TYPICAL_PEAK * self.head(self.blocks(self.stem(witnesses / _TYPICAL_PEAK)))
