"""Where streaming finds its data: science segments, blocks of them, and the channels of a block."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.event_source import EventSource, LoadedEvent
from glitchflow_plugin.data.listing import coverage
from glitchflow_plugin.data.readers.continuous import GAP, OUTSIDE, UNREADABLE, slice_bounds
from glitchflow_plugin.data.readers.trigger_table import event_id_at
from glitchflow_plugin.data.readers.triggers import TriggerSettings
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.data.sources import Catalogue, open_datasets
from glitchflow_plugin.data.units import same_unit
from glitchflow_plugin.errors import ConfigurationError, ConnectionFailedError, FormatError, NoEventsError
from glitchflow_plugin.preprocessing.channel_recipe import ChannelRecipe
from glitchflow_plugin.products.folder import Stop
from glitchflow_plugin.signal import filters
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings, reach
from glitchflow_plugin.types.intervals import common, left_over, union

logger = logging.getLogger(__name__)

WAITS = (2.0, 10.0, 30.0)
"""After a server's fault it is asked again after so many seconds."""

_MOST_FILES = 5
"""Files that cannot be read of which each is named."""

_HOLES = (GAP, OUTSIDE, UNREADABLE)
"""What a reader says of a stretch that is not there; all else is wrong with the channel as a whole."""


@dataclass(frozen=True)
class Block(ShardPlan):
    """A stretch that is made at once.

    Attributes:
        span: Start and end, whole GPS s.
        segment: The science segment that it is a part of, whole GPS s.
        source: Where its data are; None before the data sets were opened.
        stopped: What the closed loop leaves out, and from which GPS time (s) on.
    """

    span: tuple[float, float] = (0.0, 0.0)
    segment: tuple[float, float] = (0.0, 0.0)
    source: EventSource | None = None
    stopped: tuple[Stop, ...] = ()


