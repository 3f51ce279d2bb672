"""Intervals by a bootstrap that draws groups of events, in one way for all figures.

Events of one group (the same waveform, the same stretch of strain) are no independent cases: drawing events would make
the intervals too narrow. So whole groups are drawn with replacement, each event as often as its group (B. Efron, R.
Tibshirani, An Introduction to the Bootstrap, 1993, doi:10.1201/9780429246593). An interval is that of the percentiles.
It cannot see beyond the sample: where all groups agree it has no width although the truth may be less than 1, and of
few groups it is too narrow; of fewer than `LEAST_GROUPS` none is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from glitchflow_plugin.data.groups import LEAST_GROUPS
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.bootstrap import group_draws

CONFIDENCE = 0.95
"""Probability inside an interval."""


@dataclass(frozen=True)
class Estimate:
    """One figure with its interval.

    Attributes:
        value: The figure; None where it is undefined.
        low: Lower end of the interval; None where there is none.
        high: Upper end.
        reason: Why the value or the interval is missing.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, float | str | None]:
        """Plain values for JSON; None stands for undefined."""
        return {"value": self.value, "low": self.low, "high": self.high, "reason": self.reason}


def few_groups(num_groups: int) -> str:
    """Why so few groups have no interval; empty where they are enough."""
    if num_groups >= LEAST_GROUPS:
        return ""
    return f"no interval: {num_groups} independent groups of events, at least {LEAST_GROUPS} are needed"


def bootstrap(
    figures: Callable[[Float[np.ndarray, "replicate group"]], Float[np.ndarray, "replicate figure"]],
    num_groups: int,
    *,
    replicates: int,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Float[np.ndarray, "2 figure"]:
    """Ends of the intervals of some figures.

    Args:
        figures: From weights of the groups, some replicates at a time, to figures; NaN where a replicate has none.
        num_groups: Independent groups of events.
        replicates: Bootstrap replicates; 0 for no intervals.
        seed: Seed of the bootstrap.
        confidence: Probability inside the intervals.

    Returns:
        Lower and upper ends; NaN without replicates, with too few groups, and for a figure that no replicate defines.

    Raises:
        ConfigurationError: A setting is out of range.
    """
    if replicates < 0 or not 0 < confidence < 1:
        msg = f"replicates >= 0 and 0 < confidence < 1 expected, got {replicates} and {confidence}."
        raise ConfigurationError(msg)
    asked = replicates if num_groups >= LEAST_GROUPS else 0
    nothing = figures(np.ones((1, num_groups)))[:0]
    samples = np.concatenate([nothing, *map(figures, group_draws(num_groups, asked, seed))])
    ends = np.full((2, samples.shape[1]), np.nan)
    known = ~np.isnan(samples).all(axis=0)
    if len(samples):
        tails = [50 * (1 - confidence), 50 * (1 + confidence)]
        ends[:, known] = np.nanpercentile(samples[:, known], tails, axis=0)
    return ends


def weighted_median(
    values: Float[np.ndarray, " case"], weights: Float[np.ndarray, "replicate case"]
) -> Float[np.ndarray, " replicate"]:
    """Median of values that are there as often as their weights (whole numbers) say; NaN where all weights are 0.

    >>> weighted_median(np.array([3.0, 1.0, 8.0]), np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [2.0, 1.0, 0.0]]))
    array([3. , 4.5, 3. ])
    """
    order = np.argsort(values, kind="stable")
    ordered, counts = values[order], np.cumsum(weights[:, order], axis=1)
    total = counts[:, -1:]
    # the two values in the middle: the first ones of which half, and more than half, lie at or below
    lower = np.argmax(counts >= total / 2, axis=1)
    upper = np.argmax(counts > total / 2, axis=1)
    return np.where(total[:, 0] > 0, (ordered[lower] + ordered[upper]) / 2, np.nan)


def estimate(value: float, ends: Sequence[float] | NDArray[np.float64] | None, reason: str = "") -> Estimate:
    """A figure with its interval; NaN is undefined.

    Args:
        value: The figure.
        ends: Lower and upper end; None or NaN for no interval.
        reason: Why the value, or only the interval, is missing.
    """
    if np.isnan(value):
        return Estimate(None, reason=reason or None)
    if ends is None or np.isnan(ends).any():
        return Estimate(float(value), reason=reason or None)
    return Estimate(float(value), float(ends[0]), float(ends[1]))
