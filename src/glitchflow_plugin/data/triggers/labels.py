"""Times of which it is known whether the strain has a glitch, and their division into parts.

Glitches are the strain's triggers above a threshold. Quiet times are drawn in each block of time in proportion to its
glitches, away from every trigger of the strain: a clock cannot tell one from the other. The weight of a quiet time
undoes that balance: it is the number of slots of live, quiet time that it stands for.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.settings import CountOrNone, Fraction, Positive, section
from glitchflow_plugin.types.intervals import holds, left_over, union

PARTS = ("training", "validation", "test")
_COLUMNS = ("time", "glitch", "kind", "snr", "group", "weight", "part")


@section
class LabelSettings:
    """What is a glitch, and what is quiet.

    Attributes:
        snr: Least SNR of a glitch in the strain.
        separation: Of glitches this near (s) the loudest counts; a quiet time is at least this far from every trigger
            of the strain, and stands for slots of this length.
        quiet: Quiet times for each glitch.
        block_length: Of the blocks of GPS time, s.
        class_within: How near (s) a glitch of the table of classes is to the trigger that it gives its class.
        seed: Of the drawing.
    """

    snr: Positive = 8.0
    separation: Positive = 1.0
    quiet: Positive = 1.0
    block_length: Positive = 4096.0
    class_within: Positive = 0.1
    seed: CountOrNone = 0


@section
class TriggerSplitSettings:
    """How times are divided.

    Attributes:
        validation: Share of the blocks that chooses.
        test: Share of the blocks that is looked at once.
        reach: How far (s) a set of triggers reaches from its time: of times nearer than this to a block of another
            part none is kept.
        seed: Of the drawing.
    """

    validation: Fraction = 0.2
    test: Fraction = 0.3
    reach: Positive = 64.0
    seed: CountOrNone = 0

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to learn from."""
        if self.validation + self.test >= 1.0:
            raise ConfigurationError("expected validation + test < 1, since the rest is learnt from.")


@dataclass(frozen=True, eq=False)
class LabelledTimes:
    """Times with what is true of them, rising.

    Attributes:
        time: GPS ns.
        glitch: Whether the strain has one.
        kind: Its class; "" unknown.
        snr: Of the glitch in the strain; NaN where there is none.
        group: Number of the block of GPS time.
        weight: What a time counts for.
        part: One of `PARTS`; "" in none.
    """

    time: NDArray[np.int64]
    glitch: NDArray[np.bool_]
    kind: NDArray[np.str_]
    snr: NDArray[np.float64]
    group: NDArray[np.int64]
    weight: NDArray[np.float64]
    part: NDArray[np.str_]

    def __len__(self) -> int:
        """Number of times."""
        return len(self.time)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "LabelledTimes":
        """Some of them."""
        return LabelledTimes(*(getattr(self, name)[rows] for name in _COLUMNS))

    def of(self, part: str) -> "LabelledTimes":
        """Those of a part."""
        return self[self.part == part]

    def write(self, path: Path | str) -> None:
        """Write them whole, as Parquet."""
        with atomic_path(path) as temporary:
            pq.write_table(pa.table({name: getattr(self, name).tolist() for name in _COLUMNS}), temporary)

    @classmethod
    def read(cls, path: Path | str) -> "LabelledTimes":
        """Read what `write` wrote.

        Raises:
            FormatError: It is no such file.
        """
        try:
            held = pq.read_table(path, columns=list(_COLUMNS))
            columns = {name: held[name].to_numpy() for name in _COLUMNS}
            texts = {name: columns[name].astype(np.str_) for name in ("kind", "part")}
            return cls(**{**columns, **texts})
        except (pa.ArrowException, OSError, KeyError) as error:
            raise FormatError(f"{path} holds no labelled times ({error}). Label the triggers again.") from error


