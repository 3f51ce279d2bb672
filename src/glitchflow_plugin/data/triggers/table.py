"""The table of triggers: its columns with their units, and which rows of it are none.

The columns are Omicron's (Robinet et al. 2020, doi:10.1016/j.softx.2020.100620), with the time as whole nanoseconds:
a float64 knows GPS seconds of today to 0.2 us.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from glitchflow_plugin.data.readers.tables import LATEST
from glitchflow_plugin.errors import FormatError

NANOSECONDS = 1_000_000_000
"""In a second."""

POINT_COLUMNS = ("frequency", "snr", "q", "duration", "bandwidth", "amplitude")
"""What is measured of a trigger beside its time, all float64."""

_UNITS = {
    "time": ("ns", "GPS time of the peak"),
    "frequency": ("Hz", "frequency of the peak"),
    "snr": ("1", "signal-to-noise ratio of the peak"),
    "q": ("1", "quality factor of the loudest tile"),
    "duration": ("s", "length of the cluster, or of the tile"),
    "bandwidth": ("Hz", "width of the cluster, or of the tile"),
    "amplitude": ("1", "amplitude of the peak after whitening"),
}


def _measured(name: str, *, nullable: bool) -> pa.Field:
    unit, meaning = _UNITS[name]
    kind = pa.int64() if name == "time" else pa.float64()
    return pa.field(name, kind, nullable, {"unit": unit, "description": meaning})


SCHEMA = pa.schema(
    [
        *(_measured(name, nullable=False) for name in ("time", "frequency", "snr")),
        *(_measured(name, nullable=True) for name in ("q", "duration", "bandwidth", "amplitude")),
        pa.field("channel", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("event_id", pa.string(), metadata={"description": "name of the event that it belongs to"}),
        pa.field("group", pa.string(), metadata={"description": "label shared by what is not independent"}),
    ]
)
"""Columns of the table, in order. What may be null is not known to every format."""

REQUIRED = tuple(field.name for field in SCHEMA if not field.nullable)
"""Columns without which a row is no trigger."""


def exact_seconds(nanoseconds: int) -> str:
    """GPS ns as s with nine decimals: float64 would round them.

    >>> exact_seconds(1400000000000000001)
    '1400000000.000000001'
    """
    whole, rest = divmod(nanoseconds, NANOSECONDS)
    return f"{whole}.{rest:09d}"


def trigger_table(columns: Mapping[str, ArrayLike]) -> pa.Table:
    """The table out of arrays; NaN and columns that are left out become null where they may be.

    Args:
        columns: By name as in `SCHEMA`, shape (trigger,); `time` in whole ns.

    Raises:
        FormatError: A column is missing or unknown, of another type or length, or empty where it must not be.
    """
    unknown, missing = set(columns) - set(SCHEMA.names), set(REQUIRED) - set(columns)
    if unknown or missing:
        raise FormatError(f"triggers: expected the columns {SCHEMA.names}; unknown {unknown}, missing {missing}.")
    if np.asarray(columns["time"]).dtype.kind not in "iu" and len(np.asarray(columns["time"])):
        raise FormatError("triggers: expected times in whole nanoseconds (int64). Multiply seconds before rounding.")
    rows = len(np.asarray(columns["time"]))
    made = []
    for field in SCHEMA:
        values = columns.get(field.name)
        try:
            made.append(pa.nulls(rows, field.type) if values is None else _array(values, field))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"triggers: the column {field.name} cannot become {field.type} ({error}).") from error
    lengths = {field.name: len(array) for field, array in zip(SCHEMA, made, strict=True) if len(array) != rows}
    if lengths:
        raise FormatError(f"triggers: expected {rows} rows in every column, got {lengths}.")
    return checked(pa.table(made, schema=SCHEMA), "triggers")


def _array(values: ArrayLike, field: pa.Field) -> pa.Array:
    kind = field.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return pa.array(np.asarray(values), kind, from_pandas=field.nullable)
    texts = pa.array(np.asarray(values, dtype=object), pa.string(), from_pandas=True)
    return texts.dictionary_encode() if pa.types.is_dictionary(kind) else texts


def checked(table: pa.Table, where: object) -> pa.Table:
    """A table with the columns of `SCHEMA` alone, in their order and types.

    Args:
        table: Any that has the required columns; others are left out, and what lacks otherwise is null.
        where: Its name, for messages.

    Raises:
        FormatError: A required column is missing or empty somewhere, or a column has another type.
    """
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise FormatError(
            f"{where}: expected a table of triggers with the columns {list(REQUIRED)}, got {table.column_names[:12]}. "
            "Convert it with `glitchflow triggers convert`."
        )
    columns = []
    for field in SCHEMA:
        held = table[field.name] if field.name in table.column_names else pa.nulls(len(table), field.type)
        try:
            columns.append(held.cast(field.type))
        except pa.ArrowException as error:
            raise FormatError(f"{where}: the column {field.name} is {held.type}, expected {field.type}.") from error
        if not field.nullable and columns[-1].null_count:
            raise FormatError(f"{where}: the column {field.name} is empty in {columns[-1].null_count} rows.")
    return pa.table(columns, schema=SCHEMA)


def checked_schema(schema: pa.Schema, where: object) -> None:
    """Refuse columns that cannot be those of triggers, before a row of them is read.

    Args:
        schema: Of a file.
        where: Its name, for messages.

    Raises:
        FormatError: A required column is missing, or a column has another type.
    """
    checked(schema.empty_table(), where)
    for field in SCHEMA:  # of no rows each type can become each other one
        place = schema.get_field_index(field.name)
        if (
            place >= 0
            and not pa.types.is_null(kind := schema.field(place).type)
            and _is_text(kind) != _is_text(field.type)
        ):
            raise FormatError(f"{where}: the column {field.name} is {kind}, expected {field.type}.")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def without_bad_rows(table: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The rows that can be triggers, and by reason how many cannot.

    A trigger has a GPS time, a positive frequency, a finite SNR that is not negative, and a channel; what else is
    known of it is finite and not negative.

    Args:
        table: As `SCHEMA`.
    """
    good = np.ones(len(table), dtype=bool)
    bad: dict[str, int] = {}
    for name in ("time", *POINT_COLUMNS, "channel"):
        wrong = good & ~_sound(table, name)
        if wrong.any():
            bad[f"{name} is no {'name' if name == 'channel' else 'possible number'}"] = int(wrong.sum())
        good &= ~wrong
    return (table.filter(pa.array(good)) if bad else table), bad


