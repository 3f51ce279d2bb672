"""The closed loop of continuous data: what blocks say of the witnesses, and which are stopped from when on.

Blocks are made in any order, and the loop goes through time. So each block is made with all witnesses, and keeps what
the strain says of them; once all are there the watch goes over that in order of time, and the blocks that lie after a
stop are made again without the witness.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.inference.closed_loop import WHOLE, ClosedLoop
from glitchflow_plugin.preprocessing.engine import EngineSettings, map_shards
from glitchflow_plugin.products.folder import SeenGain, Stop
from glitchflow_plugin.signal.gain_watch import GainReference, MeasuredGains, WatchSettings, WatchState, watch_gains
from glitchflow_plugin.streaming.belief import Stretch
from glitchflow_plugin.streaming.blocks import Block, after_stops
from glitchflow_plugin.streaming.windows import Look, StreamModel, StreamSettings, foresight, measure_gains

logger = logging.getLogger(__name__)


class _WatchedJob(Protocol):
    """What is done with each block, and what blocks have said of their witnesses."""

    @property
    def folder(self) -> Path: ...
    @property
    def model(self) -> StreamModel: ...
    @property
    def settings(self) -> StreamSettings: ...
    def unseen(self, blocks: Sequence[Block]) -> list[Block]: ...
    def pending(self, blocks: Sequence[Block]) -> list[Block]: ...
    def gains_in(self, block: Block) -> tuple[SeenGain, ...]: ...


_Job = TypeVar("_Job", bound=_WatchedJob)


def seen_gains(
    seen_at: Look, model: StreamModel, stretches: Sequence[Stretch], settings: StreamSettings
) -> tuple[SeenGain, ...]:
    """What the strain says of each witness about some stretches, in the window whose centre is nearest to each.

    Args:
        seen_at: `streaming.windows.look`, of what was prepared.
        model: Twin, recipes and the gains of validation.
        stretches: In which a prediction is believed.
        settings: Stride, and what power tells a gain.
    """
    watched = settings.closed_loop
    if not watched.enabled or model.reference is None or not stretches:
        return ()
    centres = sorted({settings.stride * round(one.peak / settings.stride) for one in stretches})
    found = measure_gains(seen_at, model, centres, watched)
    told = np.argwhere(found.power >= watched.least_power)
    return tuple(
        SeenGain(
            model.reference.parts[part],
            centres[event] - model.duration / 2,
            centres[event] + model.duration / 2,
            *(float(column[event, part]) for column in found),
        )
        for event, part in told
    )


@dataclass(frozen=True, eq=False)
class Watched:
    """What the watch says of a run.

    Attributes:
        stops: Parts that were stopped by what was seen.
        loop: Gains and evidence, a row for each window that was asked, in order of time.
    """

    stops: tuple[Stop, ...]
    loop: ClosedLoop


def watch(
    seen: Iterable[SeenGain], reference: GainReference, settings: WatchSettings, state: WatchState | None = None
) -> Watched:
    """Go over what all blocks say of the witnesses, in order of time.

    Args:
        seen: From `seen_gains`, of all blocks.
        reference: Gains of the validation events.
        settings: When a witness is stopped.
        state: Where the watch stood before; None: nothing has been seen.
    """
    seen = sorted(seen, key=lambda one: one.start)
    row_of = {span: row for row, span in enumerate(dict.fromkeys((one.start, one.stop) for one in seen))}
    shape = len(row_of), len(reference.parts)
    gains = MeasuredGains(np.full(shape, np.nan), np.ones(shape), np.zeros(shape), np.zeros(shape))
    for one in seen:
        for column, value in zip(gains, (one.gain, one.variance, one.power, one.lag), strict=True):
            column[row_of[one.start, one.stop], reference.parts.index(one.part)] = value
    spans = np.array(list(row_of), dtype=np.float64).reshape(-1, 2)
    found = watch_gains(gains, spans, reference, settings, state)
    stops = tuple(
        Stop(part, float(spans[since, 1]), reason)
        for part, since, reason in zip(reference.parts, found.since, found.reason, strict=True)
        if since >= 0
    )
    return Watched(stops, ClosedLoop(reference, gains, found, reference.parts, settings.least_power))


def make_watched(
    job: _Job, make: Callable[[_Job, ShardPlan], object], blocks: Sequence[Block], engine: EngineSettings, name: str
) -> tuple[list[Block], Watched | None]:
    """Make the blocks that are not there yet, and those after a stop a second time without what was stopped.

    Args:
        job: What is done.
        make: Does it with a block, in a worker.
        blocks: From `streaming.blocks.open_blocks`.
        engine: Where.
        name: Of the step.

    Returns:
        The blocks, each with the stops that it depends on, and what the watch says; None where nobody watches.

    Raises:
        ShareDone: In a task of an array: its share is made, and other blocks are not.
        ShardError: A block could not be made; those that were finished stay.
    """
    first = job.unseen(blocks)
    if first:
        map_shards(partial(make, job), first, engine, name, left=partial(job.unseen, blocks), unit="block")
    watched = watched_in(job, (gain for one in blocks for gain in job.gains_in(one)))
    stops = () if watched is None else watched.stops
    stopped = after_stops(blocks, stops, foresight(job.model, job.settings))
    pending = job.pending(stopped)
    done = len(blocks) - len(first) - len(pending)
    if done > 0:
        logger.info("%s: %d of %d blocks are there already.", job.folder, done, len(blocks))
    if stops:
        names = ", ".join(f"{one.part} from GPS {one.since:.3f} on ({one.reason})" for one in stops)
        logger.warning("The strain no longer follows %s: %d blocks are made without.", names, len(pending))
    if pending or not first:
        map_shards(partial(make, job), pending, engine, name, left=partial(job.pending, stopped), unit="block")
    return stopped, watched


def watched_in(job: _WatchedJob, seen: Iterable[SeenGain]) -> Watched | None:
    """What the watch says of what blocks have said of their witnesses; None where there is none.

    Args:
        job: What was done with them.
        seen: From `seen_gains`, of all blocks.
    """
    if job.model.reference is None or not job.settings.closed_loop.enabled:
        return None
    return watch(seen, job.model.reference, job.settings.closed_loop)


def left_out(stops: Iterable[Stop], witnesses: Sequence[str]) -> dict[str, float]:
    """By witness the GPS time from which on it is taken as missing, s.

    Args:
        stops: From `watch`.
        witnesses: Witnesses of the model; a prediction that is no sum over them is stopped as a whole.
    """
    since: dict[str, float] = {}
    for one in stops:
        since |= dict.fromkeys(witnesses if one.part == WHOLE else [one.part], one.since)
    return since


def warnings_of(watched: Watched) -> list[str]:
    """For the run summary: what was stopped, and what nobody watches."""
    said = []
    order = np.arange(len(watched.loop.gains.gain))
    parts = watched.loop.reference.parts
    for one in watched.stops:
        found: Mapping[str, Mapping[str, float]] = watched.loop.now(parts.index(one.part), order)
        before, now = found["training"], found["now"]
        said.append(
            f"{one.part} was stopped from GPS {one.since:.3f} on ({one.reason}): the strain follows it with a gain of "
            f"{now['value']:.2f} [{now['low']:.2f}, {now['high']:.2f}] in its latest glitches, in training with "
            f"{before['value']:.2f}. Look at the sensor, or train again."
        )
    unknown = [name for name, mean in zip(parts, watched.loop.reference.gain, strict=True) if mean is None]
    if unknown:
        said.append(f"{', '.join(unknown)}: too few glitches in the model's validation events to watch the gain.")
    return said