def label_times(
    time: Int[np.ndarray, " trigger"],
    snr: Float[np.ndarray, " trigger"],
    kind: NDArray[np.str_],
    live: Float[np.ndarray, "interval 2"],
    settings: LabelSettings,
) -> LabelledTimes:
    """Glitches among the strain's triggers, and quiet times away from all of them.

    Args:
        time: Of the strain's triggers, rising, GPS ns.
        snr: Theirs.
        kind: Their classes; "" unknown.
        live: Times with data, disjoint and rising, GPS s.
        settings: What is a glitch, and what is quiet.

    Raises:
        DataError: No trigger is a glitch.
    """
    origin = int(live[0, 0])  # s relative to it: float64 rounds GPS ns
    seconds = (time - origin * NANOSECONDS) / NANOSECONDS
    able = (snr >= settings.snr) & holds(live - origin, seconds)
    chosen = loudest_of(time, np.where(able, snr, -np.inf), int(settings.separation * NANOSECONDS))
    if not len(chosen):
        raise DataError(
            f"expected triggers of the strain with SNR >= {settings.snr:g} in {np.diff(live).sum():g} s of live time, "
            f"found none among {len(time)}, the loudest of {max(snr, default=0.0):.3g}. Lower the threshold, or give "
            "other segments."
        )
    taken = union(np.stack([seconds - settings.separation, seconds + settings.separation], axis=1))
    free = left_over(live - origin, taken)
    blocks = _block(time[chosen], settings.block_length)
    rng = np.random.default_rng(settings.seed)
    drawn, weights, stood_for = [np.zeros(0)], [np.zeros(0)], 0.0
    for block, number in zip(*np.unique(blocks, return_counts=True), strict=True):
        edges = np.array([[block, block + 1]]) * settings.block_length - origin
        own = left_over(free, np.array([[-np.inf, edges[0, 0]], [edges[0, 1], np.inf]]))
        length = float(np.diff(own, axis=1).sum())
        size = round(number * settings.quiet) if length > 0.0 else 0
        drawn.append(_within(own, rng.uniform(0.0, length, size)))
        weights.append(np.full(size, length / (settings.separation * max(size, 1))))
        stood_for += length if size else 0.0
    # they stand for the blocks of which none is drawn as well: else a block without a glitch would be no live time
    scale = float(np.diff(free, axis=1).sum()) / stood_for if stood_for else 1.0
    quiet = origin * NANOSECONDS + np.round(np.concatenate(drawn) * NANOSECONDS).astype(np.int64)
    both = np.concatenate([time[chosen], quiet])
    order = np.argsort(both, kind="stable")
    return LabelledTimes(
        both,
        np.arange(len(both)) < len(chosen),
        np.concatenate([kind[chosen], np.full(len(quiet), "", dtype="U1")]),
        np.concatenate([snr[chosen], np.full(len(quiet), np.nan)]),
        _block(both, settings.block_length),
        np.concatenate([np.ones(len(chosen)), scale * np.concatenate(weights)]),
        np.full(len(both), "", dtype="U10"),
    )[order]


def split_times(times: LabelledTimes, block_length: float, settings: TriggerSplitSettings) -> LabelledTimes:
    """Give whole blocks to the parts, and none of the times within reach of a block of another part.

    Args:
        times: What is divided.
        block_length: Of their blocks, s.
        settings: Shares and reach.

    Raises:
        ConfigurationError: A set reaches further than over half a block.
        DataError: There are fewer blocks than parts.
    """
    if 2.0 * settings.reach > block_length:  # else two parts are too near with an empty block between
        raise ConfigurationError(
            f"expected blocks of at least twice the reach {settings.reach:g} s, got block_length {block_length:g} s. "
            "Lengthen the blocks."
        )
    blocks = np.unique(times.group)
    if len(blocks) < len(PARTS):
        raise DataError(f"expected {len(PARTS)} blocks of time or more, got {len(blocks)}. Shorten block_length.")
    sizes = [max(1, round(len(blocks) * share)) for share in (settings.validation, settings.test)]
    drawn = np.random.default_rng(settings.seed).permutation(len(blocks))
    member = np.full(len(blocks), PARTS[0], dtype="U10")
    member[drawn[: sizes[0]]], member[drawn[sizes[0] : sum(sizes)]] = PARTS[1:]
    part = member[np.searchsorted(blocks, times.group)]
    length, reach = int(block_length * NANOSECONDS), int(settings.reach * NANOSECONDS)
    for step, near in ((-1, times.time % length < reach), (1, length - times.time % length <= reach)):
        place = np.searchsorted(blocks, times.group + step)
        there = place < len(blocks)
        place[~there] = 0
        other = there & (blocks[place] == times.group + step) & (member[place] != part)
        part = np.where(other & near, "", part)
    return replace(times, part=part)


def _block(time: NDArray[np.int64], block_length: float) -> NDArray[np.int64]:
    return time // int(block_length * NANOSECONDS)


def loudest_of(time: NDArray[np.int64], snr: NDArray[np.float64], near: int) -> NDArray[np.int64]:
    """Places of the triggers that no louder one is near to, rising.

    Args:
        time: Rising, ns.
        snr: Of each; minus infinity: it is none.
        near: How near, ns.
    """
    kept: list[int] = []
    taken = np.isneginf(snr)
    for place in np.argsort(-snr, kind="stable").tolist():
        if not taken[place]:
            kept.append(place)
            taken[np.searchsorted(time, time[place] - near) : np.searchsorted(time, time[place] + near, "right")] = True
    return np.sort(np.array(kept, dtype=np.int64))


def _within(intervals: NDArray[np.float64], along: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times that lie so far along disjoint intervals."""
    if not len(along):
        return along
    before = np.concatenate([[0.0], np.cumsum(np.diff(intervals, axis=1))[:-1]])
    place = np.searchsorted(before, along, "right") - 1
    return intervals[place, 0] + along - before[place]
