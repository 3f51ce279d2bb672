"""The Q-transform: energy of a time series in tiles of constant Q, as maps in units of SNR².

The tiles, their energies and the map are those of gwpy's `q_gram` and `q_transform`; `signal/tiling.py` says where the
tiles lie. The spectrum is made once for all Q, rows of equal length are transformed together, and the way from tiles to
the map is two sparse matrices made once. On a CPU compiled loops do what lies between the transforms; on a GPU, and
where gradients are asked for, PyTorch does.

What a user should know of the maps:

- Energies are divided by the median of their row, so white Gaussian noise has median 1 and an exponential law
  (P(energy > x) = 2^-x), and a pixel of 20 is a one-in-a-million event. `norm: white` divides by the expectation in
  white noise of unit variance instead, which is right where a row has few independent tiles; then P(energy > x) = e^-x.
- The transform treats the series as periodic. Within about one tile length, Q / (2 pi f), of either edge a map mixes
  what happens at both ends; series that do not fade out at their ends (not whitened, strong lines) show bright edges.
  With `periodic=False` zeros are appended first: the same tiles, without the other end. gwpy knows no such thing.
- Columns are samples, not averages: at high frequency a tile can be shorter than a column (Q = 12 at 400 Hz: 5 ms,
  column 23 ms), and a glitch between two columns loses part of its peak, as in every Q-transform of this resolution.
- Two things differ from gwpy, on purpose: a spline that swings below zero beside a peak is cut at zero, since an energy
  is not negative; and behind the last tile of a row, where gwpy extrapolates a cubic, the map goes on periodically as
  the tiles do.

References:
    Chatterji et al., Class. Quantum Grav. 21 (2004) S1809, doi:10.1088/0264-9381/21/20/024.
"""

import math
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.settings import Finite, Fraction, Positive, section
from glitchflow_plugin.signal.interpolation import periodic_taps, spline_matrix
from glitchflow_plugin.signal.tiling import LOWEST_Q, TileRow, distance, padded_row, tile_rows
from glitchflow_plugin.types.tensors import SeriesTensor

Norm = Literal["median", "mean", "white", "none"]
_NORMS: tuple[Norm, ...] = ("median", "mean", "white", "none")
#: A row needs this many tiles for its median to mean something.
_FEWEST_TILES = 16
#: Zeros appended to a series that is not periodic, in lengths of its longest tile: a tile's energy falls by more than
#: 225 / (sqrt(11) n)^6 over n lengths, which is 4e-5 here.
_ZEROS = 4
#: Zeros are appended in eighths of the series where its length allows: rows have at least 16 tiles, a power of two.
_EIGHTHS = 8
#: What the series transformed at one time may take, bytes: bounds the memory whatever the batch, and fits the caches.
_WORKSPACE = 16 * 1024**2
#: Series that are compared with others at one time.
_RELATIVE = 16
#: Energies are divided by nothing smaller, and by nothing larger than its inverse: float32 could not hold them.
_SMALLEST = 1e-30


