"""What a search for hyper-parameters maximises, from validation windows alone."""

import math
from dataclasses import dataclass

import numpy as np

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.inference.cases import CaseStatistics
from glitchflow_plugin.inference.score import score_statistics
from glitchflow_plugin.settings import NotNegative, Share, section
from glitchflow_plugin.verdict import is_vetoed


@section
class ObjectiveSettings:
    """How the figures of a trial make one number; conf/hpo.yaml explains the keys."""

    deadtime: Share = 0.01
    harmed_limit: Share = 0.01
    veto_weight: NotNegative = 0.5
    power_weight: NotNegative = 0.5

    def __post_init__(self) -> None:
        """Refuse a score that is always 0."""
        if not self.veto_weight + self.power_weight > 0:
            raise ConfigurationError("hpo.objective: expected veto_weight or power_weight above 0, got 0 for both.")


@dataclass(frozen=True)
class Objectives:
    """Figures of one trial on validation windows.

    Attributes:
        veto_efficiency: Share of the windows with a glitch that are vetoed at the fixed deadtime.
        net_power_removed: Power that the prediction takes from all glitches less what it adds anywhere, as a share.
        harmed_share: Share of the glitch-free windows that subtraction harms.
    """

    veto_efficiency: float
    net_power_removed: float
    harmed_share: float

    def score(self, settings: ObjectiveSettings) -> float:
        """The weighted sum, the larger the better; minus infinity where subtraction harms more than it may."""
        if settings.power_weight > 0 and self.harmed_share > settings.harmed_limit:
            return -math.inf
        return settings.veto_weight * self.veto_efficiency + settings.power_weight * self.net_power_removed


def veto_efficiency_at_deadtime(statistics: CaseStatistics, deadtime: float) -> float:
    """Share of the cases with a glitch that a veto takes whose threshold keeps to a deadtime.

    The veto takes a case with a glitch when a prediction within the glitch's time is above its threshold, and a quiet
    one when any is; the threshold is the lowest with which it takes no more than the given share of the quiet cases. Of
    n of these it can take only whole ones: with fewer than 1 / deadtime none.

    Args:
        statistics: Windows or events; one holds a glitch when its largest measured energy is above the glitch
            threshold.
        deadtime: Largest share of the quiet cases that may be vetoed.

    Returns:
        The efficiency; NaN unless there are cases of both kinds.

    >>> import torch
    >>> from glitchflow_plugin.inference.cases import map_statistics
    >>> measured = torch.tensor([30.0, 30.0, 5.0, 5.0])[:, None, None].expand(4, 8, 8)
    >>> predicted = torch.tensor([9.0, 1.0, 2.0, 3.0])[:, None, None].expand(4, 8, 8)
    >>> cases = map_statistics(measured, predicted)
    >>> veto_efficiency_at_deadtime(cases, 0.0), veto_efficiency_at_deadtime(cases, 1.0)
    (0.5, 1.0)
    """
    glitch = statistics.glitch
    quiet = np.sort(statistics.peak_predicted[~glitch])[::-1]
    if not quiet.size or not glitch.any():
        return math.nan
    # 0.01 x 300 is 3, although not in floating point
    taken = math.floor(deadtime * quiet.size + 1e-9)
    threshold = quiet[taken] if taken < quiet.size else -math.inf
    return float(is_vetoed(statistics.peak_in_time[glitch], threshold).mean())


def objectives(statistics: CaseStatistics, settings: ObjectiveSettings) -> Objectives:
    """Figures of a trial.

    Args:
        statistics: Validation windows.
        settings: Has the deadtime.

    Raises:
        DataError: There are not windows of both kinds.
    """
    single = score_statistics(statistics, thresholds=(), replicates=0)
    efficiency = veto_efficiency_at_deadtime(statistics, settings.deadtime)
    removed, harmed = single.net_power_removed.value, single.harmed.value
    if removed is None or harmed is None or math.isnan(efficiency):
        message = (
            f"validation windows with and without a glitch above SNR² {statistics.glitch_threshold:g} expected, got "
            f"{single.confusion.hits + single.confusion.misses} with and "
            f"{single.confusion.false_alarms + single.confusion.correct_rejections} without. Bring more events, or "
            "lower training.config.threshold."
        )
        raise DataError(message)
    return Objectives(efficiency, removed, harmed)
