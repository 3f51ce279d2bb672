"""Run a registered twin over a spectrogram set: maps on disk, tables and scores, with bounded memory."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from tqdm import tqdm

from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.groups import group_numbers
from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.records import SpectrogramBatch
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.inference.cases import CaseStatistics, map_statistics
from glitchflow_plugin.inference.clean import band_by_column, loudest_by_column, residual_area
from glitchflow_plugin.inference.closed_loop import NOTE, ClosedLoop, LoopInTime, begin_loop, close_loop, event_spans
from glitchflow_plugin.inference.model_data import check_events, check_spectrograms
from glitchflow_plugin.inference.predict import Prediction, Predictor, explains, make_predictor
from glitchflow_plugin.inference.score import Scores, score_statistics, whole_thresholds
from glitchflow_plugin.inference.subject import weights_fingerprint
from glitchflow_plugin.inference.trivial import MeasuredMaps, trivial_statistics
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.veto_formats import VetoFormat
from glitchflow_plugin.products.veto_table import EventVerdicts, event_table, veto_segments, with_decisions
from glitchflow_plugin.settings import AccuracyRange, Count, CountOrNone, Positive, PositiveNumber, section
from glitchflow_plugin.signal.columns import Columns, judged_pixels
from glitchflow_plugin.signal.gain_watch import WatchSettings, WatchState
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.verdict import GLITCH_THRESHOLD

logger = logging.getLogger(__name__)

UNITS = "SNR^2"
MODEL, LINEAR, ZERO = "model", "linear", "zero"
"""Names under which the model and its baselines are scored, beside the trivial entrants' own."""


@section
class InferenceSettings:
    """How to predict and judge; conf/inference.yaml explains the keys."""

    threshold: Positive = GLITCH_THRESHOLD
    veto_padding: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    products: tuple[VetoFormat, ...] = ("hdf5", "segwizard")
    accuracy_range: AccuracyRange = (1, 50)
    stride: int | None = 32
    batch_size: Count = 64
    batch_events: Count = 32
    block_length: PositiveNumber = 256.0
    replicates: CountOrNone = 1000
    seed: int = 0
    examples: CountOrNone = 4
    tensorboard_rows: Count = 1000
    tensorboard_pictures: CountOrNone = 16
    closed_loop: WatchSettings = field(default_factory=WatchSettings)

    def decisive(self) -> dict[str, object]:
        """The settings that change figures and verdicts; the others change how many are shown, and the speed."""
        shown = ("products", "batch_size", "batch_events", "examples", "tensorboard_rows", "tensorboard_pictures")
        return {key: value for key, value in asdict(self).items() if key not in shown}

    @property
    def thresholds(self) -> tuple[float, ...]:
        """SNR² of the accuracy curves."""
        return whole_thresholds(self.accuracy_range)


@dataclass(frozen=True, eq=False)
class InferenceResult:
    """What a run of the twin gave.

    Attributes:
        maps: Set with the cleaned map (the set's target) and the predicted map of each event, and, from a model that
            says how sure it is, the residual that it expects.
        segments: When to veto, see `products.veto_table.SEGMENT_COLUMNS`.
        events: Table by event, see `products.veto_table.EVENT_COLUMNS`.
        scores: Scores of `model`, its baselines `linear` and `zero`, and what knows nothing of the witnesses
            (`inference.trivial.TRIVIAL`); empty where no event has usable strain.
        witnesses_missing: By witness, the number of events in which it has no usable data.
        num_unmeasured: Events without usable strain.
        judged: Pixels of measured maps that are judged.
        ranks: Largest energy of each column that the model and its linear rival predict, SNR², (event, time).
        loudest_measured: Largest measured energy of each column, SNR², (event, time); 0 where nothing is judged.
        loop: What comparing the prediction with the strain, by witness, has found; None where nothing can be compared.
        power: Power of each event by band before and after cleaning, SNR² (`signal.band_power`); None for models of
            energies.
    """

    maps: SpectrogramSet
    segments: pd.DataFrame
    events: pd.DataFrame
    scores: Mapping[str, Scores]
    witnesses_missing: Mapping[str, int]
    num_unmeasured: int
    judged: Bool[np.ndarray, "frequency time"]
    ranks: Mapping[str, Float[np.ndarray, "event time"]]
    loudest_measured: Float[np.ndarray, "event time"]
    loop: ClosedLoop | None = None
    power: Float[np.ndarray, "event band 2"] | None = None


def cleaned_name(target: str) -> str:
    """Channel name of the cleaned strain."""
    return f"{target}_CLEANED"


def predicted_name(target: str) -> str:
    """Channel name of the predicted strain."""
    return f"{target}_PREDICTED"


def expected_name(target: str) -> str:
    """Channel name of the residual that the model expects."""
    return f"{target}_EXPECTED_RESIDUAL"


