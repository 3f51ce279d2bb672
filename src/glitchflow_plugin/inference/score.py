"""How well predicted maps clean and veto measured ones, with intervals by group of events.

A row of statistics is one *case*: the whole map of an event, or, in what training logs by epoch, a window of one. Only
pixels that are judged count (`inside`). All energies are in SNR².

**Glitches.** A case *holds a glitch at threshold t*, or is *quiet at t*, by its largest measured energy
(:mod:`glitchflow_plugin.verdict`, as all that is said of a single case). The *time of the glitch* is that of the
columns with a pixel above the glitch threshold (without one: the loudest column), widened by `MARGIN` columns on either
side: the tile of a low frequency is wider than a column, and a column's maximum wanders with the noise.

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
Intervals: :mod:`glitchflow_plugin.inference.intervals`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from sklearn.metrics import auc, confusion_matrix, roc_curve
from torch import Tensor
from torch.nn import functional

from glitchflow_plugin.data.groups import LEAST_GROUPS
from glitchflow_plugin.errors import ConfigurationError, DataError, NoEventsError
from glitchflow_plugin.inference.clean import clean_maps
from glitchflow_plugin.inference.intervals import (
    CONFIDENCE,
    Estimate,
    bootstrap,
    estimate,
    few_groups,
)
from glitchflow_plugin.signal.bootstrap import in_memory
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.verdict import (
    GLITCH_THRESHOLD,
    above,
    earns_cleaning,
    holds_glitch,
    is_harmed,
    is_quiet,
    is_vetoed,
)

THRESHOLDS: tuple[float, ...] = tuple(float(value) for value in range(1, 51))
"""SNR² thresholds of the curves."""

NOISE_MEAN = 1 / math.log(2)
"""Mean energy (SNR²) of Gaussian noise in a map whose rows are divided by their median: exponential with median 1."""

NOISE_CLAIM = 1.5936 * NOISE_MEAN
"""Largest constant (SNR²) that does not raise the energy of noise: c = 2 (1 - exp(-c)) in units of the mean."""

MARGIN = 4
"""Columns by which the time of a glitch is widened on either side (0.09 s in maps of 257 columns in 6 s)."""

BLOCK = (16, 32)
"""Rows and columns over which what is added is averaged where no more than noise is predicted."""


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

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; None stands for undefined."""
        return {
            "thresholds": self.thresholds.tolist(),
            "value": _null(self.value),
            "low": _null(self.low),
            "high": _null(self.high),
            "count": self.count.tolist(),
            "groups": self.groups.tolist(),
            "reason_for_null": self.reason if np.isnan(self.value).any() else None,
        }


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

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; the infinite threshold becomes None."""
        return {
            "false_alarm_rate": self.false_alarm_rate.tolist(),
            "hit_rate": self.hit_rate.tolist(),
            "thresholds": _null(np.where(np.isfinite(self.thresholds), self.thresholds, np.nan)),
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


@dataclass(frozen=True)
class CaseStatistics:
    """What scoring needs to know of each case: a few numbers, so that maps need not stay in memory.

    Energies are those of the judged pixels, SNR².

    Attributes:
        event: Which event a case belongs to (id or number), (case,).
        group: Label or number of its group; the bootstrap draws these, (case,).
        peak_measured: Largest measured energy.
        peak_predicted: Largest predicted energy.
        peak_in_time: Largest predicted energy within the time of the glitch.
        peak_cleaned: Largest energy after cleaning.
        peak_left: The same without credit for noise: of what is predicted, as much as `NOISE_CLAIM` is put back.
        total_measured: Sum of the measured energy.
        total_cleaned: Sum of the energy after cleaning.
        glitch_power: Sum over loud pixels of what is measured above `NOISE_CLAIM`.
        glitch_left: Of it, what is left.
        added: What cleaning adds elsewhere.
        columns: Columns that are judged.
        columns_of_glitch: Of them, within the time of the glitch; 0 of a quiet case.
        columns_vetoed: Of them, with a prediction above the glitch threshold.
        columns_vetoed_in_time: Of these, within the time of the glitch.
        glitch_threshold: SNR² above which a pixel is loud.
    """

    event: NDArray[Any]
    group: NDArray[Any]
    peak_measured: NDArray[np.float64]
    peak_predicted: NDArray[np.float64]
    peak_in_time: NDArray[np.float64]
    peak_cleaned: NDArray[np.float64]
    peak_left: NDArray[np.float64]
    total_measured: NDArray[np.float64]
    total_cleaned: NDArray[np.float64]
    glitch_power: NDArray[np.float64]
    glitch_left: NDArray[np.float64]
    added: NDArray[np.float64]
    columns: NDArray[np.float64]
    columns_of_glitch: NDArray[np.float64]
    columns_vetoed: NDArray[np.float64]
    columns_vetoed_in_time: NDArray[np.float64]
    glitch_threshold: float = GLITCH_THRESHOLD

    def __post_init__(self) -> None:
        """Check lengths and values once, so that scoring need not."""
        arrays = {name: getattr(self, name) for name in self._by_case()}
        lengths = {name: array.shape for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or self.event.ndim != 1:
            msg = f"one value a case expected in every array, got shapes {lengths}."
            raise ConfigurationError(msg)
        for name, array in arrays.items():
            if name not in ("event", "group") and not np.isfinite(array).all():
                bad = int((~np.isfinite(array)).sum())
                msg = (
                    f"{name} is not finite in {bad} of {array.size} cases. Finite energies are expected: "
                    "check the maps for NaN, or the model for divergence."
                )
                raise DataError(msg)

    def __len__(self) -> int:
        return len(self.event)

    @classmethod
    def _by_case(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.name != "glitch_threshold"]

    @property
    def glitch(self) -> Bool[np.ndarray, " case"]:
        """Cases with a glitch at the glitch threshold."""
        return holds_glitch(self.peak_measured, self.glitch_threshold)

    @property
    def net_removed(self) -> Float[np.ndarray, " case"]:
        """Net power removed from each case: at most 1, negative where more is added; NaN without a loud pixel."""
        return 1 - _ratio(self.glitch_left + self.added, self.glitch_power)

    @property
    def harmed(self) -> Bool[np.ndarray, " case"]:
        """Quiet cases that cleaning harms."""
        quiet = is_quiet(self.peak_measured, self.glitch_threshold)
        left = above(self.peak_cleaned, self.glitch_threshold)
        return is_harmed(quiet, left, self.total_measured, self.total_cleaned)

    def select(self, cases: NDArray[Any]) -> "CaseStatistics":
        """Some of the cases, chosen by a mask or by row numbers."""
        chosen = {name: getattr(self, name)[cases] for name in self._by_case()}
        return CaseStatistics(**chosen, glitch_threshold=self.glitch_threshold)

    @classmethod
    def concatenate(cls, parts: Sequence["CaseStatistics"]) -> "CaseStatistics":
        """Join the statistics of several batches in order.

        Raises:
            NoEventsError: There is no batch.
            ConfigurationError: The batches used different glitch thresholds.
        """
        if not parts:
            msg = "at least one batch of cases expected, got none; check that the data set has events."
            raise NoEventsError(msg)
        thresholds = {part.glitch_threshold for part in parts}
        if len(thresholds) != 1:
            msg = f"batches with one glitch threshold expected, got {sorted(thresholds)}."
            raise ConfigurationError(msg)
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in cls._by_case()}
        return cls(**joined, glitch_threshold=thresholds.pop())

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "CaseStatistics":
        """Rebuild what `to_dict` gave.

        Raises:
            TypeError: A name is missing or unknown.
        """
        arrays = {name: np.array(value) for name, value in content.items() if name != "glitch_threshold"}
        return cls(**arrays, glitch_threshold=float(content["glitch_threshold"]))


@dataclass(frozen=True)
class Sample:
    """How many cases a figure rests on, and how many independent groups they come from."""

    cases: int
    groups: int

    @classmethod
    def of(cls, groups: NDArray[Any], chosen: NDArray[np.bool_]) -> "Sample":
        """Count the chosen cases and their groups."""
        return cls(int(chosen.sum()), len(np.unique(groups[chosen])))


@dataclass(frozen=True)
class Scores:
    """All figures of one prediction against one measurement; defined at the top of this module.

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

    def to_dict(self) -> dict[str, Any]:
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


