"""The Q-transform: energy of a time series in tiles of constant Q, as maps in units of SNR².

One function, `q_transform`, hides the engine. At present the tiles come from ml4gw's `SingleQTransform`; the map is
interpolated from them here, because ml4gw's own interpolation shifts each row by half of its tile (up to 50 ms at
8 Hz for Q = 12 over 6 s) and knows no linear frequency axis.

What a user should know of the maps:

- Energies are divided by the median of their row, so white Gaussian noise has median 1 and an exponential law
  (P(energy > x) = 2^-x), and a pixel of 20 is a one-in-a-million event.
- The transform treats the series as periodic. Within about one tile length, Q / (2 pi f), of either edge a map mixes
  what happens at both ends; series that do not fade out at their ends (not whitened, strong lines) show bright edges.
- Columns are samples, not averages: at high frequency a tile can be shorter than a column (Q = 12 at 400 Hz: 5 ms,
  column 23 ms), and a glitch between two columns loses part of its peak, as in every Q-transform of this resolution.

References:
    Chatterji et al., Class. Quantum Grav. 21 (2004) S1809, doi:10.1088/0264-9381/21/20/024.
    Unser, IEEE Signal Process. Mag. 16 (1999) 22, doi:10.1109/79.799930 (the interpolation in time).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.types.tensors import SeriesTensor

#: Below this Q the window of a row would reach below 0 Hz.
LOWEST_Q = math.sqrt(11.0)
#: A row needs this many tiles for its median to mean something.
_FEWEST_TILES = 16
#: Samples on each side that the cubic spline uses; the next would weigh less than 1e-4.
_TAPS = 8
#: Rows are brought to the columns by one matrix up to this size, and by their neighbours alone beyond.
_LARGEST_MATRIX = 2**18
#: Series transformed at once; bounds the memory whatever the batch.
_CHUNK = 256


@dataclass(frozen=True)
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
    """

    q: float | tuple[float, ...] = 12.0
    frequency_low: float = 8.0
    frequency_high: float = 400.0
    num_frequencies: int = 64
    num_times: int = 257
    log_frequency: bool = False
    mismatch: float = 0.2

    def __post_init__(self) -> None:
        """Refuse settings that fit no data at all; `check_settings` compares them with the data."""
        qs = tuple(float(q) for q in self.q) if isinstance(self.q, tuple | list) else float(self.q)
        object.__setattr__(self, "q", qs)
        if not self.qs or not all(math.isfinite(q) and q >= LOWEST_Q for q in self.qs):
            raise ConfigurationError(f"q must be at least sqrt(11) = {LOWEST_Q:.3f}, or several such, got {self.q}.")
        if not 0 < self.frequency_low < self.frequency_high < math.inf:
            raise ConfigurationError(
                f"expected 0 < lowest < highest frequency (Hz), got {self.frequency_low} and {self.frequency_high}. "
                "Correct `frange`."
            )
        if self.num_frequencies < 2 or self.num_times < 2:
            raise ConfigurationError(
                f"a map needs at least 2 rows and 2 columns, got {self.num_frequencies} x {self.num_times}."
            )
        if not 0 < self.mismatch < 1:
            raise ConfigurationError(f"mismatch is a fraction between 0 and 1, got {self.mismatch}.")

    @property
    def qs(self) -> tuple[float, ...]:
        """All Q to try."""
        return self.q if isinstance(self.q, tuple) else (self.q,)


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
    delta = 2 * math.sqrt(mismatch / 3)
    # One bin more, because rows lie on multiples of 1 / T and are rounded down.
    return (math.ceil(_FEWEST_TILES / 2 * q * delta / (2 * math.pi)) + 1) * sample_rate / num_samples


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
    if settings.frequency_high > highest:
        raise ConfigurationError(
            f"Q-transform up to {settings.frequency_high:g} Hz with Q = {smallest:g} reaches past the Nyquist "
            f"frequency ({sample_rate / 2:g} Hz at {sample_rate:g} Hz sampling): the highest frequency that fits is "
            f"{math.floor(highest * 10) / 10:g} Hz. Lower the upper end of `frange`, raise q, or process the data at a "
            "higher sample rate (`sr` in datasets.yaml)."
        )
    lowest = lowest_frequency(num_samples, sample_rate, largest, settings.mismatch)
    if settings.frequency_low < lowest:
        fitting_q = 2 * math.pi * (settings.frequency_low * duration - 1) / (8 * 2 * math.sqrt(settings.mismatch / 3))
        raise ConfigurationError(
            f"Q-transform from {settings.frequency_low:g} Hz with Q = {largest:g} needs series of at least "
            f"{lowest * duration / settings.frequency_low:.2f} s, got {duration:g} s. For this duration raise the "
            f"lower end of `frange` to {math.ceil(lowest * 10) / 10:g} Hz, or take q of at most {max(fitting_q, 0):.1f}"
            f" (and at least {LOWEST_Q:.2f})."
        )
    largest_q = math.pi * duration * sample_rate / 50 - LOWEST_Q
    if largest >= largest_q:
        raise ConfigurationError(
            f"Q = {largest:g} is too large for {duration:g} s at {sample_rate:g} Hz; take less than {largest_q:.1f}."
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


def q_transform(
    series: SeriesTensor, sample_rate: float, settings: QTransformSettings
) -> Float[Tensor, "*batch frequency column"]:
    """Q-transform energy in units of SNR², each row divided by its median.

    Against gwpy's `q_transform` at the same Q and resolution, a sine-Gaussian in noise has its peak in the same column
    and row (one row off at most) and the same peak energy within 2 %; see the module's text for edges and resolution.

    Args:
        series: Time series, shape (..., time); any unit, since rows are normalised.
        sample_rate: Hz.
        settings: Q, frequency range and shape of the map.

    Returns:
        Maps, float32, shape (..., frequency, time), on the axes that `axes` gives, on the device of `series`.
        A series of zeros gives a map of zeros.

    Raises:
        ConfigurationError: The settings do not fit the data; the message says what fits.
        DataError: The series holds NaN or infinity.

    Example:
        >>> q_transform(torch.zeros(2, 6144), 1024.0, QTransformSettings()).shape
        torch.Size([2, 64, 257])
    """
    num_samples = series.shape[-1]
    check_settings(num_samples, sample_rate, settings)
    if not bool(torch.isfinite(series).all()):
        raise DataError(
            "the Q-transform got a series with NaN or infinite samples. Mark the channel as invalid and set it to zero."
        )
    if not series.is_floating_point():
        series = series.to(torch.float32)
    flat = series.reshape(-1, num_samples)
    maps = flat.new_empty((len(flat), settings.num_frequencies, settings.num_times), dtype=torch.float32)
    planes = [_plane(num_samples, float(sample_rate), q, settings, str(series.device)) for q in settings.qs]
    with torch.no_grad():
        for start in range(0, len(flat), _CHUNK):
            rows = slice(start, start + _CHUNK)
            maps[rows] = _best_plane(flat[rows], planes)
    return maps.reshape(*series.shape[:-1], settings.num_frequencies, settings.num_times)


class _RowGroup:
    """Rows of a plane that have the same number of tiles, and the weights that bring them to the map's columns."""

    def __init__(self, rows: list[Any], num_tiles: int, num_times: int, device: str) -> None:
        # ml4gw transforms row by row; all rows of one length at once need a tenth of the kernel calls. Each row takes
        # its stretch of the spectrum, centred on zero frequency, under its window; the rest stays zero.
        bins = torch.zeros((len(rows), num_tiles), dtype=torch.long)
        window = torch.zeros((len(rows), num_tiles), dtype=torch.float32)
        for place, row in enumerate(rows):
            slots = (torch.arange(len(row.window)) + int(row.padding[0]) - num_tiles // 2) % num_tiles
            bins[place, slots], window[place, slots] = row.indices, row.window
        self.bins, self.window = bins.to(device), window.to(device)
        position = np.arange(num_times) * (num_tiles / num_times)
        first = np.floor(position).astype(np.int64) - (_TAPS - 1)
        taps = first[:, None] + np.arange(2 * _TAPS)
        weights = _cardinal_spline(position[:, None] - taps)
        weights /= weights.sum(axis=1, keepdims=True)
        taps %= num_tiles  # the spectrum makes the row periodic
        self.dense = num_tiles * num_times <= _LARGEST_MATRIX
        if self.dense:
            matrix = np.zeros((num_tiles, num_times))
            np.add.at(matrix, (taps, np.arange(num_times)[:, None]), weights)
            weights = matrix
        self.taps = torch.as_tensor(taps.ravel(), device=device)
        self.weights = torch.as_tensor(weights, dtype=torch.float32, device=device)

    def tiles(self, spectrum: Tensor) -> Tensor:
        """Energy of the tiles, shape (series, row, tile)."""
        amplitude = torch.fft.ifft(spectrum[:, self.bins] * self.window)
        return amplitude.real.square() + amplitude.imag.square()

    def energy(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Energy at the map's columns, rows over their median, (series, row, time), and the loudest tile, (series,)."""
        tiles = _over_median(self.tiles(spectrum)).to(torch.float32)
        if self.dense:
            columns = tiles @ self.weights
        else:
            near = tiles.index_select(-1, self.taps).unflatten(-1, self.weights.shape)
            columns = torch.einsum("...ct,ct->...c", near, self.weights)
        return columns.clamp_min_(0), tiles.amax(dim=(-2, -1))  # a spline may swing below zero beside a peak


class _Plane:
    """All that one Q needs for series of one length: tile rows, and weights from rows to the map's frequencies."""

    def __init__(
        self, num_samples: int, sample_rate: float, q: float, settings: QTransformSettings, device: str
    ) -> None:
        # ml4gw takes seconds to import; only who transforms pays for it.
        from ml4gw.transforms.qtransform import SingleQTransform  # noqa: PLC0415

        duration = num_samples / sample_rate
        transform = SingleQTransform(
            duration=duration,
            sample_rate=sample_rate,
            spectrogram_shape=(settings.num_frequencies, settings.num_times),
            q=q,
            frange=[settings.frequency_low, settings.frequency_high],
            mismatch=settings.mismatch,
        )
        by_size: dict[int, list[Any]] = {}
        rows: list[Any] = list(transform.qtile_transforms)
        for row in rows:
            by_size.setdefault(row.ntiles(), []).append(row)
        self.groups = [_RowGroup(rows, size, settings.num_times, device) for size, rows in sorted(by_size.items())]
        centres = np.sort(transform.freqs.numpy().astype(np.float64))
        wanted, _ = axes(duration, settings)
        self.mixing = torch.as_tensor(_frequency_weights(centres, wanted), dtype=torch.float32, device=device)

    def energy(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Map of each series, shape (series, frequency, time), and its loudest tile, (series,)."""
        rows, peaks = zip(*(group.energy(spectrum) for group in self.groups), strict=True)
        return torch.matmul(self.mixing, torch.cat(rows, dim=1)).clamp_min_(0), torch.stack(peaks).amax(dim=0)


@lru_cache(maxsize=32)
def _plane(num_samples: int, sample_rate: float, q: float, settings: QTransformSettings, device: str) -> _Plane:
    return _Plane(num_samples, sample_rate, q, settings, device)


def _best_plane(series: Tensor, planes: list[_Plane]) -> Tensor:
    """Map of each series in the plane with the loudest tile (which may lie between two columns of the map)."""
    # Strain is of the order of 1e-21, whose energy float32 cannot hold; rows are normalised, so any scale will do.
    largest = series.abs().amax(dim=-1, keepdim=True)
    spectrum = torch.fft.rfft(series / torch.where(largest > 0, largest, 1), norm="forward")
    best, peak = planes[0].energy(spectrum)
    for plane in planes[1:]:
        other, other_peak = plane.energy(spectrum)
        louder = other_peak > peak
        best, peak = torch.where(louder[:, None, None], other, best), torch.maximum(peak, other_peak)
    return best


def _over_median(tiles: Tensor) -> Tensor:
    """Divide by the median of the last axis (even length); zero where the median is zero."""
    half = tiles.shape[-1] // 2
    # torch.median gives the lower of the two middle values; finding the upper this way beats sorting four times over.
    lower = tiles.median(dim=-1, keepdim=True).values
    above = tiles > lower
    upper = torch.where(above, tiles, math.inf).amin(dim=-1, keepdim=True)
    tied = above.sum(dim=-1, keepdim=True) < half
    median = torch.where(tied, lower, (lower + upper) / 2)
    return torch.where(median > 0, tiles / torch.where(median > 0, median, 1), 0)


def _cardinal_spline(offset: np.ndarray) -> np.ndarray:
    """Cubic spline through 1 at zero and 0 at the other integers: sum over k of sqrt(3) (sqrt(3) - 2)^|k| B3(x - k)."""
    # Further terms are below float32's resolution.
    orders = np.arange(-14, 15)
    distance = np.abs(offset[..., None] - orders)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance) ** 3 / 6
    basis = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return basis @ (math.sqrt(3) * (math.sqrt(3) - 2) ** np.abs(orders))


def _frequency_weights(centres: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Cubic spline in log frequency as a matrix (wanted, centre); beyond the outer rows their value is kept."""
    if len(centres) == 1:
        return np.ones((len(wanted), 1))
    spline = CubicSpline(np.log(centres), np.eye(len(centres)))
    return spline(np.log(np.clip(wanted, centres[0], centres[-1])))
