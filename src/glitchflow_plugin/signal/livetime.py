"""The time that is analysed: where a spike may lie, and how much is left when some of it is set aside."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.types.intervals import left_over, union


@dataclass(frozen=True, eq=False)
class LiveTime:
    """Analysed time of several events, or of stretches of several that overlap, without the dead parts, on one axis.

    Times of spikes are those of columns of maps; limits lie where columns meet, so that as much time is counted as the
    columns fill.

    Attributes:
        spans: First and last time of each event that counts, s from its left edge, shape (event, 2).
        columns: Columns of the maps of one event, s from its left edge.
        cycles: Q / (2 pi) of the longest tile. The transform joins both ends of an event, so nothing within one tile,
            cycles / f, of either end counts.
        dead: Disjoint, sorted stretches that are set aside, on the pooled axis, shape (stretch, 2).
        last: For stretches, left edge of the event in which each ends, s from its own, shape (event,); else 0.
    """

    spans: np.ndarray
    columns: Columns
    cycles: float = 0.0
    dead: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    last: np.ndarray | float = 0.0

    def limits(self, event: np.ndarray, frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last time at which spikes of these events and frequencies (Hz) can lie, s."""
        tile, shift = self.cycles / frequency, self._shift[event]
        rounding, columns = 1e-9, self.columns
        first = np.maximum(self.spans[event, 0], tile)
        last = np.minimum(self.spans[event, 1] - shift, columns.duration - tile)
        begin = np.searchsorted(columns.centre, first - rounding, "left").clip(max=len(columns) - 1)
        end = np.searchsorted(columns.centre, last + rounding, "right").clip(min=1) - 1
        return columns.left[begin], shift + columns.right[end]

    def holds(self, spikes: Spikes) -> np.ndarray:
        """Which spikes lie within the limits and in no dead stretch, shape (spike,)."""
        first, last = self.limits(spikes.event, spikes.frequency)
        return (spikes.time >= first) & (spikes.time < last) & self.alive(spikes.event, spikes.time)

    def alive(self, event: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Which times lie in no dead stretch, shape (time,)."""
        place = event * self._stride + time
        before = np.searchsorted(self.dead[:, 0], place, "right")
        return place > self._ends[before]

    def position(self, event: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Live time up to a time, on the pooled axis, s: it stands still in dead stretches and outside the spans."""
        low, high = self._edges[event, 0], self._edges[event, 1]
        place = event * self._stride + np.clip(time, low, high)
        before = np.searchsorted(self.dead[:, 0], place, "right")
        return place - self._dead_before[before] + np.maximum(self._ends[before] - place, 0.0)

    @cached_property
    def length(self) -> np.ndarray:
        """Live time of each event, s, shape (event,)."""
        event = np.arange(len(self.spans))
        return self.position(event, self._edges[:, 1]) - self.position(event, self._edges[:, 0])

    def windows(self, spikes: Spikes, half: float) -> tuple[np.ndarray, np.ndarray]:
        """Where the windows of half-width `half` (s) about spikes begin and end in live time, as `position` counts."""
        return self.position(spikes.event, spikes.time - half), self.position(spikes.event, spikes.time + half)

    def covered(self, spikes: Spikes, half: float, num_channels: int) -> np.ndarray:
        """Live time within `half` (s) of any spike of a channel, s, shape (channel,)."""
        start, end = self.windows(spikes, half)
        beyond = (len(self.spans) + 1) * self._stride
        order = np.lexsort((start, spikes.channel))
        channel = spikes.channel[order]
        start, end = start[order] + channel * beyond, end[order] + channel * beyond
        reached = np.concatenate([[-np.inf], np.maximum.accumulate(end)[:-1]]) if len(end) else end
        new = np.maximum(end - np.maximum(start, reached), 0.0)
        return np.bincount(channel, weights=new, minlength=num_channels)

    def left(self) -> tuple[np.ndarray, np.ndarray]:
        """Events and times of all that is alive, s from the event's left edge, shapes (piece,) and (piece, 2)."""
        place = np.arange(len(self.spans)) * self._stride
        pieces = left_over(self._edges + place[:, None], self.dead)
        event = np.searchsorted(place, pieces[:, 0], "right") - 1
        return event, pieces - place[event, None]

    def without(self, spikes: Spikes, half: float) -> "LiveTime":
        """The same with the windows of half-width `half` (s) about spikes set aside as well."""
        low, high = self._edges[spikes.event, 0], self._edges[spikes.event, 1]
        place = spikes.event * self._stride
        new = np.stack([np.clip(spikes.time - half, low, high), np.clip(spikes.time + half, low, high)], axis=1)
        stretches = np.concatenate([self.dead, new + place[:, None]])
        if not len(stretches):
            return self
        return replace(self, dead=union(stretches))

    @cached_property
    def _edges(self) -> np.ndarray:
        """The spans, from the edge of their first column to that of their last."""
        return np.stack(self.limits(np.arange(len(self.spans)), np.full(len(self.spans), np.inf)), axis=1)

    @cached_property
    def _stride(self) -> float:
        return self.columns.duration + self._shift.max(initial=0.0) + 1.0

    @cached_property
    def _shift(self) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.last, dtype=np.float64), len(self.spans))

    @cached_property
    def _ends(self) -> np.ndarray:
        """End of the last stretch that begins before a place, by how many do."""
        return np.concatenate([[-np.inf], self.dead[:, 1]])

    @cached_property
    def _dead_before(self) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(self.dead[:, 1] - self.dead[:, 0])])
