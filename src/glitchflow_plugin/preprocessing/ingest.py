"""From what detectors write to an event set: read, condition, check, store. Training and inference share this code.

Workers import this module: it must stay light (no torch, no gwpy).
"""

import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from glitchflow_plugin.data.apart import interrupt
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.event_source import EventSource, LoadedEvent
from glitchflow_plugin.data.readers.continuous import GAP, OUTSIDE, UNREADABLE
from glitchflow_plugin.data.readers.trigger_table import TriggerReport
from glitchflow_plugin.data.records import EventBatch
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter, ShardPlan
from glitchflow_plugin.data.sources import Catalogue, ChannelOrigin, open_datasets
from glitchflow_plugin.data.units import same_unit
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.preprocessing.channel_recipe import (
    ChannelRecipe,
    as_recipe,
    channel_recipe,
    channel_recipes,
    whitening_of,
)
from glitchflow_plugin.preprocessing.engine import IN_PROCESS, EngineSettings, map_shards
from glitchflow_plugin.preprocessing.quality import ADVICE, MISSING, Flaw, QualityReport, collect, write_quality
from glitchflow_plugin.preprocessing.slow_motion import with_slow_motion
from glitchflow_plugin.preprocessing.triggers import chosen_by, chosen_for
from glitchflow_plugin.settings import Count, section
from glitchflow_plugin.signal.conditioning import (
    SAMPLE_RATE,
    TOO_SHORT,
    ChannelRejectedError,
    Recorded,
    condition,
    jittered_crop_start,
    needed_length,
)
from glitchflow_plugin.signal.whitening import WhiteningSettings

logger = logging.getLogger(__name__)

UNIT = "unit"
_NOT_THERE = (OUTSIDE, MISSING)
_ENOUGH_TO_TELL = 10
"""Events of which a mean shift tells whether they had room."""


@section
class IngestSettings:
    """How the work is divided, explained in conf/datasets.yaml; `EngineSettings` say where it is done."""

    shard_size: Count | None = None


def ingest(
    datasets: Sequence[Mapping[str, object] | DatasetSettings],
    whitening: WhiteningSettings | Mapping[str, object] | None,
    folder: Path | str,
    *,
    engine: EngineSettings = IN_PROCESS,
    shard_size: int | None = None,
) -> EventSet:
    """Read, condition and store the events of several data sets.

    Args:
        datasets: Entries of datasets.yaml.
        whitening: Content of whiten.yaml: the fields of `WhiteningSettings`, and optionally `psd` (a file a channel)
            with `psd_quantity` (`psd` or `asd`).
        folder: Folder for the event set. What a killed run left there is continued.
        engine: Spreads the shards over processes.
        shard_size: Events a shard; the data sets' `processing.batch` by default.

    Returns:
        The event set, with `quality.json` and `quality.csv` in its folder.

    Raises:
        ShareDone: In a task of an array: its share is made, and the set is not complete.
        ConfigurationError: The settings are wrong or contradict each other.
        NoEventsError: No event is left.
    """
    settings, psd_files, quantity = whitening_of(whitening)
    entries = DatasetSettings.listed(datasets)
    strain = next((one.processing for one in entries if one.target), None)
    catalogue = open_datasets(entries, choose=partial(chosen_for, whitening=settings, band=strain))
    recipes = with_slow_motion(channel_recipes(catalogue, settings, psd_files, quantity), catalogue)
    return _run(catalogue, recipes, folder, engine, shard_size or catalogue.processing.batch)


