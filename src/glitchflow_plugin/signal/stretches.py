"""Events that overlap in time, joined to stretches: what several crops show of one time counts once.

Triggers that lie closer together than an event is long give crops of the same data. Taken for independent events, one
accident would count several times. Overlapping events are therefore one stretch, which is slid as one (see `slides`).

At each time of a stretch one of its crops is asked, as few of them as show all of it: looking in several would find
more spikes where more crops lie, which is where the strain glitches. The crops change where no trigger is near, and a
spike that both show there is one, the louder.

A chain of overlapping events may go on for hours. It is cut where triggers are farthest apart, so that no stretch is
longer than `LONGEST` events: what a p-value can resolve grows with the number of stretches.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance, near_in_frequency
from glitchflow_plugin.signal.livetime import LiveTime

#: Longest stretch, in events.
LONGEST = 8.0


@dataclass(frozen=True, eq=False)
class Stretches:
    """Which event belongs to which stretch, and what is seen of it; times are s from the stretch's left edge.

    Attributes:
        event: Stretch of each event; -1 for one that does not count, shape (event,).
        offset: Left edge of each event, shape (event,).
        shown: From when to when each event's crop is asked; empty where others show all of it, shape (event, 2).
        gps_start: Left edge of each stretch: that of its first event, GPS s, shape (stretch,).
        spans: First and last time of each stretch that counts, shape (stretch, 2).
        last: Left edge of the event in which each stretch ends, shape (stretch,).
        crops: Analysed time of the events.
    """

    event: Int[np.ndarray, " event"]
    offset: Float[np.ndarray, " event"]
    shown: Float[np.ndarray, "event 2"]
    gps_start: Float[np.ndarray, " stretch"]
    spans: Float[np.ndarray, "stretch 2"]
    last: Float[np.ndarray, " stretch"]
    crops: LiveTime

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def num_events(self) -> Int[np.ndarray, " stretch"]:
        """Events in each stretch."""
        return np.bincount(self.event[self.event >= 0], minlength=len(self))

    @property
    def num_overlapping(self) -> int:
        """Events that overlap others."""
        return int(self.num_events[self.num_events > 1].sum())

    @property
    def asked(self) -> Bool[np.ndarray, " event"]:
        """Events whose crops are asked."""
        return (self.event >= 0) & (self.shown[:, 0] < self.shown[:, 1])

    def valid(self, valid: Bool[np.ndarray, "event channel"]) -> Bool[np.ndarray, "stretch channel"]:
        """Where a channel is valid in all crops that are asked."""
        found = np.ones((len(self), valid.shape[1]), dtype=bool)
        rows = np.flatnonzero(self.asked)
        np.logical_and.at(found, self.event[rows], valid[rows])
        return found

    def event_at(self, stretch: int, time: float) -> int:
        """The event whose crop is asked at a time of a stretch."""
        own = (self.event == stretch) & (self.shown[:, 0] <= time) & (time < self.shown[:, 1])
        return int(np.flatnonzero(own)[0])

    @cached_property
    def live(self) -> LiveTime:
        """Analysed time of the stretches: each time once."""
        return replace(self.crops, spans=self.spans, last=self.last)

    def merged(self, spikes: Spikes, tolerance: Tolerance) -> Spikes:
        """Spikes of events as spikes of stretches, each once.

        Args:
            spikes: `event` is the event, times are s from its left edge.
            tolerance: Within its time, or one tile, two spikes of one channel in two crops are the same.

        Returns:
            Spikes within the analysed time, whose `event` is the stretch, times in s from its left edge.
        """
        spikes = spikes.select(self.event[spikes.event] >= 0)
        spikes = spikes.select(self.crops.holds(spikes))
        time = spikes.time + self.offset[spikes.event]
        reach = np.maximum(tolerance.time, self.crops.cycles / spikes.frequency)
        begin, end = self.shown[spikes.event].T
        # a little beyond where the crops change: a spike may be earlier in one of them than in the other
        kept = (begin < end) & (time >= begin - reach) & (time < end + reach)
        stretch, reach = self.event[spikes.event[kept]], reach[kept]
        single = self.num_events[stretch] == 1
        crop, spikes = spikes.event[kept], spikes.select(kept)
        spikes = Spikes(stretch, spikes.channel, time[kept], spikes.frequency, spikes.energy)
        twice = _seen_twice(spikes, crop, reach, tolerance, np.flatnonzero(~single))
        spikes = spikes.select(np.delete(np.arange(len(spikes)), twice))
        return spikes.select(self.live.holds(spikes))


def _seen_twice(
    spikes: Spikes, crop: np.ndarray, reach: np.ndarray, tolerance: Tolerance, rows: np.ndarray
) -> np.ndarray:
    """Of these rows, the quieter ones of pairs that are one spike in two crops."""
    rows = rows[np.lexsort((spikes.time[rows], spikes.event[rows], spikes.channel[rows]))]
    one, other = rows[:-1], rows[1:]
    same = (spikes.channel[one] == spikes.channel[other]) & (spikes.event[one] == spikes.event[other])
    same &= (crop[one] != crop[other]) & (spikes.time[other] - spikes.time[one] <= np.maximum(reach[one], reach[other]))
    same[same] = near_in_frequency(spikes.frequency[one[same]], spikes.frequency[other[same]], tolerance)
    # of consecutive pairs every other one: a spike has one copy
    place = np.arange(len(same))
    begun = np.maximum.accumulate(np.where(same, -1, place))
    pairs = same & ((place - begun) % 2 == 1)
    one, other = one[pairs], other[pairs]
    return np.where(spikes.energy[one] < spikes.energy[other], one, other)


def join_overlapping(
    gps_start: Float[np.ndarray, " event"],
    gps_event: Float[np.ndarray, " event"],
    crops: LiveTime,
    *,
    margin: float = 0.0,
    used: Bool[np.ndarray, " event"] | None = None,
) -> Stretches:
    """Join events that overlap.

    Args:
        gps_start: Left edges, GPS s.
        gps_event: Triggers, GPS s.
        crops: Analysed time of the events.
        margin: Time at an event's edges in which not all frequencies are looked at, s: events that overlap by less than
            two of them are not joined, but parted half-way.
        used: Events that count; None: all.

    Returns:
        The stretches, in the order of the first event of each.
    """
    rows = np.arange(len(gps_start)) if used is None else np.flatnonzero(used)
    start = gps_start - gps_start.min(initial=np.inf)
    spans, duration = crops.spans, crops.columns.duration
    begin, end = start + spans[:, 0], start + spans[:, 1]
    inner = start[:, None] + np.clip(spans, margin, duration - margin)
    trigger = np.clip(start + (gps_event - gps_start), begin, end)
    pieces = list(_pieces(rows, inner, trigger, LONGEST * duration))
    limits = np.full((len(pieces), 2), [-np.inf, np.inf])
    for place, (before, after) in enumerate(pairwise(pieces)):
        low, high = begin[after].min(), end[before].max()
        if low < high:
            middle = (trigger[before].max() + trigger[after].min()) / 2
            limits[place, 1] = limits[place + 1, 0] = np.clip(middle, low, high)
    event, offset = np.full(len(start), -1), np.zeros(len(start))
    shown = np.zeros((len(start), 2))
    ends, lasts, lefts = np.zeros((len(pieces), 2)), np.zeros(len(pieces)), np.zeros(len(pieces))
    for stretch, place in enumerate(sorted(range(len(pieces)), key=lambda place: int(pieces[place].min()))):
        piece = pieces[place]
        asked, changes = _cover(piece, inner, trigger)
        first, last = asked[0], asked[-1]
        event[piece], offset[piece] = stretch, gps_start[piece] - gps_start[first]
        bounds = np.concatenate([[-np.inf], changes - start[first], [np.inf]])
        shown[asked] = np.stack([bounds[:-1], bounds[1:]], axis=1)
        low, high = limits[place] - start[first]
        ends[stretch] = max(spans[first, 0], low), min(offset[last] + spans[last, 1], high)
        lefts[stretch], lasts[stretch] = gps_start[first], offset[last]
    return Stretches(event, offset, shown, lefts, ends, lasts, crops)


def _pieces(rows: np.ndarray, inner: np.ndarray, trigger: np.ndarray, longest: float) -> Iterator[np.ndarray]:
    """Rows of each stretch, in the order of time: what overlaps, in parts no longer than that."""
    rows = rows[np.argsort(inner[rows, 0], kind="stable")]
    reached = np.maximum.accumulate(inner[rows, 1])
    for joined in np.split(rows, np.flatnonzero(inner[rows[1:], 0] >= reached[:-1]) + 1):
        if len(joined) < 2 or inner[joined, 1].max() - inner[joined, 0].min() <= longest:
            if len(joined):
                yield joined
            continue
        joined = joined[np.argsort(trigger[joined], kind="stable")]  # noqa: PLW2901
        times = trigger[joined]
        # in the middle half, so that no part is short
        low, high = np.searchsorted(times, times[0] + np.array([0.25, 0.75]) * (times[-1] - times[0]))
        cut = low + int(np.argmax(np.diff(times[low - 1 : high + 1])))
        yield from _pieces(joined[:cut], inner, trigger, longest)
        yield from _pieces(joined[cut:], inner, trigger, longest)


def _cover(piece: np.ndarray, inner: np.ndarray, trigger: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As few events as show all of a stretch, and the times at which one follows the other, far from triggers."""
    piece = piece[np.lexsort((-inner[piece, 1], inner[piece, 0]))]
    begins, ends, times = inner[piece, 0], inner[piece, 1], np.sort(trigger[piece])
    crops, changes = [0], []
    while ends[crops[-1]] < ends.max():
        reach = np.searchsorted(begins, ends[crops[-1]], "left")
        chosen = int(np.argmax(ends[:reach]))
        changes.append(_farthest(begins[chosen], ends[crops[-1]], times))
        crops.append(chosen)
    return piece[crops], np.array(changes)


def _farthest(low: float, high: float, triggers: np.ndarray) -> float:
    """The time between two that is farthest from any of the sorted triggers."""
    near = triggers[max(np.searchsorted(triggers, low) - 1, 0) : np.searchsorted(triggers, high, "right") + 1]
    between = (near[1:] + near[:-1]) / 2
    candidates = np.concatenate([[low, high], between[(between > low) & (between < high)]])
    return float(candidates[np.argmax(np.abs(candidates[:, None] - near).min(axis=1))])
