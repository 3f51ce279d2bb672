"""Triggers from and to the files of others: what each format is called, holds and loses.

All are read by the rules of `data.readers.trigger_files` and `data.readers.tables`; names of columns that mean the same
are one here.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glitchflow_plugin.data.files import atomic_path, new_hdf5
from glitchflow_plugin.data.readers.tables import peak_nanoseconds
from glitchflow_plugin.data.readers.trigger_files import table_columns, table_kind, trigger_files
from glitchflow_plugin.data.triggers.store import MANIFEST_NAME, ROW_GROUP, TriggerWriter, open_triggers
from glitchflow_plugin.data.triggers.table import (
    NANOSECONDS,
    POINT_COLUMNS,
    SCHEMA,
    exact_seconds,
    trigger_table,
    without_bad_rows,
)
from glitchflow_plugin.errors import ConfigurationError, FormatError, nearest

ALIASES = {
    "frequency": ("frequency", "peak_frequency", "peakFreq", "central_freq"),
    "snr": ("snr", "SNR"),
    "q": ("q", "Q", "q_value"),
    "duration": ("duration",),
    "bandwidth": ("bandwidth",),
    "amplitude": ("amplitude",),
    "channel": ("channel",),
    "event_id": ("event_id", "gravityspy_id"),
    "group": ("group",),
}
"""Names that a column goes by, the first that is there."""

_EXTENTS = {"duration": ("tstart", "tend"), "bandwidth": ("fstart", "fend")}
_FLOAT_TIMES = "times better than 0.1 us (float64 seconds)"
_FILE_NAME = "- and _ in the channel, which the file name tells"


@dataclass(frozen=True)
class Format:
    """A format of triggers.

    Attributes:
        suffix: Ending of its files.
        columns: Those of `SCHEMA` beside time, frequency and snr that it holds.
        rounded: What it rounds, in words.
        write: Writes a table to a path.
        by_channel: Whether a file holds one channel, so that a folder is written.
    """

    suffix: str
    columns: tuple[str, ...]
    rounded: str
    write: Callable[[pa.Table, Path], None]
    by_channel: bool = False


def read_triggers(path: Path | str, *, table: str | None = None, channel: str | None = None) -> pa.Table:
    """All triggers of a store, a file, a folder or a glob pattern, as they stand there.

    Args:
        path: Where.
        table: Name of the table within the files; as `triggers.table`.
        channel: Their channel, where the files do not tell it.

    Returns:
        As `SCHEMA`.

    Raises:
        FormatError: A file cannot be read, or lacks a column that makes a trigger.
    """
    parts = [SCHEMA.empty_table(), *trigger_parts(path, table=table, channel=channel)]
    return pa.concat_tables(parts).unify_dictionaries()


def trigger_parts(path: Path | str, *, table: str | None = None, channel: str | None = None) -> Iterator[pa.Table]:
    """The triggers of `read_triggers` file by file; those of a store by as many rows as are read at once.

    Raises:
        FormatError: As there.
    """
    if Path(path, MANIFEST_NAME).is_file():
        yield from (pa.table(one) for one in open_triggers(path).to_batches(batch_size=ROW_GROUP, use_threads=False))
        return
    for one in trigger_files(str(path)):
        yield _read_file(one, table, channel)


def good_parts(
    path: Path | str, bad: Counter[str], *, table: str | None = None, channel: str | None = None
) -> Iterator[pa.Table]:
    """The rows of `trigger_parts` that are triggers; the others are counted by what is wrong with them.

    Args:
        path: As there, as are `table` and `channel`.
        bad: The counts.
        table: Name of the table within the files.
        channel: Their channel, where the files do not tell it.

    Raises:
        FormatError: As there.
    """
    for part in trigger_parts(path, table=table, channel=channel):
        good, fallen = without_bad_rows(part)
        bad.update(fallen)
        yield good


def store_triggers(
    path: Path | str,
    folder: Path | str,
    *,
    recipe: Mapping[str, object] | None = None,
    table: str | None = None,
    channel: str | None = None,
) -> dict[str, int]:
    """Write triggers of files of others as a store; by reason, how many rows are none and are left out.

    Args:
        path: As for `read_triggers`, as are `table` and `channel`.
        folder: The store.
        recipe: How they were made, as the store's manifest keeps it.
        table: Name of the table within the files.
        channel: Their channel, where the files do not tell it.

    Raises:
        FormatError: As there.
    """
    bad = Counter[str]()
    with TriggerWriter(Path(folder), recipe or {}) as writer:
        for part in good_parts(path, bad, table=table, channel=channel):
            writer.write(part)
    return dict(bad)


def _read_file(path: Path, table: str | None, channel: str | None) -> pa.Table:
    kind = table_kind(path, "auto")
    columns = table_columns(path, kind, table, list)
    found: dict[str, Any] = {"time": peak_nanoseconds(columns, path)}
    for name, aliases in ALIASES.items():
        held = next((one for one in aliases if one in columns), None)
        # the event_id of LIGO_LW numbers the rows
        if held is not None and (name, kind) != ("event_id", "ligolw"):
            found[name] = _filled(columns[held], numbers=name in POINT_COLUMNS, where=f"{path}: column {held!r}")
    for name, (low, high) in _EXTENTS.items():
        if name not in found and {low, high} <= set(columns):
            ends = [_filled(columns[one], numbers=True, where=f"{path}: column {one!r}") for one in (low, high)]
            found[name] = ends[1] - ends[0]
    if missing := {"frequency", "snr"} - set(found):
        raise FormatError(f"{path}: expected columns for {sorted(missing)}, got {list(columns)[:16]}. Rename them.")
    found["channel"] = _channels(
        found.get("channel"), columns.get("ifo"), channel or _told_channel(path), path, len(found["time"])
    )
    return trigger_table(found)


def _filled(column: Any, *, numbers: bool, where: str) -> np.ndarray:
    """Values of a column with what is empty as NaN, or None of a text."""
    values = np.ma.filled(column, np.nan) if numbers and np.ma.isMaskedArray(column) else np.asarray(column)
    try:
        if numbers:
            return (
                np.where(values == "", "nan", values).astype(float)
                if values.dtype.kind in "USO"
                else values.astype(float)
            )
    except ValueError as error:
        raise FormatError(f"{where}: expected numbers ({error}).") from error
    texts = [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in values.tolist()]
    return np.array([one or None for one in texts], dtype=object)


def _channels(held: np.ndarray | None, detectors: Any, given: str | None, path: Path, rows: int) -> np.ndarray:
    """Names of the channels with their detectors."""
    if held is None or all(one is None for one in held):
        if given is None and rows:
            raise FormatError(f"{path} does not tell the channel of its triggers. Name it with --channel.")
        return np.full(rows, given or "", dtype=object)
    if detectors is None:
        return np.array([one or "" for one in held], dtype=object)
    prefixes = _filled(detectors, numbers=False, where=str(path))
    pairs = zip(held, prefixes, strict=True)
    return np.array([one if not one or ":" in one or not ifo else f"{ifo}:{one}" for one, ifo in pairs], dtype=object)


def _told_channel(path: Path) -> str | None:
    """The channel in the name of a file as Omicron makes it: `L1-GDS_CALIB_STRAIN_OMICRON-1187000000-64.h5`.

    >>> _told_channel(Path("L1-GDS_CALIB_STRAIN_OMICRON-1187000000-64.h5"))
    'L1:GDS-CALIB_STRAIN'
    """
    found = re.match(r"([A-Z]\d)-([A-Za-z0-9]+)_(\w+)_OMICRON-\d+-\d+\.", path.name)
    return None if found is None else f"{found[1]}:{found[2]}-{found[3]}"


def write_triggers(table: pa.Table, path: Path | str, kind: str) -> list[Path]:
    """Write triggers in one format, each file whole or not at all.

    Args:
        table: As `SCHEMA`.
        path: A file; a folder for `parquet` and for formats with a file a channel.
        kind: One of `FORMATS`, or `parquet`: the store.

    Returns:
        What was written.

    Raises:
        ConfigurationError: There is no such format, or two channels would become one file.
    """
    path = Path(path)
    if kind == "parquet":
        with TriggerWriter(path) as writer:
            writer.write(table)
        return [Path(one) for one in open_triggers(path).files] if len(table) else []
    chosen = format_named(kind)
    if not chosen.by_channel:
        with atomic_path(path) as temporary:
            chosen.write(table, temporary)
        return [path]
    texts = table["channel"].cast(pa.string()).to_numpy()
    parts = {
        path / _omicron_name(name, part, chosen.suffix): part
        for name in sorted(set(texts))
        if len(part := table.filter(pa.array(texts == name)))
    }
    if len(parts) < len(set(texts)):
        raise ConfigurationError(f"{kind}: the names of two channels differ by - and _ alone, and files have no -.")
    for target, part in parts.items():
        with atomic_path(target) as temporary:
            chosen.write(part, temporary)
    return list(parts)


def lost(table: pa.Table, kind: str) -> tuple[str, ...]:
    """What of these triggers a format cannot hold: columns that say something, and what it rounds."""
    if kind == "parquet":
        return ()
    chosen = format_named(kind)
    kept = {"time", "frequency", "snr", "channel", *chosen.columns}
    return (
        *(one for one in SCHEMA.names if one not in kept and table[one].null_count < len(table)),
        *filter(None, [chosen.rounded]),
    )


def format_named(kind: str) -> Format:
    """A format by its name.

    Raises:
        ConfigurationError: There is none of that name.
    """
    if kind not in FORMATS:
        known = ["parquet", *FORMATS]
        raise ConfigurationError(f"{kind!r} is no format of triggers.{nearest(kind, known)} Expected one of {known}.")
    return FORMATS[kind]


def _seconds(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    whole, rest = np.divmod(table["time"].to_numpy(), NANOSECONDS)
    return whole, rest


def _times(table: pa.Table) -> np.ndarray:
    whole, rest = _seconds(table)
    return whole + rest * 1e-9


def _omicron_name(channel: str, table: pa.Table, suffix: str) -> str:
    detector, _, name = channel.rpartition(":")
    whole, _ = _seconds(table)
    start, end = int(whole.min()), int(whole.max()) + 1
    return f"{detector or 'X1'}-{re.sub(r'[^A-Za-z0-9]', '_', name)}_OMICRON-{start}-{end - start}{suffix}"


def _omicron_columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {"time": _times(table), **{name: table[name].to_numpy() for name in POINT_COLUMNS}}


def _write_omicron(table: pa.Table, path: Path) -> None:
    """One table `triggers` of named columns, as Omicron's HDF5."""
    with new_hdf5(path, seal=False) as file:
        names = np.array([one.encode() for one in table["channel"].to_pylist()])
        file["triggers"] = _rows({**_omicron_columns(table), "channel": names})


