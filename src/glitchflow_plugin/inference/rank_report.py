"""What a model knows of its ranks, and whether events that it has never seen agree."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.inference.cases import ratio
from glitchflow_plugin.inference.intervals import bootstrap
from glitchflow_plugin.inference.veto_worth import Judged, rank_at_glitches
from glitchflow_plugin.signal.false_alarm import FalseAlarm
from glitchflow_plugin.signal.glitch_snr import GlitchSNR
from glitchflow_plugin.signal.rank_calibration import RankCalibration, RankedGlitches, calibrate_ranks

GLITCHES = "ranked_glitches"
"""Key of the ranks of glitches among what a model carries about its vetoes; those of earlier versions lack it."""

EFFICIENCIES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Efficiencies that are checked."""

BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Edges of the probabilities of a glitch that are checked."""


def known_ranks(notes: Mapping[str, Any] | None, glitch_snr: GlitchSNR | None = None) -> RankCalibration | None:
    """What a model knows of its ranks; None where an earlier version registered it, or it saw no glitch so loud.

    Args:
        notes: What it carries about its vetoes; see `training.veto_notes`.
        glitch_snr: Of which glitches it is stated; None for the usual ones.
    """
    if notes is None or GLITCHES not in notes:
        return None
    seen, false_alarm = RankedGlitches.from_dict(notes[GLITCHES]), FalseAlarm.from_dict(notes["false_alarm"])
    try:
        return calibrate_ranks(seen, false_alarm, glitch_snr or GlitchSNR())
    except NoEventsError:
        return None


def rank_reliability(
    rank: Float[np.ndarray, "event time"],
    judged: Judged,
    ranks: RankCalibration | None,
    *,
    replicates: int,
    seed: int = 0,
) -> pd.DataFrame:
    """What is claimed of ranks and what is found, with intervals by group.

    Args:
        rank: The model's, SNR².
        judged: Events that it has never seen, with their glitches.
        ranks: What it knows; None gives an empty table.
        replicates: Bootstrap replicates; 0 for no intervals.
        seed: Seed of the bootstrap.

    Returns:
        `quantity`, `claimed`, `observed`, `low`, `high`. Of the quantity `efficiency`: the share of glitches that claim
        as much or less. Of `probability`: the mean in each of `BINS`, and the share of its columns that are the loudest
        of a glitch, others being clean. Glitches are weighted as those of which it is claimed.
    """
    names = ["quantity", "claimed", "observed", "low", "high"]
    if ranks is None:
        return pd.DataFrame(columns=names)
    at_glitches = rank_at_glitches(rank, judged)
    values = np.concatenate([at_glitches, rank[judged.clean]])
    weights = ranks.glitch_snr.weights(judged.glitches.snr)
    # as many as there are, but for those that are too faint to count
    weights *= np.count_nonzero(weights)
    weights = np.concatenate([weights, np.ones(len(values) - len(weights))])[:, None]
    loudest = (np.arange(len(values)) < len(at_glitches))[:, None]
    small = ranks.efficiency(values)[:, None] <= np.array(EFFICIENCIES)
    claimed = ranks.probability(values)[:, None]
    within = np.digitize(claimed, BINS[1:-1]) == np.arange(len(BINS) - 1)
    events = np.concatenate([judged.glitches.event, np.nonzero(judged.clean)[0]])
    group = np.unique(judged.groups[events], return_inverse=True)[1]
    parts = small & loudest, within & loudest, within * claimed
    wholes = loudest | np.zeros_like(small), within, within
    top, bottom = (np.hstack([by_group(weights * part, group) for part in each]) for each in (parts, wholes))

    def _shares(weights: Float[np.ndarray, "replicate group"]) -> Float[np.ndarray, "replicate figure"]:
        return ratio(weights @ top, weights @ bottom)

    found = _shares(np.ones((1, len(top))))[0]
    low, high = bootstrap(_shares, len(top), replicates=replicates, seed=seed)
    quantity = ["efficiency"] * len(EFFICIENCIES) + ["probability"] * (len(BINS) - 1)
    told = len(quantity)
    means = np.concatenate([EFFICIENCIES, found[told:]])
    return pd.DataFrame(dict(zip(names, (quantity, means, found[:told], low[:told], high[:told]), strict=True)))


def by_group(
    values: Float[np.ndarray, "stride part"], group: Int[np.ndarray, " stride"]
) -> Float[np.ndarray, "group part"]:
    """Sums over the strides of each group."""
    return np.stack([np.bincount(group, weights=part) for part in values.T], axis=1)