def _sound(table: pa.Table, name: str) -> np.ndarray:
    if name == "channel":
        return table[name].cast(pa.string()).to_numpy() != ""
    values = table[name].to_numpy()
    if name == "time":
        return (values > 0) & (values < int(LATEST) * NANOSECONDS)
    known = np.isfinite(values) & ((values > 0) if name == "frequency" else (values >= 0))
    return known | table[name].is_null().to_numpy()


def in_order(table: pa.Table) -> pa.Table:
    """The rows sorted by time, then channel and all else: the same table whatever order they came in.

    Args:
        table: As `SCHEMA`. Its channels get the alphabetical dictionary of those that are there.
    """
    encoded = table["channel"].cast(pa.string()).combine_chunks().dictionary_encode()
    held = np.array(encoded.dictionary.to_pylist(), dtype=object)
    codes = np.argsort(np.argsort(held)).astype(np.int32)[encoded.indices.to_numpy()]
    channels = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(np.sort(held), pa.string()))
    table = table.set_column(SCHEMA.get_field_index("channel"), SCHEMA.field("channel"), channels)
    times = table["time"].to_numpy()
    order = np.argsort(times, kind="stable")
    if (np.diff(times[order]) == 0).any():  # else the time alone decides, which is the rule and much faster
        texts = [
            table[name].fill_null("").to_numpy()
            for name in ("group", "event_id")
            if table[name].null_count < len(table)
        ]
        points = [table[name].to_numpy() for name in reversed(POINT_COLUMNS)]
        order = np.lexsort([*texts, *points, codes, times])
    return table.take(pa.array(order))
