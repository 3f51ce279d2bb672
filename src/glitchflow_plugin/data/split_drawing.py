"""Dividing events into the parts of a split, as near to their shares as whole groups allow."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from glitchflow_plugin.data.groups import LEAST_GROUPS
from glitchflow_plugin.data.splits import PARTS, Split, SplitPart, SplitSettings
from glitchflow_plugin.errors import NoEventsError

_ADVICE = (
    "Bring events of more groups, choose a smaller block_length in split.yaml for events without a group, or give "
    "finer labels where events of one label are independent."
)
_FAR = 1 / 3
"""Deviation of a part from its share, over the share, that is told."""
_TRIES = 16
"""Random orders of which the one that meets the shares best is taken."""


def make_split(
    event_ids: Sequence[str],
    gps_start: np.ndarray,
    gps_stop: np.ndarray,
    gps_event: np.ndarray,
    *,
    settings: SplitSettings,
    groups: Sequence[str] = (),
    source: Mapping[str, str] | None = None,
) -> Split:
    """Divide events by group.

    Events with a label stay with their label, those without one with the unlabelled of their GPS block, and events that
    overlap in time with each other. What hangs together goes to one part as a whole.

    Args:
        event_ids: One id an event.
        gps_start: Left edge of each event's maps, GPS s, float64.
        gps_stop: Right edge, GPS s, float64.
        gps_event: Trigger time, GPS s, float64.
        settings: Shares, block length, seed.
        groups: One label an event, "" where unknown; none at all counts as unknown.
        source: Kept in the split.

    Returns:
        The split, its shares as near as whole groups allow; events of each part in the order of GPS time.

    Raises:
        NoEventsError: There are no events, or fewer groups than parts with a share.
    """
    if not len(event_ids):
        raise NoEventsError("expected events to split, got none. Check the spectrogram set.")
    everything = SplitPart(tuple(event_ids), gps_start, gps_stop, gps_event, tuple(groups))
    together = _inseparable(everything, settings.block_length)
    shares = {name: share for name, share in settings.shares().items() if share}
    sizes = np.array([len(rows) for rows in together])
    if len(together) < len(shares):
        raise NoEventsError(
            f"{len(event_ids)} events make {_counted(everything, together, settings)}, too few for the {len(shares)} "
            f"parts {', '.join(shares)}. {_ADVICE}"
        )
    chosen = _drawn(sizes, np.array(list(shares.values())), np.random.default_rng(settings.seed))
    rows = {
        name: [row for one in np.flatnonzero(chosen == part) for row in together[one]]
        for part, name in enumerate(shares)
    }
    parts = {name: _take(everything, rows.get(name, [])) for name in PARTS}
    return Split(**parts, block_length=settings.block_length, seed=settings.seed, source=dict(source or {}))


def share_warnings(split: Split, settings: SplitSettings) -> tuple[str, ...]:
    """What to tell where whole groups do not allow the shares that were asked for, or leave a part a single case."""
    sizes = {name: len(split.part(name)) for name in PARTS}
    total = sum(sizes.values())
    everything = _joined([split.part(name) for name in PARTS])
    together = _inseparable(everything, settings.block_length)
    counted = f"the {total} events make {_counted(everything, together, settings)}"
    far = [
        f"{name} got {sizes[name]} events where {share:g} are {share * total:.0f}"
        for name, share in settings.shares().items()
        if abs(sizes[name] - share * total) > max(_FAR * share * total, 1)
    ]
    numbers = {name: split.part(name).num_groups(settings.block_length) for name in PARTS}
    few = [f"{name} has {number}" for name, number in numbers.items() if 0 < number < LEAST_GROUPS]
    warnings = [f"{', '.join(far)}: {counted}. {_ADVICE}"] if far else []
    if few:
        warnings.append(
            f"{', '.join(few)} group(s), and fewer than {LEAST_GROUPS} tell no interval: {counted}. {_ADVICE}"
        )
    return tuple(warnings)


def _counted(events: SplitPart, together: list[list[int]], settings: SplitSettings) -> str:
    """How many groups there are, and what the largest is made of."""
    largest = max(together, key=len)
    labels = sorted({events.group[row] for row in largest} - {""})
    named = f" ({', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''})" if labels else ""
    return (
        f"{len(together)} group(s) by label, GPS block of {settings.block_length:g} s and overlap in time, the largest "
        f"of {len(largest)} events{named}"
    )


def _joined(parts: Sequence[SplitPart]) -> SplitPart:
    times = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("gps_start", "gps_stop", "gps_event")
    }
    ids = tuple(event_id for part in parts for event_id in part.event_ids)
    return SplitPart(ids, **times, group=tuple(label for part in parts for label in part.group))


def _inseparable(events: SplitPart, block_length: float) -> list[list[int]]:
    """Rows that must stay together: of one group, or overlapping in time, or joined through others."""
    order = np.argsort(events.gps_start, kind="stable").tolist()
    keys = events.group_keys(block_length)
    parent = list(range(len(events)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first_of_group: dict[str | int, int] = {}
    latest = -1
    for row in order:
        parent[root(row)] = root(first_of_group.setdefault(keys[row], row))
        if latest >= 0 and events.gps_start[row] < events.gps_stop[latest]:
            parent[root(row)] = root(latest)
        if latest < 0 or events.gps_stop[row] > events.gps_stop[latest]:
            latest = row
    found: dict[int, list[int]] = {}
    for row in order:
        found.setdefault(root(row), []).append(row)
    return list(found.values())


def _drawn(sizes: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of the part that each group goes to, at random among the choices that meet the shares about as well.

    Several random orders are filled in one group after the other, each to the part that lacks most of its share, and
    then mended by moving and exchanging groups as long as that helps. No part stays empty.

    Args:
        sizes: Events in each group, shape (group,).
        shares: Share of each part, > 0, shape (part,).
        rng: Source of the orders.
    """
    wanted = shares * sizes.sum()
    best = _improved(_filled(sizes, wanted, rng.permutation(len(sizes))), sizes, wanted)
    for _ in range(_TRIES - 1):
        if _miss(best, sizes, wanted) <= len(wanted) / 2:  # no whole number of events is nearer by much
            break
        other = _improved(_filled(sizes, wanted, rng.permutation(len(sizes))), sizes, wanted)
        best = min(best, other, key=lambda chosen: _miss(chosen, sizes, wanted))
    return best


