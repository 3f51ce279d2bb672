"""Where the tiles of a constant-Q plane lie: centre frequencies, windows, and the number of tiles in each row.

The tiling is that of the Q pipeline as gwpy has it, so that numbers can be compared. One property is worth knowing:
the window of the row named f is centred one Fourier bin higher, at f + 1 / T.

References:
    Chatterji et al., Class. Quantum Grav. 21 (2004) S1809, doi:10.1088/0264-9381/21/20/024.
    Chatterji, PhD thesis, MIT (2005), chapter 5, https://hdl.handle.net/1721.1/34388.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from glitchflow_plugin.errors import ConfigurationError

#: Below this Q the window of a row would reach below 0 Hz.
LOWEST_Q = math.sqrt(11.0)


@dataclass(frozen=True, eq=False)
class TileRow:
    """Tiles of one centre frequency.

    Attributes:
        frequency: Hz, a multiple of 1 / duration.
        num_tiles: Tiles over the whole duration; a power of two, at least the length of the window.
        first_bin: Lowest Fourier bin under the window.
        window: Bisquare window over consecutive bins, float64. With spectra of `norm="forward"` whose positive
            frequencies are doubled, |tile|² is gwpy's energy before its division by the median.
    """

    frequency: float
    num_tiles: int
    first_bin: int
    window: np.ndarray

    @property
    def slots(self) -> np.ndarray:
        """Place of each bin in the inverse transform: the middle of the window is zero frequency there."""
        half = len(self.window) // 2
        return (np.arange(len(self.window)) - half) % self.num_tiles

    @property
    def white_energy(self) -> float:
        """Mean energy of a tile in white noise of unit variance a sample, times the number of samples.

        Such noise has E|X|² = 1 / num_samples in every bin (norm="forward", before the doubling).
        """
        return 4 * float(np.sum(self.window**2)) / self.num_tiles**2


def distance(mismatch: float) -> float:
    """Distance of neighbouring tiles in the metric of the mismatch (the largest fraction of energy lost between)."""
    return 2 * math.sqrt(mismatch / 3)


@lru_cache(maxsize=64)
def tile_rows(
    num_samples: int, sample_rate: float, q: float, band: tuple[float, float], mismatch: float = 0.2
) -> tuple[TileRow, ...]:
    """Rows of a plane, frequencies rising.

    Args:
        num_samples: Samples of the series.
        sample_rate: Hz.
        q: Quality factor of the tiles.
        band: Lower and upper end, Hz.
        mismatch: Largest fraction of energy lost between neighbouring tiles.

    Returns:
        The rows.

    Raises:
        ConfigurationError: A row has fewer tiles than its window has bins (the mismatch is too large).

    Example:
        >>> rows = tile_rows(6144, 1024.0, 12.0, (8.0, 400.0))
        >>> len(rows), round(rows[0].frequency, 3), rows[-1].num_tiles
        (46, 8.333, 4096)
    """
    low, high = band
    duration = num_samples / sample_rate
    spread = math.sqrt(2 + q**2)
    length = math.log(high / low) * spread / 2
    number = max(1, math.ceil(length / distance(mismatch)))
    centres = [low * math.exp(2 / spread * (i + 0.5) * (length / number)) for i in range(number)]
    # The grid of Fourier bins makes low rows coincide; each counts once.
    frequencies = sorted({centre // (1 / duration) * (1 / duration) for centre in centres} - {0.0})
    return tuple(_row(frequency, num_samples, duration, q, mismatch) for frequency in frequencies)


def padded_row(row: TileRow, num_samples: int, padded_samples: int, sample_rate: float, q: float) -> TileRow:
    """The same row for the series with zeros appended: tiles as far apart, the same window on a finer grid of bins.

    Args:
        row: Row for the series as it is.
        num_samples: Samples of the series.
        padded_samples: With the zeros; must leave a whole number of tiles.
        sample_rate: Hz.
        q: Quality factor of the tiles.

    Returns:
        The row, whose tiles have the energies that they have without zeros.
    """
    relative = q / LOWEST_Q
    num_tiles = row.num_tiles * padded_samples // num_samples
    centre = (row.first_bin + len(row.window) // 2) * padded_samples / num_samples
    width = row.frequency / relative * padded_samples / sample_rate
    middle = round(centre)
    half = min(math.floor(width) + 1, padded_samples // 2 - middle)
    offsets = (np.arange(middle - half, middle + half + 1) - centre) / width
    scale = num_tiles / num_samples * math.sqrt(315 * relative / (128 * row.frequency))
    return TileRow(row.frequency, num_tiles, middle - half, np.maximum(1 - offsets**2, 0) ** 2 * scale)


def _row(frequency: float, num_samples: int, duration: float, q: float, mismatch: float) -> TileRow:
    relative = q / LOWEST_Q
    half = int(frequency / relative * duration)
    num_tiles = 2 ** math.ceil(math.log(duration * 2 * math.pi * frequency / q / distance(mismatch), 2))
    if num_tiles < 2 * half + 1:
        raise ConfigurationError(
            f"a mismatch of {mismatch:g} leaves {num_tiles} tiles at {frequency:g} Hz, fewer than the {2 * half + 1} "
            "Fourier bins of the window. Take a smaller mismatch (0.2 is usual)."
        )
    offsets = np.arange(-half, half + 1) / duration * relative / frequency
    scale = num_tiles / num_samples * math.sqrt(315 * relative / (128 * frequency))
    first = round(1 + frequency * duration) - half
    return TileRow(frequency, num_tiles, first, (1 - offsets**2) ** 2 * scale)
