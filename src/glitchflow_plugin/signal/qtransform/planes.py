"""Maps of one Q from spectra: rows of equal length together, then sparse weights from tiles to the axes of the map."""

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import groupby, pairwise
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from glitchflow_plugin.signal.interpolation import periodic_taps, resized_taps, resizing_matrix, spline_matrix
from glitchflow_plugin.signal.qtransform.settings import Norm, QTransformSettings, axes
from glitchflow_plugin.signal.qtransform.spectrum import Spectrum
from glitchflow_plugin.signal.qtransform.threads import in_threads, workspace
from glitchflow_plugin.signal.qtransform.tiling import TileRow, padded_row

#: Cubic splines in time and frequency; the others are those of `torch.nn.functional.interpolate`.
Interpolation = Literal["spline", "bilinear", "bicubic"]
#: What the series transformed at one time may take on a CPU, bytes: bounds the memory whatever the batch, and fits the
#: caches.
WORKSPACE = 16 * 1024**2
#: The same on a GPU, where more is taken if it is free.
_DEVICE_WORKSPACE = 1024**3
#: Tiles of a row up to which a product with the weights of all, most of them zero, is faster than gathering those that
#: count, there and back.
_DENSE = 8192
#: What PyTorch's operations take of a group's complex tiles: spectra twice, energies of both, what is gathered of them.
_BY_TORCH = 6
#: Norms as the kernels know them; the others are known beforehand.
_NORMS = {"median": 0, "mean": 1}
#: Energies are divided by nothing smaller, and by nothing larger than its inverse: float32 could not hold them.
_SMALLEST = 1e-30


@runtime_checkable
class Kernels(Protocol):
    """What `device_kernels` holds."""

    def place_windows(self, bins: Tensor, gathered: Tensor, window: Tensor) -> Tensor:
        """Windowed stretch of each row in its slots of an inverse transform."""
        ...

    def rows_to_columns(  # noqa: PLR0917  # the order of the CPU's
        self,
        tiles: Tensor,
        units: Tensor | None,
        norm: int,
        first_taps: Tensor,
        weights: Tensor,
        columns: Tensor,
        peaks: Tensor,
        first_row: int,
    ) -> None:
        """Energy of the tiles, divided by its norm, at the columns of the map."""
        ...


