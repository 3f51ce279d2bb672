"""How often a rank is as large where there is no glitch: the false-alarm probability of a stride of time.

It is calibrated on clean time, none of which chose the model. Strides of one group (an event, a stretch of strain) are
no independent cases: a false alarm takes several at once. So one more group as bad as the worst of those seen is added
to what was counted: with few counts the probability is too large rather than too small, and it never falls below what
one such group among all would make of it (the idea of A. N. Angelopoulos et al., Conformal Risk Control, 2022,
arXiv:2208.02814, with the largest loss seen in place of the largest possible one).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from glitchflow_plugin.errors import NoEventsError

_MOST_LEVELS = 256
"""Ranks at which the probability is kept."""


@dataclass(frozen=True, eq=False)
class FalseAlarm:
    """False-alarm probability by rank: a falling function of steps.

    Attributes:
        ranks: Rising, (level,).
        probability: Probability that the rank of a clean stride is at least as large, (level,).
        strides: Clean strides that it rests on.
        groups: Independent groups of them.
    """

    ranks: Float[np.ndarray, " level"]
    probability: Float[np.ndarray, " level"]
    strides: int
    groups: int

    def __call__(self, rank: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Probability of each rank; that of the next level below, which is never too small. NaN stays NaN."""
        level = np.searchsorted(self.ranks, rank, "right") - 1
        found = np.where(level < 0, 1.0, self.probability[np.maximum(level, 0)])
        return np.where(np.isnan(rank), np.nan, found)

    def threshold(self, probability: float) -> float:
        """The smallest kept rank whose probability is at most this; infinite where none is."""
        fits = np.flatnonzero(self.probability <= probability)
        return float(self.ranks[fits[0]]) if len(fits) else float("inf")

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "ranks": self.ranks.tolist(),
            "probability": self.probability.tolist(),
            "strides": self.strides,
            "groups": self.groups,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "FalseAlarm":
        """Rebuild what `to_dict` gave."""
        ranks, probability = (np.array(content[name], dtype=np.float64) for name in ("ranks", "probability"))
        return cls(ranks, probability, int(content["strides"]), int(content["groups"]))


def calibrate_false_alarm(
    rank: Float[np.ndarray, "event time"],
    clean: Bool[np.ndarray, "event time"],
    groups: Int[np.ndarray, " event"],
) -> FalseAlarm:
    """Calibrate on clean strides.

    Args:
        rank: Rank of each stride; the larger the more likely a glitch.
        clean: Strides without a glitch that are judged.
        groups: Number of the group of each event.

    Raises:
        NoEventsError: No stride is clean.
    """
    values = rank[clean]
    if not len(values):
        raise NoEventsError("no time of the validation events is without a glitch: a false alarm has no probability.")
    group = np.unique(np.broadcast_to(groups[:, None], rank.shape)[clean], return_inverse=True)[1]
    num_groups = int(group.max()) + 1
    levels = _levels(values)
    # strides of each group at or above each level
    place = np.searchsorted(levels, values, "right")
    counts = np.zeros((num_groups, len(levels) + 1), dtype=np.int64)
    np.add.at(counts, (group, place), 1)
    above = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    worst = above.max(axis=0)
    # what the loudest group has above the loudest stride of all others: what one more group might add above everything
    peaks = np.full(num_groups, -np.inf)
    np.maximum.at(peaks, group, values)
    loudest = int(peaks.argmax())
    second = np.partition(peaks, -2)[-2] if num_groups > 1 else -np.inf
    top = max(int((values[group == loudest] > second).sum()), 1)
    extra = np.maximum(worst, top)
    probability = (above.sum(axis=0) + extra) / (len(values) + extra)
    return FalseAlarm(levels, np.minimum.accumulate(probability), len(values), num_groups)


def _levels(values: Float[np.ndarray, " stride"]) -> Float[np.ndarray, " level"]:
    """Ranks that are passed by ever fewer strides, evenly in the logarithm of their number, and one above all."""
    ordered = np.sort(values)[::-1]
    counts = np.unique(np.geomspace(1, len(ordered), _MOST_LEVELS - 1).round().astype(np.int64))
    above_all = np.nextafter(ordered[0], np.inf)
    return np.unique(np.append(ordered[counts - 1], above_all))
