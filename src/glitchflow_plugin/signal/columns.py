"""When the columns of maps are: the one definition of a column's interval.

`axes` of `signal/qtransform` gives the time of each column as the sample at which it was taken: the middle of its
interval, not its left edge. Columns reach half-way to their neighbours; the first and the last one end where the event
ends, so that all of them together are as long as the event.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from glitchflow_plugin.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class Columns:
    """Intervals of the columns of one map.

    Attributes:
        times: Times of the columns of the whole map as `axes` gives them, evenly spaced from 0, s from the event's left
            edge, (time,).
        start: What all times below are counted from: 0, or the GPS time of the event's left edge, s.

    Raises:
        ConfigurationError: The times are not those of a map's columns.

    Example:
        >>> columns = Columns(np.array([0.0, 0.5, 1.0, 1.5]))
        >>> columns.left.tolist(), columns.right.tolist(), columns.duration
        ([0.0, 0.25, 0.75, 1.25], [0.25, 0.75, 1.25, 2.0], 2.0)
        >>> columns.gps(1000000000.0).centre.tolist()
        [1000000000.0, 1000000000.5, 1000000001.0, 1000000001.5]
    """

    times: NDArray[np.float64]
    start: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would give intervals that are wrong by a column."""
        times = np.asarray(self.times, dtype=np.float64)
        object.__setattr__(self, "times", times)
        even = times.ndim == 1 and len(times) > 1 and times[1] > times[0] == 0.0
        if not even or not np.allclose(np.diff(times), self.width, rtol=1e-6):
            msg = (
                "expected the times of all columns of a map, evenly spaced and rising from 0 s at the left edge of the "
                f"event, got {times[:3].tolist()} ... ({times.size} in all). Take them from the spectrogram set."
            )
            raise ConfigurationError(msg)

    def gps(self, gps_start: float) -> "Columns":
        """The same in GPS seconds.

        Args:
            gps_start: GPS time of the event's left edge, s.
        """
        return replace(self, start=float(gps_start))

    def __len__(self) -> int:
        return len(self.times)

    @property
    def width(self) -> float:
        """Distance of two columns, s: the length of all intervals but the first and the last."""
        return float(self.times[1] - self.times[0])

    @property
    def duration(self) -> float:
        """Length of the event, s."""
        return float(self.times[-1]) + self.width

    @cached_property
    def _edges(self) -> NDArray[np.float64]:
        return np.concatenate([[0.0], 0.5 * (self.times[1:] + self.times[:-1]), [self.duration]])

    @property
    def centre(self) -> NDArray[np.float64]:
        """Where the columns were sampled, s, (time,)."""
        return self.start + self.times

    @property
    def left(self) -> NDArray[np.float64]:
        """Where the columns begin, s, (time,); the first at the event's left edge."""
        return self.start + self._edges[:-1]

    @property
    def right(self) -> NDArray[np.float64]:
        """Where the columns end, s, (time,); the last at the event's right edge."""
        return self.start + self._edges[1:]

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where the columns meet, s, (time + 1,)."""
        return self.start + self._edges


def tile_length(frequencies: Float[np.ndarray, " frequency"], q: float) -> NDArray[np.float64]:
    """Length of a tile, Q / (2 pi f), s: how far a pixel of the Q-transform looks to either side.

    Args:
        frequencies: Hz, (frequency,).
        q: Quality factor; of several, the largest.
    """
    return q / (2 * np.pi * np.asarray(frequencies, dtype=np.float64))


def judged_pixels(
    frequencies: Float[np.ndarray, " frequency"], columns: Columns, qs: tuple[float, ...]
) -> Bool[np.ndarray, "frequency time"]:
    """Pixels of a measured map that tell of their own time: those farther than one tile from either edge of the event.

    The Q-transform joins both ends of an event (see `signal/qtransform`), so nearer to them a map shows what
    happened at the other end as well.

    Args:
        frequencies: Rows of the map, Hz.
        columns: Columns of the map.
        qs: Q of the transform; with several, the longest tiles count.

    Returns:
        False where a pixel is within one tile of an edge, (frequency, time).

    Example:
        >>> columns = Columns(np.array([0.0, 0.5, 1.0, 1.5]))
        >>> judged_pixels(np.array([4.0, 400.0]), columns, (4 * np.pi,)).tolist()
        [[False, True, True, True], [False, True, True, True]]
    """
    tile = tile_length(frequencies, max(qs))[:, None]
    since = columns.times[None, :]
    return (since >= tile) & (since <= columns.duration - tile)
