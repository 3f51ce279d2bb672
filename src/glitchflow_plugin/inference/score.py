"""How well predicted maps clean and veto measured ones, with uncertainty by event.

Everything here works on windows of maps of the strain. A window *holds a glitch at threshold t* when its largest
measured energy is above t (SNR²), and it is *vetoed at t* when its largest predicted energy is. Energies carry no
phase, so "cleaned" means |measured - predicted| (see :func:`glitchflow_plugin.inference.clean.clean_maps` for what that
can and cannot say).

Each figure is reported with its limiting cases, which the tests hold:

========================  =====================  ================  =============================
figure                    perfect prediction     zero prediction   undefined (null, with reason)
========================  =====================  ================  =============================
denoising accuracy at t   1                      0                 no window holds a glitch at t
veto accuracy at t        1                      share of quiet    never
ROC AUC                   1                      0.5               only one class of windows
residual power removed    1                      0                 no loud pixel
harmed share              0                      0                 every window holds a glitch
========================  =====================  ================  =============================

Intervals are percentiles of a bootstrap that draws whole *events* with replacement: windows of one event share its
noise and its glitch, so drawing windows would make the bands too narrow (B. Efron, R. Tibshirani, An Introduction to
the Bootstrap, 1993, doi:10.1201/9780429246593). A percentile bootstrap cannot see beyond the sample: when all events
agree (every glitch cleaned), the band has no width although the truth may be less than 1.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.metrics import auc, confusion_matrix, roc_curve
from torch import Tensor

from glitchflow_plugin.errors import ConfigurationError, DataError, NoEventsError
from glitchflow_plugin.inference.clean import clean_maps
from glitchflow_plugin.types.tensors import host

THRESHOLDS: tuple[float, ...] = tuple(float(value) for value in range(1, 51))
"""SNR² thresholds of the accuracy curves."""

GLITCH_THRESHOLD = 16.0
"""SNR² above which a window is said to hold a glitch when one number is asked for."""

CONFIDENCE = 0.95
"""Probability inside the bootstrap bands."""

#: Replicate weights held in memory at once; keeps the bootstrap of a large set bounded.
_WEIGHTS_IN_MEMORY = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """One figure with its bootstrap band; all None, with a reason, where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None stands for undefined."""
        return {"value": self.value, "low": self.low, "high": self.high, "reason": self.reason}


@dataclass(frozen=True)
class Curve:
    """A figure against the threshold; NaN inside the arrays where it is undefined, None in :meth:`to_dict`.

    Attributes:
        thresholds: SNR², (threshold,).
        value: The figure, (threshold,).
        low: Lower end of the bootstrap band.
        high: Upper end of the bootstrap band.
        count: Number of windows that the figure rests on.
        reason: Why a value is missing, where one is.
    """

    thresholds: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]
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
        return _estimate(self.value[index], self.low[index], self.high[index], self.reason)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; None stands for undefined."""
        return {
            "thresholds": self.thresholds.tolist(),
            "value": _null(self.value),
            "low": _null(self.low),
            "high": _null(self.high),
            "count": self.count.tolist(),
            "reason_for_null": self.reason if np.isnan(self.value).any() else None,
        }


