"""What a rank says of a glitch: efficiency, likelihood ratio and probability, as iDQ has them.

R. Essick et al., Mach. Learn.: Sci. Technol. 2 (2021) 015004, arXiv:2005.12761. A stride of time is either clean, or
the loudest one of a glitch; r is its rank:

- *efficiency*: P(rank >= r | glitch),
- *log-likelihood*: ln p(r | glitch) / p(r | clean),
- *probability of a glitch*: p(glitch | r), for a rate of glitches that is known before.

iDQ estimates both densities by kernels. Here their ratio is the slope of the efficiency against the false-alarm
probability, made to rise with the rank: the convex hull of the ROC (T. Fawcett and A. Niculescu-Mizil, Mach. Learn. 68
(2007) 97, doi:10.1007/s10994-007-5011-0). It needs no bandwidth, and above the loudest clean stride it claims no more
than the false-alarm probability does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from glitchflow_plugin.errors import ConfigurationError, NoEventsError
from glitchflow_plugin.signal.false_alarm import FalseAlarm

_MOST_LEVELS = 256
"""Ranks at which the efficiency is kept."""


@dataclass(frozen=True, eq=False)
class RankCalibration:
    """What is known of ranks, from events that trained no weight.

    Attributes:
        false_alarm: False-alarm probability of a stride.
        ranks: Rising ranks of glitches, (level,).
        shares: Share of the glitches with at least such a rank, (level,).
        log_likelihood: Below, between and above the ranks of `false_alarm`, natural logarithm, (level + 1,).
        rate: Glitches a second of the time that it rests on, Hz.
        stride: Length of a stride, s.
        glitches: Glitches that it rests on.
        groups: Independent groups of them.
    """

    false_alarm: FalseAlarm
    ranks: Float[np.ndarray, " level"]
    shares: Float[np.ndarray, " level"]
    log_likelihood: Float[np.ndarray, " bin"]
    rate: float
    stride: float
    glitches: int
    groups: int

    def __post_init__(self) -> None:
        """Refuse a rate that leaves no time without a glitch."""
        if not 0 < self.rate * self.stride < 1:
            raise ConfigurationError(
                f"expected a rate of glitches between 0 and {1 / self.stride:.3g} Hz, one in each stride of "
                f"{self.stride:.3g} s, got {self.rate:g} Hz. Correct stream.products.glitch_rate."
            )

    def efficiency(self, rank: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Share of glitches with at least this rank. NaN stays NaN."""
        found = np.append(self.shares, 0.0)[np.searchsorted(self.ranks, rank, "left")]
        return np.where(np.isnan(rank), np.nan, found)

    def log_ratio(self, rank: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Natural logarithm of the likelihood ratio, rising with the rank. NaN stays NaN."""
        found = self.log_likelihood[np.searchsorted(self.false_alarm.ranks, rank, "right")]
        return np.where(np.isnan(rank), np.nan, found)

    def probability(self, rank: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Probability that a stride of this rank is a glitch rather than clean. NaN stays NaN."""
        before = self.rate * self.stride
        return 1 / (1 + np.exp(-self.log_ratio(rank)) * (1 - before) / before)

    def at_rate(self, rate: float | None) -> "RankCalibration":
        """The same where glitches are more or less frequent.

        Args:
            rate: Glitches a second, Hz; None for that of the events it rests on.

        Raises:
            ConfigurationError: It is not between none and one a stride.
        """
        return self if rate is None else replace(self, rate=float(rate))

    def to_dict(self) -> dict[str, object]:
        """Plain values, without those of `false_alarm`."""
        arrays = {name: getattr(self, name).tolist() for name in ("ranks", "shares", "log_likelihood")}
        return {name: arrays.get(name, value) for name, value in asdict(self).items() if name != "false_alarm"}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], false_alarm: FalseAlarm) -> "RankCalibration":
        """Rebuild what `to_dict` gave."""
        arrays = {name: np.array(content[name], dtype=np.float64) for name in ("ranks", "shares", "log_likelihood")}
        return cls(false_alarm, **{**content, **arrays})


def calibrate_ranks(
    at_glitches: Float[np.ndarray, " glitch"],
    groups: Int[np.ndarray, " glitch"],
    false_alarm: FalseAlarm,
    stride: float,
) -> RankCalibration:
    """Calibrate on the ranks of glitches.

    Args:
        at_glitches: Rank of the loudest stride of each glitch.
        groups: Number of the group of each.
        false_alarm: Calibrated on the clean strides of the same events.
        stride: Length of a stride, s.

    Raises:
        NoEventsError: There is no glitch.
    """
    if not len(at_glitches):
        raise NoEventsError("none of the validation events holds a glitch: nothing is known of the ranks of glitches.")
    ordered, count = np.sort(at_glitches), len(at_glitches)
    places = np.unique(np.linspace(0, count - 1, min(count, _MOST_LEVELS)).round().astype(np.int64))
    ranks, first = np.unique(ordered[places], return_index=True)
    # a level stands for all glitches from the first one that is as loud
    shares = 1 - np.searchsorted(ordered, ordered[places][first], "left") / count
    return RankCalibration(
        false_alarm,
        ranks,
        shares,
        _log_slopes(ordered, false_alarm),
        rate=count / ((count + false_alarm.strides) * stride),
        stride=stride,
        glitches=count,
        groups=len(np.unique(groups)),
    )


def _log_slopes(at_glitches: Float[np.ndarray, " glitch"], false_alarm: FalseAlarm) -> Float[np.ndarray, " bin"]:
    """Logarithm of the rising slope of efficiency against false-alarm probability, between the levels of the latter."""
    clean = -np.diff(false_alarm.probability, prepend=1.0, append=0.0)
    place = np.searchsorted(false_alarm.ranks, at_glitches, "right")
    found = np.bincount(place, minlength=len(clean))
    # one more glitch that ranks as clean time does: no rank speaks against a glitch without end
    glitch = (found + clean) / (len(at_glitches) + 1)
    held = clean + glitch > 0
    from scipy.optimize import isotonic_regression  # noqa: PLC0415  # half a second for all who only read ranks

    share = isotonic_regression(glitch[held] / (clean + glitch)[held], weights=(clean + glitch)[held]).x
    slopes = np.log(share / (1 - share))
    return slopes[np.maximum(np.cumsum(held) - 1, 0)]
