"""Files with triggers: which there are, in which format, and their columns as they stand there."""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from glitchflow_plugin.data.apart import apart, shown
from glitchflow_plugin.data.files import read_text
from glitchflow_plugin.data.foreign_hdf5 import member, opened, samples
from glitchflow_plugin.data.readers.continuous import list_files
from glitchflow_plugin.data.readers.tables import gps_times, read_csv, time_columns
from glitchflow_plugin.errors import ConfigurationError, FormatError, MissingDependencyError

SUFFIXES = (".csv", ".txt", ".tsv", ".dat", ".h5", ".hdf5", ".hdf", ".xml", ".gz")
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
    """How a file is to be read: `csv`, `omicron text`, `hdf5` or `ligolw`."""
    if not path.is_file():
        raise FormatError(f"{path}: no such table of times. Correct the path.")
    packed = Path(path.stem).suffix if path.suffix == ".gz" else ""
    by_ending = {".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".xml": "ligolw", ".gz": "ligolw"}
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
def _hdf5_columns(path: Path, table: str | None) -> dict[str, np.ndarray] | None:
    """Columns of a table that is a group with a data set for each; None if it is one data set, which gwpy reads."""
    with opened(path) as file:
        names = [shown(name) for name in file]
        found = hdf5_table(file, path, table)
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
