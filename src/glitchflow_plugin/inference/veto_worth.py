"""What vetoes are worth: figures of a rank by threshold, with intervals by group, beside those of its rivals.

A rank is a number by column of each event, the larger the more likely a glitch; a veto is where it is above a
threshold, `padding` farther on both sides. With N glitches in the strain, in a live time T, as in Isogai et al., J.
Phys. Conf. Ser. 243 (2010) 012005, doi:10.1088/1742-6596/243/1/012005:

- *efficiency*: share of the glitches whose loudest column lies within a veto,
- *deadtime*: share of the live time that is vetoed,
- *efficiency over deadtime*: 1 for a veto at random,
- *use percentage*: share of the vetoes that hold a glitch, %,
- *glitch time found*, *clean time vetoed*: ROC by time: shares of the time of glitches and of all other time.

Live time is that of the columns that are judged. Intervals are those of a bootstrap by group; what is read off a curve
at half of the glitches is read off anew in each replicate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from glitchflow_plugin.inference.cases import ratio
from glitchflow_plugin.inference.intervals import Estimate, bootstrap, estimate, few_groups
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.vetoes import Glitches, Runs, runs_of
from glitchflow_plugin.types.intervals import holds

HALF = 0.5
"""Efficiency at which vetoes are compared."""

FIGURES = (
    "efficiency",
    "deadtime",
    "efficiency_over_deadtime",
    "use_percentage",
    "glitch_time_found",
    "clean_time_vetoed",
)
"""Names of the figures by threshold."""

_COUNTED = ("hits", "glitches", "dead", "live", "used", "vetoes", "dead_in", "glitch_time")
_LEVELS = 48

Sums: TypeAlias = Mapping[str, Float[np.ndarray, "group level"]]
"""What the figures are made of, summed by group."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Events on which ranks are judged.

    Attributes:
        columns: Columns of the maps.
        live: Columns that are judged, one stretch, (time,).
        glitches: Glitches in the strain.
        groups: Number of the group of each event.
    """

    columns: Columns
    live: Bool[np.ndarray, " time"]
    glitches: Glitches
    groups: Int[np.ndarray, " event"]

    @property
    def span(self) -> tuple[float, float]:
        """First and last time that is judged, s from the left edge of an event."""
        judged = np.flatnonzero(self.live)
        return float(self.columns.left[judged[0]]), float(self.columns.right[judged[-1]])

    @property
    def clean(self) -> Bool[np.ndarray, "event time"]:
        """Columns that are judged and belong to no glitch."""
        return self.live & ~self.glitches.inside


@dataclass(frozen=True, eq=False)
class Worth:
    """Figures of one rank.

    Attributes:
        thresholds: Falling, (level,).
        values: By name of a figure, (level,); NaN where undefined.
        low: Lower ends of the intervals, likewise.
        high: Upper ends.
        at_half: Deadtime, efficiency over deadtime and threshold where half of the glitches are found.
        roc_area: Area under the ROC by time.
        sums: What they are made of.
    """

    thresholds: Float[np.ndarray, " level"]
    values: Mapping[str, Float[np.ndarray, " level"]]
    low: Mapping[str, Float[np.ndarray, " level"]]
    high: Mapping[str, Float[np.ndarray, " level"]]
    at_half: Mapping[str, Estimate]
    roc_area: Estimate
    sums: Sums


def judge_rank(
    rank: Float[np.ndarray, "event time"], judged: Judged, *, padding: float, replicates: int, seed: int = 0
) -> Worth:
    """All figures of a rank.

    Args:
        rank: The larger the more likely a glitch.
        judged: The events.
        padding: Seconds that a veto reaches beyond the columns above a threshold.
        replicates: Bootstrap replicates; 0 for no intervals.
        seed: Seed of the bootstrap; with equal seeds ranks are compared on the same draws.
    """
    thresholds = _thresholds(rank, judged, padding)
    sums = veto_sums(rank, judged, thresholds, padding)
    num_groups = len(sums["live"])
    count = len(thresholds)

    def _all(weights: Float[np.ndarray, "replicate group"]) -> NDArray[np.float64]:
        found = _drawn(sums, weights)
        return np.concatenate([*found.values(), *_read_off(found)], axis=1)

    point = _all(np.ones((1, num_groups)))[0]
    ends = bootstrap(_all, num_groups, replicates=replicates, seed=seed)
    parts = {name: slice(row * count, (row + 1) * count) for row, name in enumerate(FIGURES)}
    reason = "fewer than half of the glitches are found at any threshold"

    def _single(place: int) -> Estimate:
        value = float(point[place])
        return estimate(value, ends[:, place], reason if np.isnan(value) else few_groups(num_groups))

    last = len(FIGURES) * count
    return Worth(
        thresholds,
        values={name: point[part] for name, part in parts.items()},
        low={name: ends[0, part] for name, part in parts.items()},
        high={name: ends[1, part] for name, part in parts.items()},
        at_half={"deadtime": _single(last), "efficiency_over_deadtime": _single(last + 1)},
        roc_area=_single(last + 2),
        sums=sums,
    )


def worth_at(
    rank: Float[np.ndarray, "event time"],
    judged: Judged,
    threshold: float,
    padding: float,
    *,
    replicates: int,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The figures of a rank at one threshold, by name; arguments as for `judge_rank`."""
    sums = veto_sums(rank, judged, np.array([threshold]), padding)
    num_groups = len(sums["live"])

    def _all(weights: Float[np.ndarray, "replicate group"]) -> NDArray[np.float64]:
        return np.concatenate([*_drawn(sums, weights).values()], axis=1)

    point, ends = _all(np.ones((1, num_groups)))[0], bootstrap(_all, num_groups, replicates=replicates, seed=seed)
    reason = "nothing is vetoed"
    return {
        name: estimate(value, ends[:, row], reason if np.isnan(value) else few_groups(num_groups))
        for row, (name, value) in enumerate(zip(FIGURES, point.tolist(), strict=True))
    }


