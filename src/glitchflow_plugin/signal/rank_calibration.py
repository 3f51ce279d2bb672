"""What a rank says of a glitch: efficiency, likelihood ratio and probability, as iDQ has them.

R. Essick et al., Mach. Learn.: Sci. Technol. 2 (2021) 015004, arXiv:2005.12761. A stride of time is either clean, or
the loudest one of a glitch; r is its rank:

- *efficiency*: P(rank >= r | glitch),
- *log-likelihood*: ln p(r | glitch) / p(r | clean),
- *probability of a glitch*: p(glitch | r), for a rate of glitches that is known before.

All three are of glitches whose SNR is distributed as is stated (`signal.glitch_snr`), not as in the events that they
rest on. iDQ estimates both densities by kernels. Here their ratio is the slope of the efficiency against the
false-alarm probability, made to rise with the rank: the convex hull of the ROC (T. Fawcett and A. Niculescu-Mizil,
Mach. Learn. 68 (2007) 97, doi:10.1007/s10994-007-5011-0). It needs no bandwidth, and above the loudest clean stride it
claims no more than the false-alarm probability does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from glitchflow_plugin.errors import ConfigurationError, NoEventsError
from glitchflow_plugin.signal.false_alarm import FalseAlarm
from glitchflow_plugin.signal.glitch_snr import GlitchSNR, effective_number

_MOST_GLITCHES = 4096
"""Glitches that are kept; of more, evenly drawn ones by their rank."""


@dataclass(frozen=True, eq=False)
class RankedGlitches:
    """Glitches of events that trained no weight: how they rank, and how loud they are; (glitch,) each.

    Attributes:
        ranks: Rank of the loudest stride, rising.
        snr: Root of the largest energy in the strain.
        groups: Number of the group of the event.
        stride: Length of a stride, s.
        total: Of how many glitches they are.
    """

    ranks: Float[np.ndarray, " glitch"]
    snr: Float[np.ndarray, " glitch"]
    groups: Int[np.ndarray, " glitch"]
    stride: float
    total: int

    @classmethod
    def of(
        cls,
        ranks: Float[np.ndarray, " glitch"],
        snr: Float[np.ndarray, " glitch"],
        groups: Int[np.ndarray, " glitch"],
        stride: float,
    ) -> "RankedGlitches":
        """Those of some events, in any order."""
        kept = np.linspace(0, len(ranks) - 1, min(len(ranks), _MOST_GLITCHES)).round().astype(np.int64)
        order = np.argsort(ranks, kind="stable")[kept]
        return cls(ranks[order], snr[order], groups[order], stride, len(ranks))

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        arrays = {name: getattr(self, name).tolist() for name in ("ranks", "snr", "groups")}
        return {**arrays, "stride": self.stride, "total": self.total}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "RankedGlitches":
        """Rebuild what `to_dict` gave."""
        ranks, snr = (np.array(content[name], dtype=np.float64) for name in ("ranks", "snr"))
        return cls(ranks, snr, np.array(content["groups"], dtype=np.int64), content["stride"], content["total"])


@dataclass(frozen=True, eq=False)
class RankCalibration:
    """What is known of ranks.

    Attributes:
        false_alarm: False-alarm probability of a stride.
        ranks: Rising ranks of glitches, (level,).
        shares: Share of the glitches with at least such a rank, (level,).
        log_likelihood: Below, between and above the ranks of `false_alarm`, natural logarithm, (level + 1,).
        glitch_snr: Of which glitches it is stated.
        rate: Glitches a second, Hz.
        stride: Length of a stride, s.
        glitches: Glitches that it rests on.
        effective: How many equal ones would tell as much.
        groups: Independent groups of them.
    """

    false_alarm: FalseAlarm
    ranks: Float[np.ndarray, " level"]
    shares: Float[np.ndarray, " level"]
    log_likelihood: Float[np.ndarray, " bin"]
    glitch_snr: GlitchSNR
    rate: float
    stride: float
    glitches: int
    effective: float
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

    def told(self) -> dict[str, object]:
        """What a reader must know, JSON-like: of which glitches it is, how many a second, and on how many it rests."""
        return {
            "glitch_snr_lowest": self.glitch_snr.lowest,
            "glitch_snr_exponent": self.glitch_snr.exponent,
            "glitch_rate": self.rate,
            "validation_glitches": self.glitches,
            "effective_glitches": round(self.effective, 1),
            "glitch_groups": self.groups,
            "clean_groups": self.false_alarm.groups,
        }


def calibrate_ranks(seen: RankedGlitches, false_alarm: FalseAlarm, glitch_snr: GlitchSNR) -> RankCalibration:
    """Calibrate on the ranks of glitches.

    Args:
        seen: Glitches.
        false_alarm: Calibrated on the clean strides of the same events.
        glitch_snr: Of which glitches it shall be stated.

    Raises:
        NoEventsError: None is so loud.
    """
    weights = glitch_snr.weights(seen.snr)
    held = weights > 0
    if not held.any():
        raise NoEventsError(
            f"none of the {seen.total} glitches of the validation events has an SNR of {glitch_snr.lowest:g} or more: "
            "nothing is known of the ranks of such. Lower stream.products.glitch_snr.lowest."
        )
    ranks, first = np.unique(seen.ranks[held], return_index=True)
    shares = 1 - np.concatenate([[0.0], np.cumsum(weights[held])])[first]
    effective = effective_number(weights)
    count = seen.total * held.sum() / len(held)
    return RankCalibration(
        false_alarm,
        ranks,
        shares.clip(0.0, 1.0),
        _log_slopes(seen.ranks[held], weights[held], effective, false_alarm),
        glitch_snr,
        rate=float(count / ((count + false_alarm.strides) * seen.stride)),
        stride=seen.stride,
        glitches=int(held.sum()),
        effective=effective,
        groups=len(np.unique(seen.groups[held])),
    )


def _log_slopes(
    ranks: Float[np.ndarray, " glitch"],
    weights: Float[np.ndarray, " glitch"],
    effective: float,
    false_alarm: FalseAlarm,
) -> Float[np.ndarray, " bin"]:
    """Logarithm of the rising slope of efficiency against false-alarm probability, between the levels of the latter."""
    clean = -np.diff(false_alarm.probability, prepend=1.0, append=0.0)
    place = np.searchsorted(false_alarm.ranks, ranks, "right")
    found = effective * np.bincount(place, weights, minlength=len(clean))
    # one more glitch that ranks as clean time does: no rank speaks against a glitch without end
    glitch = (found + clean) / (effective + 1)
    held = clean + glitch > 0
    from scipy.optimize import isotonic_regression  # noqa: PLC0415  # half a second for all who only read ranks

    share = isotonic_regression(glitch[held] / (clean + glitch)[held], weights=(clean + glitch)[held]).x
    slopes = np.log(share / (1 - share))
    return slopes[np.maximum(np.cumsum(held) - 1, 0)]
