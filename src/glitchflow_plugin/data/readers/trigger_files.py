"""Files with triggers: which there are, in which format, and their columns as they stand there."""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glitchflow_plugin.data.apart import apart, explained, shown
from glitchflow_plugin.data.files import read_text
from glitchflow_plugin.data.foreign_hdf5 import member, opened, samples
from glitchflow_plugin.data.readers.continuous import list_files
from glitchflow_plugin.data.readers.tables import gps_times, read_csv, time_columns
from glitchflow_plugin.errors import ConfigurationError, FormatError, MissingDependencyError

SUFFIXES = (".csv", ".txt", ".tsv", ".dat", ".h5", ".hdf5", ".hdf", ".xml", ".gz", ".parquet")
"""Endings of the tables that are looked for in a folder."""

_CACHES = (".lcf", ".cache", ".ffl")

OMICRON_TEXT = {
    count: ("time", "frequency", "snr", "q", "amplitude", "phase", "tstart", "tend", "fstart", "fend")[:count]
    for count in (3, 10)
}
"""Columns of Omicron's text, of `omicron-print` and of its output in the format txt, where no header names them."""

LIGOLW_TABLES = ("sngl_burst", "sngl_inspiral", "sngl_ringdown", "coinc_inspiral", "sim_inspiral", "sim_burst")
"""Tables of LIGO_LW files with a row an event, and its time in two columns."""

_MOST_ROWS = 1 << 20
"""Longest column of texts that is read."""


def trigger_files(path: str) -> list[Path]:
    """The files that a path names."""
    if not Path(path).is_dir() and Path(path).suffix not in _CACHES and not any(one in path for one in "*?["):
        return [Path(path)]
    try:
        return list_files(path, SUFFIXES)
    except ConfigurationError as error:
        raise FormatError(
            f"{path}: no such table of times, and no folder or pattern with files that end in {', '.join(SUFFIXES)}. "
            "Correct the path (folders below a folder need a pattern: FOLDER/**/*.h5)."
        ) from error