def lead_at_half(own: Worth, rival: Worth, *, replicates: int, seed: int = 0) -> Estimate:
    """How many times the rival's efficiency over deadtime the own one is, where both find half of the glitches.

    Both are read off in the same replicates; of those where a rank never finds half of the glitches nothing is told.
    """

    def _quotient(weights: Float[np.ndarray, "replicate group"]) -> NDArray[np.float64]:
        mine, other = (_read_off(_drawn(each.sums, weights))[1] for each in (own, rival))
        return ratio(mine, np.nan_to_num(other))

    num_groups = len(own.sums["live"])
    value = float(_quotient(np.ones((1, num_groups)))[0, 0])
    ends = bootstrap(_quotient, num_groups, replicates=replicates, seed=seed)
    reason = "one of the two finds fewer than half of the glitches at any threshold"
    return estimate(value, ends[:, 0], reason if np.isnan(value) else few_groups(num_groups))


def at_half(rank: Float[np.ndarray, "event time"], judged: Judged, padding: float) -> float:
    """Efficiency over deadtime at the threshold that finds half of the glitches; NaN where none does."""
    near = rank_at_glitches(rank, judged, padding)
    level = np.nextafter(np.median(near), -np.inf) if len(near) else -np.inf
    if not np.isfinite(level):
        return float("nan")
    found = figures(veto_sums(rank, judged, np.array([level]), padding, together=True))
    return float(found["efficiency_over_deadtime"][0, 0])


PADDINGS = (0.0, 0.025, 0.05, 0.1)
"""Seconds beside the columns above a threshold that are tried for a rank, on events that no figure is made of."""


def best_padding(rank: Float[np.ndarray, "event time"], judged: Judged) -> float:
    """The padding with the largest efficiency over deadtime where half of the glitches are found; s."""
    return max(PADDINGS, key=lambda padding: np.nan_to_num(at_half(rank, judged, padding), nan=-1.0))


def veto_sums(
    rank: Float[np.ndarray, "event time"],
    judged: Judged,
    thresholds: Float[np.ndarray, " level"],
    padding: float,
    *,
    together: bool = False,
) -> Sums:
    """What the figures at several thresholds are made of: counts, and times in s, by group or of all together."""
    columns, glitches, (begin, end) = judged.columns, judged.glitches, judged.span
    width = columns.right - columns.left
    num_events = len(rank)
    group = np.unique(np.zeros(num_events) if together else judged.groups, return_inverse=True)[1]
    place = glitches.event * (columns.duration + 1) + glitches.time
    fixed = {
        "glitches": np.bincount(glitches.event, minlength=num_events),
        "live": np.full(num_events, end - begin),
        "glitch_time": (glitches.inside & judged.live) @ width,
    }
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _COUNTED}
    for threshold in thresholds:
        runs = runs_of(rank > threshold, columns, padding)
        dead = np.maximum(np.minimum(runs.end, end) - np.maximum(runs.start, begin), 0.0)
        intervals = np.stack([runs.start, runs.end], axis=1) + (runs.event * (columns.duration + 1))[:, None]
        hit = holds(intervals, place)
        within = np.histogram(place, bins=intervals.ravel())[0][::2] if len(runs) else np.zeros(0)
        each = fixed | {
            "hits": np.bincount(glitches.event[hit], minlength=num_events),
            "dead": np.bincount(runs.event, weights=dead, minlength=num_events),
            "used": np.bincount(runs.event, weights=within > 0, minlength=num_events),
            "vetoes": np.bincount(runs.event, weights=dead > 0, minlength=num_events),
            "dead_in": _overlap(runs, judged, num_events),
        }
        for name, values in each.items():
            found[name].append(np.bincount(group, weights=values).astype(np.float64))
    return {name: np.stack(parts, axis=1) for name, parts in found.items()}


