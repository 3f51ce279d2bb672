"""Judge twins on the same held-out events, and compare them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from time import perf_counter
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from pydantic import Field

from glitchflow_plugin.data.groups import group_numbers
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.inference.cases import CaseStatistics, map_statistics
from glitchflow_plugin.inference.excess import (
    Kind,
    grown_share,
    paired_medians,
    pooled_growth,
    power_removed,
    snr_kinds,
)
from glitchflow_plugin.inference.intervals import Estimate
from glitchflow_plugin.inference.predict import Prediction, Predictor
from glitchflow_plugin.inference.score import Sample, Scores, score_statistics, whole_thresholds
from glitchflow_plugin.inference.trivial import FixedPredictor, trivial_maps
from glitchflow_plugin.preprocessing.truth import GlitchTruth
from glitchflow_plugin.settings import AccuracyRange, Count, CountOrNone, Positive, PositiveNumber, section
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.verdict import GLITCH_THRESHOLD

UNTRAINED: Mapping[str, float] = {"parameters": 0, "minutes": 0.0, "epochs": 0}
"""Facts of an entrant that is not trained."""

_ByEntrant: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Net power removed from each event, by entrant."""


@section
class LeaderboardSettings:
    """What is asked of the entrants; conf/benchmark.yaml explains the keys."""

    threshold: Positive = GLITCH_THRESHOLD
    accuracy_range: AccuracyRange = (1, 50)
    least_snr: float = 10.0
    witness_snr: Annotated[Sequence[PositiveNumber], Field(min_length=1)] = (30.0, 45.0, 70.0)
    missing: Sequence[Count] = (1, 2, 3, 4, 5)
    stride: int | None = 32
    batch_events: Count = 16
    replicates: CountOrNone = 1000
    seed: int = 0
    block_length: Positive = 256.0

    def __post_init__(self) -> None:
        """Refuse edges that do not rise."""
        if list(self.witness_snr) != sorted(set(self.witness_snr)):
            raise ConfigurationError(f"witness_snr: expected rising positive edges, got {list(self.witness_snr)}.")

    def chosen(self, truth: GlitchTruth) -> Bool[np.ndarray, " event"]:
        """Events of the medians: a witnessed glitch that is loud enough."""
        return truth.witnessed & (truth.snr > self.least_snr)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Events that no entrant has seen, and what is true about them.

    Attributes:
        maps: Target first, then the witnesses in the order of the twins.
        truth: One row an event of the maps.
        inside: Pixels that are judged; all if None.
        series: The whitened series that the maps were made of, for twins of waveforms.
    """

    maps: SpectrogramSet
    truth: GlitchTruth
    inside: Bool[np.ndarray, "frequency time"] | None = None
    series: EventSet | None = None

    def __post_init__(self) -> None:
        """Refuse truth of other events."""
        if self.truth.event_ids != self.maps.event_ids:
            raise DataError("the truth must have one row an event of the maps, in their order.")

    def groups(self, settings: LeaderboardSettings) -> Int[np.ndarray, " event"]:
        """Number of the group of each event: events that share it are no independent cases."""
        return group_numbers(self.truth.group, self.maps.gps_event, settings.block_length)


@dataclass(frozen=True, eq=False)
class EntrantJudgement:
    """What an entrant did to each held-out event; all that the standings need, so that it can be kept and read again.

    Attributes:
        statistics: What is kept of the maps of each event.
        power_removed: Share of the true waveform's power, by event; None if the twin gives no waveform.
        series_before: Sum of the measured strain's squares, by event; None like `power_removed`.
        series_added: Sum of the prediction's squares.
        without: Net power removed by number of witnesses taken away; NaN where none that sees the glitch is left.
        seconds: Time of a prediction, s an event.
        facts: `parameters`, `minutes` of training, `epochs`, and what else is told by the entrant itself.
    """

    statistics: CaseStatistics
    power_removed: Float[np.ndarray, " event"] | None
    series_before: Float[np.ndarray, " event"] | None
    series_added: Float[np.ndarray, " event"] | None
    without: Mapping[int, Float[np.ndarray, " event"]]
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; NaN becomes null when written."""
        kept = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**kept, "statistics": self.statistics.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "EntrantJudgement":
        """Rebuild what `to_dict` gave."""
        values: dict[str, Any] = dict(content)
        statistics = CaseStatistics.from_dict(values.pop("statistics"))
        values["without"] = {int(number): _array(value) for number, value in values["without"].items()}
        values |= {name: _array(value) for name, value in values.items() if isinstance(value, list)}
        return cls(statistics=statistics, **values)