def ingest_with_recipe(
    datasets: Sequence[Mapping[str, object] | DatasetSettings],
    recipe: Mapping[str, Any],
    channels: Sequence[str] | None,
    folder: Path | str,
    *,
    engine: EngineSettings = IN_PROCESS,
    shard_size: int | None = None,
    require_target: bool = True,
) -> EventSet:
    """Condition new data exactly as those that a model was trained on.

    Args:
        datasets: Entries of datasets.yaml; of `processing` only `batch` and, where it is given, `crop_jitter` is used.
        recipe: The `recipe` of the event set that the model was trained on.
        channels: Channels that the model needs, target first or not; all of the recipe if None.
        folder: Folder for the event set.
        engine: Spreads the shards over processes.
        shard_size: Events a shard; the data sets' `processing.batch` by default.
        require_target: Whether an event without a usable target is rejected. If not, it is kept as long as another
            channel is usable, and the target may be missing altogether: a veto needs the witnesses alone.

    Raises:
        ShareDone: In a task of an array: its share is made, and the set is not complete.
        ChannelMismatchError: No data set has some of the channels; the message lists them.
        FormatError: The recipe is incomplete, or of a later version of this program.
        NoEventsError: No event is left.
    """
    if not {"target", "channels"} <= recipe.keys():
        raise FormatError(
            f"expected a recipe with target and channels, got one with {sorted(recipe)}. Make the event set by "
            "Data-processor, and train a model with the training pipeline."
        )
    target = str(recipe["target"])
    names = list(dict.fromkeys([target, *(channels if channels is not None else recipe["channels"])]))
    unknown = [name for name in names if name not in recipe["channels"]]
    if unknown:
        raise ChannelMismatchError(
            f"the recipe does not say how to condition {unknown}; it knows {list(recipe['channels'])}. "
            "Ask for these, or train a model with the others."
        )
    recipes = [channel_recipe(name, recipe) for name in names]
    catalogue = open_datasets(
        datasets,
        target=target,
        needed=names,
        require_target=require_target,
        choose=partial(chosen_by, settings=recipes[0].settings),
    )
    size, jitter = shard_size or catalogue.processing.batch, catalogue.processing.crop_jitter
    if jitter is not None:
        recipes = [replace(one, settings=replace(one.settings, crop_jitter=jitter)) for one in recipes]
    return _run(catalogue, recipes, folder, engine, size, require_target=require_target)


def _run(
    catalogue: Catalogue,
    channels: Sequence[ChannelRecipe],
    folder: Path | str,
    engine: EngineSettings,
    shard_size: int,
    *,
    require_target: bool = True,
) -> EventSet:
    common = channels[0].settings
    if require_target:
        _check_segment(catalogue, next(one for one in channels if one.name == catalogue.target))
    recipe = as_recipe(catalogue.target, channels)
    writer = ShardedWriter(
        folder=Path(folder),
        kind="events",
        target=catalogue.target,
        channels=tuple(one.name for one in channels),
        axes={"sample_rate": common.sample_rate, "num_samples": common.num_samples},
        units="whitened" if common.whiten else "as recorded",
        recipe=recipe,
        event_ids=tuple(source.event_id for source in catalogue.events),
        shard_size=shard_size,
        inputs=catalogue.fingerprint if require_target else f"{catalogue.fingerprint} target optional",
    )
    sources = {source.event_id: source for source in catalogue.events}
    expected = tuple(_with_known(one, catalogue.channels[one.name]) for one in channels)
    pending = writer.pending()
    done = len(catalogue.events) - sum(len(plan.event_ids) for plan in pending)
    if done:
        logger.info("%s: %d events are there already, %d to go.", folder, done, len(catalogue.events) - done)
    # a job carries the sources of its own shard only; the whole catalogue would be sent to the workers for every shard
    jobs = [_Job(plan.index, plan.event_ids, tuple(sources[name] for name in plan.event_ids)) for plan in pending]
    work = partial(make_shard, writer, expected, require_target=require_target)
    map_shards(work, jobs, engine, "Data-processor", left=writer.pending)
    return _finished(writer, catalogue)


def _check_segment(catalogue: Catalogue, target: ChannelRecipe) -> None:
    """Refuse stretches that are too short for every event, before any is read."""
    settings = target.settings
    rate = catalogue.channels[target.name].sample_rate or settings.sample_rate
    try:
        needed = needed_length(settings, rate, psd=target.psd is not None)
    except ChannelRejectedError as error:
        raise ConfigurationError(
            f"the target {target.name} cannot be used in any event: {error}. {ADVICE[error.reason]}"
        ) from error
    if catalogue.segment < needed - 1e-2:
        raise ConfigurationError(
            f"segment ({catalogue.segment:g} s in datasets.yaml) is too short for every event: a crop of "
            f"{settings.duration:g} s with what the filters and the spectrum need beside it takes {needed:.2f} s. "
            f"{ADVICE[TOO_SHORT]}"
        )


@dataclass(frozen=True)
class _Job(ShardPlan):
    """A shard plan that carries its sources to the worker."""

    sources: tuple[EventSource, ...] = ()