def _filled(sizes: NDArray[np.int64], wanted: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups in this order, each to the part that lacks most of its share; the last ones to parts without any."""
    chosen, filled = np.zeros(len(sizes), dtype=np.int64), np.zeros(len(wanted))
    for place, group in enumerate(order.tolist()):
        empty = np.flatnonzero(filled == 0)
        lacking = 1 - filled / wanted
        part = int(empty[0]) if len(order) - place <= len(empty) else int(np.argmax(lacking))
        chosen[group] = part
        filled[part] += sizes[group]
    return chosen


def _improved(chosen: NDArray[np.int64], sizes: NDArray[np.int64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """Groups moved to other parts and exchanged between them as long as the shares come nearer."""
    chosen = chosen.copy()
    filled = np.bincount(chosen, sizes, len(wanted))
    while True:
        step = _best_step(chosen, sizes, filled - wanted)
        if step is None:
            return chosen
        for group, part in step:
            filled[chosen[group]] -= sizes[group]
            filled[part] += sizes[group]
            chosen[group] = part


def _best_step(
    chosen: NDArray[np.int64], sizes: NDArray[np.int64], excess: NDArray[np.float64]
) -> list[tuple[int, int]] | None:
    """The move of one group, or exchange of two, that brings the sizes of two parts nearest to what is wanted.

    Groups of one size are as good as each other, so one of each size stands for all; -1 stands for no group.
    """
    best, most = None, 1e-9
    members = [np.flatnonzero(chosen == part) for part in range(len(excess))]
    offered = [np.r_[-1, here[np.unique(sizes[here], return_index=True)[1]]] for here in members]
    for source, target in combinations(range(len(excess)), 2):
        leaving, coming = offered[source], offered[target]
        moved = np.where(leaving < 0, 0, sizes[leaving])[:, None] - np.where(coming < 0, 0, sizes[coming])
        gain = abs(excess[source]) + abs(excess[target]) - abs(excess[source] - moved) - abs(excess[target] + moved)
        # the only group of a part may be exchanged, not taken away
        if len(members[source]) == 1:
            gain[1:, 0] = -np.inf
        if len(members[target]) == 1:
            gain[0, 1:] = -np.inf
        out, back = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[out, back] > most:
            most = float(gain[out, back])
            steps = ((int(leaving[out]), target), (int(coming[back]), source))
            best = [(group, part) for group, part in steps if group >= 0]
    return best


def _miss(chosen: NDArray[np.int64], sizes: NDArray[np.int64], wanted: NDArray[np.float64]) -> float:
    """Events by which the parts differ from what is wanted, summed."""
    return float(np.abs(np.bincount(chosen, sizes, len(wanted)) - wanted).sum())


def _take(events: SplitPart, rows: list[int]) -> SplitPart:
    ordered = sorted(rows, key=lambda row: (events.gps_start[row], events.event_ids[row]))
    chosen = np.asarray(ordered, dtype=np.int64)
    ids, group = (tuple(values[row] for row in ordered) for values in (events.event_ids, events.group))
    return SplitPart(ids, events.gps_start[chosen], events.gps_stop[chosen], events.gps_event[chosen], group)
