"""Parts of the networks of energy: their common ground, blocks of convolutions, attention, checks of sizes."""

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.types.tensors import WindowBatch

FeatureMaps: TypeAlias = Float[Tensor, "window feature row column"]
"""What goes through a network."""

OtherFeatures: TypeAlias = Float[Tensor, "window other row column"]
"""The same with another number of features."""

#: Sharpness of the positive output: what it gives for 0 is half the square root of this, about the scaled noise floor.
_ROUNDING = 0.01


class EnergyNetwork(nn.Module, ABC):
    """A network from scaled witness windows to scaled strain windows; each one gives `predict`.

    Every network takes these arguments and its own:

    - `in_channels`: number of witness channels, any.
    - `base`: features at full resolution; each halving doubles them.
    - `depth`: number of halvings.
    - `window_size`: rows and columns of a window; divisible by 2**depth.
    - `out_channels`: channels of the prediction.

    and raises a ConfigurationError if one is out of range.

    Args:
        positive: Predict energies, never negative; otherwise numbers of either sign.
    """

    def __init__(self, *, positive: bool) -> None:
        super().__init__()
        self.positive = positive

    @abstractmethod
    def predict(self, witnesses: WindowBatch) -> WindowBatch:
        """Numbers of either sign, shapes as for `forward`."""

    def forward(self, witnesses: WindowBatch) -> WindowBatch:
        """Predict the scaled strain.

        Args:
            witnesses: Scaled witness energies, (window, witness, frequency, column).

        Returns:
            Scaled strain, (window, out_channels, frequency, column); never negative where `positive`.
        """
        predicted = self.predict(witnesses)
        return squareplus(predicted) if self.positive else predicted


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input is added back (He et al. 2016, doi:10.1007/978-3-319-46493-0_38).

    There is no normalisation. How loud the witnesses are is what the twin has to pass on, and every normalisation
    divides by it: instance and group normalisation by that of the window, batch normalisation, while it trains, by
    that of whichever windows share the batch, which a few glitches dominate. The second convolution starts at zero
    instead (Fixup, arXiv:1901.09321), so that a deep network starts as its shortcuts and stays stable.

    Args:
        in_features: Features in.
        out_features: Features out.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_features, out_features, kernel_size=3, padding=1)
        self.conv_out = nn.Conv2d(out_features, out_features, kernel_size=3, padding=1)
        same = in_features == out_features
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_features, out_features, kernel_size=1, bias=False)
        start_at_zero(self.conv_out)

    def forward(self, maps: FeatureMaps) -> OtherFeatures:
        """Return (window, out_features, row, column)."""
        hidden = self.conv_out(functional.silu(self.conv_in(functional.silu(maps))))
        return self.shortcut(maps) + hidden


class DoubleConvolution(nn.Sequential):
    """Two 3x3 convolutions, each followed by ReLU (U-Net, arXiv:1505.04597, with padding).

    Weights start as He et al. 2015 (arXiv:1502.01852) have them: without normalisation or shortcuts, signals would
    otherwise die out on their way through a deep network.

    Args:
        in_features: Features in.
        out_features: Features out.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(
            start_for_relu(nn.Conv2d(in_features, out_features, kernel_size=3, padding=1)),
            nn.ReLU(),
            start_for_relu(nn.Conv2d(out_features, out_features, kernel_size=3, padding=1)),
            nn.ReLU(),
        )


class RowResponse(nn.Module):
    """A gain and an offset for each feature and frequency row: what couples a witness to the strain has a frequency.

    Convolutions treat all rows alike and would have to find the frequency from the edges of the map.

    Args:
        features: Features in and out.
        rows: Frequency rows.
    """

    def __init__(self, features: int, rows: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(features, rows, 1))
        self.offset = nn.Parameter(torch.zeros(features, rows, 1))

    def forward(self, maps: FeatureMaps) -> FeatureMaps:
        """Return (window, features, row, column)."""
        return maps * (1 + self.gain) + self.offset


class AttentionGate(nn.Module):
    """Weigh the pixels of a skip connection by what the coarser level found (Attention U-Net, arXiv:1804.03999).

    One weight a pixel between 0 and 1: the cost grows with the number of pixels, not with its square.

    Args:
        skip_features: Features of the skip connection.
        gate_features: Features of the coarser level, already brought to the same size.
        hidden_features: Features in which the two are compared.
    """

    def __init__(self, skip_features: int, gate_features: int, hidden_features: int) -> None:
        super().__init__()
        self.from_skip = nn.Conv2d(skip_features, hidden_features, kernel_size=1, bias=False)
        self.from_gate = nn.Conv2d(gate_features, hidden_features, kernel_size=1)
        self.weight = nn.Conv2d(hidden_features, 1, kernel_size=1)

    def forward(self, skip: FeatureMaps, gate: OtherFeatures) -> FeatureMaps:
        """Return the weighted skip connection, in its own shape."""
        agreement = functional.relu(self.from_skip(skip) + self.from_gate(gate))
        return skip * torch.sigmoid(self.weight(agreement))


class SelfAttention(nn.Module):
    """Every pixel looks at every other; only for the coarsest maps, whose pixels are few.

    A full-resolution window has 4096 pixels, hence 4096 x 4096 weights; four halvings leave 16 pixels, 16 x 16.

    Args:
        features: Features in and out.
        heads: Number of attention heads; divides `features`.

    Raises:
        ConfigurationError: `heads` does not divide `features`.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or features % heads:
            raise ConfigurationError(
                f"expected attention_heads to divide the {features} features of the coarsest level, got {heads}."
            )
        self.heads = heads
        self.norm = nn.GroupNorm(1, features)
        self.query_key_value = nn.Conv2d(features, 3 * features, kernel_size=1)
        self.project = nn.Conv2d(features, features, kernel_size=1)
        start_at_zero(self.project)

    def forward(self, maps: FeatureMaps) -> FeatureMaps:
        """Return (window, features, row, column)."""
        _, features, rows, columns = maps.shape
        # (window, 3, head, feature of the head, pixel) -> three times (window, head, pixel, feature of the head)
        packed = self.query_key_value(self.norm(maps)).unflatten(1, (3, self.heads, features // self.heads))
        query, key, value = packed.flatten(-2).transpose(-1, -2).unbind(dim=1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return maps + self.project(mixed.transpose(-1, -2).flatten(1, 2).unflatten(-1, (rows, columns)))


def start_at_zero(convolution: nn.Conv2d) -> None:
    """Let a convolution give nothing until it has learnt something."""
    nn.init.zeros_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def start_for_relu(convolution: nn.Conv2d) -> nn.Conv2d:
    """Start a convolution so that ReLU after it keeps the power of its input, and silence stays silence."""
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def squareplus(values: FeatureMaps) -> FeatureMaps:
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


def check_sizes(window_size: int, depth: int, **at_least_one: int) -> None:
    """Refuse sizes of a network that cannot be.

    Args:
        window_size: Rows and columns of a window.
        depth: Number of halvings.
        at_least_one: Other counts by name.

    Raises:
        ConfigurationError: A count is below 1, or the window cannot be halved that often.
    """
    counts = {**at_least_one, "depth": depth}
    if wrong := {name: count for name, count in counts.items() if count < 1}:
        raise ConfigurationError(f"expected {', '.join(counts)} of at least 1, got {wrong}. Correct it in conf/model/.")
    if window_size < 1 or window_size % 2**depth:
        raise ConfigurationError(
            f"expected a window size that can be halved {depth} times (a multiple of {2**depth}), got {window_size}. "
            "Choose a smaller depth or another window size."
        )