@dataclass(frozen=True)
class Roc:
    """Receiver operating characteristic of the veto: truth = measured glitch, score = largest predicted energy.

    Attributes:
        false_alarm_rate: Share of windows without a glitch that are vetoed, (point,).
        hit_rate: Share of windows with a glitch that are vetoed, (point,).
        thresholds: Predicted SNR² from which on a window is vetoed at that point, (point,); the first is infinite.
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
    """Counts of windows by what was measured and what the veto said.

    Attributes:
        hits: Glitch, vetoed.
        misses: Glitch, not vetoed.
        false_alarms: No glitch, vetoed.
        correct_rejections: No glitch, not vetoed.
    """

    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int

    def to_dict(self) -> dict[str, int]:
        """Counts by name."""
        return {field.name: int(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True)
class WindowStatistics:
    """What scoring needs to know of each window: a few numbers, so that maps need not stay in memory.

    Attributes:
        event: Which event a window belongs to (id or number), (window,).
        peak_measured: Largest measured energy, SNR².
        peak_predicted: Largest predicted energy, SNR².
        peak_cleaned: Largest energy of |measured - predicted|, SNR².
        power_measured: Sum of the measured energy over its loud pixels (measured > glitch threshold), SNR².
        power_residual: Sum of |measured - predicted| over the pixels that are loud in either map, SNR².
        glitch_threshold: SNR² above which a pixel is loud.
    """

    event: NDArray[Any]
    peak_measured: NDArray[np.float64]
    peak_predicted: NDArray[np.float64]
    peak_cleaned: NDArray[np.float64]
    power_measured: NDArray[np.float64]
    power_residual: NDArray[np.float64]
    glitch_threshold: float = GLITCH_THRESHOLD

    def __post_init__(self) -> None:
        """Check lengths and values once, so that scoring need not."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "glitch_threshold"}
        lengths = {name: array.shape for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or self.event.ndim != 1:
            msg = f"one value a window expected in every array, got shapes {lengths}."
            raise ConfigurationError(msg)
        for name, array in arrays.items():
            if name != "event" and not np.isfinite(array).all():
                bad = int((~np.isfinite(array)).sum())
                msg = (
                    f"{name} is not finite in {bad} of {array.size} windows. Finite energies are expected: "
                    "check the maps for NaN, or the model for divergence."
                )
                raise DataError(msg)

    def __len__(self) -> int:
        return len(self.event)

    def select(self, windows: NDArray[Any]) -> "WindowStatistics":
        """Some of the windows, chosen by a mask or by row numbers."""
        chosen = {f.name: getattr(self, f.name)[windows] for f in fields(self) if f.name != "glitch_threshold"}
        return WindowStatistics(**chosen, glitch_threshold=self.glitch_threshold)

    @classmethod
    def concatenate(cls, parts: Sequence["WindowStatistics"]) -> "WindowStatistics":
        """Join the statistics of several batches in order.

        Raises:
            NoEventsError: There is no batch.
            ConfigurationError: The batches used different glitch thresholds.
        """
        if not parts:
            msg = "at least one batch of windows expected, got none; check that the data set has events."
            raise NoEventsError(msg)
        thresholds = {part.glitch_threshold for part in parts}
        if len(thresholds) != 1:
            msg = f"batches with one glitch threshold expected, got {sorted(thresholds)}."
            raise ConfigurationError(msg)
        names = [f.name for f in fields(cls) if f.name != "glitch_threshold"]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**joined, glitch_threshold=thresholds.pop())