@section
class QTransformSettings:
    """What decides a map.

    Attributes:
        q: Quality factor of the tiles; with several, each series takes the plane with the loudest tile.
        frequency_low: Lower end of the frequency axis, Hz.
        frequency_high: Upper end of the frequency axis, Hz.
        num_frequencies: Rows of the map.
        num_times: Columns of the map, over the full duration.
        log_frequency: Rows evenly spaced in log frequency rather than in frequency.
        mismatch: Largest fraction of energy lost between neighbouring tiles.
        norm: What energies are divided by: the `median` or the `mean` of their row, the expectation in `white` noise of
            unit variance a sample, or nothing (`none`: gwpy's energies with `norm=False`, in the series' unit squared).
    """

    q: float | tuple[float, ...] = 12.0
    frequency_low: Positive = 8.0
    frequency_high: Finite = 400.0
    num_frequencies: int = 64
    num_times: int = 257
    log_frequency: bool = False
    mismatch: Fraction = 0.2
    norm: Norm = "median"

    def __post_init__(self) -> None:
        """Refuse settings that fit no data at all; `check_settings` compares them with the data."""
        if not self.qs or not all(math.isfinite(q) and q >= LOWEST_Q for q in self.qs):
            raise ConfigurationError(f"q must be at least sqrt(11) = {LOWEST_Q:.3f}, or several such, got {self.q}.")
        if not self.frequency_low < self.frequency_high:
            raise ConfigurationError(
                f"expected 0 < lowest < highest frequency (Hz), got {self.frequency_low} and {self.frequency_high}. "
                "Correct `frange`."
            )
        if self.num_frequencies < 2 or self.num_times < 2:
            raise ConfigurationError(
                f"a map needs at least 2 rows and 2 columns, got {self.num_frequencies} x {self.num_times}."
            )

    @classmethod
    def from_recipe(cls, content: Mapping[str, Any]) -> "QTransformSettings":
        """Settings from the recipe of a spectrogram set or a model.

        Raises:
            FormatError: They are of another version of this program.
        """
        try:
            return cls(**content)
        except ConfigurationError as error:
            raise FormatError(
                f"the recipe's Q-transform has settings unknown to this version ({error}). Make it again."
            ) from error

    @property
    def qs(self) -> tuple[float, ...]:
        """All Q to try."""
        return self.q if isinstance(self.q, tuple) else (self.q,)

    def rows(self, num_samples: int, sample_rate: float, q: float) -> tuple[TileRow, ...]:
        """Rows of tiles of one Q for series of this length (samples) and rate (Hz)."""
        return tile_rows(num_samples, float(sample_rate), q, (self.frequency_low, self.frequency_high), self.mismatch)


