"""Complex Q tiles and their exact inverse: keep or remove tiles and get the time series back.

The tiles of the Q-transform are a nonstationary Gabor frame. Each row has at least as many tiles as its window has
Fourier bins (the painless case), so the frame operator is a multiplication in the frequency domain, by the sum of the
squared windows, and dividing by it inverts the transform exactly within the band.

References:
    Balazs, Doerfler, Jaillet, Holighaus, Velasco, J. Comput. Appl. Math. 236 (2011) 1481, doi:10.1016/j.cam.2011.09.011
    (painless nonstationary Gabor frames and their dual windows).
    Velasco, Holighaus, Doerfler, Grill, Proc. DAFx-11 (2011) 93 (the constant-Q case).
"""

from itertools import groupby, pairwise

import numpy as np
import torch
from jaxtyping import Complex, Float, Real
from torch import Tensor, nn

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal.qtransform.settings import QTransformSettings, check_settings
from glitchflow_plugin.signal.qtransform.tiling import TileRow
from glitchflow_plugin.types.tensors import SeriesTensor

Tiles = tuple[Complex[Tensor, "*batch _ _"], ...]
"""Complex tiles: one tensor (..., row, tile) for all rows that have the same number of tiles, frequencies rising."""


class QFrame(nn.Module):
    """Complex Q tiles of time series, and time series from tiles; differentiable, on any device, in either precision.

    The squared magnitude of a tile is gwpy's energy before its division by the median. Its phase is that of the series
    demodulated by the middle of the row's window. A series is recovered within the band [frequency_low,
    frequency_high]; what lies outside is not.

    Args:
        num_samples: Samples of a series.
        sample_rate: Hz.
        settings: Tiling; one Q. The axes of the map and the norm do not matter here.

    Raises:
        ConfigurationError: The settings do not fit the data, or hold several Q.

    Example:
        >>> frame = QFrame(6144, 1024.0, QTransformSettings())
        >>> series = torch.randn(2, 6144)
        >>> tiles = frame(series)
        >>> bool((frame.inverse(tiles) - frame.band_limited(series)).abs().max() < 1e-5)
        True
    """

    bins: Tensor
    window: Tensor
    dual: Tensor
    slots: Tensor
    in_band: Tensor

    def __init__(self, num_samples: int, sample_rate: float, settings: QTransformSettings) -> None:
        super().__init__()
        if len(settings.qs) != 1:
            raise ConfigurationError(f"a frame has one Q, got {settings.q}. Make one frame for each.")
        check_settings(num_samples, sample_rate, settings)
        self.num_samples, self.sample_rate = num_samples, float(sample_rate)
        rows = settings.rows(num_samples, sample_rate, settings.qs[0])
        groups = [list(group) for _, group in groupby(rows, key=lambda row: row.num_tiles)]
        #: Rows and tiles of each group.
        self.shapes = [(len(group), group[0].num_tiles) for group in groups]
        #: Name of each row's frequency, Hz, one array a group.
        self.frequencies = [np.array([row.frequency for row in group]) for group in groups]
        self._edges = np.cumsum([0, *(len(row.window) for row in rows)])
        self._group_edges = [int(self._edges[i]) for i in np.cumsum([0, *(len(group) for group in groups)])]
        bins = np.concatenate([row.first_bin + np.arange(len(row.window)) for row in rows])
        window = np.concatenate([row.window for row in rows])
        # Of unit height, so that a row does not count more for having its tiles closer than it needs them.
        height = np.concatenate([np.full(len(row.window), row.window.max()) for row in rows])
        operator = np.zeros(num_samples // 2 + 1)
        np.add.at(operator, bins, (window / height) ** 2)
        frequency = np.arange(len(operator)) * (sample_rate / num_samples)
        in_band = (frequency >= settings.frequency_low) & (frequency <= settings.frequency_high)
        # Only at the very ends of a wide band can there be bins that no window reaches.
        in_band &= operator > 1e-6 * operator[in_band].max()
        dual = np.where(in_band[bins], window / height**2 / np.where(in_band, operator, 1)[bins], 0)
        #: Smallest and largest value of the frame operator in the band, windows of unit height.
        self.bounds = float(operator[in_band].min()), float(operator[in_band].max())
        self.register_buffer("bins", torch.as_tensor(bins), persistent=False)
        self.register_buffer("window", torch.as_tensor(window), persistent=False)
        self.register_buffer("dual", torch.as_tensor(dual), persistent=False)
        self.register_buffer("slots", torch.as_tensor(np.concatenate(_slots(groups))), persistent=False)
        self.register_buffer("in_band", torch.as_tensor(in_band), persistent=False)

    def forward(self, series: Real[Tensor, "*batch time"]) -> Tiles:
        """Complex tiles of series.

        Args:
            series: Shape (..., time); any unit; whole numbers are taken as float32.

        Returns:
            For each group of rows of one length the tiles, shape (..., row, tile), complex64 or complex128 as `series`
            has it. Tile m of a row of n lies at m / n of the duration.

        Raises:
            DataError: The series has another length than the frame, or holds NaN or infinity.
        """
        self._check_length(series)
        if not series.is_floating_point():
            series = series.to(torch.float32)
        if not bool(torch.isfinite(series).all()):
            raise DataError("the frame got a series with NaN or infinite samples. Set them to zero, or leave it out.")
        spectrum = torch.fft.rfft(series, norm="forward") * 2  # gwpy's convention: amplitudes of real sinusoids
        windowed = spectrum[..., self.bins] * self.window.to(series.dtype)
        tiles = []
        for (rows, size), edges in zip(self.shapes, pairwise(self._group_edges), strict=True):
            here = slice(*edges)
            slots = windowed.new_zeros((*windowed.shape[:-1], rows * size))
            slots.index_copy_(-1, self.slots[here], windowed[..., here])
            tiles.append(torch.fft.ifft(slots.unflatten(-1, (rows, size))))
        return tuple(tiles)

    def inverse(self, tiles: Tiles) -> SeriesTensor:
        """The series that has these tiles, or, if none has (tiles were changed), the nearest one in the band.

        Nearest means the least sum of squared differences over all tiles, rows weighted so that each counts alike
        however closely its tiles lie: the canonical dual of the frame whose windows have unit height.

        Args:
            tiles: As from `forward`.

        Returns:
            Real series, shape (..., time), limited to the band.

        Raises:
            DataError: The tiles have other shapes than this frame's.
        """
        found = [tuple(one.shape[-2:]) for one in tiles]
        if found != self.shapes:
            raise DataError(
                f"expected tiles of shapes (row, tile) {self.shapes}, got {found}: they are another frame's."
            )
        parts = []
        for one, edges in zip(tiles, pairwise(self._group_edges), strict=True):
            parts.append(torch.fft.fft(one).flatten(-2)[..., self.slots[slice(*edges)]])
        windowed = torch.cat(parts, dim=-1) * self.dual.to(tiles[0].real.dtype)
        spectrum = windowed.new_zeros((*windowed.shape[:-1], self.num_samples // 2 + 1))
        return torch.fft.irfft(spectrum.index_add(-1, self.bins, windowed) / 2, self.num_samples, norm="forward")

    def band_limited(self, series: SeriesTensor) -> SeriesTensor:
        """The part of series that tiles hold: their Fourier bins within the band.

        Raises:
            DataError: The series has another length than the frame.
        """
        self._check_length(series)
        return torch.fft.irfft(torch.fft.rfft(series) * self.in_band, self.num_samples)

    def sample(self, maps: Float[Tensor, "*batch frequency time"], frequencies: np.ndarray) -> tuple[Tensor, ...]:
        """Take a map at the tiles, so that what was drawn or predicted on a map can be applied to them.

        Args:
            maps: Mask or gain, shape (..., frequency, time), columns evenly over the duration from the first sample.
            frequencies: Hz of the map's rows, rising, shape (frequency,).

        Returns:
            The nearest pixel of each tile, one tensor (..., row, tile) a group: multiply tiles by it.

        Raises:
            DataError: The map's rows are not those frequencies.
        """
        if maps.shape[-2] != len(frequencies):
            raise DataError(f"expected a map of {len(frequencies)} rows, got {maps.shape[-2]}.")
        sampled = []
        for centres, (_, size) in zip(self.frequencies, self.shapes, strict=True):
            row = np.abs(frequencies[None, :] - centres[:, None]).argmin(axis=1)
            column = np.rint(np.arange(size) * (maps.shape[-1] / size)).astype(np.int64) % maps.shape[-1]
            grid = torch.as_tensor(row, device=maps.device)[:, None], torch.as_tensor(column, device=maps.device)
            sampled.append(maps[..., grid[0], grid[1]])
        return tuple(sampled)

    def _check_length(self, series: Tensor) -> None:
        if series.shape[-1] != self.num_samples:
            raise DataError(f"expected series of {self.num_samples} samples, got {series.shape[-1]}.")


def _slots(groups: list[list[TileRow]]) -> list[np.ndarray]:
    """Place of each bin under each window among all slots of its group."""
    return [row.slots + place * row.num_tiles for group in groups for place, row in enumerate(group)]
