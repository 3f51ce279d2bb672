"""Tables of triggers with what a veto says of each: the same file, with columns added and nothing dropped.

Text keeps its lines, comments and numbers as they are, HDF5 its data sets and attributes, Parquet its
columns. LIGO_LW allows no other columns in its tables of triggers: there the document gets a table `glitchflow_veto`
beside, row for row.
"""

import csv
import gzip
import io
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from glitchflow_plugin.data.apart import apart, explained, shown
from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.readers.tables import TextLayout, text_layout
from glitchflow_plugin.data.readers.trigger_files import OMICRON_TEXT, hdf5_table, ligolw_table, table_kind
from glitchflow_plugin.errors import ConfigurationError, FormatError

LIGOLW_TABLE = "glitchflow_veto"
"""The table beside the triggers in a LIGO_LW document."""

Columns = Mapping[str, Shaped[np.ndarray, " trigger"]]
"""Columns that are added, by name: integers, real numbers or text."""


def add_columns(source: Path | str, target: Path | str, columns: Columns, table: str | None = None) -> None:
    """Write a table of triggers with columns added, whole or not at all.

    Args:
        source: The table, in any format that triggers are read from.
        target: Another file, in the same format.
        columns: In the order of the triggers in the file.
        table: Name of the table within the file; as for `triggers.table`.

    Raises:
        FormatError: The table cannot be read, has not as many rows, or has such columns already.
        ConfigurationError: Both are one file, or their formats differ.
    """
    source, target = Path(source), Path(target)
    if target.resolve() == source.resolve():
        raise ConfigurationError(f"{source} is not overwritten. Name another file for the table with vetoes.")
    if _ending(source) != _ending(target):
        raise ConfigurationError(
            f"expected a file that ends in {_ending(source)} as {source.name}, got {target.name}: the format stays."
        )
    kind = table_kind(source, "auto")
    with atomic_path(target) as temporary:
        if kind == "hdf5":
            _add_to_hdf5(source, temporary, dict(columns), table)
        elif kind == "ligolw":
            _add_to_ligolw(source, temporary, dict(columns), table)
        elif kind == "parquet":
            _add_to_parquet(source, temporary, dict(columns))
        else:
            text = _added_text(source, text_layout(source, None if kind == "csv" else OMICRON_TEXT), columns)
            content = text.encode()
            temporary.write_bytes(gzip.compress(content, mtime=0) if source.suffix == ".gz" else content)


def _ending(path: Path) -> str:
    return "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])


def _check(path: Path, held: list[str], rows: int, columns: Columns) -> None:
    """Refuse columns that are there, and others than one value a row."""
    twice = [name for name in columns if name in held]
    if twice:
        raise FormatError(f"{shown(path)} has the columns {twice} already. Give the table without vetoes.")
    lengths = {name: len(column) for name, column in columns.items() if len(column) != rows}
    if lengths:
        raise FormatError(f"{shown(path)} holds {rows} triggers, got columns of {lengths}.")


# Text: lines as they are, values at their ends.


def _added_text(path: Path, layout: TextLayout, columns: Columns) -> str:
    _check(path, list(layout.names), len(layout.rows), columns)
    lines = list(layout.lines)
    texts = [[_text(value) for value in column] for column in columns.values()]
    if layout.header is not None:
        lines[layout.header] = _longer(lines[layout.header], layout, list(columns))
    for place, values in zip(layout.rows, zip(*texts, strict=True), strict=True):
        lines[place] = _longer(lines[place], layout, values)
    if layout.header is None:
        # no line names the columns, or comments with units do, which tell nothing of text
        names = [re.sub(r"\s+", "_", name) for name in layout.names]
        first = layout.rows[0] if layout.rows else len(lines)
        lines.insert(first, "# " + layout.separator.join([*names, *columns]) + "\n")
    return "".join(lines)


