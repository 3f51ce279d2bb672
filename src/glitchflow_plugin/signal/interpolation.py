"""Cubic splines as linear operators: weights that can be computed once and used on every map (NumPy, float64)."""

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
