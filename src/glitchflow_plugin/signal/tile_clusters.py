"""Clusters of loud tiles: each is one trigger, with the parameters of its loudest tile and its own extent.

Tiles are neighbours if their extents in time are no further apart than a gap and, where clusters are told apart in
frequency as well, their extents in frequency meet; a cluster is all that is joined through neighbours. Of a stretch
that does not fit in memory the tiles are given piece by piece in order of time: what a later tile can still join is
kept, some runs of tiles for each frequency, and the clusters are those of all tiles at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Self

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glitchflow_plugin.signal.qtransform.loud_tiles import tile_duration

_PAIRS = 2**20
"""Pairs of runs that are compared at one time."""


class _Rows:
    """A frozen dataclass of arrays, or of such, with one row each."""

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """Some of them."""
        return type(self)(*(getattr(self, one.name)[rows] for one in fields(self)))  # type: ignore[arg-type]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """All of them as one."""
        columns = [[getattr(part, one.name) for part in parts] for one in fields(cls)]  # type: ignore[arg-type]
        return cls(*(one[0].joined(one) if isinstance(one[0], _Rows) else np.concatenate(one) for one in columns))


@dataclass(frozen=True, eq=False)
class LoudTiles(_Rows):
    """Tiles with GPS times.

    Attributes:
        times: Of the centres, ns, shape (tile,).
        frequencies: Hz, (tile,).
        qs: Quality factors, (tile,).
        snrs: Signal-to-noise ratios, (tile,).
        amplitudes: In whitened data of unit variance, (tile,).
    """

    times: Int[np.ndarray, " tile"]
    frequencies: Float[np.ndarray, " tile"]
    qs: Float[np.ndarray, " tile"]
    snrs: Float[np.ndarray, " tile"]
    amplitudes: Float[np.ndarray, " tile"]

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.times)


@dataclass(frozen=True, eq=False)
class Clusters(_Rows):
    """Clusters of tiles.

    Attributes:
        loudest: The loudest tile of each; of equal ones the earliest, then the lowest, then that of the lowest Q.
        starts: Begin of the first tile, ns, shape (cluster,).
        ends: End of the last, ns, (cluster,).
        lows: Lowest edge of a tile, Hz, (cluster,).
        highs: Highest, Hz, (cluster,).
    """

    loudest: LoudTiles
    starts: Int[np.ndarray, " cluster"]
    ends: Int[np.ndarray, " cluster"]
    lows: Float[np.ndarray, " cluster"]
    highs: Float[np.ndarray, " cluster"]

    def __len__(self) -> int:
        """Number of clusters."""
        return len(self.starts)

    @property
    def durations(self) -> Float[np.ndarray, " cluster"]:
        """From the begin of the first tile to the end of the last, s."""
        return (self.ends - self.starts) / 1e9

    @property
    def bandwidths(self) -> Float[np.ndarray, " cluster"]:
        """From the lowest edge of a tile to the highest, Hz."""
        return self.highs - self.lows

    @classmethod
    def single(cls, tiles: LoudTiles) -> "Clusters":
        """Each tile as a cluster of its own."""
        lengths = np.asarray(tile_duration(tiles.frequencies, tiles.qs))
        half = np.round(lengths / 2 * 1e9).astype(np.int64)
        edges = tiles.frequencies - 0.5 / lengths, tiles.frequencies + 0.5 / lengths
        return cls(tiles, tiles.times - half, tiles.times + half, *edges)

    def merged(self, member: Int[np.ndarray, " cluster"]) -> "Clusters":
        """Clusters of clusters.

        Args:
            member: Number of the one that each goes into; none is left out.
        """
        tiles = self.loudest
        ranked = np.lexsort((tiles.qs, tiles.frequencies, tiles.times, -tiles.snrs, member))
        first = np.flatnonzero(np.diff(member[ranked], prepend=-1))
        if not len(first):
            return self
        whole = self[ranked]
        extents = [
            merge.reduceat(column, first)
            for merge, column in (
                (np.minimum, whole.starts),
                (np.maximum, whole.ends),
                (np.minimum, whole.lows),
                (np.maximum, whole.highs),
            )
        ]
        return Clusters(whole.loudest[first], *extents)


@dataclass(frozen=True, eq=False)
class _Runs(_Rows):
    """Tiles of one frequency and Q that follow each other, or any that do where frequencies are not told apart."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    frequencies: NDArray[np.float64]
    qs: NDArray[np.float64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]
    cluster: NDArray[np.int64]


