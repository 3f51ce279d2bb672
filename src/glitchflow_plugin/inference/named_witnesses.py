"""Whether the witness that an event is put down to is one that saw its glitch: the twin's, beside simple rivals'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from glitchflow_plugin.data.groups import group_numbers
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.truth_file import EventTruth
from glitchflow_plugin.inference.asked import AskedTwin
from glitchflow_plugin.inference.attribution import Attributed, AttributionSettings
from glitchflow_plugin.inference.excess import pooled_growth
from glitchflow_plugin.inference.intervals import Estimate

TWIN, LOUDEST, RANKED = "twin", "loudest_witness", "scan_witness"
"""Who names a witness."""


def named_witnesses(
    asked: AskedTwin, attributed: Attributed, ranking: Sequence[str], settings: AttributionSettings
) -> dict[str, list[str]]:
    """The witness that each event is put down to, by who says so; empty where nobody is named.

    The rivals look for the largest pixel of each witness near the strain's loudest column, which the twin never sees:
    one takes the loudest witness there, the other the first one of the scan's ranking that is above the threshold.

    Args:
        asked: The twin.
        attributed: What it says.
        ranking: Witnesses of the scan, best first; empty: that rival is left out.
        settings: Window and threshold.
    """
    names = np.array([*asked.witnesses, ""], dtype=object)
    tops = [-1 if found is None or found.top is None else found.top for found in attributed.found]
    said = {TWIN: names[tops].tolist()}
    peaks = _peaks(asked.spectrograms, attributed.rows, asked.witnesses, settings)
    if peaks is None:
        return said
    said[LOUDEST] = names[peaks.argmax(axis=1)].tolist()
    order = [asked.witnesses.index(name) for name in ranking if name in asked.witnesses]
    if order:
        loud = peaks[:, order] > settings.threshold
        first = np.where(loud.any(axis=1), np.array(order)[loud.argmax(axis=1)], order[0])
        said[RANKED] = names[first].tolist()
    return said


def _peaks(
    spectrograms: SpectrogramSet, rows: Sequence[int], witnesses: Sequence[str], settings: AttributionSettings
) -> np.ndarray | None:
    """Largest pixel of each witness near the strain's loudest column, (event, witness); None without strain."""
    if spectrograms.target not in spectrograms.channels:
        return None
    found = np.zeros((len(rows), len(witnesses)))
    for first in range(0, len(rows), settings.batch_events):
        batch = spectrograms.read(rows[first : first + settings.batch_events], [spectrograms.target, *witnesses])
        loudest = batch.maps.max(axis=2)
        centre = spectrograms.times[loudest[:, 0].argmax(axis=1)]
        near = np.abs(spectrograms.times - centre[:, None]) <= settings.window
        found[first : first + len(batch)] = np.where(near[:, None], loudest[:, 1:], 0).max(axis=2)
    return found


@dataclass(frozen=True, eq=False)
class NamesJudged:
    """How often the witness that is named is one that saw the glitch.

    Attributes:
        shares: Share of the glitches, by who names the witness.
        leads: By how much the twin's share is larger, by rival, on the same glitches.
        table: One row for each glitch that counts.
    """

    shares: Mapping[str, Estimate] = field(default_factory=dict)
    leads: Mapping[str, Estimate] = field(default_factory=dict)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)


def judge_names(
    asked: AskedTwin,
    attributed: Attributed,
    named: Mapping[str, Sequence[str]],
    truth: Mapping[str, EventTruth],
    settings: AttributionSettings,
    *,
    seed: int = 0,
) -> NamesJudged:
    """Compare the named witnesses with those that a simulation let see the glitch.

    Glitches count that a valid witness of the model saw; of several in an event the loudest one. Whoever names nobody
    is wrong. Intervals are those of a bootstrap over groups of events.

    Args:
        asked: The twin.
        attributed: Its attributions.
        named: From `named_witnesses`.
        truth: What a simulation knows, by event.
        settings: Groups and replicates.
        seed: Seed of the bootstrap.
    """
    spectrograms, rows = asked.spectrograms, []
    for place, row in enumerate(attributed.rows):
        event = truth.get(spectrograms.event_ids[row])
        loudest = max(event.glitches, key=lambda one: one.snr, default=None) if event else None
        valid = spectrograms.valid[row, spectrograms.channel_rows(asked.witnesses)]
        known = {name for name, there in zip(asked.witnesses, valid, strict=True) if there}
        if loudest is None or not known.intersection(loudest.witnesses):
            continue
        said = {who: names[place] for who, names in named.items()}
        rows.append(
            {
                "event_id": spectrograms.event_ids[row],
                "gps_event": float(spectrograms.gps_event[row]),
                "group": spectrograms.groups[row],
                "label": loudest.label,
                "snr_true": loudest.snr,
                "snr_predicted": attributed.snr[place],
                "true": ", ".join(loudest.witnesses),
                **said,
                **{f"{who}_right": name in loudest.witnesses for who, name in said.items()},
            }
        )
    table = pd.DataFrame(rows)
    if table.empty:
        return NamesJudged()
    groups = group_numbers(table["group"].tolist(), table["gps_event"].to_numpy(), settings.block_length)
    right = {who: table[f"{who}_right"].to_numpy(float) for who in named}
    one, every = np.ones(len(table)), np.ones(len(table), dtype=bool)

    def _mean(values: np.ndarray) -> Estimate:
        return pooled_growth(one, one + values, every, groups, replicates=settings.replicates, seed=seed)

    leads = {who: _mean(right[TWIN] - values) for who, values in right.items() if who != TWIN}
    return NamesJudged({who: _mean(values) for who, values in right.items()}, leads, table)
