"""Compiled loops of the Q-transform on a CPU; they hold neither Python's lock nor more than a row of memory.

The exact median is what makes these worth compiling: a bracket about it is narrowed by counting, which vectorises,
where a selection by exchanging elements does not and takes ten times as long.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

LN2 = np.float32(0.6931472)


_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"nsz", "arcp", "contract", "afn", "reassoc"},
    "boundscheck": False,
}


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile once and keep the machine code; where nothing can be kept (read-only, full), in each process."""
    alone = njit(**_OPTIONS)(function)
    try:
        kept = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return alone

    def call(*arguments: np.ndarray | int) -> None:
        try:
            kept(*arguments)
        except OSError:  # the disk is full
            alone(*arguments)

    return call


@_compiled
def place_windows(spectra, first_bins, windows, lengths, out) -> None:  # noqa: ANN001
    """Put the windowed stretch of each row into its slots of an inverse transform.

    Args:
        spectra: Complex, shape (series, bin).
        first_bins: First bin of each row, shape (row,).
        windows: Windows, zero beyond `lengths`, float32, shape (row, longest window).
        lengths: Bins of each row's window, odd, shape (row,).
        out: Complex64, shape (series, row, tile); every element is written.
    """
    num_rows, num_tiles = out.shape[1], out.shape[2]
    for series in range(out.shape[0]):
        for row in range(num_rows):
            length, first = lengths[row], first_bins[row]
            half = length // 2
            target, window, source = out[series, row], windows[row], spectra[series]
            for k in range(half + 1):
                target[k] = source[first + half + k] * window[half + k]
            for k in range(half + 1, num_tiles - half):
                target[k] = 0
            for k in range(half):
                target[num_tiles - half + k] = source[first + k] * window[k]


@_compiled
def rows_to_columns(tiles, scales, norm, first_taps, weights, columns, peaks) -> None:  # noqa: ANN001, PLR0917
    """Energy of the tiles, divided by its norm, at the columns of the map.

    Args:
        tiles: Real and imaginary parts in turn, float32, shape (series, row, 2 tile).
        scales: What the energies are divided by with `norm` 2, float32, shape (series, row).
        norm: 0 median, 1 mean, 2 `scales`.
        first_taps: First tile that each column is made from; may be below zero, shape (column,).
        weights: Weights of the tiles from there on, float32, shape (column, tap).
        columns: Result, float32, shape (series, row, column).
        peaks: Largest energy of each row, float32, shape (series, row).
    """
    num_tiles, num_taps = tiles.shape[2] // 2, weights.shape[1]
    # A tap before the first or past the last tile is one of the other end.
    padded = np.empty(num_tiles + 2 * num_taps, dtype=np.float32)
    energy = padded[num_taps : num_taps + num_tiles]
    for series in range(tiles.shape[0]):
        for row in range(tiles.shape[1]):
            largest, total = energies(tiles[series, row], energy)
            if norm == 0:
                unit = median(energy, total / np.float32(num_tiles), largest)
            elif norm == 1:
                unit = total / np.float32(num_tiles)
            else:
                unit = scales[series, row]
            factor = np.float32(1) / unit if unit > 0 else np.float32(0)
            peaks[series, row] = largest * factor
            for k in range(num_taps):
                padded[k] = energy[(k - num_taps) % num_tiles]
                padded[num_taps + num_tiles + k] = energy[k % num_tiles]
            target = columns[series, row]
            for column in range(target.size):
                near, weight = padded[first_taps[column] + num_taps :], weights[column]
                value = np.float32(0)
                for tap in range(num_taps):
                    value += near[tap] * weight[tap]
                target[column] = value * factor


@_compiled
def row_norms(tiles, norm, norms) -> None:  # noqa: ANN001
    """Median or mean energy of the tiles of each row.

    Args:
        tiles: As for `rows_to_columns`.
        norm: 0 median, 1 mean.
        norms: Result, float32, shape (series, row).
    """
    num_tiles = tiles.shape[2] // 2
    energy = np.empty(num_tiles, dtype=np.float32)
    for series in range(tiles.shape[0]):
        for row in range(tiles.shape[1]):
            largest, total = energies(tiles[series, row], energy)
            mean = total / np.float32(num_tiles)
            norms[series, row] = median(energy, mean, largest) if norm == 0 else mean


@njit(**_OPTIONS)
def energies(amplitude, energy) -> tuple[np.float32, np.float32]:  # noqa: ANN001
    """Write the energies of a row of tiles; returns the largest and the sum.

    Args:
        amplitude: Real and imaginary parts in turn, float32, shape (2 tile,).
        energy: Result, float32, shape (tile,).
    """
    largest, total = np.float32(0), np.float32(0)
    for k in range(energy.size):
        value = amplitude[2 * k] * amplitude[2 * k] + amplitude[2 * k + 1] * amplitude[2 * k + 1]
        energy[k] = value
        largest = max(largest, value)
        total += value
    return largest, total


@njit(**_OPTIONS)
def median(values, mean, largest) -> np.float32:  # noqa: ANN001
    """Exact median of an even number of values that are not negative: the mean of the two in the middle.

    A pivot with half of the values at or below it is looked for: its neighbours are the two in the middle. The first
    steps take the values for exponentially distributed, as the energies of noise are, the next go by false position on
    the count, and every third halves the bracket.

    Args:
        values: float32, not negative, even number.
        mean: Their mean, to start from.
        largest: The largest.
    """
    number = np.int32(values.size)
    half = np.int32(number // 2)
    low, high = np.float32(-1), largest
    below, upto = np.int32(0), number
    pivot = mean * LN2
    turn = 0
    while True:
        if not low < pivot < high:
            pivot = low + (high - low) * np.float32(0.5)
            if not low < pivot < high:
                return high  # no number between the two: the values in the middle are equal
        count = np.int32(0)
        for k in range(values.size):
            count += np.int32(1) if values[k] <= pivot else np.int32(0)
        if count == half:
            under, over = np.float32(0), largest
            for k in range(values.size):
                value = values[k]
                under = max(under, value if value <= pivot else np.float32(0))
                over = min(over, value if value > pivot else largest)
            return (under + over) * np.float32(0.5)
        if count < half:
            low, below = pivot, count
        else:
            high, upto = pivot, count
        turn += 1
        if turn < 3 and 0 < count < number:
            pivot = -pivot / np.log(np.float32(number - count) / np.float32(number)) * LN2
        elif turn % 3 == 0:
            pivot = low + (high - low) * np.float32(0.5)
        else:
            start = max(low, np.float32(0))
            pivot = start + (high - start) * np.float32(half - below) / np.float32(upto - below)
