"""Judge twins on the same held-out events, and compare them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.inference.excess import (
    Group,
    excess_removed,
    paired_medians,
    pooled_growth,
    power_removed,
    snr_groups,
)
from glitchflow_plugin.inference.predict import Predictor
from glitchflow_plugin.inference.score import (
    GLITCH_THRESHOLD,
    Estimate,
    Scores,
    WindowStatistics,
    map_statistics,
    score_statistics,
)
from glitchflow_plugin.preprocessing.truth import GlitchTruth
from glitchflow_plugin.types.tensors import host


@dataclass(frozen=True)
class LeaderboardSettings:
    """What is asked of the entrants.

    Attributes:
        threshold: SNR² above which a window holds a glitch.
        accuracy_range: SNR² of the accuracy curves, in steps of 1.
        least_snr: Optimal strain SNR above which a witnessed glitch counts in the medians.
        witness_snr: Edges between the groups of witness SNR.
        missing: How many witnesses, drawn for each event, are taken away.
        stride: Columns between the windows of twins that look at maps, as in inference.yaml.
        batch_events: Events in memory at a time.
        replicates: Of the bootstrap.
        seed: Of the bootstrap and of the witnesses taken away; the same for all entrants.
    """

    threshold: float = GLITCH_THRESHOLD
    accuracy_range: Sequence[float] = (1, 50)
    least_snr: float = 10.0
    witness_snr: Sequence[float] = (30.0, 45.0, 70.0)
    missing: Sequence[int] = (1, 2, 3, 4, 5)
    stride: int | None = 32
    batch_events: int = 16
    replicates: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if len(self.accuracy_range) != 2 or not 0 <= self.accuracy_range[0] <= self.accuracy_range[1]:
            raise ConfigurationError(f"accuracy_range must be [lowest, highest] SNR², got {self.accuracy_range}.")
        if not self.threshold > 0 or self.batch_events < 1 or self.replicates < 0:
            raise ConfigurationError(
                "expected threshold > 0, batch_events >= 1 and replicates >= 0, got "
                f"{self.threshold}, {self.batch_events}, {self.replicates}. Correct benchmark.yaml."
            )
        if (
            not self.witness_snr
            or list(self.witness_snr) != sorted(set(self.witness_snr))
            or min(self.witness_snr) <= 0
        ):
            raise ConfigurationError(f"witness_snr: expected rising positive edges, got {list(self.witness_snr)}.")
        if any(number < 1 for number in self.missing):
            raise ConfigurationError(f"missing: expected numbers of witnesses from 1 on, got {list(self.missing)}.")

    @property
    def thresholds(self) -> list[float]:
        """SNR² of the accuracy curves."""
        return [float(value) for value in np.arange(self.accuracy_range[0], self.accuracy_range[1] + 0.5)]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Events that no entrant has seen, and what is true about them.

    Attributes:
        maps: Target first, then the witnesses in the order of the twins.
        truth: One row an event of the maps.
        window_size: Columns of a scoring window.
    """

    maps: SpectrogramSet
    truth: GlitchTruth
    window_size: int = 64

    def __post_init__(self) -> None:
        """Refuse truth of other events."""
        if self.truth.event_ids != self.maps.event_ids:
            raise DataError("the truth must have one row an event of the maps, in their order.")

    def chosen(self, settings: LeaderboardSettings) -> Bool[np.ndarray, " event"]:
        """Events of the medians: a witnessed glitch that is loud enough."""
        return self.truth.witnessed & (self.truth.snr > settings.least_snr)


