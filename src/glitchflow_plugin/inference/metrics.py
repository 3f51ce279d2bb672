"""Figures of merit and of cost of predicted maps, each defined here as a function of cases.

**Glitches.** A case *holds a glitch at threshold t*, or is *quiet at t*, by its largest measured energy; see
:mod:`glitchflow_plugin.inference.cases`, also for the time of a glitch.

**Vetoes.** A glitch is found at t when the prediction is above t *within its time*, a quiet case is falsely vetoed when
it is above t *anywhere*. What says the same of all events can therefore never find a larger share of the glitches than
it takes of the quiet ones: its balanced accuracy and its ROC area are at most 0.5, whatever it knows of usual times.

**Cleaning.** Energies carry no phase, so "cleaned" means |measured - predicted| of twins of energies (see
:func:`glitchflow_plugin.inference.clean.clean_maps`), and the map of the difference of waveforms of twins of these. A
case is *cleaned at t* when it :func:`~glitchflow_plugin.verdict.earns_cleaning`: nothing above t is left (what is
predicted counts as left up to C, see below), and its energy did not rise. The event table, which ranks no twin, asks
for the former alone and without C. *Net power removed* counts what the prediction takes from pixels of glitches and
what it adds anywhere:

    1 - (sum of left over loud pixels + sum of added over all others) / sum of (measured - C) over loud pixels

A pixel is loud when it is measured above the glitch threshold. C = 1.59 of the mean of noise is the largest constant
prediction that leaves noise with no more energy than it had, E|n - C| = E n for exponential n: as much is no merit in a
loud pixel, and left = cleaned - max(C - predicted, 0). What is added to the other pixels is counted from the first bit
on, as what the cleaned energy is above the measured one or, if this is larger, the mean of noise: pixel by pixel where
more than C is predicted, so that nothing pays for it, and over blocks of `BLOCK` pixels elsewhere. There, pixel by
pixel, the interference of a small predicted waveform with noise, which takes as often as it adds, would count as harm
(28 points of a linear twin that adds 1.4 % to quiet events). A prediction that is the same for all events thus gains
only from a pixel that is loud in nearly half of them.

===========================  =====================  ================  ====================  =========================
figure                       perfect prediction     zero prediction   constant, clock, ...  undefined (with reason)
===========================  =====================  ================  ====================  =========================
cleaned share at t           1 (t above C)          0                 about 0               no case holds a glitch
balanced veto accuracy at t  1                      0.5               at most 0.5           only one kind of cases
veto ROC area                1                      0.5               at most 0.5           only one kind of cases
net power removed            1                      0                 at most 0             no loud pixel
harmed share                 0                      0                 1 once they add 5 %   no quiet case
deadtime, outside glitches   0 outside              0                 all or nothing        no judged column
===========================  =====================  ================  ====================  =========================

The first four are figures of merit; the others say what the merits cost, and cost nothing where nothing is predicted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc, confusion_matrix, roc_curve

from glitchflow_plugin.inference.cases import CaseStatistics, ratio
from glitchflow_plugin.verdict import above, earns_cleaning, holds_glitch, is_vetoed


class Sums(NamedTuple):
    """A share as two terms of each case, whose sums over cases are divided.

    Attributes:
        top: Dividend, (case, column).
        bottom: Divisor, (case, column).
    """

    top: NDArray[np.bool_] | NDArray[np.float64]
    bottom: NDArray[np.bool_] | NDArray[np.float64]


def case_sums(cases: CaseStatistics, thresholds: NDArray[np.float64]) -> dict[str, Sums]:
    """What the figures but the ROC are made of, by name.

    Args:
        cases: Judged cases.
        thresholds: SNR², of the columns of `cleaned_share`, `hits` and `rejections`; the others have one column, at
            the glitch threshold.
    """
    holds = holds_glitch(cases.peak_measured[:, None], thresholds)
    hit = holds & is_vetoed(cases.peak_in_time[:, None], thresholds)
    alarm = ~holds & is_vetoed(cases.peak_predicted[:, None], thresholds)
    left = above(cases.peak_left[:, None], thresholds)
    cleaned = earns_cleaning(holds, left, cases.total_measured[:, None], cases.total_cleaned[:, None])
    vetoed_outside = cases.columns_vetoed - cases.columns_vetoed_in_time
    single = {
        "power_left": (cases.glitch_left + cases.added, cases.glitch_power),
        "harmed": (cases.harmed, ~cases.glitch),
        "deadtime": (cases.columns_vetoed, cases.columns),
        "deadtime_outside": (vetoed_outside, cases.columns - cases.columns_of_glitch),
    }
    return {
        "cleaned_share": Sums(cleaned, holds),
        "hits": Sums(hit, holds),
        "rejections": Sums(~holds & ~alarm, ~holds),
        **{name: Sums(top[:, None], bottom[:, None]) for name, (top, bottom) in single.items()},
    }


def figures(shares: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The figures but the ROC, by name, from the quotients of `case_sums`, (..., column)."""
    return {
        "cleaned_share": shares["cleaned_share"],
        "veto_balance": (shares["hits"] + shares["rejections"]) / 2,
        "net_power_removed": 1 - shares["power_left"],
        **{name: shares[name] for name in ("harmed", "deadtime", "deadtime_outside")},
    }


