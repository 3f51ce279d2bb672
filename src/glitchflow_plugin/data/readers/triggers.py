"""Tables of trigger times: CSV (read here), Omicron's HDF5 and LIGO_LW (through gwpy)."""

import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
from pydantic import Field, SkipValidation
from tqdm import tqdm

from glitchflow_plugin.data.apart import apart, shown
from glitchflow_plugin.data.files import atomic_path, expanded, read_text
from glitchflow_plugin.data.foreign_hdf5 import member, opened, samples
from glitchflow_plugin.data.readers.continuous import list_files
from glitchflow_plugin.data.readers.segments import as_given
from glitchflow_plugin.data.readers.selection import Condition, Seen, conditions, numbers, texts
from glitchflow_plugin.data.readers.tables import (
    EARLIEST,
    LATEST,
    NoColumnError,
    column_of,
    gps_numbers,
    gps_times,
    read_csv,
    time_columns,
)
from glitchflow_plugin.errors import ConfigurationError, FormatError, MissingDependencyError, NoEventsError, nearest
from glitchflow_plugin.settings import Located, PositiveNumber, section

logger = logging.getLogger(__name__)

SUFFIXES = (".csv", ".txt", ".tsv", ".dat", ".h5", ".hdf5", ".hdf", ".xml", ".gz")
"""Endings of the tables that are looked for in a folder."""

_CACHES = (".lcf", ".cache", ".ffl")

LOUDNESS_COLUMNS = (
    "snr",
    "SNR",
    "event_snr",
    "network_snr",
    "peak_snr",
    "rho",
    "significance",
    "confidence",
    "amplitude",
)
"""Names of the column that tells the loudest, tried in this order."""

REPEATED, CLUSTER, SEGMENTS, RANGE = "repeated", "cluster", "segments", "index range"
"""Where triggers fall after the conditions of `select`."""

_OMICRON_TEXT = {
    count: ("time", "frequency", "snr", "q", "amplitude", "phase", "tstart", "tend", "fstart", "fend")[:count]
    for count in (3, 10)
}
"""Columns of Omicron's text, of `omicron-print` and of its output in the format txt, where no header names them."""

_SHOWN_FILES, _TOLD_FILES = 3, 20
"""Files whose reasons are told where none can be read, and in the log where some cannot; the report has all."""

_ALL_LACK = 5
"""So many files without a column that is asked for, and none with it, and nobody looks into the others."""

LIGOLW_TABLES = ("sngl_burst", "sngl_inspiral", "sngl_ringdown", "coinc_inspiral", "sim_inspiral", "sim_burst")
"""Tables of LIGO_LW files with a row an event, and its time in two columns."""

NEAR = 0.5
"""Triggers nearer (s) than this to the one before are, as a rule, of the same glitch."""

_SAME_TIME = 2e-6
"""Times closer than this (s) are one: ids made from times resolve a microsecond."""

_MOST_ROWS = 1 << 20
"""Longest column of texts that is read."""


@dataclass(frozen=True)
class Trigger:
    """When to cut an event.

    Attributes:
        event_id: Its name; data sets are merged on it.
        gps_time: GPS s.
        group: Label that it shares with the triggers that it is not independent of; empty if unknown.
        within: GPS interval (s) outside which nothing may be taken: its science segment.
    """

    event_id: str
    gps_time: float
    group: str = ""
    within: tuple[float, float] = (-math.inf, math.inf)


