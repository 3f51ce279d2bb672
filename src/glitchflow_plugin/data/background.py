"""Measured strain as background of simulated events."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import signal

from glitchflow_plugin.errors import DataError, FormatError
from glitchflow_plugin.types.arrays import Series


@dataclass(frozen=True, eq=False)
class Background:
    """A stretch of measured strain.

    Attributes:
        name: File it came from.
        strain: float64, shape (time,).
        t0: GPS time of the first sample, s.
        sample_rate: Hz.
    """

    name: str
    strain: Series
    t0: float
    sample_rate: float

    def free_starts(self, duration: float, exclude: Iterable[tuple[float, float]] = ()) -> list[tuple[float, float]]:
        """Intervals of GPS times at which a stretch of `duration` seconds can start without touching `exclude`.

        >>> Background("x", np.zeros(32), 100.0, 1.0).free_starts(8.0, [(110.0, 112.0)])
        [(100.0, 102.0), (112.0, 124.0)]
        """
        end = self.t0 + self.strain.size / self.sample_rate
        free = [(self.t0, end)]
        for low, high in exclude:
            free = [part for start, stop in free for part in ((start, min(stop, low)), (max(start, high), stop))]
        return [(start, stop - duration) for start, stop in free if stop - start >= duration]


def read_background(path: Path | str, sample_rate: float) -> Background:
    """Read a GWOSC HDF5 file and resample it (anti-aliased).

    Args:
        path: The file.
        sample_rate: Wanted, Hz; the file's rate must be a multiple of it.

    Raises:
        FormatError: The file cannot be read as GWOSC HDF5.
        DataError: It holds NaN, or its rate does not fit.
    """
    from gwpy.timeseries import TimeSeries

    if not Path(path).is_file():
        raise FormatError(f"Background file {path} does not exist. Correct `background.files`.")
    try:
        series = TimeSeries.read(str(path), format="hdf5.gwosc")
        strain, t0, rate = np.asarray(series.value, np.float64), float(series.t0.value), float(series.sample_rate.value)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path} cannot be read as a GWOSC HDF5 file ({error}).") from error
    if not np.isfinite(strain).all():
        raise DataError(f"Background {path} has gaps (NaN). Choose another file, or cut the gap out.")
    factor = rate / sample_rate
    if factor < 1.0 or factor != round(factor):
        raise DataError(f"Background {path} has {rate:g} Hz, which is no multiple of {sample_rate:g} Hz.")
    if factor > 1.0:
        strain = signal.resample_poly(strain, 1, int(factor), padtype="line")
    return Background(Path(path).name, strain, t0, sample_rate)
