"""What a model of triggers is worth on times that it never saw, with intervals by group, alone and against a rival."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.cases import ratio
from glitchflow_plugin.inference.intervals import Estimate, bootstrap, estimate, few_groups
from glitchflow_plugin.inference.metrics import weighted_auc
from glitchflow_plugin.signal.bootstrap import in_memory
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels

FALSE_ALARMS = (1e-2, 1e-3)
"""False-alarm probabilities at which the efficiency is told."""

_NAMES = (
    "auc",
    *(f"efficiency_{alarm:g}" for alarm in FALSE_ALARMS),
    "macro_f1",
    "snr_r2",
    "snr_coverage",
    "channel_accuracy",
)


def figures_of(
    told: TriggerAnswers, true: TriggerLabels, groups: Int[np.ndarray, " set"], *, half_width: float, **drawn: int
) -> dict[str, Estimate]:
    """Figures of a model, each with its interval by group.

    Area under the ROC; efficiency at each of `FALSE_ALARMS`; macro-F1 over the classes that the truth has; R2 of
    ln(1 + SNR), and how often it lies within the interval; how often the channel of a trigger held out is told.

    Args:
        told: Answers on the test part.
        true: Its truth.
        groups: What varies independently: block of time or group.
        half_width: Half the interval of ln(1 + SNR), from `conformal_half_width` of validation.
        drawn: `replicates` and `seed` of the bootstrap.
    """
    return _estimated(lambda weights: _figures(told, true, weights, half_width), true, groups, drawn)


def lead(
    told: Sequence[TriggerAnswers],
    true: TriggerLabels,
    groups: Int[np.ndarray, " set"],
    *,
    half_widths: Sequence[float],
    **drawn: int,
) -> dict[str, Estimate]:
    """By how much the figures of the first model exceed those of the second, on the same draws of groups.

    Args:
        told: Answers of both on the test part.
        true: Its truth.
        groups: What varies independently.
        half_widths: Half the interval of ln(1 + SNR) of each.
        drawn: `replicates` and `seed` of the bootstrap.
    """

    def difference(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        own, rival = (_figures(answers, true, weights, width) for answers, width in zip(told, half_widths, strict=True))
        return own - rival

    return _estimated(difference, true, groups, drawn)


def conformal_half_width(told: TriggerAnswers, true: TriggerLabels, coverage: float = 0.9) -> float:
    """Half the width of an interval of ln(1 + SNR) that holds a share of the truth, by split conformal prediction.

    The share holds for sets that are exchangeable with those given, which trained no weight (V. Vovk et al.,
    Algorithmic Learning in a Random World, 2005; doi:10.1007/b106715).

    Args:
        told: Answers on the validation part.
        true: Its truth.
        coverage: The share.

    Returns:
        Infinite where too few labels are known to vouch for it.

    Raises:
        ConfigurationError: The coverage is no share between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise ConfigurationError(f"expected a coverage between 0 and 1, got {coverage}.")
    known = true.log1p_snr.isfinite()
    away = np.sort(host((told.log1p_snr - true.log1p_snr)[known].abs().double()))
    place = int(np.ceil(coverage * (len(away) + 1)))
    return float(away[place - 1]) if place <= len(away) else float("inf")


def efficiency(
    score: Float[np.ndarray, " set"],
    glitch: Bool[np.ndarray, " set"],
    weights: Float[np.ndarray, "replicate set"],
    false_alarm: float,
) -> Float[np.ndarray, " replicate"]:
    """Share of the glitches above the least threshold that at most a share of the quiet sets exceeds.

    Args:
        score: Larger for glitches; of equal scores all or none are above.
        glitch: Truth.
        weights: How often each set counts.
        false_alarm: The share of quiet sets.

    Returns:
        NaN where there is no glitch or no quiet set.

    >>> score, glitch = np.array([0.1, 0.5, 0.6, 0.9]), np.array([False, False, True, True])
    >>> efficiency(score, glitch, np.ones((1, 4)), 0.5), efficiency(score[::-1], glitch, np.ones((1, 4)), 0.0)
    (array([1.]), array([0.]))
    """
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    ordered = weights[:, order]
    hits, alarms = (np.cumsum(ordered * part[order], axis=1)[:, last] for part in (glitch, ~glitch))
    quiet = alarms[:, -1:]
    allowed = alarms <= false_alarm * quiet * (1 + 1e-12)
    best = np.where(allowed, hits, 0.0).max(axis=1)
    return np.where(quiet[:, 0] > 0, ratio(best, hits[:, -1]), np.nan)


def _figures(
    told: TriggerAnswers, true: TriggerLabels, weights: Float[np.ndarray, "replicate set"], half_width: float
) -> Float[np.ndarray, "replicate figure"]:
    score, glitch = host(told.glitch), host(true.glitch) > 0.5
    order = np.argsort(score, kind="stable")
    ties = np.unique(score[order], return_inverse=True)[1]
    columns = [weighted_auc(weights[:, order], glitch[order], ties)]
    columns += [efficiency(score, glitch, weights, alarm) for alarm in FALSE_ALARMS]
    columns.append(_macro_f1(host(told.kind.argmax(1)), host(true.kind), weights))
    known = host(true.log1p_snr.isfinite())
    wanted, got = (host(one.double())[known] for one in (true.log1p_snr, told.log1p_snr))
    own = weights[:, known]
    mean = ratio(own @ wanted, own.sum(1))
    spread = own @ np.square(wanted) - own.sum(1) * np.square(mean)
    columns.append(1 - ratio(own @ np.square(wanted - got), spread))
    columns.append(ratio(own @ (np.abs(wanted - got) <= half_width).astype(float), own.sum(1)))
    channel = host(true.channel)
    held = weights[:, channel >= 0]
    right = (host(told.channel.argmax(1)) == channel)[channel >= 0]
    columns.append(ratio(held @ right.astype(float), held.sum(1)))
    return np.column_stack(columns)


def _macro_f1(
    told: Int[np.ndarray, " set"], true: Int[np.ndarray, " set"], weights: Float[np.ndarray, "replicate set"]
) -> Float[np.ndarray, " replicate"]:
    """Mean over the classes of the truth of 2 TP / (2 TP + FP + FN); unknown ones are left out."""
    known = true >= 0
    told, true, weights = told[known], true[known], weights[:, known]
    scores = [
        ratio(
            2 * (weights @ ((told == kind) & (true == kind)).astype(float)),
            weights @ ((told == kind).astype(float) + (true == kind)),
        )
        for kind in np.unique(true)
    ]
    return np.mean(scores, axis=0) if scores else np.full(len(weights), np.nan)


def _estimated(
    figures: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    true: TriggerLabels,
    groups: Int[np.ndarray, " set"],
    drawn: Mapping[str, int],
) -> dict[str, Estimate]:
    place = np.unique(groups, return_inverse=True)[1]
    number = int(place.max(initial=-1)) + 1

    def resampled(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([figures(part[:, place]) for part in in_memory(weights, len(place))])

    held_out = bool((true.channel >= 0).any())
    values = figures(np.ones((1, len(place))))[0]
    ends = bootstrap(resampled, number, **{"replicates": 1000, **drawn})
    return {
        name: estimate(value, pair, few_groups(number))
        for name, value, pair in zip(_NAMES, values, ends.T, strict=True)
        if held_out or name != _NAMES[-1]
    }