@section
class TriggerSettings:
    """Where the times of the events come from, and which of them are taken.

    Attributes:
        path: A table, or a folder, glob pattern or cache file that names many; None if `times` are given.
        format: `csv`, `omicron` (HDF5: one table, or a data set a column; text: also without a header), `ligolw` (XML),
            or by each file's ending.
        time_column: GPS times in s; the first of `tables.TIME_COLUMNS` that the table has by default. Whole seconds in
            `X` are joined with the rest in `X_ns`.
        id_column: Event ids; by default made from the GPS time, so that data sets cut at the same times merge.
        group_column: Labels of what is not independent (the same waveform, the same stretch); by default none.
        table: Name of the table within the file; by default `triggers` for Omicron, and for LIGO_LW `sngl_burst` or the
            only one of `LIGOLW_TABLES`.
        times: GPS times in s, in place of a table.
        select: By column the range [low, high] that is taken, ends included and null for no end, or the values.
        cluster: Triggers no further (s) than this from their neighbour are one, and the loudest stays; None: all stay.
        loudness: Column that tells the loudest; the first of `LOUDNESS_COLUMNS` that the table has by default.
        segments: Science segments outside which nothing is taken: a file that gwpy reads, several, or pairs of GPS s.
        segments_flag: Name of the flag in such files where they hold several.
    """

    path: Annotated[Located | None, Field(description="the path of one table")] = None
    format: Literal["auto", "csv", "omicron", "ligolw"] = "auto"
    time_column: str | None = None
    id_column: str | None = None
    group_column: str | None = None
    table: str | None = None
    times: SkipValidation[tuple[float, ...]] = ()
    select: SkipValidation[Mapping[str, Any]] = field(default_factory=dict)
    cluster: Annotated[
        PositiveNumber | None,
        Field(description="how near (s) triggers are one, such as 0.1, or null for no clustering"),
    ] = None
    loudness: str | None = None
    segments: SkipValidation[str | tuple[str, ...] | tuple[tuple[float, float], ...] | None] = None
    segments_flag: str | None = None

    def __post_init__(self) -> None:
        """Refuse both or neither of path and times, and what cannot be asked of a list of times."""
        object.__setattr__(self, "times", _given_times(self.times))
        if bool(self.path) == bool(self.times):
            raise ConfigurationError("triggers need either a path (a table) or times (a list of GPS seconds)")
        if self.segments is not None:
            object.__setattr__(self, "segments", as_given(self.segments))
        _ = self.conditions
        columns = [name for name in ("select", "loudness", "group_column", "id_column") if getattr(self, name)]
        if self.times and columns:
            raise ConfigurationError(
                f"triggers.{columns[0]} names columns, and a list of times has none. Give a table as triggers.path."
            )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What `select` asks for."""
        return conditions(self.select)


@dataclass(frozen=True, eq=False)
class TriggerTable:
    """Triggers of one or many files, as far as they pass the selection, each once, sorted by time.

    Attributes:
        times: GPS s, shape (trigger,).
        ids: Event ids, shape (trigger,); None where they are made from the times.
        groups: Labels, shape (trigger,).
        loudness: SNR or alike, shape (trigger,), NaN where unknown; None where there is no such column or no need.
        within: Science segment of each (GPS s), shape (trigger, 2).
        report: What was read, and what became of it.
    """

    times: np.ndarray
    ids: np.ndarray | None
    groups: np.ndarray
    loudness: np.ndarray | None
    within: np.ndarray
    report: "TriggerReport"

    def __len__(self) -> int:
        """Number of triggers."""
        return len(self.times)

    def take(self, rows: np.ndarray, reason: str) -> "TriggerTable":
        """These rows alone; the others fell for this reason."""
        return TriggerTable(
            self.times[rows],
            None if self.ids is None else self.ids[rows],
            self.groups[rows],
            None if self.loudness is None else self.loudness[rows],
            self.within[rows],
            self.report.without(reason, len(self) - len(self.times[rows])),
        )

    def triggers(self) -> list[Trigger]:
        """One record each."""
        times = self.times.tolist()
        ids = map(event_id_at, times) if self.ids is None else self.ids.tolist()
        columns = (ids, times, self.groups.tolist(), map(tuple, self.within.tolist()))
        return [Trigger(*one) for one in zip(*columns, strict=True)]


@dataclass(frozen=True)
class TriggerReport:
    """How many triggers were read, and where they fell: `read` is the sum of `fell`, `rejected` and `events`.

    Attributes:
        source: Where they are from.
        read: Triggers in all files.
        files: Files that were read.
        unreadable: By name of the file why it cannot be read.
        fell: By reason in the order of the steps: the conditions of `select`, repeated, cluster, segments, index range.
        events: Of the rest, those in the event set (before it is made: all of them).
        rejected: Of the rest, by reason those whose data cannot be used.
        crowded: Of the rest, triggers within half a second of the one before.
        overlapping: Of the rest, those whose crop overlaps that of the one before.
    """

    source: str
    read: int
    files: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    fell: Mapping[str, int] = field(default_factory=dict)
    events: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    crowded: int = 0
    overlapping: int = 0

    @property
    def left(self) -> int:
        """Triggers that became events of the data set, whether or not their data could be used."""
        return self.events + sum(self.rejected.values())

    def without(self, reason: str, number: int) -> "TriggerReport":
        """The report after so many more fell."""
        return replace(self, fell={**self.fell, reason: self.fell.get(reason, 0) + number}, events=self.events - number)

    def settled(self, events: int, rejected: Mapping[str, int]) -> "TriggerReport":
        """The report once the event set is made."""
        return replace(self, events=events, rejected=dict(rejected))

    def __str__(self) -> str:
        """One line for a table."""
        of = f" from {self.files} files" if self.files > 1 else ""
        lost = f" ({len(self.unreadable)} more cannot be read)" if self.unreadable else ""
        fallen = {**self.fell, **self.rejected}
        parts = [f"{number} fell to {reason}" for reason, number in fallen.items() if number]
        return f"{self.source}: {self.read} triggers{of}{lost}; {'; '.join([*parts, f'{self.events} events'])}"


def event_id_at(gps_time: float) -> str:
    """Event id for a trigger without a name: its GPS time to the microsecond.

    >>> event_id_at(1126259462.4)
    '1126259462.400000'
    """
    return f"{gps_time:.6f}"


def read_triggers(settings: TriggerSettings) -> list[Trigger]:
    """The triggers that pass the selection, sorted by time, each once; clusters and segments are not looked at.

    Raises:
        FormatError: The table cannot be read, lacks the columns, or gives an id two times.
        ConfigurationError: A time is no GPS time.
    """
    return read_table(settings).triggers()


def read_table(settings: TriggerSettings, *, progress: bool = False) -> TriggerTable:
    """The triggers that pass the selection, as columns; of each file in turn, only these are kept.

    Args:
        settings: Which.
        progress: Whether to show a bar over many files.

    Raises:
        FormatError: No file can be read, all lack the columns, or an id has two times.
        ConfigurationError: A time is no GPS time.
    """
    where = settings.path or "triggers.times"
    if settings.path is None:
        times = _require_gps(np.asarray(settings.times, dtype=np.float64), where)
        parts, files, unreadable = [_Part(times, len(times))], 0, {}
    else:
        paths = trigger_files(settings.path)
        parts, unreadable = _parts(paths, settings, progress)
        files = len(parts)
        if not parts:
            raise FormatError(
                f"{where}: none of {len(paths)} files can be read as triggers. The first: "
                f"{' '.join(list(unreadable.values())[:_SHOWN_FILES])}"
            )
    times = np.concatenate([part.times for part in parts])
    read, fell = sum(part.read for part in parts), _summed([part.fell for part in parts])
    report = TriggerReport(where, read, files, unreadable, fell, len(times))
    tally = {condition: _together([part.seen[condition] for part in parts]) for condition in settings.conditions}
    _tell_selection(tally, where, read, len(times))
    ids = [part.ids for part in parts if part.ids is not None]
    if ids and len(ids) < len(parts):
        raise FormatError(f"{where}: some files have event ids and others none. Read them as data sets of their own.")
    groups = [np.full(len(part.times), "", object) if part.groups is None else part.groups for part in parts]
    table = TriggerTable(
        times,
        np.concatenate(ids) if ids else None,
        np.concatenate(groups),
        _loudness(parts, settings, where),
        np.tile([-np.inf, np.inf], (len(times), 1)),
        report,
    )
    return _each_once(table, where)


def read_columns(settings: TriggerSettings) -> tuple[np.ndarray, list[str] | None]:
    """Times of the triggers as they stand there, in whatever order and unit, and their ids if there are any.

    Raises:
        FormatError: The table cannot be read or lacks the columns.
    """
    if settings.path is None:
        return np.asarray(settings.times, dtype=np.float64), None
    parts, _ = _parts(trigger_files(settings.path), settings, progress=False, gps=False)
    ids = [part.ids for part in parts if part.ids is not None]
    return np.concatenate([part.times for part in parts]), np.concatenate(ids).tolist() if ids else None


def read_times(path: Path | str) -> np.ndarray:
    """GPS times from a text file with one a line, or from any table that `read_triggers` reads, sorted, s.

    Raises:
        FormatError: The file cannot be read.
        ConfigurationError: A time is no GPS time.
    """
    path = Path(expanded(path))
    texts = _plain_list(path)
    if texts is None:
        return read_table(TriggerSettings(path=str(path))).times
    if not texts:
        raise FormatError(f"{path} holds no time: expected GPS seconds, one a line, or a table with a header.")
    times = tuple(gps_numbers(texts, str(path)).tolist())
    return read_table(TriggerSettings(times=times)).times


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
    return None if names_times and earliest < EARLIEST else texts


def write_triggers(path: Path | str, triggers: Sequence[tuple[str, float]]) -> None:
    """Write ids and GPS times as CSV with the columns `event_id` and `time`, without loss."""
    import pandas as pd

    table = pd.DataFrame(triggers, columns=["event_id", "time"])
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9f")


@dataclass(frozen=True, eq=False)
class _Part:
    """What one file gives: columns of the triggers that pass, how many there were, and where the others fell."""

    times: np.ndarray
    read: int
    ids: np.ndarray | None = None
    groups: np.ndarray | None = None
    loudness: np.ndarray | None = None
    loudness_column: str | None = None
    fell: Mapping[str, int] = field(default_factory=dict)
    seen: Mapping[Condition, Seen] = field(default_factory=dict)


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


def _parts(
    paths: Sequence[Path], settings: TriggerSettings, progress: bool, *, gps: bool = True
) -> tuple[list[_Part], dict[str, str]]:
    """What each file gives, and why some give nothing; the error itself of one file alone, or of a misspelt column."""
    parts: list[_Part] = []
    unreadable: dict[str, str] = {}
    lacking = 0
    hidden = None if progress and len(paths) > 1 else True
    for path in tqdm(paths, desc="triggers", unit="file", disable=hidden, leave=False):
        try:
            parts.append(_part(path, settings, gps=gps))
        except (FormatError, ConfigurationError) as error:
            lacking += isinstance(error, NoColumnError)
            if len(paths) == 1 or (not parts and lacking == _ALL_LACK):
                raise
            name = shown(path.name)
            unreadable[name if name not in unreadable else shown(path)] = str(error)
    for why in list(unreadable.values())[:_TOLD_FILES] if parts else ():
        logger.warning("%s", why)
    return parts, unreadable


def _part(path: Path, settings: TriggerSettings, *, gps: bool) -> _Part:
    """The triggers of one file that pass the selection."""
    wanted: dict[str, Any] = {}

    def choose(names: list[str]) -> set[str]:
        time, beside = time_columns(names, path, settings.time_column)
        known = "event_id" if kind == "csv" and "event_id" in names else None
        wanted.update(time=time, ids=settings.id_column or known, groups=settings.group_column)
        if settings.cluster is not None or settings.loudness:
            wanted["loudness"] = settings.loudness or _loudness_column(names)
        asked = [one.column for one in settings.conditions]
        for name in (*asked, *filter(None, (wanted["ids"], wanted["groups"], wanted.get("loudness")))):
            column_of(dict.fromkeys(names), name, path)
        return {*beside, *asked, *filter(None, wanted.values())}

    kind = _kind(path, settings.format)
    columns = _columns(path, kind, settings, choose)
    times = gps_times(columns, path, wanted["time"])
    times = _require_gps(times, path) if gps else times
    held = {**columns, wanted["time"]: times}
    passed = np.ones(len(times), dtype=bool)
    fell: dict[str, int] = {}
    seen: dict[Condition, Seen] = {}
    for condition in settings.conditions:
        holds, empty, seen[condition] = condition.of(held[condition.column], f"{path}: column {condition.column!r}")
        for reason, lost in ((f"select {condition}", ~holds & ~empty), (f"select {condition}: no value", empty)):
            fell[reason] = int(np.count_nonzero(passed & lost))
        passed &= holds
    ids, groups = (None if wanted[one] is None else texts(columns[wanted[one]])[passed] for one in ("ids", "groups"))
    if ids is not None and not all(ids):
        raise FormatError(
            f"{path}: the column {wanted['ids']!r} is empty in {int(np.count_nonzero(ids == ''))} row(s). "
            "Give every event an id."
        )
    loud = wanted.get("loudness")
    loudness = None if loud is None else numbers(columns[loud], f"{path}: column {loud!r}")[passed]
    return _Part(times[passed], len(times), ids, groups, loudness, loud, fell, seen)


def _require_gps(times: np.ndarray, where: Path | str) -> np.ndarray:
    wrong = ~(np.isfinite(times) & (times >= 0) & (times < LATEST))
    if wrong.any():
        raise ConfigurationError(
            f"{where}: GPS times must be positive seconds (below {LATEST:g}), got {times[wrong][0]:g} in row "
            f"{np.flatnonzero(wrong)[0] + 1}. Correct it, or leave the row out."
        )
    return times


def _loudness_column(names: Sequence[str]) -> str | None:
    lowered = {name.lower(): name for name in names}
    return next((lowered[one] for one in LOUDNESS_COLUMNS if one in lowered), None)


def _kind(path: Path, asked: str) -> str:
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


def _columns(
    path: Path, kind: str, settings: TriggerSettings, choose: Callable[[list[str]], Collection[str]]
) -> dict[str, Any]:
    """Columns of a table, those alone that are needed."""
    if kind in ("csv", "omicron text"):
        headless = None if kind == "csv" else _OMICRON_TEXT
        return dict(read_csv(path, wanted=choose, headless=headless))
    held = _hdf5_columns(path, settings.table) if kind == "hdf5" else None
    columns = held if held is not None else _gwpy_columns(path, kind, settings.table)
    return {name: columns[name] for name in choose(list(columns))}


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for reason, number in count.items():
            total[reason] = total.get(reason, 0) + number
    return total


def _together(seen: Sequence[Seen]) -> Seen:
    first = seen[0]
    for one in seen[1:]:
        first = first.with_(one)
    return first


def _tell_selection(tally: Mapping[Condition, Seen], where: str, read: int, left: int) -> None:
    """Refuse a selection that leaves nothing; warn of values that no trigger has."""
    for condition, seen in tally.items():
        vain = [value for value in condition.values if isinstance(value, str) and value not in seen.values]
        if vain and left and read:
            logger.warning(
                "%s: no trigger has %s = %r.%s", where, condition.column, vain[0], nearest(vain[0], seen.values)
            )
    if read and not left and tally:
        found = "; ".join(f"{condition}, where there are {seen}" for condition, seen in tally.items())
        hints = "".join(nearest(value, seen.values) for condition, seen in tally.items() for value in condition.values)
        if any(isinstance(one, int | float) and not isinstance(one, bool) for each in tally for one in each.values):
            hints += " A lone number is a value; a range is [low, high], such as [8, null]."
        raise NoEventsError(
            f"{where}: none of {read} triggers passes `select`: {found}.{hints} Correct triggers.select."
        )


def _loudness(parts: Sequence[_Part], settings: TriggerSettings, where: str) -> np.ndarray | None:
    """Loudness of all triggers, out of one column."""
    names = {part.loudness_column for part in parts if part.loudness is not None}
    if len(names) > 1:
        raise FormatError(
            f"{where}: the files tell the loudness in different columns, {sorted(filter(None, names))}. Name the one "
            "that all have in `triggers.loudness`."
        )
    if not names:
        if settings.path is not None and settings.cluster is not None:
            raise FormatError(
                f"{where}: `cluster` keeps the loudest, and there is no column {', '.join(LOUDNESS_COLUMNS)}. "
                "Name the column of the loudness in `triggers.loudness`."
            )
        return None
    return np.concatenate([np.full(len(one.times), np.nan) if one.loudness is None else one.loudness for one in parts])


def _each_once(table: TriggerTable, where: str) -> TriggerTable:
    """The table sorted by time, each trigger once: files of neighbouring times may both hold it."""
    loudness = np.zeros(len(table)) if table.loudness is None else np.nan_to_num(table.loudness, nan=-np.inf)
    order = np.lexsort((-loudness, table.times))
    times = table.times[order]
    if table.ids is None:
        return table.take(order[np.diff(times, prepend=-np.inf) > _SAME_TIME], REPEATED)
    first_time: dict[str, float] = {}
    torn: dict[str, None] = {}
    kept = []
    for row, name, time in zip(order.tolist(), table.ids[order].tolist(), times.tolist(), strict=True):
        if name not in first_time:
            first_time[name] = time
            kept.append(row)
        elif abs(first_time[name] - time) > _SAME_TIME:
            torn[name] = None
    if torn:
        raise FormatError(
            f"{where}: {len(torn)} event id(s) with two times each: {', '.join(list(torn)[:10])}. "
            "Give every event its own id, or name another column in `triggers.id_column`."
        )
    ids = table.ids
    kept.sort(key=lambda row: (table.times[row], ids[row]))
    return table.take(np.array(kept, dtype=np.int64), REPEATED)


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
    return samples(item, 0, len(item)) if item.dtype.kind in "biuf" else None


@apart
def _gwpy_columns(path: Path, kind: str, table: str | None) -> dict[str, Any]:
    """Columns of an astropy table by name."""
    from gwpy.table import EventTable  # seconds that workers need not spend

    try:
        if kind == "hdf5":
            found = EventTable.read(str(path), format="hdf5", path=table or "triggers")
        else:
            found = EventTable.read(str(path), format="ligolw", tablename=table or _ligolw_table(path))
        return {str(name): found[name] for name in found.colnames}
    except ImportError as error:
        raise MissingDependencyError(f"{path}: {error}. Run: pip install igwn-ligolw") from error
    except Exception as error:  # the readers behind gwpy raise whatever they like
        named = {"hdf5": "omicron"}.get(kind, kind)
        raise FormatError(
            f"{path} cannot be read as a table of triggers in the {named} format ({error}). "
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
