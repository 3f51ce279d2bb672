"""SciPy's real Fourier transforms, which keep float32, with the types that its dispatch hides from a checker."""

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

_transforms: Any = scipy.fft


def rfft(series: NDArray[Any], size: int | None = None, axis: int = -1) -> NDArray[np.complexfloating[Any, Any]]:
    """As `scipy.fft.rfft`: bins 0 to size // 2 along the axis."""
    return _transforms.rfft(series, size, axis=axis)


def irfft(spectrum: NDArray[Any], size: int | None = None, axis: int = -1) -> NDArray[np.floating[Any]]:
    """As `scipy.fft.irfft`: `size` samples along the axis; by default twice the bins less two."""
    return _transforms.irfft(spectrum, size, axis=axis)


def next_fast_len(size: int) -> int:
    """Least size from this on whose real transform is fast."""
    return int(_transforms.next_fast_len(size, real=True))