class _RowGroup:
    """Rows of a plane that have the same number of tiles, and the weights that bring them to the map's columns."""

    def __init__(  # noqa: PLR0917  # made by `Plane` alone
        self,
        rows: list[TileRow],
        num_samples: int,
        settings: QTransformSettings,
        device: str,
        padded: list[TileRow],
        interpolation: Interpolation,
        columns: slice,
    ) -> None:
        # In series divided by their largest sample, in spectra that are not doubled.
        known = {"white": [row.white_energy / num_samples / 4 for row in rows], "none": [0.25] * len(rows)}
        self.norm: Norm = settings.norm
        self.known = known.get(settings.norm, [1.0] * len(rows))
        self.expected = torch.tensor(self.known, dtype=torch.float64, device=device)
        self._rows, self._device = padded, device
        self.num_rows, self.num_tiles = len(padded), padded[0].num_tiles
        first_taps, weights = _taps_in_time(self.num_tiles, rows[0].num_tiles, settings.num_times, interpolation)
        self.first_taps, weights = first_taps[columns], weights[columns]
        self.weights = torch.as_tensor(weights, dtype=torch.float32, device=device)
        self.first_bins = np.array([row.first_bin for row in padded])
        self.lengths = np.array([len(row.window) for row in padded])
        self.windows = np.zeros((len(padded), self.lengths.max()), dtype=np.float32)
        for place, row in enumerate(padded):
            self.windows[place, : len(row.window)] = row.window

    @cached_property
    def _gathered(self) -> tuple[Tensor, Tensor]:
        """Bin and window of each slot, both (row, tile), for PyTorch's indexing."""
        bins = torch.zeros((self.num_rows, self.num_tiles), dtype=torch.long)
        window = torch.zeros((self.num_rows, self.num_tiles), dtype=torch.float32)
        for place, row in enumerate(self._rows):
            bins[place, row.slots] = torch.arange(row.first_bin, row.first_bin + len(row.window))
            window[place, row.slots] = torch.as_tensor(row.window, dtype=torch.float32)
        return bins.to(self._device), window.to(self._device)

    def units(self, spectrum: Spectrum) -> Tensor:
        """What energies are divided by where the norm is known beforehand, float32, shape (series, row)."""
        # A series that was divided by its largest sample has energies that are smaller by the square.
        return (self.expected / spectrum.largest[:, None] ** 2).to(torch.float32)

    def compiled(self, spectrum: Spectrum, out: Tensor, peaks: Tensor, reference: Spectrum | None = None) -> None:
        """Write the energies at the map's columns, (series, row, column), and the loudest tile of each row.

        They are divided by the norm of their own rows, or by that of the rows of a reference.
        """
        # numba takes most of a second to import; only who transforms pays for it.
        from glitchflow_plugin.signal.qtransform.kernels import row_norms, rows_to_columns  # noqa: PLC0415

        shape = (len(out), self.num_rows, self.num_tiles)
        norm = _NORMS.get(self.norm, 2)
        # a unit that is known beforehand is that of the reference as well
        if reference is None or norm == 2:
            units = self.units(spectrum).numpy()
        else:
            units, others = np.empty(shape[:2], dtype=np.float32), self._tiles(reference)
            in_threads(
                lambda part: row_norms(others[part], norm, units[part]), shape[0], operations=8 * math.prod(shape)
            )
            # each series was divided by its own largest sample
            units *= (reference.largest / spectrum.largest).square().to(torch.float32).numpy()[:, None]
            norm = 2
        tiles, weights = self._tiles(spectrum), self.weights.numpy()
        columns, largest = out.numpy(), peaks.numpy()
        in_threads(
            lambda part: rows_to_columns(
                tiles[part], units[part], norm, self.first_taps, weights, columns[part], largest[part]
            ),
            shape[0],
            operations=math.prod(shape[:2]) * (8 * self.num_tiles + weights.size),
        )

    def _tiles(self, spectrum: Spectrum) -> np.ndarray:
        """Amplitudes, real and imaginary parts in turn, float32, (series, row, 2 tile)."""
        from glitchflow_plugin.signal.qtransform.kernels import place_windows  # noqa: PLC0415

        shape = (len(spectrum.bins), self.num_rows, self.num_tiles)
        slots = workspace("slots", math.prod(shape), torch.complex64).view(shape)
        bins, placed = spectrum.bins.numpy(), slots.numpy()
        in_threads(
            lambda part: place_windows(bins[part], self.first_bins, self.windows, self.lengths, placed[part]),
            shape[0],
            operations=math.prod(shape),
        )
        return torch.view_as_real(torch.fft.ifft(slots)).flatten(-2).numpy()

    def launch(self, kernels: Kernels, spectrum: Spectrum, out: Tensor, peaks: Tensor, first_row: int) -> None:
        """The same on a GPU, by three launches; into rows of (series, all rows, column) and (series, all rows)."""
        gathered, window, first_taps = self._launched
        slots = kernels.place_windows(spectrum.bins, gathered, window)
        tiles = torch.fft.ifft(slots, norm="forward")
        norm = _NORMS.get(self.norm, 2)
        units = self.units(spectrum) if norm == 2 else None
        kernels.rows_to_columns(tiles, units, norm, first_taps, self.weights, out, peaks, first_row)

    @cached_property
    def _launched(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bin and window of each slot, (row, tile), the window over the number of tiles; first tap of each column."""
        bins, window = self._gathered
        first = torch.as_tensor(self.first_taps % self.num_tiles, dtype=torch.int32, device=self._device)
        return bins.to(torch.int32), window / self.num_tiles, first

    def differentiable(self, spectrum: Spectrum, reference: Spectrum | None = None) -> tuple[Tensor, Tensor]:
        """The same by PyTorch alone: on any device, with gradients; divided by the reference's norm if it is given."""
        energy, factor = self._energy_and_factor(spectrum, reference)
        return self.columns(energy) * factor[..., None], energy.amax(dim=-1) * factor

    def tiles(self, spectrum: Spectrum) -> Tensor:
        """Energies of the tiles, divided by their norm, (series, row, tile)."""
        energy, factor = self._energy_and_factor(spectrum, None)
        return energy * factor[..., None]

    def columns(self, energy: Tensor) -> Tensor:
        """Energies at the map's columns, (..., row, column), from those of the tiles, (..., row, tile)."""
        if self.num_tiles <= _DENSE:
            return energy @ self._interpolation
        near = energy.index_select(-1, self._taps.flatten()).unflatten(-1, self.weights.shape)
        return torch.einsum("...ct,ct->...c", near, self.weights)

    def _energy_and_factor(self, spectrum: Spectrum, reference: Spectrum | None) -> tuple[Tensor, Tensor]:
        energy = self._energy(spectrum)
        other, normed = (spectrum, energy) if reference is None else (reference, self._energy(reference))
        if self.norm == "median":
            unit = even_median(normed)
        else:
            unit = normed.mean(dim=-1) if self.norm == "mean" else self.units(other)
        factor = torch.where(unit > 0, 1 / torch.where(unit > 0, unit, 1), 0)
        # each series was divided by its own largest sample
        return energy, factor * (spectrum.largest / other.largest).square().to(factor.dtype)[:, None]

    @cached_property
    def _taps(self) -> Tensor:
        """Tile that each column is made from, (column, tap)."""
        taps = self.first_taps[:, None] + np.arange(self.weights.shape[1])
        return torch.as_tensor(taps % self.num_tiles, device=self._device)

    @cached_property
    def _interpolation(self) -> Tensor:
        """Weights of all tiles for each column, (tile, column)."""
        return self.weights.new_zeros((self.num_tiles, len(self.weights))).scatter_(0, self._taps.T, self.weights.T)

    def _energy(self, spectrum: Spectrum) -> Tensor:
        bins, window = self._gathered
        amplitude = torch.fft.ifft(spectrum.bins[:, bins] * window)
        return amplitude.real.square() + amplitude.imag.square()


class Plane:
    """All that one Q needs for series of one length: tile rows, and weights from rows to the map's frequencies.

    Args:
        num_samples: Samples of a series.
        sample_rate: Hz.
        q: Quality factor.
        settings: Band, shape and norm of the maps.
        device: Device of the weights and of the maps.
        padded_samples: Samples with the zeros behind the series, which its spectrum has; none by default.
        interpolation: How tiles are brought to the axes of the map.
        columns: First and one past the last column that is made; all by default.
    """

    def __init__(
        self,
        num_samples: int,
        sample_rate: float,
        q: float,
        settings: QTransformSettings,
        device: str,
        *,
        padded_samples: int | None = None,
        interpolation: Interpolation = "spline",
        columns: tuple[int, int] | None = None,
    ) -> None:
        self.q = q
        made = columns or (0, settings.num_times)
        rows = settings.rows(num_samples, sample_rate, q)
        self.frequencies = np.array([row.frequency for row in rows])
        self.num_times = made[1] - made[0]
        by_size = [list(group) for _, group in groupby(rows, key=lambda row: row.num_tiles)]
        extent = num_samples, padded_samples or num_samples, sample_rate, q
        self.groups = [
            _RowGroup(
                group,
                num_samples,
                settings,
                device,
                group if extent[0] == extent[1] else [padded_row(row, *extent) for row in group],
                interpolation,
                slice(*made),
            )
            for group in by_size
        ]
        #: One past the highest bin under a window.
        self.num_bins = max(row.first_bin + len(row.window) for row in rows)
        if interpolation == "spline":
            mixing = spline_matrix(self.frequencies, axes(num_samples / sample_rate, settings)[0])
        else:
            mixing = resizing_matrix(len(rows), settings.num_frequencies, interpolation)
        self.mixing = torch.as_tensor(mixing, dtype=torch.float32, device=device)

    @cached_property
    def fitting(self) -> tuple[float, float]:
        """Least and greatest of the largest samples of series whose energies float32 can hold."""
        if self.groups[0].norm in _NORMS:
            return 0.0, math.inf
        known = [one for group in self.groups for one in group.known]
        return math.sqrt(max(known) * _SMALLEST), math.sqrt(min(known) / _SMALLEST)

    def maps(self, spectrum: Spectrum) -> tuple[Tensor, Tensor]:
        """Map of each series, (series, frequency, time), and the loudest tile of each row, (series, row)."""
        if spectrum.bins.requires_grad and len(spectrum.bins):
            made = [self._differentiable(spectrum[part]) for part in self._parts(spectrum, copies=_BY_TORCH)]
            maps, peaks = (torch.cat(each) for each in zip(*made, strict=True))
            return maps, peaks
        maps = self.mixing.new_empty((len(spectrum.bins), len(self.mixing), self.num_times))
        peaks = self.mixing.new_empty((len(spectrum.bins), len(self.frequencies)))
        compiled = spectrum.bins.device.type == "cpu"
        kernels = None if compiled else self._kernels
        for part in self._parts(spectrum, copies=2 if compiled or kernels else _BY_TORCH):
            if compiled:
                self._compiled(spectrum[part], maps[part], peaks[part])
            elif kernels:
                self.launch(kernels, spectrum[part], maps[part], peaks[part])
            else:
                maps[part], peaks[part] = self._differentiable(spectrum[part])
        return maps, peaks

    def tiles(self, spectrum: Spectrum) -> list[Tensor]:
        """Energies of the tiles of each row, (series, tile), by PyTorch."""
        return [row for group in self.groups for row in group.tiles(spectrum).unbind(dim=1)]

    def interpolate(self, tiles: Sequence[Tensor]) -> Tensor:
        """Maps, (..., frequency, time), from the energies of the tiles of each row, (..., tile)."""
        left = iter(tiles)
        columns = [
            group.columns(torch.stack([next(left) for _ in range(group.num_rows)], dim=-2)) for group in self.groups
        ]
        return torch.matmul(self.mixing, torch.cat(columns, dim=-2)).clamp_min(0)

    def relative(self, spectrum: Spectrum, reference: Spectrum) -> Tensor:
        """Map of each series, rows divided by the norm of those of the reference, (series, frequency, time)."""
        if spectrum.bins.device.type == "cpu" and not (spectrum.bins.requires_grad or reference.bins.requires_grad):
            maps = self.mixing.new_empty((len(spectrum.bins), len(self.mixing), self.num_times))
            for part in self._parts(spectrum):
                peaks = self.mixing.new_empty((len(maps[part]), len(self.frequencies)))
                self._compiled(spectrum[part], maps[part], peaks, reference[part])
            return maps
        chunks = [
            self._differentiable(spectrum[part], reference[part])[0] for part in self._parts(spectrum, copies=_BY_TORCH)
        ]
        return torch.cat(chunks) if chunks else self.mixing.new_empty((0, len(self.mixing), self.num_times))

    @cached_property
    def _kernels(self) -> Kernels | None:
        """Kernels for the GPU that the weights are on, where they work."""
        if not torch.cuda.is_available():
            return None
        try:
            from glitchflow_plugin.signal.qtransform import device_kernels  # noqa: PLC0415  # Triton is not everywhere
        except ImportError:
            return None
        longest = max(group.num_tiles for group in self.groups)
        fit = longest <= device_kernels.MOST_TILES and device_kernels.work_on(str(self.mixing.device))
        return device_kernels if fit else None

    def _parts(self, spectrum: Spectrum, copies: int = 2) -> list[slice]:
        """Series that are transformed at one time."""
        number, device = len(spectrum.bins), spectrum.bins.device
        tiles = max(group.num_rows * group.num_tiles for group in self.groups)
        # The largest group's tiles, and all rows at the map's columns.
        needed = number * (copies * 8 * tiles + 4 * len(self.frequencies) * self.num_times)
        room = WORKSPACE if device.type == "cpu" else _room(device, needed)
        parts = min(number, max(1, math.ceil(needed / room)))
        edges = [number * part // max(parts, 1) for part in range(parts + 1)]
        return [slice(*pair) for pair in pairwise(edges)]

    def launch(self, kernels: Kernels, spectrum: Spectrum, out: Tensor, peaks: Tensor) -> None:
        """Write the maps and the loudest tile of each row with the kernels of a GPU."""
        columns = out.new_empty((len(out), len(self.frequencies), self.num_times))
        start = 0
        for group in self.groups:
            group.launch(kernels, spectrum, columns, peaks, start)
            start += group.num_rows
        torch.bmm(self.mixing.expand(len(out), -1, -1), columns, out=out)
        out.clamp_min_(0)

    def _compiled(self, spectrum: Spectrum, out: Tensor, peaks: Tensor, reference: Spectrum | None = None) -> None:
        shape = (len(out), len(self.frequencies), self.num_times)
        columns = workspace("columns", math.prod(shape), torch.float32).view(shape)
        start = 0
        for group in self.groups:
            rows = slice(start, start + group.num_rows)
            group.compiled(spectrum, columns[:, rows], peaks[:, rows], reference)
            start = rows.stop
        torch.matmul(self.mixing, columns, out=out)
        out.clamp_min_(0)  # a spline may swing below zero beside a peak

    def _differentiable(self, spectrum: Spectrum, reference: Spectrum | None = None) -> tuple[Tensor, Tensor]:
        made = (group.differentiable(spectrum, reference) for group in self.groups)
        columns, peaks = zip(*made, strict=True)
        return torch.matmul(self.mixing, torch.cat(columns, dim=1)).clamp_min(0), torch.cat(peaks, dim=1)


def _taps_in_time(
    num_tiles: int, over_series: int, num_times: int, interpolation: Interpolation
) -> tuple[np.ndarray, np.ndarray]:
    """First tile and weights of each column; `over_series` of the tiles cover the series, what follows are zeros."""
    if interpolation == "spline":
        return periodic_taps(num_tiles, np.arange(num_times) * (over_series / num_times))
    return resized_taps(over_series, num_times, interpolation)


def _room(device: torch.device, needed: int) -> float:
    """Bytes that may be taken on a GPU: asks for what is free only where much is needed, since asking takes time."""
    if needed <= _DEVICE_WORKSPACE or not torch.cuda.is_available():
        return _DEVICE_WORKSPACE
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(_DEVICE_WORKSPACE, (torch.cuda.mem_get_info(device)[0] + kept) / 2)


plane = lru_cache(maxsize=64)(Plane)  # a bank of Q has a few dozen
"""The plane of one Q, kept between calls; arguments as for `Plane`."""


def even_median(values: Tensor) -> Tensor:
    """Median over the last axis, whose length is even: the mean of the two values in the middle.

    Example:
        >>> even_median(torch.tensor([4.0, 1.0, 2.0, 9.0])).item()
        3.0
    """
    half = values.shape[-1] // 2
    # torch.median gives the lower of the two middle values; finding the upper this way beats sorting four times over.
    lower = values.median(dim=-1, keepdim=True).values
    above = values > lower
    upper = torch.where(above, values, math.inf).amin(dim=-1, keepdim=True)
    tied = above.sum(dim=-1, keepdim=True) < half
    return torch.where(tied, lower, (lower + upper) / 2)[..., 0]
