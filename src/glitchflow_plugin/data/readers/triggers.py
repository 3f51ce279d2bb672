"""Triggers of one or many tables, as far as they pass a selection, each once."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, SkipValidation
from tqdm import tqdm

from glitchflow_plugin.data.apart import shown
from glitchflow_plugin.data.files import atomic_path, expanded, read_text
from glitchflow_plugin.data.readers.segments import as_given
from glitchflow_plugin.data.readers.selection import Condition, Seen, conditions, numbers, texts
from glitchflow_plugin.data.readers.tables import (
    EARLIEST,
    LATEST,
    NoColumnError,
    column_of,
    gps_numbers,
    gps_times,
    time_columns,
)
from glitchflow_plugin.data.readers.trigger_files import table_columns, table_kind, trigger_files
from glitchflow_plugin.data.readers.trigger_table import REPEATED, TriggerReport, TriggerTable
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError, nearest
from glitchflow_plugin.settings import Located, PositiveNumber, section

logger = logging.getLogger(__name__)

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

_SHOWN_FILES, _TOLD_FILES = 3, 20
"""Files whose reasons are told where none can be read, and in the log where some cannot; the report has all."""

_GIVE_UP_AFTER = 5
"""So many files without a column that is asked for, and none with it, and nobody looks into the others."""

NEAR = 0.5
"""Triggers nearer (s) than this to the one before are, as a rule, of the same glitch."""

_SAME_TIME = 2e-6
"""Times closer than this (s) are one: ids made from times resolve a microsecond."""


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
    select: SkipValidation[Mapping[str, object]] = field(default_factory=dict)
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
    tally = {condition: _merged([part.seen[condition] for part in parts]) for condition in settings.conditions}
    _check_selection(tally, where, read, len(times))
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
    """GPS times from a text file with one a line, or from any table that `read_table` reads, sorted, s.

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
            if len(paths) == 1 or (not parts and lacking == _GIVE_UP_AFTER):
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

    kind = table_kind(path, settings.format)
    columns = table_columns(path, kind, settings.table, choose)
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


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for reason, number in count.items():
            total[reason] = total.get(reason, 0) + number
    return total


def _merged(seen: Sequence[Seen]) -> Seen:
    first = seen[0]
    for one in seen[1:]:
        first = first.with_(one)
    return first


def _check_selection(tally: Mapping[Condition, Seen], where: str, read: int, left: int) -> None:
    """Refuse a selection that leaves nothing; warn of values that no trigger has."""
    for condition, seen in tally.items():
        unmatched = [value for value in condition.values if isinstance(value, str) and value not in seen.values]
        if unmatched and left and read:
            logger.warning(
                "%s: no trigger has %s = %r.%s",
                where,
                condition.column,
                unmatched[0],
                nearest(unmatched[0], seen.values),
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
    conflicting: dict[str, None] = {}
    kept = []
    for row, name, time in zip(order.tolist(), table.ids[order].tolist(), times.tolist(), strict=True):
        if name not in first_time:
            first_time[name] = time
            kept.append(row)
        elif abs(first_time[name] - time) > _SAME_TIME:
            conflicting[name] = None
    if conflicting:
        raise FormatError(
            f"{where}: {len(conflicting)} event id(s) with two times each: {', '.join(list(conflicting)[:10])}. "
            "Give every event its own id, or name another column in `triggers.id_column`."
        )
    ids = table.ids
    kept.sort(key=lambda row: (table.times[row], ids[row]))
    return table.take(np.array(kept, dtype=np.int64), REPEATED)


def _given_times(times: object) -> tuple[float, ...]:
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