def make_shard(
    writer: ShardedWriter, channels: Sequence[ChannelRecipe], job: ShardPlan, *, require_target: bool
) -> None:
    """Make one shard: read, condition, write. Runs in a worker."""
    if not isinstance(job, _Job):
        raise TypeError(f"expected a job with its sources, got {job!r}")
    common = channels[0].settings
    dtype = np.float32 if common.whiten else np.float64
    kept: list[str] = []
    shape = (len(job.sources), len(channels), common.num_samples)
    series, valid = np.zeros(shape, dtype=dtype), np.zeros(shape[:2], dtype=bool)
    starts: list[float] = []
    times: list[float] = []
    groups: list[str] = []
    rejected: dict[str, str] = {}
    flaws: list[Flaw] = []
    for reading in _read_ahead(job.sources, [one.name for one in channels]):
        source = reading[0]
        event_id = source.event_id
        row = len(kept)
        series[row], valid[row] = 0, False
        found, start = _condition_event(reading, channels, series[row], valid[row])
        flaws += found
        if not valid[row, 0] and (require_target or not valid[row].any()):
            reason = next((flaw.reason for flaw in found if flaw.channel == channels[0].name), MISSING)
            rejected[event_id] = f"target: {reason}"
            continue
        kept.append(event_id)
        starts.append(start)
        times.append(source.gps_event)
        groups.append(source.group)
    batch = None
    if kept:
        held, edges = slice(len(kept)), (np.asarray(starts), np.asarray(times))
        batch = EventBatch(tuple(kept), *edges, series[held], valid[held], tuple(groups))
    writer.write(job, batch, rejected, notes=[[f.event_id, f.channel, f.reason, f.detail] for f in flaws])


_Reading = tuple[EventSource, Iterator[LoadedEvent], set[str]]
"""An event, its copies, and the channels of which no further copy is needed."""


def _read_ahead(sources: Sequence[EventSource], names: Sequence[str]) -> Iterator[_Reading]:
    """Events as they are read: the next one while one is conditioned."""
    used: list[set[str]] = [set() for _ in sources]
    copies = [source.copies(names, done) for source, done in zip(sources, used, strict=True)]
    reader = ThreadPoolExecutor(1)
    reading = deque(reader.submit(next, each, None) for each in copies[:1])
    try:
        for row, source in enumerate(sources):
            first = reading[0].result()
            reading.popleft()
            reading.extend(reader.submit(next, each, None) for each in copies[row + 1 : row + 2])
            yield source, chain([first] if first else [], copies[row]), used[row]
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
        if not all(future.done() for future in reading):
            interrupt()


def _condition_event(
    reading: _Reading, channels: Sequence[ChannelRecipe], series: np.ndarray, valid: np.ndarray
) -> tuple[list[Flaw], float]:
    """Fill in the channels of one event; tell which cannot be used, and why: those keep their zeros.

    Returns:
        The flaws, and where the crop begins, GPS s.
    """
    source, copies, used = reading
    names = [one.name for one in channels]
    refused: dict[str, ChannelRejectedError] = {}
    start: float | None = None
    for loaded in copies:  # of several copies of a channel, the first that can be used
        if start is None:
            start = _start(source, channels, loaded)
        for row, recipe in enumerate(channels):
            found, problem = loaded.event.channels.get(recipe.name), loaded.problems.get(recipe.name, "")
            if recipe.name in used or (found is None and not problem):
                continue
            reason, _, detail = problem.partition(": ")
            try:
                _compare(found, reason, detail, recipe)
                assert found is not None  # noqa: S101  # _compare has refused it
                series[row], _ = condition(
                    found.series,
                    found.sample_rate,
                    found.t0,
                    source.gps_event,
                    recipe.settings,
                    psd=recipe.psd,
                    gps_start=start,
                    slow=recipe.slow,
                )
                valid[row] = True
                used.add(recipe.name)
            except ChannelRejectedError as error:
                # A hole that the reader left is a gap, whether it is NaN now or the series is short of it.
                why = ChannelRejectedError(reason or error.reason, detail or error.detail)
                if recipe.name not in refused or refused[recipe.name].reason in _NOT_THERE:
                    refused[recipe.name] = why
    for name in used & refused.keys():
        if refused[name].reason in _NOT_THERE:
            continue  # data sets that complete each other
        logger.warning("%s, %s: a copy in another data set is taken, since %s.", source.event_id, name, refused[name])
    absent = ChannelRejectedError(MISSING, "not in the data")
    rejected = {name: refused.get(name, absent) for name in names if name not in used}
    flaws = [Flaw(source.event_id, name, error.reason, error.detail) for name, error in rejected.items()]
    return flaws, _start(source, channels) if start is None else start


