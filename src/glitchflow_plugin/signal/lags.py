"""By how much a witness is early or late, from the cross-correlation of spike times."""

import numpy as np

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance, coincident_pairs

#: How far beyond the tolerance lags are looked for.
_REACH = 4.0


def best_lags(
    reference: Spikes, witness: Spikes, tolerance: Tolerance, *, num_channels: int, column: float
) -> tuple[np.ndarray, np.ndarray]:
    """The lag at which most spikes of each witness meet those of the reference.

    All differences up to four times the tolerance are looked at; the window of the tolerance's width that holds most of
    them (of several, the one nearest to zero) is the peak of the cross-correlogram, and their mean is the lag.

    Args:
        reference: Spikes of the reference.
        witness: Spikes of the witnesses.
        tolerance: Its frequency part holds for the pairs, its time sets the width of the peak.
        num_channels: Number of witnesses.
        column: Resolution of the times, s.

    Returns:
        Lag, s, positive where the witness follows the reference, and its standard error, s: the scatter of the
        differences and the rounding of both times to a column, over the root of their number. NaN where there is no
        pair. Shape (channel,) each.

    Example:
        >>> strain = Spikes(np.array([0]), np.array([0]), np.array([3.0]), np.array([50.0]), np.array([30.0]))
        >>> lag, _ = best_lags(strain, strain, Tolerance(0.25), num_channels=1, column=0.02)
        >>> float(lag[0])
        0.0
    """
    left, right = coincident_pairs(reference, witness, Tolerance(_REACH * tolerance.time, tolerance.octaves))
    channel, difference = witness.channel[right], witness.time[right] - reference.time[left]
    order = np.lexsort((difference, channel))
    channel, difference = channel[order], difference[order]
    bounds = np.searchsorted(channel, np.arange(num_channels + 1))
    lag, error = np.full(num_channels, np.nan), np.full(num_channels, np.nan)
    for row in np.flatnonzero(np.diff(bounds)):
        found = _peak(difference[bounds[row] : bounds[row + 1]], tolerance.time)
        lag[row] = found.mean()
        error[row] = np.sqrt((found.var() + column**2 / 6) / len(found))
    return lag, error


def _peak(sorted_differences: np.ndarray, width: float) -> np.ndarray:
    """The differences in the fullest window of that width."""
    rounding = 1e-9
    ends = np.searchsorted(sorted_differences, sorted_differences + width + rounding, "right")
    held = ends - np.arange(len(ends))
    fullest = np.flatnonzero(held == held.max())
    middle = (sorted_differences[fullest] + sorted_differences[ends[fullest] - 1]) / 2
    start = fullest[np.argmin(np.abs(middle))]
    return sorted_differences[start : ends[start]]
