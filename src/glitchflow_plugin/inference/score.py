"""Judge cases: all figures of one prediction against one measurement, with intervals by group of events.

What the figures are, :mod:`glitchflow_plugin.inference.metrics` says; what an interval is,
:mod:`glitchflow_plugin.inference.intervals`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from glitchflow_plugin.data.groups import LEAST_GROUPS
from glitchflow_plugin.errors import ConfigurationError, NoEventsError
from glitchflow_plugin.inference import metrics
from glitchflow_plugin.inference.cases import CaseStatistics, ratio
from glitchflow_plugin.inference.intervals import CONFIDENCE, Estimate, bootstrap, estimate, few_groups
from glitchflow_plugin.inference.metrics import Confusion, Roc, finite_or_none
from glitchflow_plugin.signal.bootstrap import in_memory
from glitchflow_plugin.verdict import holds_glitch, is_vetoed

T = TypeVar("T", np.float64, np.int64)


def whole_thresholds(accuracy_range: Sequence[float]) -> tuple[float, ...]:
    """SNR² thresholds of curves: one unit apart, from the first to the last of two."""
    low, high = accuracy_range
    return tuple(float(value) for value in np.arange(low, high + 0.5))


THRESHOLDS = whole_thresholds((1, 50))
"""SNR² thresholds of the curves where nothing else is asked for."""


@dataclass(frozen=True)
class Curve:
    """A figure against the threshold; NaN inside the arrays where it is undefined, None in :meth:`to_dict`.

    Attributes:
        thresholds: SNR², (threshold,).
        value: The figure, (threshold,).
        low: Lower end of the bootstrap band.
        high: Upper end of the bootstrap band.
        count: Number of cases that the figure rests on.
        groups: Number of their groups (of two kinds of cases: of the kind that has fewer).
        reason: Why a value is missing, where one is.
    """

    thresholds: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]
    groups: NDArray[np.int64]
    reason: str

    def at(self, threshold: float) -> Estimate:
        """The figure at one of the thresholds.

        Raises:
            ConfigurationError: The curve has no such threshold.
        """
        found = np.flatnonzero(np.isclose(self.thresholds, threshold))
        if not found.size:
            msg = f"the curve has thresholds {self.thresholds.tolist()}, asked for {threshold}; add it to `thresholds`."
            raise ConfigurationError(msg)
        index = int(found[0])
        value, ends = self.value[index], (self.low[index], self.high[index])
        return estimate(value, ends, self.reason if np.isnan(value) else few_groups(int(self.groups[index])))

    def to_dict(self) -> dict[str, object]:
        """Plain lists for JSON; None stands for undefined."""
        return {
            "thresholds": self.thresholds.tolist(),
            "value": finite_or_none(self.value),
            "low": finite_or_none(self.low),
            "high": finite_or_none(self.high),
            "count": self.count.tolist(),
            "groups": self.groups.tolist(),
            "reason_for_null": self.reason if np.isnan(self.value).any() else None,
        }


@dataclass(frozen=True)
class Sample:
    """How many cases a figure rests on, and how many independent groups they come from."""

    cases: int
    groups: int

    @classmethod
    def of(cls, groups: NDArray[np.str_] | NDArray[np.int64], chosen: NDArray[np.bool_]) -> "Sample":
        """Count the chosen cases and their groups."""
        return cls(int(chosen.sum()), len(np.unique(groups[chosen])))


@dataclass(frozen=True)
class Scores:
    """All figures of one prediction against one measurement; see :mod:`glitchflow_plugin.inference.metrics`.

    Attributes:
        cleaned_share: Share of the cases with a glitch at t that are cleaned: their peak without credit for noise is
            not above t, and their energy did not rise; against t.
        veto_balance: Mean of the share of glitches that are vetoed in time at t and the share of quiet cases that are
            not vetoed, against t.
        roc: ROC of the veto for glitches at the glitch threshold; None where only one kind exists.
        roc_auc: Area under it: the probability that a glitch has a larger prediction within its time than a quiet case
            has anywhere.
        net_power_removed: What the prediction takes from all glitches less what it adds anywhere, as a share.
        harmed: Share of the quiet cases that cleaning harms, see `verdict.is_harmed`.
        deadtime: Share of the judged time (columns) with a prediction above the glitch threshold.
        deadtime_outside: The same of the time outside glitches.
        confusion: Counts of cases with the veto at the glitch threshold.
        glitches: Cases with a glitch at the glitch threshold.
        quiet: The others.
        num_events: Events the cases come from.
        num_groups: Groups the events come from.
        glitch_threshold: SNR² of the single figures.
    """

    cleaned_share: Curve
    veto_balance: Curve
    roc: Roc | None
    roc_auc: Estimate
    net_power_removed: Estimate
    harmed: Estimate
    deadtime: Estimate
    deadtime_outside: Estimate
    confusion: Confusion
    glitches: Sample
    quiet: Sample
    num_events: int
    num_groups: int
    glitch_threshold: float

    def merits(self) -> dict[str, Estimate]:
        """Figures that are the better the larger, and that no prediction wins that says the same of all events."""
        suffix = f"snr2_{self.glitch_threshold:g}"
        return {
            f"cleaned_share_{suffix}": self.cleaned_share.at(self.glitch_threshold),
            f"balanced_veto_accuracy_{suffix}": self.veto_balance.at(self.glitch_threshold),
            "veto_roc_auc": self.roc_auc,
            "net_power_removed": self.net_power_removed,
        }

    def costs(self) -> dict[str, Estimate]:
        """What the merits cost; predicting nothing costs nothing, so none of these ranks a twin."""
        suffix = f"snr2_{self.glitch_threshold:g}"
        return {
            f"harmed_share_{suffix}": self.harmed,
            f"deadtime_{suffix}": self.deadtime,
            f"deadtime_outside_glitches_{suffix}": self.deadtime_outside,
        }

    def metrics(self) -> dict[str, Estimate]:
        """The single figures under their stable names, such as ``cleaned_share_snr2_16``."""
        return {**self.merits(), **self.costs()}

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, undefined figures as None."""
        return {
            "glitch_threshold": self.glitch_threshold,
            "num_events": self.num_events,
            "num_groups": self.num_groups,
            "glitches": vars(self.glitches),
            "quiet": vars(self.quiet),
            "metrics": {name: one.to_dict() for name, one in self.metrics().items()},
            "cleaned_share": self.cleaned_share.to_dict(),
            "balanced_veto_accuracy": self.veto_balance.to_dict(),
            "roc": None if self.roc is None else self.roc.to_dict(),
            "confusion": self.confusion.to_dict(),
        }