def _start(source: EventSource, channels: Sequence[ChannelRecipe], loaded: LoadedEvent | None = None) -> float:
    """Where the crop of an event begins, GPS s: one place for all channels, as far as their first copies allow."""
    held = loaded.event.channels if loaded is not None else {}
    there = (
        Recorded(held[one.name].series, held[one.name].sample_rate, held[one.name].t0, one.settings)
        for one in channels
        if one.name in held
    )
    return jittered_crop_start(source.event_id, source.gps_event, channels[0].settings, there)


def _compare(found: Channel | None, reason: str, detail: str, recipe: ChannelRecipe) -> None:
    """Refuse a channel that is absent, or that is not what it is elsewhere."""
    if found is None:
        raise ChannelRejectedError(reason, detail or "not in the data")
    # about what is missing from a stretch, conditioning decides: it may lie outside the crop
    if reason not in ("", GAP, UNREADABLE):
        raise ChannelRejectedError(reason, detail or "the files that this event is cut from disagree")
    if recipe.unit and found.unit and not same_unit(found.unit, recipe.unit):
        raise ChannelRejectedError(UNIT, f"expected {recipe.unit}, got {found.unit}")
    if recipe.sample_rate is not None and found.sample_rate != recipe.sample_rate:
        raise ChannelRejectedError(SAMPLE_RATE, f"expected {recipe.sample_rate:g} Hz, got {found.sample_rate:g} Hz")


def _with_known(recipe: ChannelRecipe, origin: ChannelOrigin) -> ChannelRecipe:
    """The recipe with the rate that this input usually has, to notice events that differ."""
    return replace(recipe, sample_rate=origin.sample_rate, unit=recipe.unit or origin.unit)


def _finished(writer: ShardedWriter, catalogue: Catalogue) -> EventSet:
    flaws = [Flaw(*entry) for notes in writer.notes() for entry in notes or ()]
    try:
        events = writer.finish()
    except NoEventsError as error:
        rejected = {flaw.event_id: f"target: {flaw.reason}" for flaw in flaws if flaw.channel == catalogue.target}
        report = _report(flaws, rejected, 0, catalogue)
        write_quality(writer.folder, report)
        raise NoEventsError(
            f"{error} Details stand in {writer.folder / 'quality.csv'}. " + "; ".join(report.warnings()[:5])
        ) from error
    assert isinstance(events, EventSet)  # noqa: S101  # kind="events" above
    write_quality(writer.folder, _report(flaws, events.manifest.rejected, len(events), catalogue))
    return events


def jitter_lacking(events: EventSet) -> tuple[str, ...]:
    """What to tell where data end so near the triggers that crops hardly move: a twin then learns their place."""
    asked = float(events.recipe.get("crop_jitter", 0.0))
    away = np.abs(events.gps_event - events.gps_start - events.duration / 2)
    # drawn uniformly, the mean is half of what was asked for; of fewer events it says little
    if len(events) < _ENOUGH_TO_TELL or away.mean() >= asked / 4:
        return ()
    return (
        f"crop_jitter: {asked:g} s was asked for, the data about the triggers leave {away.mean():.2f} s on average: "
        "glitches lie in one place of all events. Raise `segment`, bring longer events, or shorten processing.len or "
        "filter_length.",
    )


def _report(flaws: Sequence[Flaw], rejected: Mapping[str, str], kept: int, catalogue: Catalogue) -> QualityReport:
    """Count what was rejected, and files that cannot be read: they have a record too, but with no channel."""
    held = {source.event_id for source in catalogue.events}
    files = [Flaw(name, "", UNREADABLE, why) for name, why in catalogue.unreadable.items()]
    lost = {flaw.event_id: f"file: {flaw.reason}" for flaw in files if flaw.event_id not in held}
    triggers = tuple(_settled(report, ids, rejected) for report, ids in catalogue.triggers)
    for one in triggers:
        logger.info("%s.", one)
    return collect([*flaws, *files], {**rejected, **lost}, kept, catalogue.missing, triggers)


def _settled(report: TriggerReport, ids: Sequence[str], rejected: Mapping[str, str]) -> TriggerReport:
    """What became of the triggers of one data set, once it is known of which the data can be used."""
    reasons = Counter(rejected[event_id] for event_id in ids if event_id in rejected)
    return report.settled(len(ids) - reasons.total(), dict(sorted(reasons.items())))