def map_statistics(
    measured: Float[Tensor, "case frequency time"],
    predicted: Float[Tensor, "case frequency time"],
    events: Sequence[Any] | NDArray[Any] | None = None,
    glitch_threshold: float = GLITCH_THRESHOLD,
    *,
    cleaned: Float[Tensor, "case frequency time"] | None = None,
    loudest: Float[Tensor, "case time"] | None = None,
    inside: Bool[np.ndarray, "frequency time"] | None = None,
    groups: Sequence[Any] | NDArray[Any] | None = None,
) -> CaseStatistics:
    """Reduce maps to the few numbers that scoring needs, one row a map.

    Args:
        measured: Measured energies, SNR².
        predicted: Predicted energies, SNR².
        events: Event id or number of each map, (case,); its row number if None.
        glitch_threshold: SNR² above which a pixel is loud.
        cleaned: What is left, SNR²; the difference of the energies if None.
        loudest: Largest predicted energy of each column, by which vetoes are decided, SNR²; that of the judged pixels
            if None.
        inside: Pixels that are judged; all if None.
        groups: Group of each map, (case,); that of its event if None.

    Returns:
        Statistics in the order of the maps.

    Raises:
        ConfigurationError: Shapes do not match, or there is not one event or group a map.
        DataError: An energy is not finite.
    """
    num_cases = len(measured)
    event = np.arange(num_cases) if events is None else np.asarray(events)
    group = event if groups is None else np.asarray(groups)
    for name, labels in (("event", event), ("group", group)):
        if labels.shape != (num_cases,):
            msg = f"one {name} a case expected ({num_cases}), got shape {labels.shape}."
            raise ConfigurationError(msg)
    cleaned = clean_maps(measured, predicted) if cleaned is None else cleaned
    judged = measured.new_ones(measured.shape[1:], dtype=torch.bool)
    if inside is not None:
        judged = torch.from_numpy(np.array(inside, dtype=np.bool_)).to(measured.device)
    if judged.shape != measured.shape[1:]:
        msg = f"inside: one value a pixel of a map expected, {tuple(measured.shape[1:])}, got {tuple(judged.shape)}."
        raise ConfigurationError(msg)
    # what is not judged is silence in all maps
    measured, predicted, cleaned = (torch.where(judged, maps, 0.0) for maps in (measured, predicted, cleaned))
    loud = above(measured, glitch_threshold)
    in_time = _time_of_glitch(measured, loud)
    seen, columns = predicted.amax(dim=1) if loudest is None else loudest, judged.any(dim=0)
    vetoed, glitch = is_vetoed(seen, glitch_threshold) & columns, loud.flatten(1).any(dim=1)[:, None]
    found = {
        "peak_measured": measured.amax(dim=(1, 2)),
        "peak_predicted": seen.amax(dim=1),
        "peak_in_time": torch.where(in_time, seen, 0).amax(dim=1),
        "peak_cleaned": cleaned.amax(dim=(1, 2)),
        "peak_left": (cleaned + predicted.clamp(max=NOISE_CLAIM)).amax(dim=(1, 2)),
        "total_measured": measured.double().sum(dim=(1, 2)),
        "total_cleaned": cleaned.double().sum(dim=(1, 2)),
        "glitch_power": _sum((measured - NOISE_CLAIM) * loud),
        "glitch_left": _sum((cleaned - (NOISE_CLAIM - predicted).clamp(min=0)) * loud),
        "added": _added(measured, predicted, cleaned, judged & ~loud),
        "columns": columns.sum().expand(num_cases),
        "columns_of_glitch": (in_time & glitch & columns).sum(dim=1),
        "columns_vetoed": vetoed.sum(dim=1),
        "columns_vetoed_in_time": (vetoed & in_time & glitch).sum(dim=1),
    }
    numbers = {name: host(values.double()) for name, values in found.items()}
    return CaseStatistics(event=event, group=group, **numbers, glitch_threshold=float(glitch_threshold))


