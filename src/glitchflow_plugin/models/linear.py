"""The linear witness filter: the strain energy of a pixel as a weighted sum of witness energies about it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.types.tensors import StrainWindows, WindowBatch

DEFAULT_LAGS: tuple[int, ...] = (-4, -2, -1, 0, 1, 2, 4)
"""Columns by which a witness may precede (negative) or follow the strain."""


class LinearFilter(nn.Module):
    """Weights by frequency row, witness and lag; never negative. The twin has to beat it.

    Args:
        in_channels: Number of witness channels.
        window_size: Number of frequency rows.
        lags: Offsets in columns at which the witnesses are looked at.

    Raises:
        ConfigurationError: There are no lags.

    >>> LinearFilter(in_channels=2)(torch.zeros(3, 2, 64, 64)).shape
    torch.Size([3, 1, 64, 64])
    """

    def __init__(self, in_channels: int, window_size: int = 64, lags: Sequence[int] = DEFAULT_LAGS) -> None:
        super().__init__()
        if not lags:
            raise ConfigurationError("expected at least one lag, got none. Give lags: [0] for a filter without memory.")
        self.lags = tuple(int(lag) for lag in lags)
        self.weight = nn.Parameter(torch.zeros(window_size, in_channels * len(self.lags)))
        # at zero ReLU would let no gradient through
        self.bias = nn.Parameter(torch.full((window_size,), 0.01))

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments with which an equal filter is built."""
        rows, size = self.weight.shape
        return {"in_channels": size // len(self.lags), "window_size": rows, "lags": list(self.lags)}

    def forward(self, witnesses: WindowBatch) -> StrainWindows:
        """Predict the strain energy, (window, 1, frequency, column), in the representation of the witnesses."""
        features = lagged_features(witnesses, self.lags)
        strain = torch.einsum("wkft,fk->wft", features, self.weight) + self.bias[:, None]
        return functional.relu(strain)[:, None]


def lagged_features(witnesses: WindowBatch, lags: Sequence[int]) -> Float[Tensor, "window feature frequency column"]:
    """Copies of the witness maps shifted in time; the edge column is repeated where a shift reaches past it.

    Args:
        witnesses: Witness energies.
        lags: Column t of a copy shows column t + lag of the witness.

    Returns:
        All lags of the first witness, then all of the second, and so on.
    """
    columns = torch.arange(witnesses.shape[-1], device=witnesses.device)
    copies = [witnesses[..., (columns + lag).clamp(0, len(columns) - 1)] for lag in lags]
    return torch.stack(copies, dim=2).flatten(1, 2)


class RidgeSums:
    """Sums from which the ridge regression of a `LinearFilter` follows in closed form, gathered batch by batch.

    Normal equations in float64: energies span many decades and float32 would lose the quiet witnesses.

    Args:
        in_channels: Number of witness channels.
        window_size: Number of frequency rows.
        lags: As for `LinearFilter`.
    """

    def __init__(self, in_channels: int, window_size: int = 64, lags: Sequence[int] = DEFAULT_LAGS) -> None:
        self.in_channels, self.window_size, self.lags = in_channels, window_size, tuple(lags)
        size = in_channels * len(self.lags) + 1
        self.products = torch.zeros(window_size, size, size, dtype=torch.float64)
        self.targets = torch.zeros(window_size, size, dtype=torch.float64)
        self.count = 0

    def add(self, witnesses: WindowBatch, strain: StrainWindows) -> None:
        """Take in one batch of windows.

        Args:
            witnesses: (window, witness, frequency, column).
            strain: (window, 1, frequency, column), in the same representation.
        """
        features = lagged_features(witnesses.double().cpu(), self.lags)
        ones = torch.ones_like(features[:, :1])
        rows = torch.cat([features, ones], dim=1).permute(2, 0, 3, 1).flatten(1, 2)  # (frequency, sample, feature)
        self.products += rows.transpose(1, 2) @ rows
        wanted = strain[:, 0].double().cpu().permute(1, 0, 2).flatten(1)
        self.targets += (rows.transpose(1, 2) @ wanted[..., None])[..., 0]
        self.count += rows.shape[1]

    def solve(self, ridge: float) -> LinearFilter:
        """The filter that minimises squared error + ridge x (mean feature power) x |weights|².

        Args:
            ridge: Strength, relative to the mean power of the features, so that it means the same for any unit. The
                constant term is not punished.

        Raises:
            ConfigurationError: No batch was added or the ridge is negative.
        """
        if not self.count or ridge < 0:
            raise ConfigurationError(
                f"expected data and a ridge of at least 0, got {self.count} samples and ridge {ridge}."
            )
        diagonal = self.products.diagonal(dim1=-2, dim2=-1)
        power = diagonal[:, :-1].mean(dim=1, keepdim=True)
        # the tiny constant keeps the equations solvable where all witnesses of a row are silent
        punish = torch.cat([(ridge * power + 1e-9).expand(-1, diagonal.shape[1] - 1), torch.zeros_like(power)], dim=1)
        solution = torch.linalg.solve(self.products + torch.diag_embed(punish), self.targets)
        result = LinearFilter(self.in_channels, self.window_size, self.lags)
        with torch.no_grad():
            result.weight.copy_(solution[:, :-1])
            result.bias.copy_(solution[:, -1])
        return result.eval()
