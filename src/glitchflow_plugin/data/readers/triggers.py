"""Tables of trigger times: CSV (read here), Omicron's HDF5 and LIGO_LW (through gwpy)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from glitchflow_plugin.data.apart import apart, shown
from glitchflow_plugin.data.files import atomic_path, expanded, read_text
from glitchflow_plugin.data.foreign_hdf5 import member, opened, samples
from glitchflow_plugin.data.readers.tables import column_of, gps_numbers, gps_times, read_csv
from glitchflow_plugin.errors import ConfigurationError, FormatError, MissingDependencyError

LIGOLW_TABLES = ("sngl_burst", "sngl_inspiral", "sngl_ringdown", "coinc_inspiral", "sim_inspiral", "sim_burst")
"""Tables of LIGO_LW files with a row an event, and its time in two columns."""

_SAME_TIME = 2e-6
"""Times closer than this (s) are one: ids made from times resolve a microsecond."""

_MOST_ROWS = 1 << 20
"""Longest column of texts that is read."""

_EARLIEST = 1e8
"""GPS seconds before this (the year 1983) are of no data."""

_LATEST = 1e10
"""GPS seconds beyond this (the year 2296) are another unit."""


@dataclass(frozen=True)
class TriggerSettings:
    """Where the times of the events come from.

    Attributes:
        path: A table; None if `times` are given.
        format: `csv`, `omicron` (HDF5: one table, or a data set a column), `ligolw` (XML), or by the file's ending.
        time_column: GPS times in s; the first of `tables.TIME_COLUMNS` that the table has by default. Whole seconds in
            `X` are joined with the rest in `X_ns`.
        id_column: Event ids; by default made from the GPS time, so that data sets cut at the same times merge.
        table: Name of the table within the file; by default `triggers` for Omicron, and for LIGO_LW `sngl_burst` or the
            only one of `LIGOLW_TABLES`.
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
        if not isinstance(self.path, str | Path | None):
            raise ConfigurationError(f"triggers.path must be the path of one table, got {self.path!r}")
        if self.path is not None:
            object.__setattr__(self, "path", expanded(self.path))
        object.__setattr__(self, "times", _given_times(self.times))
        if bool(self.path) == bool(self.times):
            raise ConfigurationError("triggers need either a path (a table) or times (a list of GPS seconds)")


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
    times, ids = read_columns(settings)
    where = settings.path or "triggers.times"
    wrong = ~(np.isfinite(times) & (times >= 0) & (times < _LATEST))
    if wrong.any():
        raise ConfigurationError(
            f"{where}: GPS times must be positive seconds (below {_LATEST:g}), got {times[wrong][0]:g}."
        )
    names = [event_id_at(time) for time in times] if ids is None else ids
    merged: dict[str, float] = {}
    torn: dict[str, None] = {}
    for name, time in zip(names, times.tolist(), strict=True):
        if abs(merged.setdefault(name, time) - time) > _SAME_TIME:
            torn[name] = None
    if torn:
        raise FormatError(
            f"{where}: {len(torn)} event id(s) with two times each: {', '.join(list(torn)[:10])}. "
            "Give every event its own id, or name another column in `triggers.id_column`."
        )
    return sorted(merged.items(), key=lambda item: (item[1], item[0]))


def read_columns(settings: TriggerSettings) -> tuple[np.ndarray, list[str] | None]:
    """Times of the triggers as they stand there, in whatever order and unit, and their ids if there are any.

    Raises:
        FormatError: The table cannot be read or lacks the columns.
    """
    if settings.path is None:
        return np.asarray(settings.times, dtype=np.float64), None
    return _columns(settings)


def read_times(path: Path | str) -> np.ndarray:
    """GPS times from a text file with one a line, or from any table that `read_triggers` reads, sorted, s.

    Raises:
        FormatError: The file cannot be read.
        ConfigurationError: A time is no GPS time.
    """
    path = Path(expanded(path))
    texts = _plain_list(path)
    if texts is None:
        return np.array([time for _, time in read_triggers(TriggerSettings(path=str(path)))])
    if not texts:
        raise FormatError(f"{path} holds no time: expected GPS seconds, one a line, or a table with a header.")
    times = tuple(gps_numbers(texts, str(path)).tolist())
    return np.array([time for _, time in read_triggers(TriggerSettings(times=times))])