def judge_entrant(
    predict: Predictor, held_out: HeldOut, settings: LeaderboardSettings, facts: Mapping[str, Any] | None = None
) -> EntrantJudgement:
    """Let a predictor clean all held-out events, whole and with witnesses taken away.

    Args:
        predict: The entrant.
        held_out: Events and truth.
        settings: The keys of `benchmark.settings`.
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
        statistics.append(_judged(found, rows, held_out, settings))
        if found.strain is not None and found.measured_strain is not None:
            strain, measured = host(found.strain.double()), host(found.measured_strain.double())
            removed = power_removed(truth.strain[rows], strain)
            columns.append((removed, (measured**2).sum(axis=1), (strain**2).sum(axis=1)))
    waveform = [np.concatenate(parts) for parts in zip(*columns, strict=True)] or [None] * 3
    return EntrantJudgement(
        CaseStatistics.concatenate(statistics),
        *waveform,
        without={
            number: _without(predict, held_out, settings, number)
            for number in settings.missing
            if number < len(maps.channels) - 1
        },
        seconds=seconds / len(maps),
        facts=dict(facts or {}),
    )


def judge_trivial(held_out: HeldOut, settings: LeaderboardSettings) -> dict[str, EntrantJudgement]:
    """Judge the entrants that know nothing of the witnesses, fitted to the held-out events themselves."""
    target = held_out.maps.target
    batches = (
        torch.from_numpy(held_out.maps.read(rows, [target]).maps[:, 0])
        for rows in _batches(np.arange(len(held_out.maps)), settings.batch_events)
    )
    spared = replace(settings, missing=())
    return {
        name: judge_entrant(FixedPredictor(said), held_out, spared, UNTRAINED)
        for name, said in trivial_maps(batches, held_out.inside).items()
    }


def _judged(
    found: Prediction, rows: NDArray[np.int64], held_out: HeldOut, settings: LeaderboardSettings
) -> CaseStatistics:
    return map_statistics(
        found.measured,
        found.predicted,
        np.array(held_out.maps.event_ids)[rows],
        settings.threshold,
        cleaned=found.cleaned,
        loudest=found.loudest,
        inside=held_out.inside,
        groups=held_out.groups(settings)[rows],
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
    judged = np.flatnonzero(settings.chosen(held_out.truth) & (sees & ~away).any(axis=1))
    for rows in _batches(judged, settings.batch_events):
        batch = held_out.maps.read(rows)
        valid = batch.valid.copy()
        valid[:, 1:] &= ~away[rows]
        found = predict(replace(batch, valid=valid))
        result[rows] = _judged(found, rows, held_out, settings).net_removed
    return result


@dataclass(frozen=True, eq=False)
class Standings:
    """The entrants compared, best first.

    Attributes:
        figures: Figures by entrant and name.
        scores: Curves and accuracies by entrant.
        kinds: Names and numbers of the kinds of events by `class`, by `witness SNR` and by `witnesses missing`.
        by_kind: Median net power removed from each of these kinds, by entrant.
        samples: Numbers of `glitches` (those of the medians) and of `quiet` events.
        reference: The best of the linear entrants, with which all are compared; None if there is none.
        waveform_reference: The best of those that predict waveforms, by the power removed from these.
        runner_up: The entrant after the best; None if there is none.
        margin: Median net power removed by the best less that of the runner-up, paired; None without one.
    """

    figures: Mapping[str, Mapping[str, Estimate]]
    scores: Mapping[str, Scores]
    kinds: Mapping[str, Sequence[tuple[str, Sample]]]
    by_kind: Mapping[str, Mapping[str, Sequence[Estimate]]]
    samples: Mapping[str, Sample]
    reference: str | None
    waveform_reference: str | None = None
    runner_up: str | None = None
    margin: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        return {
            "reference": self.reference,
            "waveform reference": self.waveform_reference,
            "runner-up": {"entrant": self.runner_up, "margin": self.margin and asdict(self.margin)},
            "figures": {key: {name: asdict(one) for name, one in row.items()} for key, row in self.figures.items()},
            "scores": {key: one.to_dict() for key, one in self.scores.items()},
            "samples": {name: _counts(sample) for name, sample in self.samples.items()},
            "kinds": {
                what: [
                    {"kind": name, **_counts(sample), **{key: asdict(row[index]) for key, row in rows.items()}}
                    for index, (name, sample) in enumerate(self.kinds[what])
                ]
                for what, rows in self.by_kind.items()
            },
        }


def standings(
    judgements: Mapping[str, EntrantJudgement],
    held_out: HeldOut,
    settings: LeaderboardSettings,
    linear: Sequence[str] = (),
) -> Standings:
    """Compare entrants on the same events, with the same draws of groups for all intervals.

    Args:
        judgements: Judgements by entrant.
        held_out: Events that they were judged on.
        settings: The keys of `benchmark.settings`.
        linear: Names of the linear entrants.

    Returns:
        Figures, curves, and medians by kind of event.
    """
    truth, chosen, groups = held_out.truth, settings.chosen(held_out.truth), held_out.groups(settings)
    draw: dict[str, Any] = {"replicates": settings.replicates, "seed": settings.seed}
    removed = {name: one.statistics.net_removed for name, one in judgements.items()}
    reference = _best(paired_medians(removed, chosen, groups, replicates=0), linear)
    medians = paired_medians(removed, chosen, groups, reference=reference, **draw)
    waveforms = {name: one.power_removed for name, one in judgements.items() if one.power_removed is not None}
    waveform_reference = _best(paired_medians(waveforms, chosen, groups, replicates=0), linear)
    powers = paired_medians(waveforms, chosen, groups, reference=waveform_reference, **draw)
    none = Estimate(None, reason="no waveform")
    order = sorted(judgements, key=lambda name: -_or_least(medians[name][0]))
    scores = {
        name: score_statistics(
            judgements[name].statistics, thresholds=whole_thresholds(settings.accuracy_range), **draw
        )
        for name in order
    }
    figures = {}
    for name in order:
        one, maps, added = judgements[name], judgements[name].statistics, none
        if one.series_before is not None and one.series_added is not None:
            added = pooled_growth(one.series_before, one.series_before + one.series_added, truth.quiet, groups, **draw)
        figures[name] = {
            "median_net_removed": medians[name][0],
            "lead": medians[name][1],
            "power_removed": powers[name][0] if name in powers else none,
            "waveform_lead": powers[name][1] if name in powers else none,
            "grown": grown_share(waveforms[name], chosen, groups, **draw) if name in waveforms else none,
            **scores[name].metrics(),
            "added_map": pooled_growth(maps.total_measured, maps.total_cleaned, truth.quiet, groups, **draw),
            "added_strain": added,
        }
    best, runner_up = order[0], order[1] if len(order) > 1 else None
    pair = {} if runner_up is None else {name: removed[name] for name in (best, runner_up)}
    labels = np.array(truth.label)
    snr = np.where(chosen, truth.witness_snr, 0)
    kinds: dict[str, list[tuple[Kind, _ByEntrant]]] = {
        "class": [(Kind(label, chosen & (labels == label)), removed) for label in sorted({*truth.label} - {""})],
        "witness SNR": [(kind, removed) for kind in snr_kinds(snr, settings.witness_snr)],
        "witnesses missing": _by_missing(judgements, chosen),
    }
    return Standings(
        figures=figures,
        scores=scores,
        kinds={what: [(kind.name, Sample.of(groups, kind.events)) for kind, _ in rows] for what, rows in kinds.items()},
        by_kind={what: _medians_by_kind(rows, groups, order, draw) for what, rows in kinds.items()},
        samples={"glitches": Sample.of(groups, chosen), "quiet": Sample.of(groups, truth.quiet)},
        reference=reference,
        waveform_reference=waveform_reference,
        runner_up=runner_up,
        margin=paired_medians(pair, chosen, groups, reference=runner_up, **draw)[best][1] if pair else None,
    )


def _best(medians: Mapping[str, tuple[Estimate, Estimate]], names: Sequence[str]) -> str | None:
    """The one with the largest median among some entrants, of those that have one."""
    found = {name: medians[name][0].value for name in names if name in medians}
    known = {name: value for name, value in found.items() if value is not None}
    return max(known, key=lambda name: known[name], default=None)


def _by_missing(
    judgements: Mapping[str, EntrantJudgement], chosen: Bool[np.ndarray, " event"]
) -> list[tuple[Kind, _ByEntrant]]:
    """By number of witnesses taken away, from none on, the events with one left, and what entrants removed of them."""
    # an entrant may have been spared this
    asked = {name: one.without for name, one in judgements.items() if one.without}
    if not asked:
        return []
    some = next(iter(asked.values()))
    return [
        (Kind("0", chosen), {name: one.statistics.net_removed for name, one in judgements.items()}),
        *(
            (
                Kind(str(number), chosen & np.isfinite(some[number])),
                {name: without[number] for name, without in asked.items()},
            )
            for number in sorted(set.intersection(*map(set, asked.values())))
        ),
    ]


def _medians_by_kind(
    rows: Sequence[tuple[Kind, _ByEntrant]], groups: NDArray[np.int64], order: Sequence[str], draw: Mapping[str, Any]
) -> dict[str, list[Estimate]]:
    """Medians by entrant, one a kind."""
    found = [paired_medians(removed, kind.events, groups, **draw) for kind, removed in rows]
    spared = (Estimate(None, reason="not judged"),)
    return {name: [medians.get(name, spared)[0] for medians in found] for name in order}


def _or_least(estimate: Estimate) -> float:
    """What an entrant is ranked by; one without a figure comes last."""
    return -np.inf if estimate.value is None else estimate.value


def _counts(sample: Sample) -> dict[str, int]:
    return {"events": sample.cases, "groups": sample.groups}


def _batches(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
