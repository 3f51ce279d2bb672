"""Tables of trigger times: CSV (read here), Omicron's HDF5 and LIGO_LW (through gwpy)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.errors import ConfigurationError, FormatError, MissingDependencyError

TIME_COLUMNS = ("time", "gps_time", "gps", "GPStime", "event_time", "peak_time", "peakGPS", "tc", "peak", "end_time")
"""Names that a column of GPS times goes by, tried in this order."""

_SAME_TIME = 2e-6
"""Times closer than this (s) are one: ids made from times resolve a microsecond."""


@dataclass(frozen=True)
class TriggerSettings:
    """Where the times of the events come from.

    Attributes:
        path: A table; None if `times` are given.
        format: `csv`, `omicron` (HDF5), `ligolw` (XML), or by the file's ending.
        time_column: GPS times in s; the first of `TIME_COLUMNS` that the table has by default.
        id_column: Event ids; by default made from the GPS time, so that data sets cut at the same times merge.
        table: Name of the table within the file (`triggers` for Omicron, `sngl_burst` for LIGO_LW by default).
        times: GPS times in s, in place of a table.
    """

    path: str | None = None
    format: Literal["auto", "csv", "omicron", "ligolw"] = "auto"
    time_column: str | None = None
    id_column: str | None = None
    table: str | None = None
    times: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a wrong format and both or neither of path and times."""
        if self.format not in ("auto", "csv", "omicron", "ligolw"):
            raise ConfigurationError(f"triggers.format must be auto, csv, omicron or ligolw, got {self.format!r}")
        if bool(self.path) == bool(self.times):
            raise ConfigurationError("triggers need either a path (a table) or times (a list of GPS seconds)")
        object.__setattr__(self, "times", tuple(float(time) for time in self.times))


def event_id_at(gps_time: float) -> str:
    """Event id for a trigger without a name: its GPS time to the microsecond.

    >>> event_id_at(1126259462.4)
    '1126259462.400000'
    """
    return f"{gps_time:.6f}"


def read_triggers(settings: TriggerSettings) -> list[tuple[str, float]]:
    """Ids and GPS times of the triggers, sorted by time, each id once.

    Raises:
        FormatError: The table cannot be read, lacks the columns, or gives an id two times.
        ConfigurationError: A time is no GPS time.
    """
    if settings.path is None:
        times, ids = np.asarray(settings.times, dtype=np.float64), None
    else:
        times, ids = _columns(settings)
    if not np.all(np.isfinite(times)) or np.any(times < 0):
        raise ConfigurationError(f"{settings.path or 'triggers.times'}: GPS times must be positive seconds.")
    names = [event_id_at(time) for time in times] if ids is None else ids
    merged: dict[str, float] = {}
    torn: dict[str, None] = {}
    for name, time in zip(names, times.tolist(), strict=True):
        if abs(merged.setdefault(name, time) - time) > _SAME_TIME:
            torn[name] = None
    if torn:
        raise FormatError(
            f"{settings.path}: {len(torn)} event id(s) with two times each: {', '.join(list(torn)[:10])}. "
            "Give every event its own id, or name another column in `triggers.id_column`."
        )
    return sorted(merged.items(), key=lambda item: (item[1], item[0]))


def read_times(path: Path | str) -> np.ndarray:
    """GPS times from a text file with one a line, or from any table that `read_triggers` reads, sorted, s.

    Raises:
        FormatError: The file cannot be read.
        ConfigurationError: A time is no GPS time.
    """
    path = Path(path)
    try:
        lines = [line.split("#")[0].strip().rstrip(",") for line in path.read_text(encoding="utf-8").splitlines()]
        times = tuple(float(line) for line in lines if line)
    except (OSError, ValueError):  # missing, or no plain list of numbers: the readers of tables know what to say
        return np.array([time for _, time in read_triggers(TriggerSettings(path=str(path)))])
    if not times:
        raise FormatError(f"{path} holds no time: expected GPS seconds, one a line, or a table with a header.")
    return np.array([time for _, time in read_triggers(TriggerSettings(times=times))])


def write_triggers(path: Path | str, triggers: list[tuple[str, float]]) -> None:
    """Write ids and GPS times as CSV with the columns `event_id` and `time`, without loss."""
    import pandas as pd

    table = pd.DataFrame(triggers, columns=["event_id", "time"])
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9f")


def _columns(settings: TriggerSettings) -> tuple[np.ndarray, list[str] | None]:
    path = Path(str(settings.path))
    kind = settings.format
    if kind == "auto":
        by_ending = {".h5": "omicron", ".hdf5": "omicron", ".xml": "ligolw", ".gz": "ligolw"}
        kind = by_ending.get(path.suffix, "csv") if not path.name.endswith(".csv.gz") else "csv"
    if not path.is_file():
        raise FormatError(f"{path}: no such table of triggers. Correct `triggers.path` in datasets.yaml.")
    if kind == "csv":
        return _csv_columns(path, settings)
    table = _gwpy_table(path, kind, settings)
    held = list(table.colnames)
    if settings.time_column is None and kind == "ligolw" and {"peak_time", "peak_time_ns"} <= set(held):
        times = np.asarray(table["peak_time"], dtype=np.float64) + 1e-9 * np.asarray(table["peak_time_ns"])
    else:
        times = np.asarray(table[_time_column(held, settings, path)], dtype=np.float64)
    ids = None if settings.id_column is None else [str(name) for name in table[_held(settings.id_column, held, path)]]
    return times, ids


def _csv_columns(path: Path, settings: TriggerSettings) -> tuple[np.ndarray, list[str] | None]:
    import pandas as pd  # half a second that workers need not spend

    try:
        # round_trip: pandas' fast parser may be off by an ulp, which is 0.2 microseconds for a GPS time
        table = pd.read_csv(
            path,
            comment="#",
            skipinitialspace=True,
            keep_default_na=False,
            dtype={settings.id_column or "event_id": str},
            float_precision="round_trip",
        )
        held = [str(name).strip() for name in table.columns]
        table.columns = pd.Index(held)
        times = table[_time_column(held, settings, path)].to_numpy(dtype=np.float64)
    except (ValueError, TypeError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise FormatError(f"{path} cannot be read as CSV with a header line ({error}).") from error
    if settings.id_column is not None:
        return times, table[_held(settings.id_column, held, path)].astype(str).tolist()
    return times, table["event_id"].astype(str).tolist() if "event_id" in held else None


def _gwpy_table(path: Path, kind: str, settings: TriggerSettings):  # noqa: ANN202  # an astropy table, imported late
    from gwpy.table import EventTable

    try:
        if kind == "omicron":
            return EventTable.read(str(path), format="hdf5", path=settings.table or "triggers")
        return EventTable.read(str(path), format="ligolw", tablename=settings.table or "sngl_burst")
    except ImportError as error:
        raise MissingDependencyError(f"{path}: {error}. Run: pip install igwn-ligolw") from error
    except Exception as error:  # the readers behind gwpy raise whatever they like
        raise FormatError(f"{path} cannot be read as a table of triggers in the {kind} format ({error}).") from error


def _time_column(held: list[str], settings: TriggerSettings, path: Path) -> str:
    if settings.time_column is not None:
        return _held(settings.time_column, held, path)
    for name in TIME_COLUMNS:
        if name in held:
            return name
    raise FormatError(f"{path}: none of the columns {held} looks like GPS times. Name it in `triggers.time_column`.")


def _held(name: str, held: list[str], path: Path) -> str:
    if name not in held:
        raise FormatError(f"{path} has no column {name!r}; it has {held}. Correct `triggers` in datasets.yaml.")
    return name