def _plain_list(path: Path) -> list[str] | None:
    """The lines of a file that holds one number in each; None of any other, about which the readers of tables speak.

    Numbers that are no GPS times, below a comment that names a column of times, are a table that has lost its times.
    """
    try:
        content = read_text(path).splitlines()
        texts = [text for line in content if (text := line.split("#")[0].strip().rstrip(","))]
        earliest = min(map(float, texts), default=np.inf)
    except (FormatError, ValueError):
        return None
    comments = [line.lower() for line in content if line.lstrip().startswith("#")]
    names_times = any("time" in re.split(r"[,;\s]+", comment) for comment in comments)
    return None if names_times and earliest < _EARLIEST else texts


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
        by_ending = {".h5": "omicron", ".hdf5": "omicron", ".hdf": "omicron", ".xml": "ligolw", ".gz": "ligolw"}
        packed = Path(path.stem).suffix if path.suffix == ".gz" else ""
        kind = by_ending.get(packed or path.suffix, "csv")
    if not path.is_file():
        raise FormatError(f"{path}: no such table of times. Correct the path.")
    if kind == "csv":
        columns, named = read_csv(path), settings.id_column or "event_id"
    else:
        held = _hdf5_columns(path, settings.table) if kind == "omicron" else None
        columns, named = held or _gwpy_columns(path, kind, settings), settings.id_column
    times = gps_times(columns, path, settings.time_column)
    if settings.id_column is None and named not in columns:
        return times, None
    values = column_of(columns, str(named), path)
    ids = [
        "" if hidden else value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for value, hidden in zip(np.asarray(values).tolist(), np.ma.getmaskarray(values), strict=True)
    ]
    if not all(ids):
        raise FormatError(f"{path}: the column {named!r} is empty in {ids.count('')} row(s). Give every event an id.")
    return times, ids


@apart
def _hdf5_columns(path: Path, table: str | None) -> dict[str, np.ndarray] | None:
    """Columns of a table that is a group with a data set for each; None if it is one data set, which gwpy reads.

    The group is the one asked for, by default `triggers`, else the only one in the file, else the file itself.
    """
    with opened(path) as file:
        names = [shown(name) for name in file]
        groups = [name for name in names if isinstance(member(file, name), h5py.Group)]
        found: h5py.Group | h5py.Dataset = file
        named = table or ("triggers" if "triggers" in names else groups[0] if groups and len(names) == 1 else "")
        for name in filter(None, named.split("/")):
            if not isinstance(found, h5py.Group) or name not in found:
                raise FormatError(f"{path} has no table {table!r}; it holds {names[:10]}. Correct `triggers.table`.")
            found = member(found, name)
        if not isinstance(found, h5py.Group):
            return None
        columns = {shown(name): _hdf5_column(member(found, name)) for name in found}
    held = {name: column for name, column in columns.items() if column is not None}
    if len({len(column) for column in held.values()}) != 1:
        lengths = {name: len(column) for name, column in held.items()}
        raise FormatError(
            f"{path}: expected a table `triggers`, or a group of data sets that are as long as each other, got "
            f"{lengths or names[:10]}. Name the table or the group in `triggers.table`."
        )
    return held


def _hdf5_column(item: h5py.Group | h5py.Dataset) -> np.ndarray | None:
    """Numbers or texts of a data set of one dimension; None for anything else."""
    if not isinstance(item, h5py.Dataset) or item.ndim != 1:
        return None
    if item.dtype.kind in "SO" and h5py.check_string_dtype(item.dtype) and len(item) <= _MOST_ROWS:
        return np.asarray(item.asstr(errors="replace")[:], dtype=np.str_)
    return samples(item, 0, len(item)) if item.dtype.kind in "iuf" else None


def _gwpy_columns(path: Path, kind: str, settings: TriggerSettings) -> dict[str, Any]:
    """Columns of an astropy table by name."""
    from gwpy.table import EventTable  # seconds that workers need not spend

    try:
        if kind == "omicron":
            table = EventTable.read(str(path), format="hdf5", path=settings.table or "triggers")
        else:
            table = EventTable.read(str(path), format="ligolw", tablename=settings.table or _ligolw_table(path))
        return {str(name): table[name] for name in table.colnames}
    except ImportError as error:
        raise MissingDependencyError(f"{path}: {error}. Run: pip install igwn-ligolw") from error
    except Exception as error:  # the readers behind gwpy raise whatever they like
        raise FormatError(
            f"{path} cannot be read as a table of triggers in the {kind} format ({error}). "
            "Bring the file again, or name its table in `triggers.table`."
        ) from error


def _ligolw_table(path: Path) -> str:
    """The table of events in a LIGO_LW file: `sngl_burst`, or the only one of those that hold times."""
    held = dict.fromkeys(re.findall(r"""<Table[^>]*\bName=["'](?:\w+:)*?(\w+)(?::table)?["']""", read_text(path)))
    known = [name for name in LIGOLW_TABLES if name in held]
    if "sngl_burst" in known or len(known) == 1:
        return known[0]
    raise ValueError(f"it holds the tables {list(held)}, and {len(known)} of them are tables of events")


def _given_times(times: Any) -> tuple[float, ...]:
    """Times written in the configuration, s."""
    if isinstance(times, str | bytes | Mapping) or not isinstance(times, Iterable):
        raise ConfigurationError(f"triggers.times must be a list of GPS seconds such as [1126259462.4], got {times!r}")
    given = []
    for time in times:
        # float32 and float16 know GPS times to 64 s or worse; Python's float is the only one that tells
        if isinstance(time, bool) or (isinstance(time, np.floating) and not isinstance(time, float)):
            raise ConfigurationError(f"triggers.times: expected GPS seconds in double precision, got {time!r}")
        try:
            given.append(float(gps_numbers([time], "triggers.times")[0] if isinstance(time, str) else time))
        except (TypeError, ValueError, FormatError) as error:
            raise ConfigurationError(f"triggers.times: expected GPS seconds, got {time!r} ({error})") from error
    return tuple(given)
