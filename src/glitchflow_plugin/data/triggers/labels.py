"""Times of which it is known whether the strain has a glitch, and their division into parts.

Glitches are the strain's triggers above a threshold. What a model says is right of times that are chosen as those that
it has learnt from, so there are two kinds: times of the loudest triggers of the witnesses, at which one can ask without
a look at the strain, and times of the strain's own glitches, with quiet ones chosen without regard to witnesses.

Quiet times are drawn in each block of time in proportion to its glitches: a clock cannot tell one from the other. The
weight of a quiet time undoes that balance: it is the number of quiet times that it stands for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.settings import CountOrNone, Fraction, Positive, section
from glitchflow_plugin.types.intervals import common, holds, left_over, union

PARTS = ("training", "validation", "test")
_COLUMNS = ("time", "glitch", "kind", "snr", "group", "weight", "part")


@section
class LabelSettings:
    """What is a glitch, and what is quiet.

    Attributes:
        times: `witnesses`: times of the loudest triggers of all other channels (`loudest_times`), with a glitch where
            one is near and quiet where none is; `strain`: times of glitches, and quiet ones out of all live time.
        snr: Least SNR of a glitch in the strain.
        separation: Of triggers this near (s) the loudest counts: those of witnesses, or the glitches of the kind
            `strain`, whose quiet times are as far from every trigger of the strain, and stand for slots of this length.
        coincidence: How near (s) a glitch is to the time of witnesses that it belongs to.
        quiet: Quiet times for each glitch.
        block_length: Of the blocks of GPS time, s.
        class_within: How near (s) a glitch of the table of classes is to the trigger that it gives its class.
        seed: Of the drawing.
    """

    times: Literal["witnesses", "strain"] = "witnesses"
    snr: Positive = 8.0
    separation: Positive = 1.0
    coincidence: Positive = 0.1
    quiet: Positive = 3.0
    block_length: Positive = 4096.0
    class_within: Positive = 0.1
    seed: CountOrNone = 0

    def __post_init__(self) -> None:
        """Refuse times that would share their glitches."""
        if self.times == "witnesses" and 2 * self.coincidence > self.separation:
            raise ConfigurationError(
                f"expected a coincidence of at most half the separation, {self.separation / 2:g} s, got "
                f"{self.coincidence:g} s: a glitch would belong to two times."
            )


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


def loudest_times(triggers: ds.Dataset, channels: Sequence[str], separation: float) -> Int[np.ndarray, " asked"]:
    """Times of the triggers of some channels that no louder one of these is near to, rising, GPS ns.

    Args:
        triggers: As `open_triggers` gives them.
        channels: All but the strain's own: at these times one can ask what it does.
        separation: How near, s.
    """
    table = triggers.to_table(columns=["time", "snr"], filter=pc.field("channel").isin(list(channels)))
    order = np.argsort(table["time"].to_numpy(), kind="stable")
    time, snr = (table[name].to_numpy()[order] for name in ("time", "snr"))
    return time[loudest_of(time, snr, int(separation * NANOSECONDS))]


def label_times(
    time: Int[np.ndarray, " trigger"],
    snr: Float[np.ndarray, " trigger"],
    kind: NDArray[np.str_],
    live: Float[np.ndarray, "interval 2"],
    settings: LabelSettings,
    *,
    asked: Int[np.ndarray, " asked"] | None = None,
) -> LabelledTimes:
    """Times with a glitch in the strain, and quiet ones beside them.

    Args:
        time: Of the strain's triggers, rising, GPS ns.
        snr: Theirs.
        kind: Their classes; "" unknown.
        live: Times with data, disjoint and rising, GPS s.
        settings: What is a glitch, and what is quiet.
        asked: Of the kind `witnesses`: `loudest_times`.

    Raises:
        DataError: No trigger is a glitch, or none is near any time of witnesses.
    """
    loud = np.flatnonzero((snr >= settings.snr) & _live(time, live))
    if not len(loud):
        raise DataError(
            f"expected triggers of the strain with SNR >= {settings.snr:g} in {np.diff(live).sum():g} s of live time, "
            f"found none among {len(time)}, the loudest of {max(snr, default=0.0):.3g}. Lower the threshold, or give "
            "other segments."
        )
    if settings.times == "strain":
        glitch = loud[loudest_of(time[loud], snr[loud], int(settings.separation * NANOSECONDS))]
        at, pool = time[glitch], _live_pool(time, live, settings)
    else:
        there = np.zeros(0, np.int64) if asked is None else asked[_live(asked, live)]
        place, own = _loudest_near(there, time[loud], snr[loud], int(settings.coincidence * NANOSECONDS))
        glitch, at, pool = loud[own], there[place], _asked_pool(np.delete(there, place), settings)
    if not len(at):
        raise DataError(
            f"expected glitches of the strain within {settings.coincidence:g} s of the loudest triggers of other "
            f"channels, found none of {len(loud)} at {len(there)} times. Give triggers of channels that see them, or "
            "set triggers.label.settings.times=strain."
        )
    quiet, weight = _beside(_block(at, settings.block_length), pool, settings)
    both = np.concatenate([at, quiet])
    order = np.argsort(both, kind="stable")
    return LabelledTimes(
        both,
        np.arange(len(both)) < len(at),
        np.concatenate([kind[glitch], np.full(len(quiet), "", dtype="U1")]),
        np.concatenate([snr[glitch], np.full(len(quiet), np.nan)]),
        _block(both, settings.block_length),
        np.concatenate([np.ones(len(at)), weight]),
        np.full(len(both), "", dtype="U10"),
    )[order]


_Draw = Callable[[int, np.random.Generator], NDArray[np.int64]]
"""Draws so many quiet times, or all where there are fewer, GPS ns."""


@dataclass(frozen=True)
class _Pool:
    """Quiet times to draw from.

    Attributes:
        number: How many there are in all.
        within: How many in a block, and what draws among them.
    """

    number: float
    within: Callable[[int], tuple[float, _Draw]]


def _live_pool(time: NDArray[np.int64], live: NDArray[np.float64], settings: LabelSettings) -> _Pool:
    """Slots of live time away from every trigger of the strain."""
    origin, slot = int(live[0, 0]), settings.separation  # s relative to it: float64 rounds GPS ns
    seconds = (time - origin * NANOSECONDS) / NANOSECONDS
    free = left_over(live - origin, union(np.stack([seconds - slot, seconds + slot], axis=1)))

    def within(block: int) -> tuple[float, _Draw]:
        edges = np.array([block, block + 1]) * settings.block_length - origin
        own = common(free, edges[None])
        length = float(np.diff(own, axis=1).sum())

        def draw(size: int, rng: np.random.Generator) -> NDArray[np.int64]:
            drawn = _along(own, rng.uniform(0.0, length, size))
            return origin * NANOSECONDS + np.round(drawn * NANOSECONDS).astype(np.int64)

        return length / slot, draw

    return _Pool(float(np.diff(free, axis=1).sum()) / slot, within)


def _asked_pool(quiet: NDArray[np.int64], settings: LabelSettings) -> _Pool:
    """Times of witnesses without a glitch."""
    blocks = _block(quiet, settings.block_length)

    def within(block: int) -> tuple[float, _Draw]:
        own = quiet[blocks == block]
        return len(own), lambda size, rng: rng.permutation(own)[:size]

    return _Pool(len(quiet), within)


def _beside(
    blocks: NDArray[np.int64], pool: _Pool, settings: LabelSettings
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Quiet times in the blocks of glitches, and for how many of the pool each stands."""
    rng = np.random.default_rng(settings.seed)
    drawn, weights, stood_for = [np.zeros(0, np.int64)], [np.zeros(0)], 0.0
    for block, number in zip(*np.unique(blocks, return_counts=True), strict=True):
        there, draw = pool.within(int(block))
        times = draw(round(number * settings.quiet) if there else 0, rng)
        drawn.append(times)
        weights.append(np.full(len(times), there / max(len(times), 1)))
        stood_for += there if len(times) else 0.0
    # they stand for the blocks of which none is drawn as well: else rates of glitches would be too high
    scale = pool.number / stood_for if stood_for else 1.0
    return np.concatenate(drawn), scale * np.concatenate(weights)


def _loudest_near(
    asked: NDArray[np.int64], time: NDArray[np.int64], snr: NDArray[np.float64], near: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the times that triggers are near to (ns), and for each of these the place of the loudest."""
    first, last = np.searchsorted(time, asked - near, "left"), np.searchsorted(time, asked + near, "right")
    places = np.flatnonzero(last > first)
    own = [low + int(snr[low:high].argmax()) for low, high in zip(first[places], last[places], strict=True)]
    return places, np.array(own, dtype=np.int64)


def _live(time: NDArray[np.int64], live: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether there are data at each time."""
    origin = int(live[0, 0])
    return holds(live - origin, (time - origin * NANOSECONDS) / NANOSECONDS)


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


def _along(intervals: NDArray[np.float64], far: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times that lie so far along disjoint intervals."""
    if not len(far):
        return far
    before = np.concatenate([[0.0], np.cumsum(np.diff(intervals, axis=1))[:-1]])
    place = np.searchsorted(before, far, "right") - 1
    return intervals[place, 0] + far - before[place]
