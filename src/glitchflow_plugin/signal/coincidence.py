"""Coincidence of spikes between a reference channel (the strain) and witnesses.

Spikes are matched one to one within an event, so a witness that spikes all the time cannot count one spike for many.
The largest possible number of pairs is taken (Hopcroft and Karp, SIAM J. Comput. 2 (1973) 225, doi:10.1137/0202019).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.types.arrays import ValidityMask

#: Rounding of times that are multiples of a column.
TIME_ROUNDING = 1e-6


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

    def between_columns(self, column: float) -> "Tolerance":
        """The same for times that are multiples of a column (s): half-way between two distances that occur.

        Nothing changes for such times. Those that lie anywhere, slid ones and injections, then coincide equally often.

        Example:
            >>> Tolerance(0.25).between_columns(0.1).time
            0.25
            >>> Tolerance(0.21).between_columns(0.1).time
            0.25
        """
        return Tolerance((np.floor((self.time + TIME_ROUNDING) / column).item() + 0.5) * column, self.octaves)


@dataclass(frozen=True, eq=False)
class CoincidenceCounts:
    """Spikes by witness channel, pooled over the events where witness and reference are both valid; shape (channel,).

    Attributes:
        reference: Spikes of the reference.
        witness: Spikes of the witness.
        shared: One-to-one pairs; at most the smaller of the two.
        vetoed: Spikes of the reference that have any spike of the witness within the tolerance.
        used: Spikes of the witness that have any of the reference.
    """

    reference: Int[np.ndarray, " channel"]
    witness: Int[np.ndarray, " channel"]
    shared: Int[np.ndarray, " channel"]
    vetoed: Int[np.ndarray, " channel"]
    used: Int[np.ndarray, " channel"]

    @property
    def correlation(self) -> np.ndarray:
        """Share of the reference's spikes that the witness shares; NaN without any spike of the reference."""
        return share(self.shared, self.reference)

    @property
    def iou(self) -> np.ndarray:
        """Shared over all spikes of the two (intersection over union); NaN without any spike of the reference."""
        union = self.reference + self.witness - self.shared
        return np.where(self.reference > 0, share(self.shared, union), np.nan)


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

    Raises:
        DataError: Spikes lie outside the mask.

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
    left, right = coincident_pairs(reference, witness, tolerance)
    channel = witness.channel[right]
    hit = np.unique(channel * np.int64(max(len(reference), 1)) + left)
    return CoincidenceCounts(
        reference=valid.T.astype(np.int64) @ np.bincount(reference.event, minlength=num_events),
        witness=np.bincount(witness.channel, minlength=num_channels),
        shared=largest_matching(channel, left, right, num_channels),
        vetoed=np.bincount(hit // max(len(reference), 1), minlength=num_channels),
        used=np.bincount(witness.channel[np.unique(right)], minlength=num_channels),
    )


def explained(reference: Spikes, witness: Spikes, tolerance: Tolerance, num_channels: int) -> np.ndarray:
    """Which spikes of the reference each witness has a spike near, bool, shape (channel, reference spike)."""
    left, right = coincident_pairs(reference, witness, tolerance)
    found = np.zeros((num_channels, len(reference)), dtype=bool)
    found[witness.channel[right], left] = True
    return found


def coincident_pairs(reference: Spikes, witness: Spikes, tolerance: Tolerance) -> tuple[np.ndarray, np.ndarray]:
    """All pairs within the tolerance and one event, as rows of `reference` and of `witness`, shape (pair,) each."""
    if not len(reference) or not len(witness):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    # One axis for all events, with gaps that no tolerance bridges.
    reach = tolerance.time + TIME_ROUNDING
    earliest = min(reference.time.min(), witness.time.min())
    latest = max(reference.time.max(), witness.time.max())
    stride = latest - earliest + 2 * reach + 1.0
    order = np.lexsort((reference.time, reference.event))
    line = reference.event[order] * stride + (reference.time[order] - earliest)
    place = witness.event * stride + (witness.time - earliest)
    begin, end = np.searchsorted(line, place - reach, "left"), np.searchsorted(line, place + reach, "right")
    right = np.repeat(np.arange(len(witness)), end - begin)
    left = order[counted_from(begin, end - begin)]
    near = near_in_frequency(reference.frequency[left], witness.frequency[right], tolerance)
    return left[near], right[near]


def largest_matching(group: np.ndarray, left: np.ndarray, right: np.ndarray, num_groups: int) -> np.ndarray:
    """Largest number of one-to-one pairs in each group of candidate pairs.

    Args:
        group: Number of the group, shape (pair,).
        left: One partner; the same number in two groups is two partners. Shape (pair,).
        right: The other, likewise.
        num_groups: How many groups there are.

    Returns:
        Pairs by group, shape (group,).
    """
    if not len(group):
        return np.zeros(num_groups, dtype=np.int64)
    group = group.astype(np.int64)
    lefts, left_node = np.unique(group * (left.max() + 1) + left, return_inverse=True)
    rights, right_node = np.unique(group * (right.max() + 1) + right, return_inverse=True)
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left_node, right_node)), shape=(len(lefts), len(rights)))
    partner = maximum_bipartite_matching(graph.tocsr(), perm_type="row")
    return np.bincount(rights[partner >= 0] // (right.max() + 1), minlength=num_groups)


def near_in_frequency(one: np.ndarray, other: np.ndarray, tolerance: Tolerance) -> np.ndarray:
    """Which pairs of frequencies (Hz) are within the tolerance."""
    if tolerance.octaves is None:
        return np.ones(len(one), dtype=bool)
    return np.abs(np.log2(one / other)) <= tolerance.octaves


def counted_from(start: np.ndarray, number: np.ndarray) -> np.ndarray:
    """start, start + 1, ... for each row, `number` of them, one row after the other.

    Example:
        >>> counted_from(np.array([5, 9]), np.array([3, 1]))
        array([5, 6, 7, 9])
    """
    return np.arange(number.sum()) + np.repeat(start - (np.cumsum(number) - number), number)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part` over `whole`, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
