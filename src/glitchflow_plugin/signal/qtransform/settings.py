"""What decides a map of the Q-transform, where its pixels lie, and which settings fit which series."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.settings import Finite, Fraction, Positive, section
from glitchflow_plugin.signal.qtransform.tiling import LOWEST_Q, TileRow, distance, tile_rows

Norm = Literal["median", "mean", "white", "none"]
#: A row needs this many tiles for its median to mean something.
_FEWEST_TILES = 16
#: Zeros appended to a series that is not periodic, in lengths of its longest tile: a tile's energy falls by more than
#: 225 / (sqrt(11) n)^6 over n lengths, which is 4e-5 here.
_ZEROS = 4
#: Zeros are appended in eighths of the series where its length allows: rows have at least 16 tiles, a power of two.
_EIGHTHS = 8


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
            FormatError: They are of another version of this program, or damaged.
        """
        try:
            return cls(**content)
        except (TypeError, ConfigurationError) as error:
            raise FormatError(f"the recipe's Q-transform is none of this version ({error}). Make it again.") from error

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


def check_settings(num_samples: int, sample_rate: float, settings: QTransformSettings, *, beyond: int = 0) -> None:
    """Compare settings with the data before any work is done.

    Args:
        num_samples: Samples of a series.
        sample_rate: Hz.
        settings: What is asked for.
        beyond: Fourier bins past the Nyquist frequency that a window may reach.

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
    if top.first_bin + len(top.window) - 1 > num_samples // 2 + beyond:
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
        num_samples: Samples of the series.
        sample_rate: Hz.
        settings: Give the longest tile.

    Example:
        >>> padded_size(6144, 1024.0, QTransformSettings())
        7680
    """
    longest = max(settings.qs) / (2 * math.pi * settings.frequency_low)
    step = num_samples // math.gcd(num_samples, _EIGHTHS)
    return num_samples + step * math.ceil(_ZEROS * longest * sample_rate / step)