def plan_blocks(segments: Iterable[tuple[float, float]], block_length: int) -> list[Block]:
    """Blocks that begin at multiples of a length, in whole seconds, within segments.

    Args:
        segments: Start and end, GPS s; what is not a whole second at their ends is left out.
        block_length: Length of a block, s.

    Raises:
        NoEventsError: No segment holds a whole second.

    >>> [block.span for block in plan_blocks([(90.5, 210.0)], 100)]
    [(91.0, 100.0), (100.0, 200.0), (200.0, 210.0)]
    """
    blocks: list[Block] = []
    for start, stop in segments:
        segment = float(math.ceil(start)), float(math.floor(stop))
        begin = segment[0]
        while begin < segment[1]:
            end = min((begin // block_length + 1) * block_length, segment[1])
            blocks.append(Block(len(blocks), (event_id_at((begin + end) / 2),), (begin, end), segment))
            begin = end
    if not blocks:
        raise NoEventsError(
            "no segment holds a second from whole to whole GPS second, which is the least that a file has. Give longer "
            "ones in stream.segments, or data that last longer."
        )
    return blocks


def find_segments(
    datasets: Sequence[DatasetSettings], strain: str, asked: Sequence[tuple[float, float]] | None
) -> list[tuple[float, float]]:
    """Times that are made: what is asked for, as far as the files of the strain say that they have it.

    Args:
        datasets: Where the data are.
        strain: The channel.
        asked: GPS intervals, s; None: all that there is.

    Raises:
        ConfigurationError: A service is asked for nothing in particular.
        NoEventsError: There is no strain in the times asked for.
    """
    services = [one for one in datasets if one.format in ("open_data", "nds2", "datafind")]
    if services and asked is not None:
        return [(float(start), float(stop)) for start, stop in asked]
    held = union(tuple(pair) for one in datasets for pair in coverage(one, strain))
    if not len(held):
        raise NoEventsError(
            f"none of the data sets holds the strain {strain}. Correct stream.datasets, or stream.products.target."
        )
    wanted = held if asked is None else np.asarray(asked, dtype=np.float64)
    found = common(union(tuple(pair) for pair in wanted), held)
    if not len(found):
        raise NoEventsError(
            f"the strain {strain} is there from GPS {held[0, 0]:.0f} to {held[-1, 1]:.0f}, and nothing of it in the "
            f"{len(wanted)} segment(s) from {wanted[0][0]:.0f} to {wanted[-1][1]:.0f}. Correct stream.segments."
        )
    return [(float(start), float(stop)) for start, stop in found]


def not_held(
    asked: Sequence[tuple[float, float]] | None, found: Sequence[tuple[float, float]], unreadable: Mapping[str, str]
) -> list[str]:
    """What to tell of times that are asked for and not made, and of files that might hold them.

    Args:
        asked: GPS intervals, s; None: all that there is.
        found: Those that are made, from `find_segments`.
        unreadable: By file why it cannot be read.

    >>> not_held([(100.0, 200.0)], [(100.0, 150.0)], {"a.h5": "damaged"})
    ['no file gives strain for 50 of 100 s that are asked for, first from GPS 150 to 200', 'a.h5 is not used: damaged']
    """
    said = [f"{name} is not used: {why}" for name, why in list(unreadable.items())[:_MOST_FILES]]
    if len(unreadable) > _MOST_FILES:
        said.append(f"{len(unreadable) - _MOST_FILES} more files are not used, which cannot be read either")
    wanted = union(asked or ())
    rest = left_over(wanted, union(found))
    if len(rest):
        lost, whole = (float((one[:, 1] - one[:, 0]).sum()) for one in (rest, wanted))
        first = f"first from GPS {rest[0, 0]:.12g} to {rest[0, 1]:.12g}"
        said.insert(0, f"no file gives strain for {lost:g} of {whole:g} s that are asked for, {first}")
    return said


def open_blocks(
    datasets: Sequence[DatasetSettings], blocks: Sequence[Block], model: StreamModel, settings: StreamSettings
) -> tuple[list[Block], Catalogue]:
    """Give each block what reads its data, with as much around it as is needed.

    Raises:
        ConfigurationError: The data sets lack the strain, or their band is too narrow for the model.
        NoEventsError: They hold none of the witnesses.
    """
    names = (model.target.name, *(one.name for one in model.witnesses))
    opened, catalogue = with_sources(datasets, blocks, names, reach(model, settings))
    there = [name for name in names[1:] if name in catalogue.channels and name not in catalogue.missing]
    if not there:
        raise NoEventsError(
            f"none of the {len(names) - 1} witnesses of the model is in the data sets, for instance {names[1]}. "
            "Correct stream.datasets, or choose another model."
        )
    check_band(model, catalogue.channels[model.target.name].sample_rate)
    return opened, catalogue


def with_sources(
    datasets: Sequence[DatasetSettings], blocks: Sequence[Block], channels: Sequence[str], around: float
) -> tuple[list[Block], Catalogue]:
    """Give each block what reads some channels of it, with as much around it as is needed.

    Args:
        datasets: Where the data are.
        blocks: From `plan_blocks`.
        channels: Names, the first of which must be there.
        around: How far beyond a block data are read, s.

    Raises:
        ConfigurationError: The data sets lack the first channel.
    """
    length = max(stop - start for start, stop in (one.span for one in blocks)) + 2 * around
    times = tuple((one.span[0] + one.span[1]) / 2 for one in blocks)
    entries = [
        replace(
            one,
            triggers=TriggerSettings(times=times),
            segment=length,
            ch_list=tuple(channels),
            allow_missing=True,
            # blocks reach into each other, and into the same files
            remote=replace(one.remote, cache=True),
        )
        for one in datasets
    ]
    catalogue = open_datasets(entries, target=channels[0])
    source_of = {one.event_id: one for one in catalogue.events}
    opened = []
    for one in blocks:
        read = max(one.span[0] - around, one.segment[0]), min(one.span[1] + around, one.segment[1])
        opened.append(replace(one, source=source_of[one.event_ids[0]].within(*read)))
    return opened, catalogue


def check_band(model: StreamModel, sample_rate: float | None) -> None:
    """Refuse strain that does not reach as high as what the model predicts.

    Args:
        model: Twin and recipes.
        sample_rate: Rate of the strain, Hz; None where it is not known yet.

    Raises:
        ConfigurationError: It does not.
    """
    whole = model.target.settings
    trained = min(whole.high, 0.98 * whole.sample_rate / 2)
    if sample_rate is None:
        return
    try:
        reached = filters.usable_band(whole.low, whole.high, sample_rate, whole.sample_rate)[1]
    except ValueError:
        reached = 0.0
    if reached < trained:
        raise ConfigurationError(
            f"the model predicts strain up to {trained:g} Hz, and {model.target.name} at {sample_rate:g} Hz reaches "
            f"{reached:g} Hz. Bring strain of at least {2 * trained / 0.9:.0f} Hz, or train a model with a lower "
            "processing.maxf."
        )


def after_stops(blocks: Sequence[Block], stops: Sequence[Stop], around: float) -> list[Block]:
    """The blocks, each with the stops that it depends on.

    Args:
        blocks: From `open_blocks`, or before.
        stops: From `streaming.loop.watch`.
        around: How far beyond a block data are read, s.
    """
    return [replace(one, stopped=tuple(stop for stop in stops if stop.since < one.span[1] + around)) for one in blocks]


def read_block(model: StreamModel, block: Block) -> tuple[dict[str, Channel], dict[str, str]]:
    """Channels of a block and its surroundings, nothing outside the segment, and by channel what is wrong with it.

    Args:
        model: Which channels, and in which unit.
        block: From `open_blocks`.

    Raises:
        FormatError: The strain is in another unit than in training, or files contradict each other.
    """
    assert block.source is not None  # noqa: S101  # open_blocks gives it one
    recipes = (model.target, *model.witnesses)
    loaded = read_source(block.source, [one.name for one in recipes])
    channels: dict[str, Channel] = {}
    problems: dict[str, str] = {}
    for recipe in recipes:
        found = loaded.event.channels.get(recipe.name)
        problem = loaded.problems.get(recipe.name, "")
        if found is not None and not problem.startswith(tuple(_HOLES)) and problem:
            problems[recipe.name] = problem
        elif found is not None and recipe.unit and found.unit and not same_unit(found.unit, recipe.unit):
            problems[recipe.name] = f"unit: expected {recipe.unit}, got {found.unit}"
        elif found is not None and recipe is not model.target and (slow := _too_slow(recipe, found.sample_rate)):
            problems[recipe.name] = slow
        elif found is not None:
            cut = between(found, *block.segment)
            if cut is not None:
                channels[recipe.name] = cut
    target = model.target.name
    if target in problems:
        raise FormatError(
            f"the strain {target} from GPS {block.span[0]:.0f} to {block.span[1]:.0f} cannot be used: "
            f"{problems[target]}. Bring it as in training and each time once, or choose another target."
        )
    return channels, problems


def _too_slow(witness: ChannelRecipe, sample_rate: float) -> str:
    """Why nothing of a witness at some rate (Hz) can be used; empty where it can."""
    band = witness.settings.low, witness.settings.high
    try:
        filters.usable_band(*band, sample_rate, witness.settings.sample_rate)
    except ValueError as error:
        return f"sample rate: {error}"
    return ""


def read_source(source: EventSource, names: Sequence[str]) -> LoadedEvent:
    """What is read of a block; a server that fails is asked again, for hours of work hang on it.

    Args:
        source: Of the block.
        names: Channels that are read.
    """
    for wait in WAITS:
        try:
            return source.load(names)
        except ConnectionFailedError as error:
            logger.warning("%s It is asked again in %g s.", error, wait)
            time.sleep(wait)
    return source.load(names)


def read_covered(model: StreamModel, plan: ShardPlan) -> tuple[Block, dict[str, Channel], dict[str, str]]:
    """A block with its channels and what is wrong with them; strain that holds anything of it covers all of it.

    Args:
        model: Which channels, in which unit, and up to which frequency.
        plan: From `open_blocks`.

    Returns:
        The block, and as `read_block` gives them its channels and problems. Where the block lacks strain there are NaN,
        and no strain is there where it lacks all.

    Raises:
        FormatError: As `read_block`.
        ConfigurationError: The strain does not reach as high as what the model predicts.
    """
    if not isinstance(plan, Block) or plan.source is None:
        raise TypeError(f"expected a block with its source, got {plan!r}")
    channels, problems = read_block(model, plan)
    strain = channels.get(model.target.name)
    piece = None if strain is None else between(strain, *plan.span)
    if strain is not None and piece is not None and np.isfinite(piece.series).any():
        check_band(model, strain.sample_rate)
        channels[strain.name] = padded(strain, plan.span)
    else:
        channels.pop(model.target.name, None)
    return plan, channels, problems


def between(channel: Channel, start: float, stop: float) -> Channel | None:
    """The samples of a channel in [start, stop) GPS s; None if there are none.

    Args:
        channel: The recorded channel.
        start: GPS s.
        stop: GPS s.
    """
    first, last = slice_bounds(channel.t0, channel.sample_rate, len(channel.series), start, stop)
    if first >= last:
        return None
    return replace(channel, series=channel.series[first:last], t0=channel.t0 + first / channel.sample_rate)


def padded(strain: Channel, span: tuple[float, float]) -> Channel:
    """The strain, with NaN where a block begins before it or ends after it.

    Args:
        strain: The recorded strain.
        span: Start and end of the block, GPS s.
    """
    before = max(0, math.floor((strain.t0 - span[0]) * strain.sample_rate + 1e-6))
    after = max(0, round((span[1] - strain.t0 - strain.duration) * strain.sample_rate))
    if not before and not after:
        return strain
    series = np.pad(strain.series.astype(np.float64), (before, after), constant_values=np.nan)
    return replace(strain, series=series, t0=strain.t0 - before / strain.sample_rate)
