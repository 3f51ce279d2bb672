"""Maps of one Q from spectra: rows of equal length together, then sparse weights from tiles to the axes of the map."""

import math
from functools import cached_property, lru_cache
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor

from glitchflow_plugin.errors import DataError
from glitchflow_plugin.signal.interpolation import periodic_taps, spline_matrix
from glitchflow_plugin.signal.qtransform.settings import Norm, QTransformSettings, axes
from glitchflow_plugin.signal.qtransform.spectrum import Spectrum
from glitchflow_plugin.signal.qtransform.threads import in_threads, workspace
from glitchflow_plugin.signal.qtransform.tiling import TileRow, padded_row

#: What the series transformed at one time may take, bytes: bounds the memory whatever the batch, and fits the caches.
_WORKSPACE = 16 * 1024**2
#: Series that are compared with others at one time.
_RELATIVE = 16
#: Energies are divided by nothing smaller, and by nothing larger than its inverse: float32 could not hold them.
_SMALLEST = 1e-30


class _RowGroup:
    """Rows of a plane that have the same number of tiles, and the weights that bring them to the map's columns."""

    def __init__(
        self,
        rows: list[TileRow],
        num_samples: int,
        settings: QTransformSettings,
        device: str,
        padded: list[TileRow],
    ) -> None:
        position = np.arange(settings.num_times) * (rows[0].num_tiles / settings.num_times)
        # In series divided by their largest sample, in spectra that are not doubled.
        known = {"white": [row.white_energy / num_samples / 4 for row in rows], "none": [0.25] * len(rows)}
        self.norm: Norm = settings.norm
        self.expected = torch.tensor(known.get(settings.norm, [1.0] * len(rows)), dtype=torch.float64, device=device)
        self._rows, self._device = padded, device
        self.num_rows, self.num_tiles = len(padded), padded[0].num_tiles
        self.first_taps, weights = periodic_taps(self.num_tiles, position)
        self.weights = torch.as_tensor(weights, dtype=torch.float32, device=device)
        self.first_bins = np.array([row.first_bin for row in padded])
        self.lengths = np.array([len(row.window) for row in padded])
        self.windows = np.zeros((len(padded), self.lengths.max()), dtype=np.float32)
        for place, row in enumerate(padded):
            self.windows[place, : len(row.window)] = row.window

    @cached_property
    def _gathered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bin and window of each slot, both (row, tile), and all taps one after the other, for PyTorch's indexing."""
        bins = torch.zeros((self.num_rows, self.num_tiles), dtype=torch.long)
        window = torch.zeros((self.num_rows, self.num_tiles), dtype=torch.float32)
        for place, row in enumerate(self._rows):
            bins[place, row.slots] = torch.arange(row.first_bin, row.first_bin + len(row.window))
            window[place, row.slots] = torch.as_tensor(row.window, dtype=torch.float32)
        taps = (self.first_taps[:, None] + np.arange(self.weights.shape[1])) % self.num_tiles
        return bins.to(self._device), window.to(self._device), torch.as_tensor(taps.ravel(), device=self._device)

    def units(self, spectrum: Spectrum) -> Tensor:
        """What energies are divided by where the norm is known beforehand, float32, shape (series, row).

        Raises:
            DataError: The energies do not fit float32.
        """
        # A series that was divided by its largest sample has energies that are smaller by the square.
        units = self.expected / spectrum.largest[:, None] ** 2
        if self.norm in ("white", "none") and bool(((units < _SMALLEST) | (units > 1 / _SMALLEST)).any()):
            raise DataError(
                f"energies of series with samples of up to {spectrum.largest.max():.3g} do not fit float32 with norm "
                f"{self.norm}. Scale the series, or take norm median."
            )
        return units.to(torch.float32)

    def compiled(self, spectrum: Spectrum, out: Tensor, peaks: Tensor) -> None:
        """Write the energies at the map's columns, (series, row, column), and the loudest tile of each row."""
        # numba takes most of a second to import; only who transforms pays for it.
        from glitchflow_plugin.signal.qtransform.kernels import place_windows, rows_to_columns  # noqa: PLC0415

        shape = (len(out), self.num_rows, self.num_tiles)
        slots = workspace("slots", math.prod(shape), torch.complex64).view(shape)
        bins, placed = spectrum.bins.numpy(), slots.numpy()
        in_threads(
            lambda part: place_windows(bins[part], self.first_bins, self.windows, self.lengths, placed[part]),
            shape[0],
            operations=math.prod(shape),
        )
        tiles = torch.view_as_real(torch.fft.ifft(slots)).flatten(-2).numpy()
        norm = {"median": 0, "mean": 1}.get(self.norm, 2)
        units, weights = self.units(spectrum).numpy(), self.weights.numpy()
        columns, largest = out.numpy(), peaks.numpy()
        in_threads(
            lambda part: rows_to_columns(
                tiles[part], units[part], norm, self.first_taps, weights, columns[part], largest[part]
            ),
            shape[0],
            operations=math.prod(shape[:2]) * (8 * self.num_tiles + weights.size),
        )

    def differentiable(self, spectrum: Spectrum, reference: Spectrum | None = None) -> tuple[Tensor, Tensor]:
        """The same by PyTorch alone: on any device, with gradients; divided by the reference's norm if it is given."""
        taps = self._gathered[2]
        energy = self._energy(spectrum)
        other, normed = (spectrum, energy) if reference is None else (reference, self._energy(reference))
        if self.norm == "median":
            unit = even_median(normed)
        else:
            unit = normed.mean(dim=-1) if self.norm == "mean" else self.units(other)
        factor = torch.where(unit > 0, 1 / torch.where(unit > 0, unit, 1), 0)
        # each series was divided by its own largest sample
        factor = factor * (spectrum.largest / other.largest).square().to(factor.dtype)[:, None]
        near = energy.index_select(-1, taps).unflatten(-1, self.weights.shape)
        columns = torch.einsum("...ct,ct->...c", near, self.weights) * factor[..., None]
        return columns, energy.amax(dim=-1) * factor

    def _energy(self, spectrum: Spectrum) -> Tensor:
        bins, window, _ = self._gathered
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
    ) -> None:
        self.q = q
        rows = settings.rows(num_samples, sample_rate, q)
        self.frequencies = np.array([row.frequency for row in rows])
        self.num_times = settings.num_times
        by_size = [list(group) for _, group in groupby(rows, key=lambda row: row.num_tiles)]
        extent = num_samples, padded_samples or num_samples, sample_rate, q
        self.groups = [
            _RowGroup(
                group,
                num_samples,
                settings,
                device,
                group if extent[0] == extent[1] else [padded_row(row, *extent) for row in group],
            )
            for group in by_size
        ]
        wanted, _ = axes(num_samples / sample_rate, settings)
        self.mixing = torch.as_tensor(spline_matrix(self.frequencies, wanted), dtype=torch.float32, device=device)

    def maps(self, spectrum: Spectrum) -> tuple[Tensor, Tensor]:
        """Map of each series, (series, frequency, time), and the loudest tile of each row, (series, row)."""
        number = len(spectrum.bins)
        tiles = max(group.num_rows * group.num_tiles for group in self.groups)
        # The largest group's tiles twice, and all rows at the map's columns.
        series_bytes = 2 * 8 * tiles + 4 * len(self.frequencies) * self.num_times
        parts = min(number, max(1, math.ceil(number * series_bytes / _WORKSPACE)))
        edges = [number * part // max(parts, 1) for part in range(parts + 1)]
        if spectrum.bins.device.type != "cpu" or spectrum.bins.requires_grad:
            chunks = [self._differentiable(spectrum[slice(*pair)]) for pair in pairwise(edges)]
            if not chunks:
                return self.mixing.new_empty((0, len(self.mixing), self.num_times)), self.mixing.new_empty(
                    (0, len(self.frequencies))
                )
            maps, peaks = zip(*chunks, strict=True)
            return torch.cat(maps), torch.cat(peaks)
        maps = torch.empty((number, len(self.mixing), self.num_times))
        peaks = torch.empty((number, len(self.frequencies)))
        for pair in pairwise(edges):
            chunk = slice(*pair)
            self._compiled(spectrum[chunk], maps[chunk], peaks[chunk])
        return maps, peaks

    def relative(self, spectrum: Spectrum, reference: Spectrum) -> Tensor:
        """Map of each series, rows divided by the norm of those of the reference, (series, frequency, time)."""
        parts = [slice(start, start + _RELATIVE) for start in range(0, len(spectrum.bins), _RELATIVE)]
        chunks = [self._differentiable(spectrum[part], reference[part])[0] for part in parts]
        return torch.cat(chunks) if chunks else self.mixing.new_empty((0, len(self.mixing), self.num_times))

    def _compiled(self, spectrum: Spectrum, out: Tensor, peaks: Tensor) -> None:
        shape = (len(out), len(self.frequencies), self.num_times)
        columns = workspace("columns", math.prod(shape), torch.float32).view(shape)
        start = 0
        for group in self.groups:
            rows = slice(start, start + group.num_rows)
            group.compiled(spectrum, columns[:, rows], peaks[:, rows])
            start = rows.stop
        torch.matmul(self.mixing, columns, out=out)
        out.clamp_min_(0)  # a spline may swing below zero beside a peak

    def _differentiable(self, spectrum: Spectrum, reference: Spectrum | None = None) -> tuple[Tensor, Tensor]:
        made = (group.differentiable(spectrum, reference) for group in self.groups)
        columns, peaks = zip(*made, strict=True)
        return torch.matmul(self.mixing, torch.cat(columns, dim=1)).clamp_min(0), torch.cat(peaks, dim=1)


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