def _longer(line: str, layout: TextLayout, values: Any) -> str:
    """A line with values at its end, in place of separators beyond the last name."""
    body = line.rstrip("\r\n")
    end = line[len(body) :] or "\n"
    body = body.rstrip()
    held = next(csv.reader([body.lstrip("# ")], delimiter=layout.separator, skipinitialspace=True), [])
    for _ in range(len(held) - len(layout.names)):
        body = body.removesuffix(layout.separator).rstrip(" ")
    added = io.StringIO()
    csv.writer(added, delimiter=layout.separator, lineterminator="").writerow(values)
    return f"{body}{layout.separator}{added.getvalue()}{end}"


def _text(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float | np.floating) else str(value)


# HDF5: a copy of the file, in which the table has more columns.


@apart
def _add_to_hdf5(source: Path, target: Path, columns: dict[str, np.ndarray], table: str | None) -> None:
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        found = hdf5_table(file, source, table)
        stored = {name: _stored(column) for name, column in columns.items()}
        if isinstance(found, h5py.Group):
            lengths = {name: len(item) for name, item in found.items() if isinstance(item, h5py.Dataset) and item.ndim}
            _check(source, list(found), max(lengths.values(), default=0), columns)
            for name, column in stored.items():
                found.create_dataset(name, data=column)
        else:
            _widen(file, found, source, stored)


def _widen(file: h5py.File, found: h5py.Dataset, source: Path, columns: dict[str, np.ndarray]) -> None:
    """Replace a data set of compound rows by one with more fields, and the same attributes."""
    if found.dtype.names is None or found.ndim != 1:
        raise FormatError(f"{shown(source)}: expected a table with named columns, got {found.dtype}.")
    _check(source, list(found.dtype.names), len(found), columns)
    rows = found[:]
    held = [(name, rows.dtype[name]) for name in rows.dtype.names]
    wider = np.empty(len(rows), [*held, *((name, one.dtype) for name, one in columns.items())])
    for name in rows.dtype.names:
        wider[name] = rows[name]
    for name, column in columns.items():
        wider[name] = column
    name, attributes = found.name, dict(found.attrs)
    layout = {key: getattr(found, key) for key in ("chunks", "compression", "compression_opts", "shuffle", "maxshape")}
    del file[name]
    made = file.create_dataset(name, data=wider, **layout)
    made.attrs.update(attributes)


def _stored(column: np.ndarray) -> np.ndarray:
    """Text as bytes of one length, which every reader of HDF5 knows."""
    return np.char.encode(column.astype(np.str_)) if column.dtype.kind in "OU" else column


@apart
def _add_to_parquet(source: Path, target: Path, columns: dict[str, np.ndarray]) -> None:
    with explained(f"{shown(source)} cannot be read as Parquet"):
        held = pq.read_table(source)
    _check(source, held.column_names, len(held), columns)
    for name, column in columns.items():
        held = held.append_column(name, pa.array(column.tolist()))
    pq.write_table(held, target)


# LIGO_LW: a second table.


@apart
def _add_to_ligolw(source: Path, target: Path, columns: dict[str, np.ndarray], table: str | None) -> None:
    from igwn_ligolw import ligolw, utils  # noqa: PLC0415  # gwpy's own dependency

    types = {"i": "int_4s", "u": "int_4s", "b": "int_4s", "f": "real_8"}

    class VetoTable(ligolw.Table):
        tableName = LIGOLW_TABLE  # noqa: N815  # as the library has it
        validcolumns = {name: types.get(one.dtype.kind, "lstring") for name, one in columns.items()}  # noqa: RUF012

    document = utils.load_filename(str(source))
    named = table or ligolw_table(source)
    (triggers,) = [one for one in document.getElementsByTagName("Table") if one.Name == named]
    held = [one.Name for one in document.getElementsByTagName("Table")]
    if LIGOLW_TABLE in held:
        raise FormatError(f"{shown(source)} has the table {LIGOLW_TABLE} already. Give the document without vetoes.")
    _check(source, [], len(triggers), columns)
    made = VetoTable.new(list(columns))
    for values in zip(*columns.values(), strict=True):
        row = ligolw.Table.RowType()
        for name, value in zip(columns, values, strict=True):
            setattr(row, name, value.item() if isinstance(value, np.generic) else value)
        made.append(row)
    document.childNodes[0].appendChild(made)
    utils.write_filename(document, str(target))
