"""A store of triggers cut along time: what is read at once, by row groups, without a look at the rest.

Where files begin stretches begin, so that a row group is rarely read for two of them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int
from numpy.typing import NDArray

from glitchflow_plugin.data.triggers.store import TriggerFile, read_manifest
from glitchflow_plugin.data.triggers.table import NANOSECONDS, SCHEMA, checked_schema
from glitchflow_plugin.errors import DataError, FormatError

logger = logging.getLogger(__name__)

_FAR = ("time", "channel")
"""What is read of triggers that are only counted."""


@dataclass(frozen=True, eq=False)
class RowGroups:
    """The row groups of a store, those that begin first first.

    Attributes:
        files: Paths of the files that can be read.
        file: Place of each row group's file in these, shape (row group,).
        place: Its number within its file.
        rows: Triggers in it.
        start: Earliest time that it may have, GPS ns: for the first of a file the begin of the file.
        end: Latest time, GPS ns.
        lost: By path why a file cannot be read.
        lost_spans: From when to when such files reach, GPS ns, shape (lost file, 2).
        lost_rows: Triggers in them.
        fingerprint: Of the store.
    """

    files: tuple[Path, ...]
    file: Int[np.ndarray, " row_group"]
    place: Int[np.ndarray, " row_group"]
    rows: Int[np.ndarray, " row_group"]
    start: Int[np.ndarray, " row_group"]
    end: Int[np.ndarray, " row_group"]
    lost: Mapping[Path, str]
    lost_spans: Int[np.ndarray, "lost_file 2"]
    lost_rows: int
    fingerprint: str

    @classmethod
    def of(cls, folder: Path | str) -> "RowGroups":
        """Those of a store; a file that is missing or cut short is told, and goes without.

        Raises:
            FormatError: There is no store, or a file is another one than its manifest says.
            DataError: No file can be read.
        """
        found: list[tuple[int, int, int, int, int]] = []
        files: list[Path] = []
        lost: dict[Path, str] = {}
        spans: list[tuple[int, int]] = []
        manifest = read_manifest(folder)
        for one in manifest.files:
            path = Path(folder) / one.file
            try:
                footer = pq.read_metadata(path)
            except (pa.ArrowException, OSError) as error:
                lost[path] = str(error).splitlines()[0]
                spans.append(_span(one))
                continue
            found += _row_groups(path, footer, one, len(files))
            files.append(path)
        if lost:
            gone = manifest.rows - sum(group[2] for group in found)
            first, reason = next(iter(lost.items()))
            logger.warning(
                "%s: %d of %d files cannot be read, with %d of %d triggers; the first is %s (%s)",
                *(folder, len(lost), len(manifest.files), gone, manifest.rows, first.name, reason),
            )
        if not found:
            raise DataError(f"{folder}: expected triggers, got none that can be read. Make the store again.")
        file, place, rows, start, end = np.array(sorted(found, key=lambda group: (group[3], group[0], group[1]))).T
        lost_rows = manifest.rows - int(rows.sum())
        lost_spans = np.array(spans, dtype=np.int64).reshape(-1, 2)
        return cls(tuple(files), file, place, rows, start, end, lost, lost_spans, lost_rows, manifest.fingerprint)

    def edges(self, rows: int) -> NDArray[np.int64]:
        """Times between stretches of about as many triggers, GPS ns, rising; at least a row group's worth each.

        >>> groups = RowGroups((), *(np.array(x) for x in ([0, 1, 0], [0, 0, 1], [5, 5, 5], [0, 0, 9], [9, 9, 12])),
        ...                    {}, np.empty((0, 2), np.int64), 0, "")
        >>> groups.edges(8).tolist(), groups.edges(100).tolist()
        ([9], [])
        """
        starts, first = np.unique(self.start, return_index=True)
        before = (np.cumsum(self.rows) - self.rows)[first] // rows
        return starts[1:][np.diff(before) > 0]

    def expected(self, low: int, high: int) -> float:
        """About how many triggers there are from one time (ns) to another: as many as if they came evenly in time."""
        length = np.maximum(self.end - self.start, 1)
        share = (np.minimum(self.end, high) - np.maximum(self.start, low)) / length
        return float(self.rows @ np.clip(share, 0.0, 1.0))

    def read(self, span: tuple[int, int], near: int, far: int, columns: Sequence[str]) -> list[pa.Table]:
        """The triggers about a stretch of time, a table a file.

        Args:
            span: Its first and last time, ns.
            near: How far beyond (ns) all columns matter.
            far: How far beyond it time and channel matter: of a row group between the two the other columns are null,
                since all of it would be unpacked for the few rows that are reached.
            columns: What is wanted.

        Raises:
            FormatError: A file is damaged.
        """
        low, high = span[0] - far, span[1] + far
        wanted = np.flatnonzero((self.start <= high) & (self.end >= low))
        tables = []
        for file in np.unique(self.file[wanted]).tolist():
            own = wanted[self.file[wanted] == file]
            parts = []
            try:
                with pq.ParquetFile(self.files[file]) as opened:
                    for group in own[np.argsort(self.place[own])].tolist():
                        inside = self.start[group] <= span[1] + near and self.end[group] >= span[0] - near
                        read = list(columns if inside else _FAR)
                        table = opened.read_row_group(int(self.place[group]), columns=read, use_threads=False)
                        time = table["time"].to_numpy()
                        first, last = np.searchsorted(time, low, "left"), np.searchsorted(time, high, "right")
                        parts.append(_filled(table.slice(first, last - first), columns))
            except (pa.ArrowException, OSError) as error:
                raise FormatError(f"{self.files[file]} is damaged ({error}). Make the store again.") from error
            tables.append(pa.concat_tables(parts))
        return tables


def _filled(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The columns in their order, null where there are none."""
    held = [
        table[one] if one in table.column_names else pa.nulls(len(table), SCHEMA.field(one).type) for one in columns
    ]
    return pa.table(held, names=list(columns))


def _span(file: TriggerFile) -> tuple[int, int]:
    """From when to when a file has all triggers of its channels, GPS ns: by its name."""
    _, start, duration = Path(file.file).stem.rsplit("-", 2)
    return int(start) * NANOSECONDS, (int(start) + int(duration)) * NANOSECONDS


def _row_groups(
    path: Path, footer: pq.FileMetaData, told: TriggerFile, number: int
) -> list[tuple[int, int, int, int, int]]:
    """File, place, rows, start and end of each row group of a file."""
    checked_schema(footer.schema.to_arrow_schema(), path)
    if footer.num_rows != told.rows:
        raise FormatError(f"{path} holds {footer.num_rows} triggers, its manifest says {told.rows}. Make it again.")
    column = footer.schema.names.index("time")
    found = []
    for place in range(footer.num_row_groups):
        group = footer.row_group(place)
        statistics = group.column(column).statistics
        start, end = (
            (told.start, told.end)
            if statistics is None or not statistics.has_min_max
            else (statistics.min, statistics.max)
        )
        found.append((number, place, group.num_rows, min(start, _span(told)[0]) if place == 0 else start, end))
    return found
