"""Interpolation as linear operators: weights that can be computed once and used on every map (NumPy, float64)."""

from typing import Literal

import numpy as np
from scipy.interpolate import CubicSpline

#: Knots that a value is made from. A knot 12 away weighs 1e-7 of the nearest one.
_TAPS = 24


def periodic_taps(num_knots: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights that interpolate samples at the positions 0, 1, ..., num_knots - 1 of a periodic series.

    Between the first and the last sample this is the cubic spline with not-a-knot ends, as scipy's and FITPACK's
    interpolating splines are. Beyond the last sample it is the spline through the samples on both sides of the seam.

    Args:
        num_knots: Samples of the series, at least 4.
        positions: Where to interpolate, in samples, from 0 to below num_knots, shape (position,).

    Returns:
        First sample of each position (a further one past the end is the one at the start), shape (position,), and
        weights of the samples from there on, shape (position, tap).

    Example:
        >>> first, weights = periodic_taps(8, np.array([3.0]))
        >>> int(first[0]), weights.round(6).tolist()
        (0, [[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    """
    taps = min(_TAPS, num_knots)
    basis = CubicSpline(np.arange(taps), np.eye(taps), bc_type="not-a-knot")
    first = np.floor(positions).astype(np.int64) - (taps // 2 - 1)
    within = positions <= num_knots - 1
    first = np.where(within, np.clip(first, 0, num_knots - taps), first)
    return first, basis(positions - first)


def spline_matrix(knots: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Matrix that interpolates by the cubic spline with not-a-knot ends; the outermost value is kept beyond the ends.

    Args:
        knots: Rising, shape (knot,).
        positions: Where to interpolate, shape (position,).

    Returns:
        Weights, shape (position, knot).
    """
    if len(knots) == 1:
        return np.ones((len(positions), 1))
    return CubicSpline(knots, np.eye(len(knots)))(np.clip(positions, knots[0], knots[-1]))


def resized_taps(
    num_knots: int, num_positions: int, method: Literal["bilinear", "bicubic"]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights that bring samples to another number of them as `torch.nn.functional.interpolate` does on one axis.

    Samples are the middles of cells that fill the axis (`align_corners=False`); beyond the ends, the outermost goes on.

    Args:
        num_knots: Samples that there are.
        num_positions: Samples that are wanted.
        method: Linear, or cubic convolution with a = -0.75.

    Returns:
        First knot of each position, shape (position,), and weights of the knots from there on, shape (position, tap).

    References:
        Keys, IEEE Trans. Acoust. Speech Signal Process. 29 (1981) 1153, doi:10.1109/TASSP.1981.1163711.

    Example:
        >>> resized_taps(2, 4, "bilinear")[1].tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    positions = np.maximum((np.arange(num_positions) + 0.5) * (num_knots / num_positions) - 0.5, -0.5)
    below = np.floor(positions).astype(np.int64)
    part = positions - below
    if method == "bilinear":
        lowest, values = 0, [1 - part, part]
    else:
        lowest, values = -1, [_convolution(distance) for distance in (1 + part, part, 1 - part, 2 - part)]
    taps = min(len(values), num_knots)
    first = np.clip(below + lowest, 0, num_knots - taps)
    weights = np.zeros((num_positions, taps))
    for step, value in enumerate(values, start=lowest):
        knot = np.clip(below + step, 0, num_knots - 1)
        np.add.at(weights, (np.arange(num_positions), knot - first), value)
    return first, weights


def resizing_matrix(num_knots: int, num_positions: int, method: Literal["bilinear", "bicubic"]) -> np.ndarray:
    """The same as a matrix, shape (position, knot)."""
    first, weights = resized_taps(num_knots, num_positions, method)
    matrix = np.zeros((num_positions, num_knots))
    np.put_along_axis(matrix, first[:, None] + np.arange(weights.shape[1]), weights, axis=1)
    return matrix


def _convolution(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)