@dataclass(frozen=True, eq=False)
class Judgement:
    """What an entrant did to each held-out event; all that the standings need, so that it can be kept and read again.

    Attributes:
        windows: Statistics of the scoring windows.
        excess_removed: By event, see `inference.excess`; NaN where undefined.
        power_removed: By event, against the true waveform; None if the twin gives none.
        map_before: Sum of the measured map, SNR², by event.
        map_after: Sum of the cleaned map.
        series_before: Sum of the measured strain's squares, by event; None like `power_removed`.
        series_added: Sum of the prediction's squares.
        without: By number of witnesses taken away, the excess removed; NaN where none that sees the glitch is left.
        seconds: Of a prediction, s an event.
        facts: `parameters`, `minutes` of training, `epochs`, and what else is told by the entrant itself.
    """

    windows: WindowStatistics
    excess_removed: Float[np.ndarray, " event"]
    power_removed: Float[np.ndarray, " event"] | None
    map_before: Float[np.ndarray, " event"]
    map_after: Float[np.ndarray, " event"]
    series_before: Float[np.ndarray, " event"] | None
    series_added: Float[np.ndarray, " event"] | None
    without: Mapping[int, Float[np.ndarray, " event"]]
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; NaN becomes null when written."""
        return {**{item.name: getattr(self, item.name) for item in fields(self)}, "windows": vars(self.windows)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Judgement":
        """Rebuild what `to_dict` gave."""
        values: dict[str, Any] = dict(content)
        windows = {name: np.array(value) for name, value in values.pop("windows").items()}
        cut = float(windows.pop("glitch_threshold"))
        values["without"] = {int(number): _array(value) for number, value in values["without"].items()}
        values |= {name: _array(value) for name, value in values.items() if isinstance(value, list)}
        return cls(windows=WindowStatistics(**windows, glitch_threshold=cut), **values)


def judge_entrant(
    predict: Predictor, held_out: HeldOut, settings: LeaderboardSettings, facts: Mapping[str, Any] | None = None
) -> Judgement:
    """Let a predictor clean all held-out events, whole and with witnesses taken away.

    Args:
        predict: The entrant.
        held_out: Events and truth.
        settings: What to ask.
        facts: Kept with the result.

    Returns:
        What it did to each event.
    """
    maps, truth = held_out.maps, held_out.truth
    predict(maps.read([0]))  # compiles, allocates, verifies the shard; not timed
    statistics, columns, seconds = [], [], 0.0
    for rows in _batches(np.arange(len(maps)), settings.batch_events):
        batch = maps.read(rows)
        begun = perf_counter()
        found = predict(batch)
        float(found.cleaned.sum())  # an accelerator has finished only when its answer is here
        seconds += perf_counter() - begun
        statistics.append(
            map_statistics(
                found.measured,
                found.predicted,
                batch.event_ids,
                settings.threshold,
                held_out.window_size,
                cleaned=found.cleaned,
            )
        )
        column = {
            "excess_removed": excess_removed(found.measured, found.predicted, found.cleaned, settings.threshold),
            "map_before": host(found.measured.double().sum(dim=(1, 2))),
            "map_after": host(found.cleaned.double().sum(dim=(1, 2))),
        }
        if found.strain is not None and found.measured_strain is not None:
            strain, measured = host(found.strain.double()), host(found.measured_strain.double())
            column["power_removed"] = power_removed(truth.strain[rows], strain)
            column["series_before"], column["series_added"] = (measured**2).sum(axis=1), (strain**2).sum(axis=1)
        columns.append(column)
    joined: dict[str, Any] = {name: np.concatenate([one[name] for one in columns]) for name in columns[0]}
    waveform = {name: joined.pop(name, None) for name in ("power_removed", "series_before", "series_added")}
    return Judgement(
        windows=WindowStatistics.concatenate(statistics),
        without={
            number: _without(predict, held_out, settings, number)
            for number in settings.missing
            if number < len(maps.channels) - 1
        },
        seconds=seconds / len(maps),
        facts=dict(facts or {}),
        **joined,
        **waveform,
    )


def taken_away(num_events: int, num_witnesses: int, number: int, seed: int) -> Bool[np.ndarray, "event witness"]:
    """Which witnesses are taken from which event, drawn by seed; those of a smaller number are among them."""
    order = np.random.default_rng(seed).random((num_events, num_witnesses)).argsort(axis=1)
    return order.argsort(axis=1) < number


def _without(
    predict: Predictor, held_out: HeldOut, settings: LeaderboardSettings, number: int
) -> Float[np.ndarray, " event"]:
    witnesses = held_out.maps.channels[1:]
    away = taken_away(len(held_out.maps), len(witnesses), number, settings.seed)
    sees = np.array([[name in seen for name in witnesses] for seen in held_out.truth.witnesses]).reshape(away.shape)
    result = np.full(len(held_out.maps), np.nan)
    judged = np.flatnonzero(held_out.chosen(settings) & (sees & ~away).any(axis=1))
    for rows in _batches(judged, settings.batch_events):
        batch = held_out.maps.read(rows)
        valid = batch.valid.copy()
        valid[:, 1:] &= ~away[rows]
        found = predict(replace(batch, valid=valid))
        result[rows] = excess_removed(found.measured, found.predicted, found.cleaned, settings.threshold)
    return result


@dataclass(frozen=True, eq=False)
class Standings:
    """The entrants compared, best first.

    Attributes:
        figures: By entrant and name of the figure.
        scores: Curves and accuracies by entrant.
        groups: By kind (`class`, `witness SNR`, `witnesses missing`), the groups with their numbers of events.
        by_group: By kind and entrant, the median excess removed in each group.
        reference: The best of the linear entrants, with which all are compared; None if there is none.
    """

    figures: Mapping[str, Mapping[str, Estimate]]
    scores: Mapping[str, Scores]
    groups: Mapping[str, Sequence[tuple[str, int]]]
    by_group: Mapping[str, Mapping[str, Sequence[Estimate]]]
    reference: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        return {
            "reference": self.reference,
            "figures": {key: {name: asdict(one) for name, one in row.items()} for key, row in self.figures.items()},
            "scores": {key: one.to_dict() for key, one in self.scores.items()},
            "groups": {
                kind: [
                    {"group": name, "events": count, **{key: asdict(row[index]) for key, row in rows.items()}}
                    for index, (name, count) in enumerate(self.groups[kind])
                ]
                for kind, rows in self.by_group.items()
            },
        }


def standings(
    judgements: Mapping[str, Judgement], held_out: HeldOut, settings: LeaderboardSettings, linear: Sequence[str] = ()
) -> Standings:
    """Compare entrants on the same events, with the same draws of events for all intervals.

    Args:
        judgements: By entrant.
        held_out: What they were judged on.
        settings: As for the judgements.
        linear: Names of the linear entrants.

    Returns:
        Figures, curves and groups.
    """
    truth, chosen = held_out.truth, held_out.chosen(settings)
    draw: dict[str, Any] = {"replicates": settings.replicates, "seed": settings.seed}
    removed = {name: one.excess_removed for name, one in judgements.items()}
    first = paired_medians(removed, chosen, replicates=0)
    rivals = {name: first[name][0].value or 0.0 for name in linear if name in first}
    reference = max(rivals, key=lambda name: rivals[name]) if rivals else None
    medians = paired_medians(removed, chosen, reference=reference, **draw)
    waveforms = {name: one.power_removed for name, one in judgements.items() if one.power_removed is not None}
    powers = paired_medians(waveforms, chosen, **draw)
    none = Estimate(None, reason="no waveform")
    scores = {
        name: score_statistics(one.windows, thresholds=settings.thresholds, **draw) for name, one in judgements.items()
    }
    figures = {}
    for name, one in judgements.items():
        added = none
        if one.series_before is not None and one.series_added is not None:
            added = pooled_growth(one.series_before, one.series_before + one.series_added, truth.quiet, **draw)
        figures[name] = {
            "excess_removed": medians[name][0],
            "lead": medians[name][1],
            "power_removed": powers[name][0] if name in powers else none,
            **scores[name].metrics(),
            "added_map": pooled_growth(one.map_before, one.map_after, truth.quiet, **draw),
            "added_strain": added,
        }
    kinds = {
        "class": [Group(label, chosen & (np.array(truth.label) == label)) for label in sorted({*truth.label} - {""})],
        "witness SNR": snr_groups(np.where(chosen, truth.witness_snr, 0), settings.witness_snr),
    }
    by_group: dict[str, dict[str, list[Estimate]]] = {
        kind: _by_group([removed] * len(groups), groups, draw) for kind, groups in kinds.items()
    }
    counts = {kind: [(group.name, int(group.events.sum())) for group in groups] for kind, groups in kinds.items()}
    # an entrant may have been spared this
    asked = [one for one in judgements.values() if one.without]
    numbers = sorted(set.intersection(*({0, *one.without} for one in asked))) if asked else []
    tables = [
        {
            name: one.without[number] if number else one.excess_removed
            for name, one in judgements.items()
            if not number or one.without
        }
        for number in numbers
    ]
    some = asked[0] if asked else None
    left = [
        Group(str(number), chosen & (np.isfinite(some.without[number]) if number and some else True))
        for number in numbers
    ]
    by_group["witnesses missing"] = _by_group(tables, left, draw)
    counts["witnesses missing"] = [(group.name, int(group.events.sum())) for group in left]
    order = sorted(judgements, key=lambda name: -(medians[name][0].value or 0.0))
    return Standings(
        figures={name: figures[name] for name in order},
        scores={name: scores[name] for name in order},
        groups=counts,
        by_group={kind: {name: rows[name] for name in order} for kind, rows in by_group.items()},
        reference=reference,
    )


def _by_group(
    tables: Sequence[Mapping[str, NDArray[np.float64]]], groups: Sequence[Group], draw: dict[str, Any]
) -> dict[str, list[Estimate]]:
    """Medians by entrant, one a group."""
    found = [paired_medians(table, group.events, **draw) for table, group in zip(tables, groups, strict=True)]
    spared = (Estimate(None, reason="not judged"),)
    return {name: [medians.get(name, spared)[0] for medians in found] for name in (tables[0] if tables else ())}


def _batches(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
