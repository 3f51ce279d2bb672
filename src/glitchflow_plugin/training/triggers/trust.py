"""How far the answers of a model of triggers hold, on times that chose and taught nothing of it."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from glitchflow_plugin.data.triggers.labels import LabelledTimes
from glitchflow_plugin.inference.cases import ratio
from glitchflow_plugin.inference.classify_triggers import rows_of
from glitchflow_plugin.inference.intervals import bootstrap
from glitchflow_plugin.inference.rank_report import BINS, by_group
from glitchflow_plugin.models.triggers.bundle import TriggerModel
from glitchflow_plugin.products.classified import GLITCH, QUIET, said
from glitchflow_plugin.types.plain import plain
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import TriggerAnswers


def trust(
    model: TriggerModel, told: TriggerAnswers, times: LabelledTimes, *, replicates: int, seed: int
) -> dict[str, Any]:
    """Claimed probabilities beside what was found, and counts of what was said by what is true; as JSON holds it.

    Args:
        model: The model.
        told: Its answers at these times.
        times: With their truth, as they were drawn.
        replicates: Of the bootstrap by group.
        seed: Of the same.
    """
    # of times as they are drawn: by weights of live time a few quiet ones would decide
    found = reliability(host(told.glitch.double().sigmoid()), times, replicates=replicates, seed=seed)
    counts = confusion(rows_of(model, told, times.time, None, {}).to_pandas(), times)
    return plain(
        {
            "reliability": found.to_dict("list"),
            "confusion": {"true": list(counts.index), "told": list(counts.columns), "counts": counts.to_numpy()},
        },
        finite=True,
    )


def reliability(
    claimed: Float[np.ndarray, " time"], times: LabelledTimes, *, replicates: int, seed: int
) -> pd.DataFrame:
    """Probabilities of a glitch that were claimed, and the share of such times that have one.

    Args:
        claimed: Of each time, among times that are drawn as these are.
        times: With their truth.
        replicates: Of the bootstrap by group.
        seed: Of the same.

    Returns:
        A row for each of `BINS` that is not empty: `claimed` (mean), `observed` with its interval from `low` to `high`,
        and `times`, how many there are.
    """
    within = np.digitize(claimed, BINS[1:-1])[:, None] == np.arange(len(BINS) - 1)
    group = np.unique(times.group, return_inverse=True)[1]
    parts = (within & times.glitch[:, None], within * claimed[:, None], within)
    hits, sums, all_ = (by_group(part, group) for part in parts)
    ends = bootstrap(lambda weights: ratio(weights @ hits, weights @ all_), len(hits), replicates=replicates, seed=seed)
    total = all_.sum(0)
    found = pd.DataFrame(
        {
            "claimed": ratio(sums.sum(0), total),
            "observed": ratio(hits.sum(0), total),
            "low": ends[0],
            "high": ends[1],
            "times": within.sum(0),
        }
    )
    return found[found["times"] > 0].reset_index(drop=True)


def confusion(told: pd.DataFrame, times: LabelledTimes) -> pd.DataFrame:
    """How often what was said (columns) of what is true (rows): quiet, a class, or a glitch whose class is not known.

    Args:
        told: Rows of `inference.classify_triggers.rows_of` at these times.
        times: With their truth.
    """
    true = np.where(times.glitch, np.where(times.kind == "", GLITCH, times.kind), QUIET)
    return pd.crosstab(pd.Series(true), pd.Series(said(told)))