def _time_of_glitch(
    measured: Float[Tensor, "case frequency time"], loud: Bool[Tensor, "case frequency time"]
) -> Bool[Tensor, "case time"]:
    """Columns with a loud pixel, without one the loudest column, and those beside them."""
    peaks = measured.amax(dim=1)
    marked = loud.any(dim=1) | (~loud.flatten(1).any(dim=1)[:, None] & (peaks == peaks.amax(dim=1, keepdim=True)))
    return functional.max_pool1d(marked[:, None].float(), 2 * MARGIN + 1, stride=1, padding=MARGIN)[:, 0] > 0


def _added(
    measured: Float[Tensor, "case frequency time"],
    predicted: Float[Tensor, "case frequency time"],
    cleaned: Float[Tensor, "case frequency time"],
    other: Bool[Tensor, "case frequency time"],
) -> Float[Tensor, " case"]:
    """What cleaning adds to the other pixels: one by one where more than noise is predicted, else block by block."""
    claimed = other & (predicted > NOISE_CLAIM)
    rest = other & ~claimed

    def _blocks(maps: Tensor) -> Tensor:
        return functional.avg_pool2d((maps * rest)[:, None], BLOCK, ceil_mode=True, divisor_override=1)

    before = torch.maximum(_blocks(measured), NOISE_MEAN * _blocks(torch.ones_like(measured)))
    by_block = (_blocks(cleaned) - before).clamp(min=0).double().sum(dim=(1, 2, 3))
    return by_block + _sum((cleaned - measured.clamp(min=NOISE_MEAN)).clamp(min=0) * claimed)