def table_kind(path: Path, asked: str) -> str:
    """How a file is to be read: `csv`, `omicron text`, `hdf5`, `ligolw` or `parquet`."""
    if not path.is_file():
        raise FormatError(f"{path}: no such table of times. Correct the path.")
    packed = Path(path.stem).suffix if path.suffix == ".gz" else ""
    by_ending = {".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".xml": "ligolw", ".gz": "ligolw"}
    by_ending[".parquet"] = "parquet"
    kind = by_ending.get(packed or path.suffix, "csv")
    if path.suffix == ".root":
        raise FormatError(
            f"{path}: ROOT files are not read. Have Omicron write hdf5 or txt (OUTPUT FORMAT), or convert."
        )
    if asked in ("csv", "ligolw"):
        return asked
    if asked == "omicron" and kind == "csv":
        with path.open("rb") as file:
            return "hdf5" if file.read(4) == b"\x89HDF" else "omicron text"
    return "omicron text" if kind == "csv" and "omicron" in path.name.lower() else kind


def table_columns(
    path: Path, kind: str, table: str | None, choose: Callable[[list[str]], Collection[str]]
) -> dict[str, Any]:
    """Columns of a table, those alone that are needed."""
    if kind in ("csv", "omicron text"):
        headless = None if kind == "csv" else OMICRON_TEXT
        return dict(read_csv(path, wanted=choose, headless=headless))
    if kind == "parquet":
        return _parquet_columns(path, list(choose(_parquet_names(path))))
    held = _hdf5_columns(path, table) if kind == "hdf5" else None
    columns = held if held is not None else _gwpy_columns(path, kind, table)
    return {name: columns[name] for name in choose(list(columns))}


def times_in_order(path: Path, table: str | None = None, time_column: str | None = None) -> np.ndarray:
    """GPS times of all triggers of a file in the order in which they stand there, s.

    Args:
        path: The file.
        table: Name of the table within it; as `TriggerSettings.table`.
        time_column: Column of the times; the first of `tables.TIME_COLUMNS` by default.

    Raises:
        FormatError: It cannot be read, or has no such column.
    """
    columns = table_columns(
        path, table_kind(path, "auto"), table, lambda names: time_columns(names, path, time_column)[1]
    )
    return gps_times(columns, path, time_column)


def hdf5_table(file: h5py.File, path: Path, table: str | None) -> h5py.Group | h5py.Dataset:
    """The table of triggers in a file: a group with a data set for each column, or one data set.

    It is the one asked for, by default `triggers`, else the only group in the file, else the file itself.

    Args:
        file: Open.
        path: Its path, for messages.
        table: Its name, or None.

    Raises:
        FormatError: There is none of that name.
    """
    names = [shown(name) for name in file]
    groups = [name for name in names if isinstance(member(file, name), h5py.Group)]
    found: h5py.Group | h5py.Dataset = file
    named = table or ("triggers" if "triggers" in names else groups[0] if groups and len(names) == 1 else "")
    for name in filter(None, named.split("/")):
        if not isinstance(found, h5py.Group) or name not in found:
            raise FormatError(f"{path} has no table {table!r}; it holds {names[:10]}. Correct `triggers.table`.")
        found = member(found, name)
    return found


@apart
def _parquet_names(path: Path) -> list[str]:
    """Columns of a Parquet file; times in whole nanoseconds, as `data.triggers` has them, are two."""
    with explained(f"{shown(path)} cannot be read as Parquet"):
        held = pq.read_schema(path)
    return [*held.names, *(["time_ns"] if _in_nanoseconds(held) else [])]


@apart
def _parquet_columns(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Columns of a Parquet file, text as such."""
    with explained(f"{shown(path)} cannot be read as Parquet"):
        held = pq.read_schema(path)
        split = _in_nanoseconds(held)
        table = pq.read_table(path, columns=[name for name in names if name in held.names])
        columns = {name: _values(table[name]) for name in table.column_names}
        if split and "time" in columns:
            columns["time"], columns["time_ns"] = np.divmod(columns["time"], 1_000_000_000)
    return columns


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers with NaN, or texts with "", for what is empty."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string()).fill_null("").to_numpy().astype(np.str_)
    return column.to_numpy()


def _in_nanoseconds(held: pa.Schema) -> bool:
    return "time" in held.names and (held.field("time").metadata or {}).get(b"unit") == b"ns"


@apart
def _hdf5_columns(path: Path, table: str | None) -> dict[str, np.ndarray] | None:
    """Columns of a table that is a group with a data set for each; None if it is one data set, which gwpy reads."""
    with opened(path) as file:
        names = [shown(name) for name in file]
        found = hdf5_table(file, path, table)
        if not isinstance(found, h5py.Group):
            return None
        if table is None and "triggers" not in names and (by_channel := _snax_columns(file)):
            return by_channel
        columns = {shown(name): _hdf5_column(member(found, name)) for name in found}
    held = {name: column for name, column in columns.items() if column is not None}
    if len({len(column) for column in held.values()}) != 1:
        lengths = {name: len(column) for name, column in held.items()}
        raise FormatError(
            f"{path}: expected a table `triggers`, or a group of data sets that are as long as each other, got "
            f"{lengths or names[:10]}. Name the table or the group in `triggers.table`."
        )
    return held


def _snax_columns(file: h5py.File) -> dict[str, np.ndarray] | None:
    """Columns of SNAX's files, which have a group a channel with a table a span of time; None of other files."""
    parts: list[np.ndarray] = []
    channels: list[np.ndarray] = []
    for name in file:
        group = member(file, name)
        tables = [member(group, one) for one in group] if isinstance(group, h5py.Group) else []
        if not tables or not all(isinstance(one, h5py.Dataset) and one.dtype.names and one.ndim == 1 for one in tables):
            return None
        parts += [np.asarray(one[:]) for one in tables]
        channels += [np.full(len(one), shown(name)) for one in tables]
    names = [name for name in parts[0].dtype.names or () if name != "channel"] if parts else []
    if any(not set(names) <= set(part.dtype.names or ()) for part in parts) or not names:
        return None
    columns = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return {**columns, "channel": np.concatenate(channels)}


def _hdf5_column(item: h5py.Group | h5py.Dataset) -> np.ndarray | None:
    """Numbers or texts of a data set of one dimension; None for anything else."""
    if not isinstance(item, h5py.Dataset) or item.ndim != 1:
        return None
    if item.dtype.kind in "SO" and h5py.check_string_dtype(item.dtype) and len(item) <= _MOST_ROWS:
        return np.asarray(item.asstr(errors="replace")[:], dtype=np.str_)
    return samples(item, 0, len(item)) if item.dtype.kind in "biuf" else None


@apart
def _gwpy_columns(path: Path, kind: str, table: str | None) -> dict[str, Any]:
    """Columns of an astropy table by name."""
    from gwpy.table import EventTable  # seconds that workers need not spend

    try:
        if kind == "hdf5":
            found = EventTable.read(str(path), format="hdf5", path=table or "triggers")
        else:
            found = EventTable.read(str(path), format="ligolw", tablename=table or ligolw_table(path))
        return {str(name): found[name] for name in found.colnames}
    except ImportError as error:
        raise MissingDependencyError(f"{path}: {error}. Run: pip install igwn-ligolw") from error
    except Exception as error:  # the readers behind gwpy raise whatever they like
        named = {"hdf5": "omicron"}.get(kind, kind)
        raise FormatError(
            f"{path} cannot be read as a table of triggers in the {named} format ({error}). "
            "Bring the file again, or name its table in `triggers.table`."
        ) from error


def ligolw_table(path: Path) -> str:
    """The table of events in a LIGO_LW file: `sngl_burst`, or the only one of those that hold times."""
    held = dict.fromkeys(re.findall(r"""<Table[^>]*\bName=["'](?:\w+:)*?(\w+)(?::table)?["']""", read_text(path)))
    known = [name for name in LIGOLW_TABLES if name in held]
    if "sngl_burst" in known or len(known) == 1:
        return known[0]
    raise ValueError(f"it holds the tables {list(held)}, and {len(known)} of them are tables of events")