def _rows(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    made = np.empty(len(next(iter(columns.values()))), [(name, one.dtype) for name, one in columns.items()])
    for name, column in columns.items():
        made[name] = column
    return made


def _write_snax(table: pa.Table, path: Path) -> None:
    """A group a channel with one table over all its time."""
    texts = table["channel"].cast(pa.string()).to_numpy()
    with new_hdf5(path, seal=False) as file:
        for name in sorted(set(texts)):
            part = table.filter(pa.array(texts == name))
            whole, _ = _seconds(part)
            span = f"{whole.min()}.0_{whole.max() + 1 - whole.min()}"
            file.create_group(name)[span] = _rows(_omicron_columns(part))


def _write_omicron_text(table: pa.Table, path: Path) -> None:
    columns = _omicron_columns(table)
    times = _decimal(table)
    others = zip(*(one.tolist() for name, one in columns.items() if name != "time"), strict=True)
    lines = [" ".join([time, *map(repr, values)]) for time, values in zip(times, others, strict=True)]
    path.write_text("\n".join(["# " + " ".join(columns), *lines]) + "\n", encoding="utf-8")


def _decimal(table: pa.Table) -> list[str]:
    return [exact_seconds(one) for one in table["time"].to_pylist()]


def _write_csv(table: pa.Table, path: Path) -> None:
    frame = table.to_pandas()
    frame["time"] = _decimal(table)
    frame.to_csv(path, index=False)


def _write_gravityspy(table: pa.Table, path: Path) -> None:
    import pandas as pd  # seconds that readers need not spend

    whole, rest = _seconds(table)
    held = table.to_pandas()
    channels = held["channel"].astype(str).str
    columns = {
        "event_time": _decimal(table),
        "ifo": channels.rpartition(":")[0],
        "peak_time": whole,
        "peak_time_ns": rest,
    }
    points = {"peak_frequency": "frequency", "central_freq": "frequency", "q_value": "q", "gravityspy_id": "event_id"}
    same = {name: held[name] for name in ("duration", "bandwidth", "amplitude", "snr")}
    renamed = {new: held[old] for new, old in points.items()}
    pd.DataFrame({**columns, "channel": channels.rpartition(":")[2], **same, **renamed}).to_csv(path, index=False)


def _write_ligolw_rows(columns: dict[str, list[Any]], path: Path) -> None:
    from igwn_ligolw import ligolw, lsctables, utils  # gwpy's own dependency

    document = ligolw.Document()
    made = lsctables.SnglBurstTable.new(list(columns))
    for values in zip(*columns.values(), strict=True):
        row = made.RowType()
        for name, value in zip(columns, values, strict=True):
            setattr(row, name, value)
        made.append(row)
    document.appendChild(ligolw.LIGO_LW()).appendChild(made)
    utils.write_filename(document, str(path))


def _write_ligolw(table: pa.Table, path: Path) -> None:
    """A table `sngl_burst`; what is not known stays empty."""
    whole, rest = _seconds(table)
    channels = [str(one).rpartition(":") for one in table["channel"].cast(pa.string()).to_pylist()]
    points = {name: table[name].to_pylist() for name in POINT_COLUMNS}
    columns = {
        "ifo": [one[0] for one in channels],
        "channel": [one[2] for one in channels],
        "search": ["glitchflow"] * len(table),
        "event_id": list(range(len(table))),
        "peak_time": whole.tolist(),
        "peak_time_ns": rest.tolist(),
        "peak_frequency": points["frequency"],
        "central_freq": points["frequency"],
        **{name: points[name] for name in ("snr", "duration", "bandwidth", "amplitude")},
    }
    _write_ligolw_rows(columns, path)


_ALL = ("q", "duration", "bandwidth", "amplitude")
FORMATS: Mapping[str, Format] = {
    "omicron": Format(".h5", _ALL, _FLOAT_TIMES, _write_omicron, by_channel=True),
    "omicron_text": Format(".txt", _ALL, _FILE_NAME, _write_omicron_text, by_channel=True),
    "snax": Format(".h5", _ALL, _FLOAT_TIMES, _write_snax),
    "ligolw": Format(".xml", _ALL[1:], "digits beyond the 7th, but of times (float32)", _write_ligolw),
    "csv": Format(".csv", (*_ALL, "event_id", "group"), "", _write_csv),
    "gravityspy": Format(".csv", (*_ALL, "event_id"), "", _write_gravityspy),
}
"""What can be written beside `parquet`, by name."""