def _sum(maps: Float[Tensor, "case frequency time"]) -> Float[Tensor, " case"]:
    return maps.double().sum(dim=(1, 2))


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
        seed: Of the bootstrap.
        confidence: Probability inside the intervals.

    Returns:
        All figures; see :class:`Scores`.

    Raises:
        NoEventsError: There is no case.
        ConfigurationError: A setting is out of range.
    """
    if not len(statistics):
        msg = "at least one case expected, got none; check that the data set has events with a valid target."
        raise NoEventsError(msg)
    cut = statistics.glitch_threshold
    levels = np.unique(np.asarray([*thresholds, cut], dtype=np.float64))
    group = np.unique(statistics.group, return_inverse=True)[1]
    glitch = statistics.glitch
    holds = holds_glitch(statistics.peak_measured[:, None], levels)
    found = holds & is_vetoed(statistics.peak_in_time[:, None], levels)
    alarm = ~holds & is_vetoed(statistics.peak_predicted[:, None], levels)
    left = above(statistics.peak_left[:, None], levels)
    cleaned = earns_cleaning(holds, left, statistics.total_measured[:, None], statistics.total_cleaned[:, None])
    outside = statistics.columns - statistics.columns_of_glitch
    # each figure is made of ratios of two sums over cases; all are resampled in one go as columns of two matrices
    pairs = {
        "cleaned": (cleaned, holds),
        "found": (found, holds),
        "spared": (~holds & ~alarm, ~holds),
        "left": ((statistics.glitch_left + statistics.added)[:, None], statistics.glitch_power[:, None]),
        "harmed": (statistics.harmed[:, None], ~glitch[:, None]),
        "deadtime": (statistics.columns_vetoed[:, None], statistics.columns[:, None]),
        "outside": ((statistics.columns_vetoed - statistics.columns_vetoed_in_time)[:, None], outside[:, None]),
    }
    top, bottom = (np.concatenate([pair[side] for pair in pairs.values()], axis=1) for side in (0, 1))
    widths = np.cumsum([pair[0].shape[1] for pair in pairs.values()])[:-1]
    # a replicate needs the sums by group alone
    tops, bottoms = _sum_by_group(top, group), _sum_by_group(bottom, group)
    # a glitch event answers for its own time, a quiet one for all of it
    peak = np.where(glitch, statistics.peak_in_time, statistics.peak_predicted)
    order = np.argsort(peak, kind="stable")
    ties = np.unique(peak[order], return_inverse=True)[1]

    def _figures(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        cleaned, found, spared, left, *costs = np.split(_ratio(sums, counts), widths, axis=-1)
        return [cleaned, (found + spared) / 2, 1 - left, *costs]

    def _drawn(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        areas = [
            _weighted_auc(part[:, group[order]], glitch[order], ties) for part in in_memory(weights, len(statistics))
        ]
        return np.column_stack([*_figures(weights @ tops, weights @ bottoms), np.concatenate(areas)])

    point = _figures(tops.sum(axis=0), bottoms.sum(axis=0))
    ends = bootstrap(_drawn, len(tops), replicates=replicates, seed=seed, confidence=confidence)
    roc, area = _roc(glitch, peak)
    # how many groups each figure rests on: of the balance and the area those of the kind that has fewer
    cleaned, found, spared, *others = np.split((bottoms > 0).sum(axis=0), widths)
    both = np.minimum(found, spared)
    counts = [cleaned, both, *others, both[levels == cut]]
    sizes = np.split(ends, np.cumsum([len(count) for count in counts])[:-1], axis=1)
    for band, count in zip(sizes, counts, strict=True):
        band[:, count < LEAST_GROUPS] = np.nan

    def _curve(index: int, rests_on: NDArray[np.bool_], reason: str) -> Curve:
        low, high = sizes[index]
        return Curve(levels, point[index], low, high, rests_on.sum(axis=0).astype(np.int64), counts[index], reason)

    def _single(index: int, reason: str) -> Estimate:
        value = area if index == len(point) else point[index][0]
        return estimate(value, sizes[index][:, 0], reason if np.isnan(value) else few_groups(int(counts[index][0])))

    one_kind = "cases with and without a glitch are needed, only one kind is present"
    return Scores(
        cleaned_share=_curve(0, holds, "no case holds a glitch at this threshold"),
        veto_balance=_curve(1, np.ones_like(holds), one_kind),
        roc=roc,
        roc_auc=_single(6, one_kind),
        net_power_removed=_single(2, f"no measured pixel above SNR² {cut:g}"),
        harmed=_single(3, f"every case holds a glitch at SNR² {cut:g}"),
        deadtime=_single(4, "no time is judged"),
        deadtime_outside=_single(5, "no time outside glitches is judged"),
        confusion=confusion_counts(glitch, is_vetoed(peak, cut)),
        glitches=Sample.of(statistics.group, glitch),
        quiet=Sample.of(statistics.group, ~glitch),
        num_events=len(np.unique(statistics.event)),
        num_groups=len(tops),
        glitch_threshold=cut,
    )


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


def _roc(glitch: NDArray[np.bool_], peak: NDArray[np.float64]) -> tuple[Roc | None, float]:
    if glitch.all() or not glitch.any():
        return None, float("nan")
    false_alarm_rate, hit_rate, thresholds = roc_curve(glitch, peak)
    return Roc(false_alarm_rate, hit_rate, thresholds), float(auc(false_alarm_rate, hit_rate))


def _sum_by_group(values: NDArray[Any], group: NDArray[np.int64]) -> NDArray[np.float64]:
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(group.max() + 1))
    return np.add.reduceat(values[order].astype(np.float64), first, axis=0)


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def _weighted_auc(
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
    return _ratio((hits * (below + 0.5 * others)).sum(axis=1), hits.sum(axis=1) * others.sum(axis=1))


def _null(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