def figure_groups(groups: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """How many groups each of these figures rests on, from those with a divisor, (column,).

    Of a figure of two kinds of cases it is the number of the kind that has fewer.
    """
    return {
        "cleaned_share": groups["cleaned_share"],
        "veto_balance": np.minimum(groups["hits"], groups["rejections"]),
        "net_power_removed": groups["power_left"],
        **{name: groups[name] for name in ("harmed", "deadtime", "deadtime_outside")},
    }


def veto_statistic(cases: CaseStatistics) -> NDArray[np.float64]:
    """What the veto's ROC is over, SNR², (case,): a glitch answers for its own time, a quiet case for all of it."""
    return np.where(cases.glitch, cases.peak_in_time, cases.peak_predicted)


@dataclass(frozen=True)
class Roc:
    """Receiver operating characteristic of the veto: truth = measured glitch, score = predicted energy.

    Attributes:
        false_alarm_rate: Share of the quiet cases that are vetoed anywhere, (point,).
        hit_rate: Share of the cases with a glitch that are vetoed within its time, (point,).
        thresholds: Predicted SNR² from which on a case is vetoed at that point, (point,); the first is infinite.
    """

    false_alarm_rate: NDArray[np.float64]
    hit_rate: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def to_dict(self) -> dict[str, object]:
        """Plain lists for JSON; the infinite threshold becomes None."""
        return {
            "false_alarm_rate": self.false_alarm_rate.tolist(),
            "hit_rate": self.hit_rate.tolist(),
            "thresholds": finite_or_none(self.thresholds),
        }


@dataclass(frozen=True)
class Confusion:
    """Counts of cases by what was measured and what the veto said.

    Attributes:
        hits: Glitch, vetoed within its time.
        misses: Glitch, not vetoed then.
        false_alarms: Quiet, vetoed.
        correct_rejections: Quiet, not vetoed.
    """

    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int

    def to_dict(self) -> dict[str, int]:
        """Counts by name."""
        return {field.name: int(getattr(self, field.name)) for field in fields(self)}


def roc_of(glitch: NDArray[np.bool_], statistic: NDArray[np.float64]) -> tuple[Roc | None, float]:
    """ROC and its area; None and NaN where only one kind of cases exists."""
    if glitch.all() or not glitch.any():
        return None, float("nan")
    false_alarm_rate, hit_rate, thresholds = roc_curve(glitch, statistic)
    return Roc(false_alarm_rate, hit_rate, thresholds), float(auc(false_alarm_rate, hit_rate))


def weighted_auc(
    weights: NDArray[np.float64], positive: NDArray[np.bool_], tie_group: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Area under the ROC for several sets of weights at once (Mann-Whitney statistic, ties count half).

    Args:
        weights: (replicate, case), cases in ascending order of the score.
        positive: Truth, (case,).
        tie_group: Number of the distinct score, ascending from 0, (case,).

    Returns:
        (replicate,), NaN where a class has no weight.
    """
    # first case of each run of equal scores: sums over runs are then differences of one reduction
    first = np.flatnonzero(np.r_[True, np.diff(tie_group) > 0])
    hits = np.add.reduceat(weights * positive, first, axis=1)
    others = np.add.reduceat(weights * ~positive, first, axis=1)
    below = np.cumsum(others, axis=1) - others
    return ratio((hits * (below + 0.5 * others)).sum(axis=1), hits.sum(axis=1) * others.sum(axis=1))


def confusion_counts(glitch: NDArray[np.bool_], vetoed: NDArray[np.bool_]) -> Confusion:
    """Count cases by truth and verdict.

    Args:
        glitch: True where a glitch was measured, (case,).
        vetoed: True where the veto finds it, or flags a quiet case, (case,).

    Returns:
        The four counts by name, so that none can be taken for another.

    >>> confusion_counts(np.array([True, True, True, False]), np.array([True, False, False, False]))
    Confusion(hits=1, misses=2, false_alarms=0, correct_rejections=1)
    """
    # rows are the truth, columns the verdict, both in the order of `labels`
    table = confusion_matrix(glitch, vetoed, labels=[False, True])
    return Confusion(
        hits=int(table[1, 1]),
        misses=int(table[1, 0]),
        false_alarms=int(table[0, 1]),
        correct_rejections=int(table[0, 0]),
    )


def finite_or_none(values: NDArray[np.float64]) -> list[float | None]:
    """Numbers for JSON, which knows neither NaN nor infinity."""
    return [float(value) if np.isfinite(value) else None for value in values]
