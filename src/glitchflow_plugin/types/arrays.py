"""Names for the shapes of NumPy arrays that travel through the package (no torch here)."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float64

Series: TypeAlias = Float[np.ndarray, " time"]
"""One channel of one event against time."""

PowerSpectrum: TypeAlias = Float[np.ndarray, " frequency"]
"""One-sided power spectral density, unit²/Hz."""

SeriesArray: TypeAlias = Float[np.ndarray, "event channel time"]
"""Conditioned time series; whitened ones have unit variance, others keep their unit."""

MapArray: TypeAlias = Float[np.ndarray, "event channel frequency time"]
"""Q-transform energy in units of SNR² (normalised by the median of each row)."""

ValidityMask: TypeAlias = Bool[np.ndarray, "event channel"]
"""False where a channel is missing or was rejected; its data are then zero."""

GpsTimes: TypeAlias = Float64[np.ndarray, " event"]
"""GPS seconds. Never float32, which rounds a GPS time to 128 s."""
