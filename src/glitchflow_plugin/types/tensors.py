"""Names for the shapes of torch tensors that travel through the package."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from torch import Tensor

SeriesTensor: TypeAlias = Float[Tensor, "*batch time"]
"""Time series; the last axis is time."""

WindowBatch: TypeAlias = Float[Tensor, "window channel frequency column"]
"""Square cuts of maps, as the networks see them."""

StrainWindows: TypeAlias = Float[Tensor, "window 1 frequency column"]
"""The same of the strain channel alone, measured or predicted."""

SeriesBatch: TypeAlias = Float[Tensor, "event channel time"]
"""Whitened series of several channels of several events."""

StrainSeries: TypeAlias = Float[Tensor, "event 1 time"]
"""The same of the strain channel alone, measured or predicted."""


def host(values: Tensor) -> np.ndarray:
    """A result as a NumPy array: the one way off the device, for tensors of any device, with or without a gradient."""
    return values.detach().cpu().numpy()