def score_statistics(
    statistics: CaseStatistics,
    *,
    thresholds: Iterable[float] = THRESHOLDS,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Scores:
    """Score cases that were reduced before, batch by batch.

    Args:
        statistics: One row a case.
        thresholds: SNR² of the curves.
        replicates: Bootstrap replicates, 0 for none.
        seed: Seed of the bootstrap.
        confidence: Probability inside the intervals.

    Raises:
        NoEventsError: There is no case.
        ConfigurationError: A setting is out of range.
    """
    if not len(statistics):
        msg = "at least one case expected, got none; check that the data set has events with a valid target."
        raise NoEventsError(msg)
    cut, glitch = statistics.glitch_threshold, statistics.glitch
    levels = np.unique(np.asarray([*thresholds, cut], dtype=np.float64))
    parts = metrics.case_sums(statistics, levels)
    holds = holds_glitch(statistics.peak_measured[:, None], levels)
    # a replicate needs the sums by group alone; all figures are resampled in one go, as columns of two matrices
    group = np.unique(statistics.group, return_inverse=True)[1]
    top, bottom = (_sum_by_group(np.concatenate(side, axis=1), group) for side in zip(*parts.values(), strict=True))
    widths = {name: part.top.shape[1] for name, part in parts.items()}
    veto = metrics.veto_statistic(statistics)
    order = np.argsort(veto, kind="stable")
    ties = np.unique(veto[order], return_inverse=True)[1]

    def _resampled(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        found = metrics.figures(_by_name(ratio(weights @ top, weights @ bottom), widths))
        drawn = (part[:, group[order]] for part in in_memory(weights, len(statistics)))
        areas = [metrics.weighted_auc(part, glitch[order], ties) for part in drawn]
        return np.column_stack([*found.values(), np.concatenate(areas)])

    roc, area = metrics.roc_of(glitch, veto)
    point = metrics.figures(_by_name(ratio(top.sum(axis=0), bottom.sum(axis=0)), widths)) | {
        "roc_auc": np.array([area])
    }
    groups = metrics.figure_groups(_by_name((bottom > 0).sum(axis=0), widths))
    groups["roc_auc"] = groups["veto_balance"][levels == cut]
    ends = bootstrap(_resampled, len(top), replicates=replicates, seed=seed, confidence=confidence)
    ends = np.where(np.concatenate(list(groups.values())) < LEAST_GROUPS, np.nan, ends)
    bands = _by_name(ends, {name: len(value) for name, value in point.items()})

    def _curve(name: str, rests_on: NDArray[np.bool_], reason: str) -> Curve:
        low, high = bands[name]
        return Curve(levels, point[name], low, high, rests_on.sum(axis=0).astype(np.int64), groups[name], reason)

    def _single(name: str, reason: str) -> Estimate:
        value = point[name][0]
        return estimate(value, bands[name][:, 0], reason if np.isnan(value) else few_groups(int(groups[name][0])))

    one_kind = "cases with and without a glitch are needed, only one kind is present"
    return Scores(
        cleaned_share=_curve("cleaned_share", holds, "no case holds a glitch at this threshold"),
        veto_balance=_curve("veto_balance", np.ones_like(holds), one_kind),
        roc=roc,
        roc_auc=_single("roc_auc", one_kind),
        net_power_removed=_single("net_power_removed", f"no measured pixel above SNR² {cut:g}"),
        harmed=_single("harmed", f"every case holds a glitch at SNR² {cut:g}"),
        deadtime=_single("deadtime", "no time is judged"),
        deadtime_outside=_single("deadtime_outside", "no time outside glitches is judged"),
        confusion=metrics.confusion_counts(glitch, is_vetoed(veto, cut)),
        glitches=Sample.of(statistics.group, glitch),
        quiet=Sample.of(statistics.group, ~glitch),
        num_events=len(np.unique(statistics.event)),
        num_groups=len(top),
        glitch_threshold=cut,
    )


def _by_name(values: NDArray[T], widths: Mapping[str, int]) -> dict[str, NDArray[T]]:
    """Columns, those of each name beside each other, apart."""
    return dict(zip(widths, np.split(values, np.cumsum(list(widths.values()))[:-1], axis=-1), strict=True))


def _sum_by_group(values: NDArray[np.bool_] | NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(group.max() + 1))
    return np.add.reduceat(values[order].astype(np.float64), first, axis=0)