def figures(sums: Sums) -> dict[str, NDArray[np.float64]]:
    """The figures, from sums (..., level)."""
    efficiency, deadtime = ratio(sums["hits"], sums["glitches"]), ratio(sums["dead"], sums["live"])
    clean = sums["live"] - sums["glitch_time"]
    return {
        "efficiency": efficiency,
        "deadtime": deadtime,
        "efficiency_over_deadtime": ratio(efficiency, deadtime),
        "use_percentage": 100 * ratio(sums["used"], sums["vetoes"]),
        "glitch_time_found": ratio(sums["dead_in"], sums["glitch_time"]),
        "clean_time_vetoed": ratio(sums["dead"] - sums["dead_in"], clean),
    }


def _drawn(sums: Sums, weights: Float[np.ndarray, "replicate group"]) -> dict[str, NDArray[np.float64]]:
    """The figures of groups drawn so often, (replicate, level)."""
    return figures({name: weights @ part for name, part in sums.items()})


def slid(
    rank: Float[np.ndarray, "event time"], live: Bool[np.ndarray, " time"], seed: int = 0
) -> Float[np.ndarray, "event time"]:
    """The rank of each event, moved along its judged columns by a number drawn at random: a veto at random.

    It takes about as much time as the rank itself, in as many pieces, and knows nothing of where glitches are.
    """
    judged = np.flatnonzero(live)
    moves = np.random.default_rng(seed).integers(len(judged), size=len(rank))
    moved = rank.copy()
    source = (np.arange(len(judged))[None, :] - moves[:, None]) % len(judged)
    moved[:, judged] = np.take_along_axis(rank[:, judged], source, axis=1)
    return moved


def _read_off(found: Mapping[str, NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Deadtime and efficiency over deadtime where half of the glitches are found, and the area of the ROC by time."""
    enough = found["efficiency"] >= HALF
    level = enough.argmax(axis=1)[:, None]

    def _at(name: str) -> NDArray[np.float64]:
        return np.where(enough.any(axis=1)[:, None], np.take_along_axis(found[name], level, axis=1), np.nan)

    hits, alarms = found["glitch_time_found"], found["clean_time_vetoed"]
    edge = np.zeros((len(hits), 1))
    x, y = np.hstack([edge, alarms, edge + 1]), np.hstack([edge, hits, edge + 1])
    area = trapezoid(y, x, axis=1)[:, None]
    return [_at("deadtime"), _at("efficiency_over_deadtime"), area]


def _thresholds(rank: Float[np.ndarray, "event time"], judged: Judged, padding: float) -> NDArray[np.float64]:
    """Falling thresholds, between which about equally many glitches are found, and then ever more of the other time."""
    values = [part for part in (rank_at_glitches(rank, judged, padding), rank[judged.clean]) if len(part)]
    shares = np.linspace(0, 1, _LEVELS)
    levels = np.unique(np.concatenate([np.quantile(part, shares, method="lower") for part in values]))
    # just below, so that a glitch with this very rank is found
    return np.nextafter(levels[::-1], -np.inf)


def rank_at_glitches(
    rank: Float[np.ndarray, "event time"], judged: Judged, padding: float = 0.0
) -> Float[np.ndarray, " glitch"]:
    """Largest rank within the padding (s) of the loudest column of each glitch, about that at which it is found."""
    reach = int(np.ceil(padding / judged.columns.width))
    padded = np.pad(rank, ((0, 0), (reach, reach)), constant_values=-np.inf)
    column = np.searchsorted(judged.columns.right, judged.glitches.time, "right").clip(max=len(judged.columns) - 1)
    beside = column[:, None] + np.arange(2 * reach + 1)
    return padded[judged.glitches.event[:, None], beside].max(axis=1)


def _overlap(runs: Runs, judged: Judged, num_events: int) -> NDArray[np.float64]:
    """Time that is vetoed and belongs to glitches, s, (event,)."""
    columns, (begin, end) = judged.columns, judged.span
    width = np.where(judged.live, columns.right - columns.left, 0.0)
    cumulative = np.concatenate([np.zeros((num_events, 1)), np.cumsum(judged.glitches.inside * width, axis=1)], axis=1)

    def _up_to(event: NDArray[np.int64], time: NDArray[np.float64]) -> NDArray[np.float64]:
        time = np.clip(time, begin, end)
        column = np.searchsorted(columns.right, time, "right").clip(max=len(columns) - 1)
        part = (time - columns.left[column]).clip(min=0) * judged.glitches.inside[event, column] * judged.live[column]
        return cumulative[event, column] + part

    time = _up_to(runs.event, runs.end) - _up_to(runs.event, runs.start)
    return np.bincount(runs.event, weights=time, minlength=num_events).astype(np.float64)