class TileClusters:
    """Clusters of tiles that come piece by piece.

    Args:
        gap: Longest time between neighbours, s.
        longest: Of all tiles that can come, s.
        in_frequency: Whether neighbours must meet in frequency as well.
    """

    def __init__(self, gap: float, longest: float, *, in_frequency: bool) -> None:
        self.gap, self.in_frequency = round(gap * 1e9), in_frequency
        self.half = int(np.ceil(longest / 2 * 1e9)) + 1
        self._open = Clusters.single(LoudTiles(np.zeros(0, np.int64), *[np.zeros(0)] * 4))
        self._runs = _runs(self._open, np.zeros(0, np.int64))

    def add(self, tiles: LoudTiles) -> Clusters:
        """Take tiles, none earlier than any before; returns the clusters that no later tile can join."""
        if not len(tiles):
            return self._open[np.zeros(0, np.int64)]
        one = Clusters.single(tiles)
        every = Clusters.joined([self._open, one])
        items = _Runs.joined([self._runs, _runs(one, np.arange(len(self._open), len(every)))])
        runs, run = self._followed(items)
        label = _united(np.arange(len(runs.starts)), run, run[_first_of(items.cluster)])
        if self.in_frequency:
            label = self._met(runs, label)
        member = np.zeros(len(every), dtype=np.int64)
        member[items.cluster] = label[run]
        clusters = every.merged(member)
        live = runs.ends + self.gap >= int(tiles.times.max()) - self.half
        alive = np.zeros(len(clusters), dtype=bool)
        alive[label[live]] = True
        place = np.cumsum(alive) - 1
        self._runs = replace(runs[live], cluster=place[label[live]])
        self._open = clusters[alive]
        return clusters[~alive]

    def finish(self) -> Clusters:
        """The clusters that were open still; nothing may come after it."""
        left, self._open = self._open, self._open[np.zeros(0, np.int64)]
        self._runs = _runs(self._open, np.zeros(0, np.int64))
        return left

    def _followed(self, items: _Runs) -> tuple[_Runs, NDArray[np.int64]]:
        """Longer runs out of those that follow each other, and in which each of the given is."""
        keys = (items.starts, items.qs, items.frequencies) if self.in_frequency else (items.starts,)
        order = np.lexsort(keys)
        ranked = items[order]
        # of one frequency and Q all tiles are as long, so that none ends before an earlier one
        ends = ranked.ends if self.in_frequency else np.maximum.accumulate(ranked.ends)
        new = np.r_[True, ranked.starts[1:] > ends[:-1] + self.gap]
        if self.in_frequency:
            new[1:] |= (np.diff(ranked.frequencies) != 0) | (np.diff(ranked.qs) != 0)
        first = np.flatnonzero(new)
        last = np.r_[first[1:], len(order)] - 1
        run = np.empty(len(order), dtype=np.int64)
        run[order] = np.cumsum(new) - 1
        head = ranked[first]
        return _Runs(head.starts, ends[last], head.frequencies, head.qs, head.lows, head.highs, head.cluster), run

    def _met(self, runs: _Runs, label: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels after those of runs that are neighbours were made the same."""
        order = np.argsort(runs.starts, kind="stable")
        ranked = runs[order]
        places = np.arange(len(order))
        counts = np.searchsorted(ranked.starts, ranked.ends + self.gap, "right") - places - 1
        before = np.cumsum(counts)
        edges = np.searchsorted(before, np.arange(0, int(counts.sum()) + _PAIRS, _PAIRS), "right")
        for low, high in pairwise(edges.tolist()):
            own = counts[low:high]
            one = np.repeat(places[low:high], own)
            other = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(own) - own, own)
            meet = (ranked.lows[one] <= ranked.highs[other]) & (ranked.lows[other] <= ranked.highs[one])
            label = _united(label, order[one[meet]], order[other[meet]])
        return label


def cluster_tiles(tiles: LoudTiles, gap: float, *, in_frequency: bool = False) -> Clusters:
    """The clusters of tiles that are all there, in any order.

    Args:
        tiles: All of them.
        gap: Longest time between neighbours, s.
        in_frequency: Whether neighbours must meet in frequency as well.

    Returns:
        Rising in the time of the loudest tile.
    """
    clusters = TileClusters(gap, 0.0, in_frequency=in_frequency)
    found = Clusters.joined([clusters.add(tiles), clusters.finish()])
    return found[np.lexsort((found.loudest.frequencies, found.loudest.times))]


def _runs(clusters: Clusters, numbers: NDArray[np.int64]) -> _Runs:
    tiles = clusters.loudest
    extents = clusters.starts, clusters.ends, tiles.frequencies, tiles.qs, clusters.lows, clusters.highs
    return _Runs(*extents, numbers)


def _first_of(names: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of the first item of the same name."""
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    return first[inverse]


def _united(label: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels, numbered from 0, after those of some pairs were made the same."""
    size = int(label.max(initial=-1)) + 1
    links = coo_array((np.ones(len(one), dtype=bool), (label[one], label[other])), shape=(size, size))
    return connected_components(links, directed=False)[1][label].astype(np.int64)
