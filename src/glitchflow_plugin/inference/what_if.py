"""What if a witness had been louder, later, silent or another: predictions of changed events beside the unchanged."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from glitchflow_plugin.data.records import EventBatch, SpectrogramBatch
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter, plan_shards
from glitchflow_plugin.errors import ConfigurationError, NoEventsError, nearest
from glitchflow_plugin.inference.asked import AskedSeries, AskedTwin
from glitchflow_plugin.inference.attribution import Attributed, AttributionSettings
from glitchflow_plugin.inference.run import UNITS
from glitchflow_plugin.inference.transfer_map import TransferSettings
from glitchflow_plugin.settings import Count, CountOrNone, Finite, NotNegative, Texts, section
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.intervention import Intervention, cases, matching
from glitchflow_plugin.types.tensors import host

UNCHANGED = "unchanged"
"""Case in which nothing is changed."""
SERIES, MAPS = "strain", "maps"
"""Folders of the predictions below that of a result."""
GAIN, DELAY = "gain", "delay"
"""What a sweep changes."""


@section
class WhatIfSettings:
    """What is asked; conf/what_if.yaml explains the keys."""

    interventions: tuple[Intervention, ...] = ()
    events: Texts = ()
    gains: tuple[NotNegative, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    delays: tuple[Finite, ...] = (-0.05, -0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03, 0.05)
    sweep_events: CountOrNone = 8
    attribution: AttributionSettings = field(default_factory=AttributionSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    stride: int | None = 32
    batch_size: Count = 64
    batch_events: Count = 32
    examples: CountOrNone = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a case that has the name of the unchanged one."""
        if UNCHANGED in cases(self.interventions):
            raise ConfigurationError(f"expected another name of a case than {UNCHANGED!r}. Correct `case`.")

    def decisive(self) -> dict[str, object]:
        """The settings that change what comes out; the others change how much is shown, and the speed."""
        shown = ("batch_size", "batch_events", "examples")
        return {key: value for key, value in asdict(self).items() if key not in shown}


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions of changed events beside the unchanged ones.

    Attributes:
        maps: A channel for each case, the unchanged one first under the name of the target.
        table: One row for each event and case.
        cases: Their names, the unchanged one first.
    """

    maps: SpectrogramSet
    table: pd.DataFrame
    cases: tuple[str, ...]


def chosen_rows(spectrograms: SpectrogramSet, events: Sequence[str]) -> list[int]:
    """Rows of the events that are asked about; all where none are named.

    Raises:
        ConfigurationError: There is no such event.
        NoEventsError: There is none at all.
    """
    unknown = [name for name in events if name not in spectrograms.row_of]
    if unknown:
        raise ConfigurationError(
            f"expected ids of events of {spectrograms.folder}, got {unknown}."
            f"{nearest(unknown[0], spectrograms.event_ids)} Correct `events` in what_if.yaml."
        )
    if not len(spectrograms):
        raise NoEventsError(f"{spectrograms.folder} holds no event to ask about. Bring data that hold some.")
    return [spectrograms.row_of[name] for name in events] or list(range(len(spectrograms)))


def check_changes(asked: AskedTwin, settings: WhatIfSettings) -> None:
    """Refuse, before work begins, what cannot be asked.

    Raises:
        ChannelMismatchError: The model has no such witness.
        ConfigurationError: A delay is longer than the events, or an event is unknown.
    """
    changes = [*settings.interventions, *(Intervention(("*",), "delay", delay=delay) for delay in settings.delays)]
    for change in changes:
        matching(change.channels, asked.witnesses)
        if change.action != "swap" or change.event:  # which event takes whose witness is found event by event
            asked.changed([0], [change])
    matching(settings.transfer.channels, asked.witnesses)


def answer_cases(
    asked: AskedTwin, rows: Sequence[int], folder: Path, settings: WhatIfSettings, *, progress: bool = True
) -> Answers:
    """Predict events as they were and with each change, and keep series and maps, some events in memory at a time.

    Args:
        asked: The twin.
        rows: Events.
        folder: Gets the sets `maps` and, of a twin of waveforms, `strain`.
        settings: The changes.
        progress: Show a progress bar.
    """
    named: dict[str, tuple[Intervention, ...]] = {UNCHANGED: (), **cases(settings.interventions)}
    spectrograms, tables = asked.spectrograms, []
    plans = plan_shards([spectrograms.event_ids[row] for row in rows], settings.batch_events)
    writers = _writers(asked, rows, folder, list(named), settings)
    for plan in tqdm(plans, desc="What if", disable=not progress):
        part = [spectrograms.row_of[name] for name in plan.event_ids]
        found = [asked.answer(asked.changed(part, changes)) for changes in named.values()]
        maps = [asked.maps(one) for one in found]
        if SERIES in writers:
            writers[SERIES].write(plan, EventBatch(series=_stacked(found), **_columns(asked, part, len(named))))
        writers[MAPS].write(plan, SpectrogramBatch(maps=_stacked(maps), **_columns(asked, part, len(named))))
        tables += [_rows(asked, part, name, found[0], found[at], maps[at]) for at, name in enumerate(named)]
    sets = {kind: writer.finish() for kind, writer in writers.items()}
    made = sets[MAPS]
    assert isinstance(made, SpectrogramSet)  # noqa: S101  # tells the type checker what the writer's kind decides
    table = pd.concat(tables).sort_values(["gps_event", "event_id"], kind="stable", ignore_index=True)
    return Answers(made, table, tuple(named))


def sweep(asked: AskedTwin, attributed: Attributed, settings: WhatIfSettings) -> pd.DataFrame:
    """Predictions of the loudest attributed events with the gain and the delay of each active witness changed.

    Returns:
        One row for each event, witness and value of a `quantity` (`gain`, or `delay` in s): SNR of the prediction,
        that of the unchanged one, and their `overlap` (cosine of the angle between the two).
    """
    order = sorted((place for place, one in enumerate(attributed.found) if one), key=lambda at: -attributed.snr[at])
    steps = [(GAIN, value) for value in settings.gains] + [(DELAY, value) for value in settings.delays]
    rows = []
    for place in order[: settings.sweep_events]:
        row, found = attributed.rows[place], attributed.found[place]
        before = asked.answer(asked.read([row]))
        for witness in found.active if found else ():
            for quantity, value in steps:
                answer = asked.answer(asked.changed([row], [_step(asked.witnesses[witness], quantity, value)]))
                rows.append(
                    {
                        **_named(asked, row),
                        "witness": asked.witnesses[witness],
                        "quantity": quantity,
                        "value": value,
                        "snr": float(asked.snr(answer)[0]),
                        "snr_unchanged": float(asked.snr(before)[0]),
                        "overlap": float(_overlap(before, answer)[0]),
                    }
                )
    return pd.DataFrame(rows)


def _step(witness: str, quantity: str, value: float) -> Intervention:
    # the name itself, whatever it holds that a pattern would take for something else
    name = (escape(witness),)
    return Intervention(name, "scale", factor=value) if quantity == GAIN else Intervention(name, "delay", delay=value)


def _named(asked: AskedTwin, row: int) -> dict[str, object]:
    return {"event_id": asked.spectrograms.event_ids[row], "gps_event": float(asked.spectrograms.gps_event[row])}


def _rows(asked: AskedTwin, part: Sequence[int], name: str, *answers: Tensor) -> pd.DataFrame:
    """Of one case, from the unchanged answers, its own, and its maps."""
    before, answer, maps = answers
    spectrograms, flat = asked.spectrograms, maps.flatten(1)
    peak, at = flat.max(dim=1)
    frequency, time = np.unravel_index(host(at), maps.shape[1:])
    return pd.DataFrame(
        {
            "event_id": [spectrograms.event_ids[row] for row in part],
            "gps_event": spectrograms.gps_event[part],
            "case": name,
            "snr": host(asked.snr(answer).double()),
            "snr_unchanged": host(asked.snr(before).double()),
            "overlap": host(_overlap(before, answer)),
            "peak_snr2": host(peak.double()),
            "peak_gps": spectrograms.gps_start[part] + Columns(spectrograms.times).centre[time],
            "peak_frequency": spectrograms.frequencies[frequency],
        }
    )


def _overlap(before: Tensor, answer: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(before.flatten(1).double(), answer.flatten(1).double(), dim=1)


def _stacked(answers: Sequence[Tensor]) -> np.ndarray:
    return host(torch.stack([one.float() for one in answers], dim=1))


def _columns(asked: AskedTwin, part: Sequence[int], num_cases: int) -> dict[str, Any]:
    spectrograms = asked.spectrograms
    return {
        "event_ids": tuple(spectrograms.event_ids[row] for row in part),
        "gps_start": spectrograms.gps_start[part],
        "gps_event": spectrograms.gps_event[part],
        "valid": np.ones((len(part), num_cases), dtype=np.bool_),
        "groups": tuple(spectrograms.groups[row] for row in part),
    }


def _writers(
    asked: AskedTwin, rows: Sequence[int], folder: Path, named: Sequence[str], settings: WhatIfSettings
) -> dict[str, ShardedWriter]:
    spectrograms = asked.spectrograms
    shared: dict[str, Any] = {
        "target": spectrograms.target,
        "channels": (spectrograms.target, *named[1:]),
        "event_ids": tuple(spectrograms.event_ids[row] for row in rows),
        "shard_size": settings.batch_events,
        "inputs": spectrograms.manifest.fingerprint,
    }
    made = {"what_if": [asdict(change) for change in settings.interventions]}
    axes, recipe = dict(spectrograms.manifest.axes), {**spectrograms.recipe, **made}
    maps = ShardedWriter(folder=folder / MAPS, kind="spectrograms", axes=axes, units=UNITS, recipe=recipe, **shared)
    if not isinstance(asked, AskedSeries):
        return {MAPS: maps}
    events = asked.predictor.events
    series = ShardedWriter(
        folder=folder / SERIES,
        kind="events",
        axes=dict(events.manifest.axes),
        units=events.manifest.units,
        recipe={**events.recipe, **made},
        **shared,
    )
    return {MAPS: maps, SERIES: series}