def highest_frequency(num_samples: int, sample_rate: float, q: float) -> float:
    """Highest frequency, Hz, whose window stays below the Nyquist frequency.

    A row at f takes the Fourier bins up to round(f T + 1) + floor(f T / q'), with q' = q / sqrt(11) and the duration T;
    that must not exceed the last bin, num_samples // 2. Rounding adds at most 1.5 bins, hence
    f <= (num_samples // 2 - 1.5) / T / (1 + 1 / q').

    Example:
        >>> round(highest_frequency(6144, 1024.0, q=12.0), 1)
        400.9
    """
    return (num_samples // 2 - 1.5) * sample_rate / num_samples / (1 + LOWEST_Q / q)


def lowest_frequency(num_samples: int, sample_rate: float, q: float, mismatch: float = 0.2) -> float:
    """Lowest frequency, Hz, whose row has enough tiles (16) for a median.

    A row has the power of two at or above 2 pi f T / (q delta) tiles, with delta = 2 sqrt(mismatch / 3).
    """
    # One bin more, because rows lie on multiples of 1 / T and are rounded down.
    return (math.ceil(_FEWEST_TILES / 2 * q * distance(mismatch) / (2 * math.pi)) + 1) * sample_rate / num_samples


def check_settings(num_samples: int, sample_rate: float, settings: QTransformSettings) -> None:
    """Compare settings with the data before any work is done.

    Args:
        num_samples: Samples of a series.
        sample_rate: Hz.
        settings: What is asked for.

    Raises:
        ConfigurationError: A window would reach past the Nyquist frequency, or the series is too short for the lowest
            frequency or the largest Q; the message says what fits.
    """
    if num_samples < 2 * _FEWEST_TILES or not sample_rate > 0:
        raise ConfigurationError(
            f"expected a series of at least {2 * _FEWEST_TILES} samples at a positive rate, "
            f"got {num_samples} samples at {sample_rate} Hz. Take a longer duration (`len` in datasets.yaml)."
        )
    duration = num_samples / sample_rate
    smallest, largest = min(settings.qs), max(settings.qs)
    highest = highest_frequency(num_samples, sample_rate, smallest)
    top = settings.rows(num_samples, sample_rate, smallest)[-1]
    if top.first_bin + len(top.window) - 1 > num_samples // 2:
        raise ConfigurationError(
            f"Q-transform up to {settings.frequency_high:g} Hz with Q = {smallest:g} reaches past the Nyquist "
            f"frequency ({sample_rate / 2:g} Hz at {sample_rate:g} Hz sampling): the highest frequency that fits is "
            f"{math.floor(highest * 10) / 10:g} Hz. Lower the upper end of `frange`, raise q, or process the data at a "
            "higher sample rate (`sr` in datasets.yaml)."
        )
    lowest = lowest_frequency(num_samples, sample_rate, largest, settings.mismatch)
    if settings.frequency_low < lowest:
        fitting_q = 2 * math.pi * (settings.frequency_low * duration - 1) / (8 * distance(settings.mismatch))
        raise ConfigurationError(
            f"Q-transform from {settings.frequency_low:g} Hz with Q = {largest:g} needs series of at least "
            f"{lowest * duration / settings.frequency_low:.2f} s, got {duration:g} s. For this duration raise the "
            f"lower end of `frange` to {math.ceil(lowest * 10) / 10:g} Hz, or take q of at most {max(fitting_q, 0):.1f}"
            f" (and at least {LOWEST_Q:.2f})."
        )


def axes(duration: float, settings: QTransformSettings) -> tuple[np.ndarray, np.ndarray]:
    """Axes of a map.

    Args:
        duration: Length of the series, s.
        settings: Frequency range and shape.

    Returns:
        Frequency of each row, Hz, both ends included, shape (frequency,), and time of each column, s from the first
        sample, j * duration / num_times, shape (time,); both float64.
    """
    spaced = np.geomspace if settings.log_frequency else np.linspace
    frequencies = spaced(settings.frequency_low, settings.frequency_high, settings.num_frequencies, dtype=np.float64)
    times = np.arange(settings.num_times, dtype=np.float64) * (duration / settings.num_times)
    return frequencies, times


def padded_size(num_samples: int, sample_rate: float, settings: QTransformSettings) -> int:
    """Samples of a series with so many zeros behind it that its ends do not see each other.

    Args:
        num_samples: Of the series.
        sample_rate: Hz.
        settings: Give the longest tile.

    Example:
        >>> padded_size(6144, 1024.0, QTransformSettings())
        7680
    """
    longest = max(settings.qs) / (2 * math.pi * settings.frequency_low)
    step = num_samples // math.gcd(num_samples, _EIGHTHS)
    return num_samples + step * math.ceil(_ZEROS * longest * sample_rate / step)


def q_transform(
    series: SeriesTensor, sample_rate: float, settings: QTransformSettings, *, periodic: bool = True
) -> Float[Tensor, "*batch frequency column"]:
    """Q-transform energy in units of SNR², each row divided by its median (or by what `settings.norm` says).

    Agrees with gwpy's `q_transform` at the same Q and resolution within 1e-3; the module's text names two exceptions.

    Args:
        series: Time series, shape (..., time); any unit, since rows are normalised.
        sample_rate: Hz.
        settings: Q, frequency range and shape of the map.
        periodic: Whether the series goes on from its start behind its end, as for gwpy; False: it is zero beyond both.
            The zeros count in medians and means of rows, so this goes with the norms "white" and "none".

    Returns:
        Maps, float32, shape (..., frequency, time), on the axes that `axes` gives, on the device of `series`.
        A series of zeros gives a map of zeros.

    Raises:
        ConfigurationError: The settings do not fit the data; the message says what fits.
        DataError: The series holds NaN or infinity or complex numbers, or its energies do not fit float32 (`norm`
            "white" and "none" only).

    Example:
        >>> q_transform(torch.zeros(2, 6144), 1024.0, QTransformSettings()).shape
        torch.Size([2, 64, 257])
    """
    return q_scan(series, sample_rate, settings, periodic=periodic)[0]


def q_transform_relative(
    series: SeriesTensor,
    reference: Float[Tensor, "..."],
    sample_rate: float,
    settings: QTransformSettings,
) -> Float[Tensor, "*batch frequency column"]:
    """Q-transform energy in the unit of another series' map: each row divided by what that row of the other is.

    Energies before and after something was taken away can only be compared in one unit. Divided by its own medians,
    a series to which noise was added would look as quiet as before. Both are periodic, as measured maps are: a series
    from which nothing was taken has the map of the reference, at the edges too.

    Args:
        series: Time series, shape (..., time).
        reference: The series that give the unit (and, with several Q, the Q), same shape.
        sample_rate: Hz.
        settings: As for `q_transform`.

    Returns:
        Maps as from `q_transform`; zero where a row of the reference is.

    Raises:
        ConfigurationError: As for `q_transform`, or the shapes differ.
        DataError: As for `q_transform`.
    """
    if series.shape != reference.shape:
        raise ConfigurationError(
            f"expected series and reference of one shape, got {tuple(series.shape)} and {tuple(reference.shape)}."
        )
    check_settings(series.shape[-1], sample_rate, settings)
    num_samples = series.shape[-1]
    own, other = (Spectrum.of(each.reshape(-1, num_samples)) for each in (series, reference))
    first, *others = (
        plane(num_samples, float(sample_rate), q, settings, str(series.device), padded_samples=num_samples)
        for q in settings.qs
    )
    maps = first.relative(own, other)
    if others:
        chosen = q_scan(reference, sample_rate, settings)[1].reshape(-1)
        for one in others:
            maps = torch.where((chosen == one.q)[:, None, None], one.relative(own, other), maps)
    return maps.reshape(*series.shape[:-1], *maps.shape[1:])


def q_scan(
    series: SeriesTensor, sample_rate: float, settings: QTransformSettings, *, periodic: bool = True
) -> tuple[Float[Tensor, "*batch frequency column"], Float64[Tensor, "*batch"]]:
    """Map of each series at the Q, among those of the settings, whose plane has the loudest tile.

    Args:
        series: As for `q_transform`.
        sample_rate: Hz.
        settings: As for `q_transform`; with several Q, all planes are made from one spectrum.
        periodic: As for `q_transform`.

    Returns:
        Maps as from `q_transform`, and the Q of each, float64, shape (...).

    Raises:
        ConfigurationError: As for `q_transform`.
        DataError: As for `q_transform`.
    """
    if series.ndim == 0:
        raise DataError("the Q-transform expects series with a time axis, got a single number.")
    check_settings(series.shape[-1], sample_rate, settings)
    num_samples = series.shape[-1]
    size = num_samples if periodic else padded_size(num_samples, sample_rate, settings)
    spectrum = Spectrum.of(series.reshape(-1, num_samples), size)
    first, *others = (
        plane(num_samples, float(sample_rate), q, settings, str(series.device), padded_samples=size)
        for q in settings.qs
    )
    maps, peaks = first.maps(spectrum)
    peak = peaks.amax(dim=-1)
    chosen = torch.full_like(spectrum.largest, first.q)
    for one in others:
        other, peaks = one.maps(spectrum)
        louder = peaks.amax(dim=-1) > peak
        maps = torch.where(louder[:, None, None], other, maps)
        chosen, peak = torch.where(louder, one.q, chosen), torch.maximum(peak, peaks.amax(dim=-1))
    return maps.reshape(*series.shape[:-1], *maps.shape[1:]), chosen.reshape(series.shape[:-1])


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Fourier coefficients of series that were divided by their largest sample.

    Strain is of the order of 1e-21, whose energy float32 cannot hold; rows are normalised, so any scale will do.

    Attributes:
        bins: Complex64, shape (series, bin), `norm="forward"`.
        largest: Largest absolute sample of each series, float64, shape (series,); 1 for a series of zeros.
    """

    bins: Tensor
    largest: Tensor

    @classmethod
    def of(cls, series: Tensor, size: int | None = None) -> "Spectrum":
        """Transform series, shape (series, time), with zeros appended up to `size` samples where that is given.

        Raises:
            DataError: A series holds NaN or infinity, or complex numbers.
        """
        if series.is_complex():
            raise DataError("the Q-transform expects real series, got complex ones.")
        if series.dtype not in (torch.float32, torch.float64):
            series = series.to(torch.float32)
        if not len(series):
            return cls(
                torch.empty((0, (size or series.shape[-1]) // 2 + 1), dtype=torch.complex64, device=series.device),
                torch.empty(0, dtype=torch.float64, device=series.device),
            )
        largest = torch.maximum(series.amax(dim=-1), -series.amin(dim=-1)).detach()
        if not bool(torch.isfinite(largest).all()):
            raise DataError(
                "the Q-transform got a series with NaN or infinite samples. Mark the channel as invalid and set it to "
                "zero."
            )
        largest = torch.where(largest > 0, largest, 1)
        bins = torch.fft.rfft(series / largest[:, None], n=size, norm="forward")
        return cls(bins.to(torch.complex64), largest.to(torch.float64))

    def __getitem__(self, series: slice) -> "Spectrum":
        return type(self)(self.bins[series], self.largest[series])


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
        from glitchflow_plugin.signal._tile_kernels import place_windows, rows_to_columns  # noqa: PLC0415

        shape = (len(out), self.num_rows, self.num_tiles)
        slots = _workspace("slots", math.prod(shape), torch.complex64).view(shape)
        bins, placed = spectrum.bins.numpy(), slots.numpy()
        _in_threads(
            lambda part: place_windows(bins[part], self.first_bins, self.windows, self.lengths, placed[part]),
            shape[0],
            operations=math.prod(shape),
        )
        tiles = torch.view_as_real(torch.fft.ifft(slots)).flatten(-2).numpy()
        norm = {"median": 0, "mean": 1}.get(self.norm, 2)
        units, weights = self.units(spectrum).numpy(), self.weights.numpy()
        columns, largest = out.numpy(), peaks.numpy()
        _in_threads(
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
        num_samples: Of the series.
        sample_rate: Hz.
        q: Quality factor.
        settings: Of the maps.
        device: Where they are made.
        padded_samples: Of the series with the zeros behind it, which its spectra have; none by default.
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
        columns = _workspace("columns", math.prod(shape), torch.float32).view(shape)
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


#: Operations below which waking a thread takes longer than the work.
_WORTH_A_THREAD = 2**17

_kept = threading.local()


def _workspace(name: str, size: int, dtype: torch.dtype) -> Tensor:
    """Memory that stays with the calling thread: asking the system for it anew would take as long as the transform."""
    held: Tensor | None = getattr(_kept, name, None)
    if held is None or len(held) < size:
        held = torch.empty(size, dtype=dtype)
        setattr(_kept, name, held)
    return held[:size]


def _in_threads(work: Callable[[slice], None], number: int, *, operations: int) -> None:
    """Do the work on even parts of 0..number, on as many threads as PyTorch uses; the first part in this one."""
    threads = 1 if operations < _WORTH_A_THREAD else min(torch.get_num_threads(), number)
    edges = [number * part // threads for part in range(threads + 1)]
    own, *others = [slice(*pair) for pair in pairwise(edges)]
    waiting = [_pool(threads, os.getpid()).submit(work, part) for part in others]
    work(own)
    for one in waiting:
        one.result()


@lru_cache(maxsize=4)
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; those of a parent process do not exist in a forked child, hence its number."""
    return ThreadPoolExecutor(threads, thread_name_prefix="q-transform")