def run_inference(
    bundle: ModelBundle,
    spectrograms: SpectrogramSet,
    folder: Path | str,
    settings: InferenceSettings,
    *,
    model: Mapping[str, object] | None = None,
    events: EventSet | None = None,
    state: WatchState | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> InferenceResult:
    """Predict, clean, veto and score a spectrogram set, some events at a time.

    A witness that is invalid in an event enters as zero energy; the event is counted and flagged. An event without
    usable strain is predicted and vetoed, but not cleaned or scored. What measured maps show within one tile of either
    edge of an event is not judged, since the Q-transform joins both edges. A witness that the closed loop has stopped
    is left out of the events that follow, for the model and for its linear baseline.

    Args:
        bundle: The model.
        spectrograms: Maps made by the model's recipe.
        folder: Where the set of predicted and cleaned maps goes.
        settings: How.
        model: Name and version, kept in the recipe of the maps.
        events: The event set that the maps were made of; a model of waveforms needs it.
        state: Where the closed loop stood before these events; None: it has seen nothing.
        device: Where to compute.
        progress: Show a progress bar.

    Returns:
        Maps, tables and scores.

    Raises:
        ChannelMismatchError: The maps lack a witness.
        FormatError: The maps were made another way.
        NoEventsError: The set is empty.
    """
    check_spectrograms(bundle, spectrograms)
    check_events(spectrograms, events)
    if not len(spectrograms):
        msg = f"{spectrograms.folder} holds no event. Check the data sets in inference.yaml."
        raise NoEventsError(msg)
    measurable = bundle.target in spectrograms.channels
    names = [*([bundle.target] if measurable else []), *bundle.witnesses]
    in_turn = _in_turn(bundle, spectrograms, events, settings, state=state, device=device)
    writer = _maps_writer(bundle, spectrograms, Path(folder), settings, dict(model or {}), state=state)
    pending = {plan.index: plan for plan in writer.pending()}
    columns = Columns(spectrograms.times)
    qs = QTransformSettings.from_recipe(Recipe.from_dict(bundle.recipe).part("qtransform")).qs
    judged = judged_pixels(spectrograms.frequencies, columns, qs)
    groups = group_numbers(spectrograms.groups, spectrograms.gps_event, settings.block_length)
    missing = ~spectrograms.valid[:, spectrograms.channel_rows(bundle.witnesses)]
    has_strain = np.zeros(len(spectrograms), dtype=np.bool_)
    if measurable:
        has_strain = spectrograms.valid[:, spectrograms.channel_rows([bundle.target])[0]]
    parts: list[_Judged] = []
    with tqdm(total=len(spectrograms), desc="Inference", unit="event", disable=not progress) as bar:
        for index, first in enumerate(range(0, len(spectrograms), settings.batch_events)):
            rows = np.arange(first, min(first + settings.batch_events, len(spectrograms)))
            batch, found = in_turn(spectrograms.read(rows, names), rows)
            parts.append(_judge(found, batch.event_ids, groups[rows], judged, settings.threshold))
            if index in pending:
                writer.write(pending[index], _maps_batch(batch, found[MODEL], has_strain[rows]))
            bar.update(len(batch))
    loop = in_turn.closed()
    cases = {name: CaseStatistics.concatenate([part.cases[name] for part in parts]) for name in parts[0].cases}
    scored = {name: every.select(has_strain) for name, every in cases.items()}
    if has_strain.any():
        with_strain = np.flatnonzero(has_strain)
        batches = partial(_measured_maps, spectrograms, bundle.target, with_strain, groups, settings.batch_events)
        scored |= trivial_statistics(batches, settings.threshold, inside=judged)
    ranks = {name: np.concatenate([part.ranks[name] for part in parts]) for name in in_turn.predictors}
    verdicts = EventVerdicts(
        loudest_predicted=ranks[MODEL],
        peak_measured=cases[MODEL].peak_measured,
        peak_in_time=cases[MODEL].peak_in_time,
        peak_cleaned=cases[MODEL].peak_cleaned,
        residual_area=np.concatenate([part.residual_area for part in parts]),
        measured_valid=has_strain,
        witnesses_missing=missing.sum(axis=1),
    )
    segments = veto_segments(
        spectrograms.event_ids,
        spectrograms.gps_start,
        columns,
        verdicts.loudest_predicted,
        threshold=settings.threshold,
        padding=settings.veto_padding,
        bands=spectrograms.frequencies[np.concatenate([part.bands for part in parts])],
    )
    table = event_table(
        spectrograms.event_ids,
        spectrograms.gps_start,
        spectrograms.gps_event,
        columns,
        verdicts=verdicts,
        segments=segments,
        threshold=settings.threshold,
        judged=judged,
        groups=groups,
    )
    made = writer.finish()
    assert isinstance(made, SpectrogramSet)  # noqa: S101  # tells the type checker what the writer's kind decides
    return InferenceResult(
        maps=made,
        segments=segments,
        events=with_decisions(table.assign(**_of_model(parts, loop))),
        scores=_scores(scored, settings),
        witnesses_missing=dict(zip(bundle.witnesses, missing.sum(axis=0).tolist(), strict=True)),
        num_unmeasured=int((~has_strain).sum()),
        judged=judged,
        ranks=ranks,
        loudest_measured=np.concatenate([part.loudest_measured for part in parts]),
        loop=loop,
        power=_joined([part.power for part in parts]),
    )


@dataclass(frozen=True, eq=False)
class _InTurn:
    """Predicts events some at a time, without the witnesses that the closed loop has stopped by then.

    Attributes:
        predictors: By name.
        in_time: Watches the gains of the model's predictions as these are made; None where nothing is watched, or
            `loop` has been closed before: an event decides about later ones, so they must come in order of time.
        spans: GPS start and end of each event, s.
        loop: What was found beforehand in events that do not come in order of time.
    """

    predictors: Mapping[str, Predictor]
    in_time: LoopInTime | None
    spans: Float[np.ndarray, "event 2"]
    loop: ClosedLoop | None = None

    def __call__(
        self, batch: SpectrogramBatch, rows: Int[np.ndarray, " row"]
    ) -> tuple[SpectrogramBatch, dict[str, Prediction]]:
        """The batch, in which witnesses that were stopped are not valid, and its predictions by name."""
        if self.loop is not None:
            batch = _without(batch, self.loop.keep[rows])
        found = {MODEL: self.predictors[MODEL](batch)}
        if self.in_time is not None and (gains := found[MODEL].gains) is not None:
            keep = self.in_time.follow(gains, self.spans[rows])
            if not keep.all():
                batch = _without(batch, keep)
                found = {MODEL: self.predictors[MODEL](batch)}
        return batch, {name: found[name] if name in found else each(batch) for name, each in self.predictors.items()}

    def closed(self) -> ClosedLoop | None:
        """What the loop has found."""
        return self.loop if self.in_time is None else self.in_time.closed()


def _in_turn(
    bundle: ModelBundle,
    spectrograms: SpectrogramSet,
    events: EventSet | None,
    settings: InferenceSettings,
    *,
    state: WatchState | None,
    device: torch.device | str,
) -> _InTurn:
    watch, loop = settings.closed_loop, None
    in_time = begin_loop(bundle, spectrograms, events, watch, state=state)
    if in_time is not None and np.any(np.diff(spectrograms.gps_start) < 0):
        sizes: dict[str, Any] = {"device": device, "batch_events": settings.batch_events}
        in_time, loop = None, close_loop(bundle, spectrograms, events, watch, state=state, **sizes)
    predictor = partial(make_predictor, bundle, events=events, stride=settings.stride, batch_size=settings.batch_size)
    longest_lag = None if in_time is None else watch.longest_lag
    predictors = {MODEL: predictor(bundle.twin.to(device), longest_lag=longest_lag)}
    if bundle.baseline is not None:
        predictors[LINEAR] = predictor(bundle.baseline.to(device))
    spans = event_spans(spectrograms, 0.0 if events is None else events.duration)
    return _InTurn(predictors, in_time, spans, loop)


def _without(batch: SpectrogramBatch, keep: Bool[np.ndarray, "event witness"] | None) -> SpectrogramBatch:
    """The batch, whose witnesses come last, in which those that were stopped are not valid; None: all are kept."""
    if keep is None:
        return batch
    valid = batch.valid.copy()
    valid[:, -keep.shape[1] :] &= keep
    return replace(batch, valid=valid)


@dataclass(frozen=True, eq=False)
class _Judged:
    """What is kept of some events.

    Attributes:
        cases: By name of the prediction, the zero prediction among them.
        ranks: Largest energy of each column by name of the prediction, SNR², (event, time).
        loudest_measured: Largest measured energy of each column, SNR², (event, time).
        bands: First and last row that is predicted to be loud, (event, time, 2).
        residual_area: Pixels above the threshold after cleaning, (event,).
        strangeness: As the model says it, (event,).
        agreement: Share of the predicted power that was taken away, (event,).
        power: By band, before and after cleaning, SNR².
    """

    cases: Mapping[str, CaseStatistics]
    ranks: Mapping[str, Float[np.ndarray, "event time"]]
    loudest_measured: Float[np.ndarray, "event time"]
    bands: Int[np.ndarray, "event time 2"]
    residual_area: Int[np.ndarray, " event"]
    strangeness: Float[np.ndarray, " event"] | None
    agreement: Float[np.ndarray, " event"] | None
    power: Float[np.ndarray, "event band 2"] | None


def _judge(
    found: Mapping[str, Prediction],
    event_ids: Sequence[str],
    groups: Int[np.ndarray, " event"],
    judged: Bool[np.ndarray, "frequency time"],
    threshold: float,
) -> _Judged:
    own = found[MODEL]
    zero = Prediction(own.measured, torch.zeros_like(own.measured), own.measured)
    inside = torch.from_numpy(judged).to(own.predicted.device)
    cases = {
        name: map_statistics(
            each.measured,
            each.predicted,
            event_ids,
            threshold,
            cleaned=each.cleaned,
            loudest=each.loudest,
            inside=judged,
            groups=groups,
        )
        for name, each in {**found, ZERO: zero}.items()
    }
    return _Judged(
        cases,
        ranks={name: host(each.rank(inside).double()) for name, each in found.items()},
        loudest_measured=host(loudest_by_column(own.measured, inside).double()),
        bands=host(band_by_column(own.predicted, threshold, inside)),
        residual_area=host(residual_area(torch.where(inside, own.cleaned, 0.0), threshold)),
        strangeness=None if own.strangeness is None else host(own.strangeness.double()),
        agreement=None if own.agreement is None else host(own.agreement.double()),
        power=None if own.power is None else host(own.power),
    )


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    told = [part for part in parts if part is not None]
    return np.concatenate(told) if told else None


def _of_model(parts: Sequence[_Judged], loop: ClosedLoop | None) -> dict[str, object]:
    """Columns of the event table that not every model has."""
    columns: dict[str, object] = {}
    for name, column in (("strangeness", "novelty_p"), ("agreement", "agreement")):
        told = _joined([getattr(part, name) for part in parts])
        if told is not None:
            columns[column] = told
    return columns if loop is None else {**columns, "witnesses_stopped": pd.array(loop.codes(), dtype="string")}


def _measured_maps(
    spectrograms: SpectrogramSet,
    target: str,
    rows: Int[np.ndarray, " row"],
    groups: Int[np.ndarray, " event"],
    batch_events: int,
) -> Iterator[MeasuredMaps]:
    """Measured maps of some rows, some at a time."""
    for first in range(0, len(rows), batch_events):
        chosen = rows[first : first + batch_events]
        batch = spectrograms.read(chosen, [target])
        yield MeasuredMaps(torch.from_numpy(batch.maps[:, 0]), batch.event_ids, groups[chosen])


def _scores(statistics: Mapping[str, CaseStatistics], settings: InferenceSettings) -> dict[str, Scores]:
    # the same seed draws the same groups for the model and what it is compared with
    return {
        name: score_statistics(part, thresholds=settings.thresholds, replicates=settings.replicates, seed=settings.seed)
        for name, part in statistics.items()
        if len(part)
    }


def _maps_writer(
    bundle: ModelBundle,
    spectrograms: SpectrogramSet,
    folder: Path,
    settings: InferenceSettings,
    model: dict[str, object],
    *,
    state: WatchState | None,
) -> ShardedWriter:
    # with the maps and the weights, all that decides which witnesses are stopped
    watch = [asdict(settings.closed_loop), bundle.notes.get(NOTE), None if state is None else asdict(state)]
    return ShardedWriter(
        folder=folder,
        kind="spectrograms",
        target=cleaned_name(bundle.target),
        channels=(
            cleaned_name(bundle.target),
            predicted_name(bundle.target),
            *((expected_name(bundle.target),) if explains(bundle.twin) else ()),
        ),
        axes=dict(spectrograms.manifest.axes),
        units=UNITS,
        recipe={"spectrograms": spectrograms.recipe, "model": model, "stride": settings.stride},
        event_ids=spectrograms.event_ids,
        shard_size=settings.batch_events,
        inputs=f"{spectrograms.manifest.fingerprint} {weights_fingerprint(bundle.twin)} {content_hash(watch)}",
    )


def _maps_batch(batch: SpectrogramBatch, found: Prediction, has_strain: Bool[np.ndarray, " event"]) -> SpectrogramBatch:
    # what was not measured cannot be cleaned: zero and invalid
    cleaned = torch.where(torch.from_numpy(has_strain).to(found.cleaned.device)[:, None, None], found.cleaned, 0.0)
    maps = [cleaned, found.predicted, *([] if found.expected_residual is None else [found.expected_residual])]
    return SpectrogramBatch(
        event_ids=batch.event_ids,
        gps_start=batch.gps_start,
        gps_event=batch.gps_event,
        maps=host(torch.stack(maps, dim=1).float()),
        valid=np.stack([has_strain, *[np.ones_like(has_strain)] * (len(maps) - 1)], axis=1),
        groups=batch.groups,
    )
