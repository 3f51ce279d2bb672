"""Figures of the vetoes of a run beside those of their rivals, and whether false alarms are as often as said."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.inference.cases import MARGIN, ratio
from glitchflow_plugin.inference.intervals import Estimate, bootstrap
from glitchflow_plugin.inference.rank_report import known_ranks, rank_reliability
from glitchflow_plugin.inference.run import LINEAR, MODEL, InferenceResult, InferenceSettings
from glitchflow_plugin.inference.veto_rivals import CHANNEL, ROUNDS, Rivals, rival_ranks
from glitchflow_plugin.inference.veto_worth import (
    FIGURES,
    Judged,
    Worth,
    judge_rank,
    lead_at_half,
    slid,
    worth_at,
)
from glitchflow_plugin.products.summary import Metric
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.false_alarm import FalseAlarm
from glitchflow_plugin.signal.vetoes import find_glitches

VETOES = "vetoes"
"""Key of what a model carries about its vetoes in its notes; see `training.veto_notes`."""

RANDOM = "random"
"""Name of the model's own vetoes, moved to random times of their events."""

PROBABILITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""False-alarm probabilities that are checked."""


@dataclass(frozen=True, eq=False)
class VetoReport:
    """Figures of the vetoes of a run.

    Attributes:
        worths: By name: the model, its linear rival, the rivals without a twin, and vetoes at random.
        leads: How many times the efficiency over deadtime of a rival the model's is, by name of the rival.
        as_written: Figures of the vetoes as they are written, by name of the figure.
        reliability: Claimed false-alarm probability, share of clean time that claims as much or less, and its interval;
            empty where the model carries no calibration.
        of_ranks: The same of what ranks say of glitches, from `rank_reliability`.
        num_glitches: Glitches in the strain.
        padding: Seconds beside the columns above a threshold with which the model is compared with its rivals.
    """

    worths: Mapping[str, Worth]
    leads: Mapping[str, Estimate]
    as_written: Mapping[str, Estimate]
    reliability: pd.DataFrame
    of_ranks: pd.DataFrame
    num_glitches: int
    padding: float

    def table(self) -> pd.DataFrame:
        """Figures by name and threshold, with their intervals: one row a threshold."""
        parts = []
        for name, worth in self.worths.items():
            content: dict[str, Any] = {"veto": name, "threshold": worth.thresholds}
            for figure in FIGURES:
                content |= {figure: worth.values[figure]}
                content |= {f"{figure}_low": worth.low[figure], f"{figure}_high": worth.high[figure]}
            parts.append(pd.DataFrame(content))
        return pd.concat(parts, ignore_index=True)

    def metrics(self, threshold: float) -> dict[str, Metric]:
        """Figures for the run summary, by stable name."""
        rivals = {name: worth for name, worth in self.worths.items() if name != MODEL}
        own = self.worths[MODEL]
        found = {
            f"veto_{name}_at_half": _metric(each, {rival: worth.at_half[name].value for rival, worth in rivals.items()})
            for name, each in own.at_half.items()
        }
        areas = {rival: worth.roc_area.value for rival, worth in rivals.items()}
        found["veto_time_roc_area"] = _metric(own.roc_area, areas)
        found["veto_glitches"] = Metric(float(self.num_glitches))
        found |= {f"veto_lead_over_{name.replace(' ', '_')}": _metric(each, {}) for name, each in self.leads.items()}
        return found | {f"veto_{name}_snr2_{threshold:g}": _metric(each, {}) for name, each in self.as_written.items()}

    def warnings(self) -> list[str]:
        """What a reader of the figures must know."""
        said = []
        if self.reliability.empty:
            said.append(
                "The model carries no calibration of its vetoes (an earlier version registered it): no false-alarm "
                "probabilities, and no comparison with vetoes of channels. Train it again for these."
            )
        missing = [f"{name} ({one.reason})" for name, one in self.leads.items() if one.value is None]
        return said + ([f"No lead of the vetoes over {', '.join(missing)}."] if missing else [])


def veto_report(
    result: InferenceResult, spectrograms: SpectrogramSet, notes: Mapping[str, Any] | None, settings: InferenceSettings
) -> VetoReport | None:
    """Judge the vetoes of a run.

    Args:
        result: From `run_inference`.
        spectrograms: The maps that it was run on.
        notes: `false_alarm`, `padding` and `rivals`, which the model carries; None where it carries none.
        settings: Threshold, padding and replicates.

    Returns:
        The report; None where no event with strain holds a glitch.
    """
    rows = np.flatnonzero(result.events["glitch"].notna().to_numpy(dtype=bool))
    columns = Columns(spectrograms.times)
    glitches = find_glitches(result.loudest_measured[rows], settings.threshold, columns, MARGIN)
    if not len(glitches):
        return None
    groups = result.events["group"].to_numpy(dtype=np.int64)[rows]
    judged = Judged(columns, result.judged.any(axis=0), glitches, groups)
    padding = settings.veto_padding if notes is None else float(notes["padding"])
    ranks = {name: (rank[rows], padding) for name, rank in result.ranks.items()}
    if notes is not None:
        rivals = Rivals.from_dict(notes["rivals"])
        made = rival_ranks(rivals, spectrograms, rows, result.judged)
        ranks |= {CHANNEL: (made[CHANNEL], rivals.padding), ROUNDS: (made[ROUNDS], 0.0)}
    ranks[RANDOM] = slid(ranks[MODEL][0], judged.live, settings.seed), padding
    drawing = {"replicates": settings.replicates, "seed": settings.seed}
    worths = {name: judge_rank(rank, judged, padding=pad, **drawing) for name, (rank, pad) in ranks.items()}
    compared = [name for name in (LINEAR, CHANNEL, ROUNDS) if name in worths]
    own = ranks[MODEL][0]
    return VetoReport(
        worths,
        leads={name: lead_at_half(worths[MODEL], worths[name], **drawing) for name in compared},
        as_written=worth_at(own, judged, settings.threshold, settings.veto_padding, **drawing),
        reliability=false_alarm_reliability(own, judged, notes, settings),
        of_ranks=rank_reliability(own, judged, known_ranks(notes), replicates=settings.replicates, seed=settings.seed),
        num_glitches=len(glitches),
        padding=padding,
    )


def with_false_alarms(segments: pd.DataFrame, notes: Mapping[str, Any] | None) -> pd.DataFrame:
    """Veto segments with the false-alarm probability of their peaks; empty where the model says none."""
    peaks = segments["peak_snr2_predicted"].to_numpy(dtype=np.float64)
    known = np.full(len(segments), np.nan) if notes is None else FalseAlarm.from_dict(notes["false_alarm"])(peaks)
    return segments.assign(false_alarm_probability=known)


def false_alarm_reliability(
    rank: np.ndarray, judged: Judged, notes: Mapping[str, Any] | None, settings: InferenceSettings
) -> pd.DataFrame:
    """What is claimed of false alarms and what is found, as in `VetoReport.reliability`.

    Args:
        rank: The model's, SNR², (event, time).
        judged: Events that it has never seen.
        notes: What it carries about its vetoes.
        settings: Replicates and seed of the bootstrap by group.
    """
    names = ["claimed", "observed", "low", "high"]
    if notes is None:
        return pd.DataFrame(columns=names)
    claimed = FalseAlarm.from_dict(notes["false_alarm"])(rank)
    group = np.unique(judged.groups, return_inverse=True)[1]
    levels = np.array(PROBABILITIES)
    small = ((claimed[..., None] <= levels) & judged.clean[..., None]).sum(axis=1)
    top = np.stack([np.bincount(group, weights=small[:, row]) for row in range(len(levels))], axis=1)
    bottom = np.bincount(group, weights=judged.clean.sum(axis=1))[:, None]

    def _shares(weights: np.ndarray) -> np.ndarray:
        return ratio(weights @ top, np.broadcast_to(weights @ bottom, (len(weights), len(levels))))

    low, high = bootstrap(_shares, len(top), replicates=settings.replicates, seed=settings.seed)
    observed = _shares(np.ones((1, len(top))))[0]
    return pd.DataFrame(dict(zip(names, (levels, observed, low, high), strict=True)))


def _metric(one: Estimate, baseline: Mapping[str, float | None]) -> Metric:
    return Metric(one.value, one.low, one.high, baseline)
