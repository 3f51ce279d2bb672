"""Square cuts of maps: where they start, cutting them out, and putting them back together.

The functions take NumPy arrays and torch tensors alike and import neither torch nor anything slow, so that steps
which only need the start columns stay light.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from glitchflow_plugin.errors import ConfigurationError

ArrayT = TypeVar("ArrayT")
"""A NumPy array or a torch tensor."""


def window_starts(num_times: int, size: int = 64) -> tuple[int, ...]:
    """First columns of the windows a map gives to training: a centred row, then those half-way between.

    A map of 257 columns gives three windows side by side about its centre, near which the trigger is, and two more that
    straddle their seams, so that no glitch is only ever seen cut in half. The outermost columns, which the edges of
    the Q-transform disturb, are left out where the map is long enough.

    Args:
        num_times: Columns of the map.
        size: Columns of a window.

    Returns:
        First columns, the side-by-side windows first.

    Raises:
        ConfigurationError: The map is shorter than one window.

    >>> window_starts(257, 64)
    (32, 96, 160, 64, 128)
    """
    _check_size(num_times, size)
    side_by_side = max(1, num_times // size - 1)
    margin = (num_times - side_by_side * size) // 2
    whole = tuple(margin + size * index for index in range(side_by_side))
    between = tuple(start + size // 2 for start in whole[:-1])
    return whole + between


def tile_starts(num_times: int, size: int = 64) -> tuple[int, ...]:
    """First columns of windows that cover the whole map; the last one is moved back to end with the map.

    Args:
        num_times: Columns of the map.
        size: Columns of a window.

    Returns:
        First columns in rising order.

    Raises:
        ConfigurationError: The map is shorter than one window.

    >>> tile_starts(257, 64)
    (0, 64, 128, 192, 193)
    >>> tile_starts(128, 64)
    (0, 64)
    """
    _check_size(num_times, size)
    starts = list(range(0, num_times - size + 1, size))
    if starts[-1] + size < num_times:
        starts.append(num_times - size)
    return tuple(starts)


def cut_windows(maps: ArrayT, starts: Sequence[int], size: int = 64) -> ArrayT:
    """Cut windows out of maps.

    Args:
        maps: Maps, (event, ..., frequency, time), NumPy or torch.
        starts: First column of each window.
        size: Columns of a window.

    Returns:
        Windows, (event, window, ..., frequency, column), of the same kind as the maps. Flatten the first two axes to
        get a batch for a network.

    Raises:
        ConfigurationError: A window does not lie inside the maps.
    """
    array: Any = maps
    num_times = array.shape[-1]
    if any(start < 0 or start + size > num_times for start in starts):
        raise ConfigurationError(
            f"expected windows of {size} columns inside maps of {num_times}, got the starts {tuple(starts)}. "
            "Take them from window_starts or tile_starts for this map length."
        )
    windows = _empty_like(array, (array.shape[0], len(starts), *array.shape[1:-1], size))
    for index, start in enumerate(starts):
        windows[:, index] = array[..., start : start + size]
    return windows


def join_windows(windows: ArrayT, starts: Sequence[int], num_times: int) -> ArrayT:
    """Put windows back into maps: the exact inverse of `cut_windows` for starts that cover the map.

    Where windows overlap, each column comes from the window in which it lies farther from an edge, because a network
    knows least at the edges of what it sees.

    Args:
        windows: Windows, (event, window, ..., frequency, column), NumPy or torch.
        starts: First column of each window.
        num_times: Columns of the maps.

    Returns:
        Maps, (event, ..., frequency, time).

    Raises:
        ConfigurationError: The number of starts differs from the number of windows, or a column is covered by none.
    """
    array: Any = windows
    size = array.shape[-1]
    if len(starts) != array.shape[1]:
        raise ConfigurationError(f"expected one start for each of {array.shape[1]} windows, got {len(starts)}.")
    source, column = _sources(starts, size, num_times)
    maps = _empty_like(array, (array.shape[0], *array.shape[2:-1], num_times))
    # runs of columns that come from the same window are copied together
    edges = [0, *(np.flatnonzero(np.diff(source)) + 1).tolist(), num_times]
    for low, high in pairwise(edges):
        first = int(column[low])
        maps[..., low:high] = array[:, int(source[low])][..., first : first + high - low]
    return maps


def _sources(starts: Sequence[int], size: int, num_times: int) -> tuple[np.ndarray, np.ndarray]:
    """For each column of the map, the window it is taken from and its place in that window."""
    offsets = np.arange(num_times)[None, :] - np.asarray(starts)[:, None]
    depth = np.where((offsets >= 0) & (offsets < size), np.minimum(offsets, size - 1 - offsets), -1)
    source = depth.argmax(axis=0)
    if (depth.max(axis=0) < 0).any():
        missing = np.flatnonzero(depth.max(axis=0) < 0)
        raise ConfigurationError(
            f"expected windows that cover {num_times} columns, but {missing.size} columns are in none "
            f"(the first is {missing[0]}). Take the starts from tile_starts."
        )
    return source, offsets[source, np.arange(num_times)]


def _check_size(num_times: int, size: int) -> None:
    if size < 1 or num_times < size:
        raise ConfigurationError(
            f"expected maps of at least one window ({size} columns), got {num_times} columns. "
            "Make longer maps (num_t_bins) or choose a smaller window size."
        )


def _empty_like(array: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(array, np.ndarray):
        return np.empty(shape, dtype=array.dtype)
    return array.new_empty(shape)
