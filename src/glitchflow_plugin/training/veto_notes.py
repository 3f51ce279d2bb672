"""What a model carries about its vetoes: chosen and calibrated on events that no figure is made of.

The false-alarm probability and the ranks of glitches are kept with the model, not computed from a background file:
whoever uses a version gets those of this version, and the checksums of the registry cover them. They are those of the
validation events, which chose among the epochs but trained no weight; the rivals get the training events as well.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.splits import SplitPart
from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.inference.cases import MARGIN
from glitchflow_plugin.inference.predict import Predictor
from glitchflow_plugin.inference.rank_report import GLITCHES
from glitchflow_plugin.inference.veto_report import VETOES
from glitchflow_plugin.inference.veto_rivals import choose_rivals, column_peaks
from glitchflow_plugin.inference.veto_worth import Judged, best_padding, rank_at_glitches
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.false_alarm import calibrate_false_alarm
from glitchflow_plugin.signal.rank_calibration import RankedGlitches
from glitchflow_plugin.signal.vetoes import find_glitches
from glitchflow_plugin.training.evaluation import pixels_inside
from glitchflow_plugin.training.trained_twin import TrainedTwin
from glitchflow_plugin.types.tensors import host

_MOST_EVENTS = 1000
"""Events that the rivals are chosen on, at most; of more, evenly drawn ones."""

_BATCH = 16


def veto_notes(trained: TrainedTwin, ranks: Mapping[str, Float[np.ndarray, " time"]] | None = None) -> dict[str, Any]:
    """Calibrate a twin's rank, and choose what it is compared with.

    Args:
        trained: The twin.
        ranks: `Review.ranks`; of the validation events that it lacks, the twin predicts them.

    Returns:
        `false_alarm`, `padding`, `rivals` and, where a validation event holds a glitch, `GLITCHES` under the key
        `VETOES`; nothing where no validation event is quiet enough.
    """
    training_set, threshold = trained.learner.training_set, trained.config.threshold
    maps, split, witnesses = training_set.open_spectrograms(), training_set.split, trained.learner.witnesses
    inside = pixels_inside(maps)
    rows = _rows(maps, [split.validation])
    if not len(rows):
        return {}
    groups = split.validation.group_of(split.block_length)
    numbers = np.array([groups[maps.event_ids[row]] for row in rows])
    judged = _judged(maps, rows, inside, threshold, numbers)
    known = dict(ranks or {})
    lacking = np.array([row for row in rows if maps.event_ids[row] not in known], dtype=np.int64)
    channels = [maps.target, *witnesses]
    known |= _ranks(trained.learner.predictor(trained.twin), maps, lacking, channels, inside)
    rank = np.stack([known[maps.event_ids[row]] for row in rows])
    try:
        false_alarm = calibrate_false_alarm(rank, judged.clean, judged.groups)
    except NoEventsError:
        return {}
    learnt = _rows(maps, [split.train, split.validation])
    learnt = learnt[np.linspace(0, len(learnt) - 1, min(len(learnt), _MOST_EVENTS)).astype(np.int64)]
    seen = _judged(maps, learnt, inside, threshold, np.arange(len(learnt)))
    valid = maps.valid[learnt][:, maps.channel_rows(witnesses)]
    rivals = choose_rivals(column_peaks(maps, learnt, witnesses, inside), witnesses, valid, seen)
    return {
        VETOES: {
            "false_alarm": false_alarm.to_dict(),
            "padding": best_padding(rank, judged),
            "rivals": rivals.to_dict(),
            **_of_glitches(rank, judged),
        }
    }


def _of_glitches(rank: Float[np.ndarray, "event time"], judged: Judged) -> dict[str, dict[str, object]]:
    """How glitches rank and how loud they are, under `GLITCHES`; nothing without a glitch."""
    if not len(judged.glitches):
        return {}
    groups = judged.groups[judged.glitches.event]
    ranks = rank_at_glitches(rank, judged)
    return {GLITCHES: RankedGlitches.of(ranks, judged.glitches.snr, groups, judged.columns.width).to_dict()}


def _rows(maps: SpectrogramSet, parts: Iterable[SplitPart]) -> Int[np.ndarray, " event"]:
    """Rows of the events of some parts whose strain is valid."""
    wanted = {name for part in parts for name in part.event_ids}
    found = [row for row, name in enumerate(maps.event_ids) if name in wanted and maps.valid[row, 0]]
    return np.array(found, dtype=np.int64)


def _judged(
    maps: SpectrogramSet,
    rows: Int[np.ndarray, " event"],
    inside: Bool[np.ndarray, "frequency time"],
    threshold: float,
    groups: Int[np.ndarray, " event"],
) -> Judged:
    columns = Columns(maps.times)
    measured = column_peaks(maps, rows, [maps.target], inside)[:, 0].astype(np.float64)
    return Judged(columns, inside.any(axis=0), find_glitches(measured, threshold, columns, MARGIN), groups)


def _ranks(
    predict: Predictor,
    maps: SpectrogramSet,
    rows: Int[np.ndarray, " event"],
    channels: list[str],
    inside: Bool[np.ndarray, "frequency time"],
) -> dict[str, Float[np.ndarray, " time"]]:
    """Largest predicted energy of each column of some events, SNR², by event id."""
    ranks = {}
    for first in range(0, len(rows), _BATCH):
        batch = maps.read(rows[first : first + _BATCH], channels)
        found = predict(batch)
        rank = host(found.rank(torch.from_numpy(inside).to(found.predicted.device)).double())
        ranks |= dict(zip(batch.event_ids, rank, strict=True))
    return ranks