@dataclass(frozen=True)
class Scores:
    """All figures of one prediction against one measurement.

    Attributes:
        denoising_accuracy: Share of the windows with a glitch at t whose cleaned peak is below t, against t.
        veto_accuracy: Share of all windows where the veto at t says what the strain says at t, against t.
        roc: ROC of the veto for glitches at the glitch threshold; None where only one class exists.
        roc_auc: Area under it: the probability that a glitch has a larger predicted peak than a quiet window.
        residual_power_removed: 1 - (sum of |measured - predicted| over pixels loud in either map) / (sum of measured
            over pixels loud in it). Negative when the prediction adds more than it takes away.
        harmed: Share of the windows without a glitch that are above the glitch threshold after cleaning.
        confusion: Counts of windows with the veto at the glitch threshold.
        num_windows: Windows scored.
        num_events: Events they come from.
        glitch_threshold: SNR² of the single figures.
    """

    denoising_accuracy: Curve
    veto_accuracy: Curve
    roc: Roc | None
    roc_auc: Estimate
    residual_power_removed: Estimate
    harmed: Estimate
    confusion: Confusion
    num_windows: int
    num_events: int
    glitch_threshold: float

    def metrics(self) -> dict[str, Estimate]:
        """The single figures under their stable names, such as ``denoising_accuracy_snr2_16``."""
        suffix = f"snr2_{self.glitch_threshold:g}"
        return {
            f"denoising_accuracy_{suffix}": self.denoising_accuracy.at(self.glitch_threshold),
            f"veto_accuracy_{suffix}": self.veto_accuracy.at(self.glitch_threshold),
            "roc_auc": self.roc_auc,
            "residual_power_removed": self.residual_power_removed,
            f"harmed_share_{suffix}": self.harmed,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, undefined figures as None."""
        return {
            "glitch_threshold": self.glitch_threshold,
            "num_windows": self.num_windows,
            "num_events": self.num_events,
            "metrics": {name: estimate.to_dict() for name, estimate in self.metrics().items()},
            "denoising_accuracy": self.denoising_accuracy.to_dict(),
            "veto_accuracy": self.veto_accuracy.to_dict(),
            "roc": None if self.roc is None else self.roc.to_dict(),
            "confusion": self.confusion.to_dict(),
        }


def scoring_windows(num_times: int, size: int = 64) -> list[tuple[int, int]]:
    """Cut a map into windows that do not overlap, so that every pixel is judged exactly once.

    Args:
        num_times: Columns of the map.
        size: Columns of a window.

    Returns:
        (start, stop) columns in order. The last window also takes the remainder: 257 columns with windows of 64 give
        four windows, the last one 65 columns long. A map shorter than a window is one window.

    >>> scoring_windows(257, 64)
    [(0, 64), (64, 128), (128, 192), (192, 257)]
    """
    if size < 1 or num_times < 1:
        msg = f"at least one column a map and a window expected, got {num_times} and {size}."
        raise ConfigurationError(msg)
    count = max(1, num_times // size)
    starts = [index * size for index in range(count)]
    return list(zip(starts, [*starts[1:], num_times], strict=True))


def window_statistics(
    measured: Float[Tensor, "window *pixels"],
    predicted: Float[Tensor, "window *pixels"],
    events: Sequence[Any] | NDArray[Any] | None = None,
    glitch_threshold: float = GLITCH_THRESHOLD,
    *,
    cleaned: Float[Tensor, "window *pixels"] | None = None,
) -> WindowStatistics:
    """Reduce windows to the few numbers that scoring needs.

    Args:
        measured: Measured energies, SNR²; the first axis counts windows, all others are pixels.
        predicted: Predicted energies, SNR², same shape.
        events: Event of each window (id or number), (window,); each window its own event if None.
        glitch_threshold: SNR² above which a pixel is loud.
        cleaned: What is left, SNR², same shape; the difference of the energies if None.

    Returns:
        Statistics in the order of the windows.

    Raises:
        ConfigurationError: Shapes do not match, or there is not one event a window.
        DataError: An energy is not finite.
    """
    num_windows = len(measured)
    event = np.arange(num_windows) if events is None else np.asarray(events)
    if event.shape != (num_windows,):
        msg = f"one event a window expected ({num_windows}), got shape {event.shape}."
        raise ConfigurationError(msg)
    cleaned = (clean_maps(measured, predicted) if cleaned is None else cleaned).flatten(1)
    measured, predicted = measured.flatten(1), predicted.flatten(1)
    loud = measured > glitch_threshold
    either = loud | (predicted > glitch_threshold)

    return WindowStatistics(
        event=event,
        peak_measured=host(measured.amax(dim=1).double()),
        peak_predicted=host(predicted.amax(dim=1).double()),
        peak_cleaned=host(cleaned.amax(dim=1).double()),
        power_measured=host((measured * loud).sum(dim=1).double()),
        power_residual=host((cleaned * either).sum(dim=1).double()),
        glitch_threshold=float(glitch_threshold),
    )


def map_statistics(
    measured: Float[Tensor, "event frequency time"],
    predicted: Float[Tensor, "event frequency time"],
    events: Sequence[Any] | NDArray[Any] | None = None,
    glitch_threshold: float = GLITCH_THRESHOLD,
    window_size: int = 64,
    *,
    cleaned: Float[Tensor, "event frequency time"] | None = None,
) -> WindowStatistics:
    """Statistics of the windows of whole maps; windows as in :func:`scoring_windows`.

    Args:
        measured: Measured energies, SNR².
        predicted: Predicted energies, SNR².
        events: Event ids or numbers, (event,); the row number if None.
        glitch_threshold: SNR² above which a pixel is loud.
        window_size: Columns of a window.
        cleaned: As for `window_statistics`.

    Returns:
        Statistics, all windows of the first event first.
    """
    ids = np.arange(len(measured)) if events is None else np.asarray(events)
    cuts = scoring_windows(measured.shape[-1], window_size)
    parts = [
        window_statistics(
            measured[..., start:stop],
            predicted[..., start:stop],
            ids,
            glitch_threshold,
            cleaned=None if cleaned is None else cleaned[..., start:stop],
        )
        for start, stop in cuts
    ]
    joined = WindowStatistics.concatenate(parts)
    # parts run window by window; the order of the table is event by event
    return joined.select(np.arange(len(joined)).reshape(len(cuts), -1).T.ravel())


def score(
    measured: Float[Tensor, "window *pixels"],
    predicted: Float[Tensor, "window *pixels"],
    events: Sequence[Any] | NDArray[Any] | None = None,
    *,
    thresholds: Iterable[float] = THRESHOLDS,
    glitch_threshold: float = GLITCH_THRESHOLD,
    replicates: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score predicted windows against measured ones.

    Args:
        measured: Measured energies of the strain, SNR²; first axis windows, all others pixels.
        predicted: Predicted energies, SNR², same shape.
        events: Event of each window, (window,); the bootstrap draws these. Each window its own event if None, which
            makes the bands too narrow when windows share events.
        thresholds: SNR² of the curves; the glitch threshold is added where it is missing.
        glitch_threshold: SNR² of the single figures.
        replicates: Bootstrap replicates; 0 for no bands (quick, for use within training).
        seed: Of the bootstrap.

    Returns:
        All figures; see :class:`Scores`.

    >>> import torch
    >>> measured = torch.tensor([[20.0, 1.0], [2.0, 1.0]])
    >>> score(measured, torch.zeros_like(measured), replicates=0).metrics()["denoising_accuracy_snr2_16"].value
    0.0
    """
    statistics = window_statistics(measured, predicted, events, glitch_threshold)
    return score_statistics(statistics, thresholds=thresholds, replicates=replicates, seed=seed)


def score_statistics(
    statistics: WindowStatistics,
    *,
    thresholds: Iterable[float] = THRESHOLDS,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Scores:
    """Score windows that were reduced before, batch by batch.

    Args:
        statistics: One row a window.
        thresholds: SNR² of the curves.
        replicates: Bootstrap replicates, 0 for none.
        seed: Of the bootstrap.
        confidence: Probability inside the bands.

    Returns:
        All figures; see :class:`Scores`.

    Raises:
        NoEventsError: There is no window.
        ConfigurationError: A setting is out of range.
    """
    if not len(statistics):
        msg = "at least one window expected, got none; check that the data set has events with a valid target."
        raise NoEventsError(msg)
    if replicates < 0 or not 0 < confidence < 1:
        msg = f"replicates >= 0 and 0 < confidence < 1 expected, got {replicates} and {confidence}."
        raise ConfigurationError(msg)
    cut = statistics.glitch_threshold
    levels = np.unique(np.asarray([*thresholds, cut], dtype=np.float64))
    event_ids, event = np.unique(statistics.event, return_inverse=True)
    glitch = statistics.peak_measured > cut

    measured_above = statistics.peak_measured[:, None] > levels
    predicted_above = statistics.peak_predicted[:, None] > levels
    cleaned_below = statistics.peak_cleaned[:, None] < levels
    # each figure is a ratio of two sums over windows; all are resampled in one go as columns of two matrices
    columns = {
        "denoising": (measured_above & cleaned_below, measured_above),
        "veto": (measured_above == predicted_above, np.ones_like(measured_above)),
        "power": (statistics.power_residual[:, None], statistics.power_measured[:, None]),
        "harmed": (~glitch[:, None] & (statistics.peak_cleaned > cut)[:, None], ~glitch[:, None]),
    }
    top = _sum_by_event(np.concatenate([pair[0] for pair in columns.values()], axis=1), event, len(event_ids))
    bottom = _sum_by_event(np.concatenate([pair[1] for pair in columns.values()], axis=1), event, len(event_ids))
    widths = np.cumsum([pair[0].shape[1] for pair in columns.values()])[:-1]

    point = np.split(_ratio(top.sum(axis=0), bottom.sum(axis=0)), widths)
    counts = np.split(bottom.sum(axis=0), widths)
    bands, auc_band = _bootstrap(
        top, bottom, event, glitch, statistics.peak_predicted, replicates=replicates, seed=seed, confidence=confidence
    )
    low, high = np.split(bands[0], widths), np.split(bands[1], widths)

    def _curve(index: int, reason: str) -> Curve:
        return Curve(levels, point[index], low[index], high[index], counts[index].astype(np.int64), reason)

    def _single(index: int, reason: str, *, complement: bool) -> Estimate:
        ends = (1 - high[index][0], 1 - low[index][0]) if complement else (low[index][0], high[index][0])
        value = 1 - point[index][0] if complement else point[index][0]
        return _estimate(value, *ends, reason)

    roc, area = _roc(glitch, statistics.peak_predicted)
    one_class = "windows with and without a glitch are needed, only one kind is present"
    return Scores(
        denoising_accuracy=_curve(0, "no window holds a glitch at this threshold"),
        veto_accuracy=_curve(1, "no window"),
        roc=roc,
        roc_auc=_estimate(area, *auc_band, one_class),
        residual_power_removed=_single(2, f"no measured pixel above SNR² {cut:g}", complement=True),
        harmed=_single(3, f"every window holds a glitch at SNR² {cut:g}", complement=False),
        confusion=confusion_counts(glitch, statistics.peak_predicted > cut),
        num_windows=len(statistics),
        num_events=len(event_ids),
        glitch_threshold=cut,
    )


def confusion_counts(glitch: NDArray[np.bool_], vetoed: NDArray[np.bool_]) -> Confusion:
    """Count windows by truth and verdict.

    Args:
        glitch: True where a glitch was measured, (window,).
        vetoed: True where the veto flags the window, (window,).

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


def _sum_by_event(values: NDArray[Any], event: NDArray[np.int64], num_events: int) -> NDArray[np.float64]:
    order = np.argsort(event, kind="stable")
    first = np.searchsorted(event[order], np.arange(num_events))
    return np.add.reduceat(values[order].astype(np.float64), first, axis=0)


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def _event_weights(num_events: int, replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each event is drawn in each replicate, some replicates at a time: (replicate, event)."""
    generator = np.random.default_rng(seed)
    step = max(1, _WEIGHTS_IN_MEMORY // max(1, num_events))
    probabilities = np.full(num_events, 1 / num_events)
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        yield generator.multinomial(num_events, probabilities, size=size).astype(np.float64)


def _weighted_auc(
    weights: NDArray[np.float64], positive: NDArray[np.bool_], tie_group: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Area under the ROC for several sets of window weights at once (Mann-Whitney statistic, ties count half).

    Args:
        weights: (replicate, window), windows in ascending order of the score.
        positive: Truth, (window,).
        tie_group: Number of the distinct score, ascending from 0, (window,).

    Returns:
        (replicate,), NaN where a class has no weight.
    """
    # first window of each run of equal scores: sums over runs are then differences of one reduction
    first = np.flatnonzero(np.r_[True, np.diff(tie_group) > 0])
    hits = np.add.reduceat(weights * positive, first, axis=1)
    others = np.add.reduceat(weights * ~positive, first, axis=1)
    below = np.cumsum(others, axis=1) - others
    return _ratio((hits * (below + 0.5 * others)).sum(axis=1), hits.sum(axis=1) * others.sum(axis=1))


def _bootstrap(
    top: NDArray[np.float64],
    bottom: NDArray[np.float64],
    event: NDArray[np.int64],
    glitch: NDArray[np.bool_],
    peak: NDArray[np.float64],
    *,
    replicates: int,
    seed: int,
    confidence: float,
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Bands of all ratios, (2, column), and of the area under the ROC. NaN without replicates or with one event."""
    num_events = len(top)
    if not replicates or num_events < 2:
        return np.full((2, top.shape[1]), np.nan), (float("nan"), float("nan"))
    order = np.argsort(peak, kind="stable")
    tie_group = np.unique(peak[order], return_inverse=True)[1]
    event, glitch = event[order], glitch[order]
    window_step = max(1, _WEIGHTS_IN_MEMORY // len(event))
    ratios, areas = [], []
    for weights in _event_weights(num_events, replicates, seed):
        ratios.append(_ratio(weights @ top, weights @ bottom))
        areas.extend(
            _weighted_auc(weights[start : start + window_step, event], glitch, tie_group)
            for start in range(0, len(weights), window_step)
        )
    tails = (50 * (1 - confidence), 50 * (1 + confidence))
    bands = _percentiles(np.concatenate(ratios), tails)
    auc_band = _percentiles(np.concatenate(areas)[:, None], tails)[:, 0]
    return bands, (float(auc_band[0]), float(auc_band[1]))


def _percentiles(samples: NDArray[np.float64], tails: tuple[float, float]) -> NDArray[np.float64]:
    """Percentiles over the replicates in which a figure is defined, (2, column)."""
    result = np.full((2, samples.shape[1]), np.nan)
    defined = ~np.isnan(samples).all(axis=0)
    if defined.any():
        result[:, defined] = np.nanpercentile(samples[:, defined], tails, axis=0)
    return result


def _estimate(value: float, low: float, high: float, reason: str) -> Estimate:
    if np.isnan(value):
        return Estimate(None, None, None, reason)
    ends = (None, None) if np.isnan(low) else (float(low), float(high))
    return Estimate(float(value), *ends)


def _null(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
