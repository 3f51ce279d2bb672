"""Coincidence of spikes between a reference channel (the strain) and witnesses.

Spikes are matched one to one within an event, so a witness that spikes all the time cannot count one spike for many.
The largest possible number of pairs is taken (Hopcroft and Karp, SIAM J. Comput. 2 (1973) 225, doi:10.1137/0202019).
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.types.arrays import ValidityMask

#: Rounding of times that are multiples of a column.
_TIME_ROUNDING = 1e-6


@dataclass(frozen=True)
class Tolerance:
    """How far apart two spikes may be to count as the same.

    Attributes:
        time: s.
        octaves: Distance in log2 of frequency; None ignores the frequency.
    """

    time: float
    octaves: float | None = None

    def __post_init__(self) -> None:
        """Refuse negative distances."""
        if not self.time >= 0 or (self.octaves is not None and not self.octaves >= 0):
            raise ConfigurationError(
                f"a coincidence tolerance must not be negative, got {self.time} s, {self.octaves}."
            )


@dataclass(frozen=True, eq=False)
class CoincidenceCounts:
    """Spikes by witness channel, pooled over the events where witness and reference are both valid; shape (channel,).

    Attributes:
        reference: Spikes of the reference.
        witness: Spikes of the witness.
        shared: Pairs; at most the smaller of the two.
    """

    reference: Int[np.ndarray, " channel"]
    witness: Int[np.ndarray, " channel"]
    shared: Int[np.ndarray, " channel"]

    def __add__(self, other: "CoincidenceCounts") -> "CoincidenceCounts":
        """Pool the counts of further events."""
        return type(self)(self.reference + other.reference, self.witness + other.witness, self.shared + other.shared)

    @property
    def correlation(self) -> np.ndarray:
        """Share of the reference's spikes that the witness shares; NaN without any spike of the reference."""
        return _share(self.shared, self.reference)

    @property
    def iou(self) -> np.ndarray:
        """Shared over all spikes of the two (intersection over union); NaN without any spike of the reference."""
        union = self.reference + self.witness - self.shared
        return np.where(self.reference > 0, _share(self.shared, union), np.nan)


def coincidence(reference: Spikes, witness: Spikes, valid: ValidityMask, tolerance: Tolerance) -> CoincidenceCounts:
    """Count shared spikes of each witness.

    Events where neither channel has a spike add nothing to any count, so silence is no evidence either way.

    Args:
        reference: Spikes of the reference channel; their `channel` is ignored.
        witness: Spikes of the witnesses; `channel` is the column of `valid`.
        valid: True where reference and witness are both valid, shape (event, channel).
        tolerance: Largest distance of a pair.

    Returns:
        Counts by channel.

    Example:
        >>> one = np.array([0]), np.array([0]), np.array([3.0]), np.array([50.0]), np.array([30.0])
        >>> counts = coincidence(Spikes(*one), Spikes(*one), np.ones((1, 1), bool), Tolerance(time=0.1))
        >>> float(counts.correlation[0])
        1.0
    """
    num_events, num_channels = valid.shape
    for name, spikes, columns in (("reference", reference, 1), ("witness", witness, num_channels)):
        if len(spikes) and (spikes.event.max() >= num_events or spikes.channel.max() >= max(columns, 1)):
            raise DataError(f"{name} spikes lie outside the {num_events} events and {columns} channel(s) of the mask")
    witness = witness.select(valid[witness.event, witness.channel])
    by_event = np.bincount(reference.event, minlength=num_events)
    return CoincidenceCounts(
        reference=valid.T.astype(np.int64) @ by_event,
        witness=np.bincount(witness.channel, minlength=num_channels),
        shared=_count_pairs(reference, witness, num_channels, tolerance),
    )


def chance_coincidence(
    reference: Spikes,
    witness: Spikes,
    valid: ValidityMask,
    tolerance: Tolerance,
    spans: np.ndarray,
    *,
    num_slides: int = 20,
) -> CoincidenceCounts:
    """Count the spikes shared by accident: the witnesses are slid in time within each event, and wrap around.

    Sliding within the event leaves the witness's rate as it is and breaks the causal link. Exchanging events would not
    do: all events are centred on a trigger, so a true witness would seem to coincide with the glitch of any event.

    Args:
        reference: As for `coincidence`.
        witness: As for `coincidence`.
        valid: As for `coincidence`.
        tolerance: As for `coincidence`.
        spans: First and last time of the analysed part of each event, s from the left edge, shape (event, 2).
        num_slides: Number of slides, evenly spaced, each at least twice the tolerance away from no slide.

    Returns:
        Counts summed over the slides; all zero where the analysed part is too short to slide.
    """
    zero = coincidence(Spikes.empty(), Spikes.empty(), valid, tolerance)
    first, length = spans[:, 0], spans[:, 1] - spans[:, 0]
    if num_slides < 1 or not len(length) or length.min() <= 8 * tolerance.time:
        return zero
    smallest = 2 * tolerance.time / length
    total = zero
    for fraction in (np.arange(num_slides) + 0.5) / num_slides:
        shift = (smallest + fraction * (1 - 2 * smallest)) * length
        event = witness.event
        moved = first[event] + (witness.time - first[event] + shift[event]) % length[event]
        total += coincidence(reference, replace(witness, time=moved), valid, tolerance)
    return total


def _count_pairs(reference: Spikes, witness: Spikes, num_channels: int, tolerance: Tolerance) -> np.ndarray:
    """Largest number of one-to-one pairs by channel."""
    if not len(reference) or not len(witness):
        return np.zeros(num_channels, dtype=np.int64)
    # One axis for all events, with gaps that no tolerance bridges.
    reach = tolerance.time + _TIME_ROUNDING
    earliest = min(reference.time.min(), witness.time.min())
    latest = max(reference.time.max(), witness.time.max())
    stride = latest - earliest + 2 * reach + 1.0
    order = np.lexsort((reference.time, reference.event))
    line = reference.event[order] * stride + (reference.time[order] - earliest)
    place = witness.event * stride + (witness.time - earliest)
    begin, end = np.searchsorted(line, place - reach, "left"), np.searchsorted(line, place + reach, "right")
    candidates = end - begin
    right = np.repeat(np.arange(len(witness)), candidates)
    left = order[
        np.arange(candidates.sum())
        - np.repeat(np.cumsum(candidates) - candidates, candidates)
        + np.repeat(begin, candidates)
    ]
    if tolerance.octaves is not None:
        apart = np.abs(np.log2(reference.frequency[left] / witness.frequency[right]))
        left, right = left[apart <= tolerance.octaves], right[apart <= tolerance.octaves]
    if not left.size:
        return np.zeros(num_channels, dtype=np.int64)
    # All channels in one graph: each has its own copy of the reference's spikes, so no pair joins two channels.
    copies, left_node = np.unique(witness.channel[right] * len(reference) + left, return_inverse=True)
    used, right_node = np.unique(right, return_inverse=True)
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left_node, right_node)), shape=(len(copies), len(used)))
    partner = maximum_bipartite_matching(graph.tocsr(), perm_type="row")
    return np.bincount(witness.channel[used[partner >= 0]], minlength=num_channels)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
