"""Times that models of triggers learn from or are asked about, as a table on disk: one row a time, with its labels."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int
from pyarrow import csv

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import FormatError

logger = logging.getLogger(__name__)

PARTS = ("training", "validation", "test")

SCHEMA = pa.schema(
    [
        pa.field("time", pa.int64(), nullable=False, metadata={"unit": "ns", "description": "GPS time"}),
        pa.field("glitch", pa.bool_(), metadata={"description": "whether the strain has a glitch then"}),
        pa.field("class", pa.string(), metadata={"description": "class of the glitch"}),
        pa.field("snr", pa.float64(), metadata={"unit": "1", "description": "SNR of the glitch in the strain"}),
        pa.field("group", pa.string(), metadata={"description": "label shared by what is not independent"}),
        pa.field("part", pa.string(), metadata={"description": "training, validation or test"}),
        pa.field(
            "weight", pa.float64(), metadata={"unit": "1", "description": "what it counts for; undoes a sampling"}
        ),
    ]
)
"""Columns of the table; all but `time` may be empty or left out."""


@dataclass(frozen=True, eq=False)
class Times:
    """Times with what is known of them, by rising time.

    Attributes:
        time: GPS ns.
        glitch: 1, 0, or NaN unknown.
        kind: Class; empty unknown.
        snr: SNR in the strain; NaN unknown.
        group: What is not independent; where none is given, each time is by itself.
        part: One of `PARTS`, or empty.
        weight: What it counts for.
    """

    time: Int[np.ndarray, " time"]
    glitch: Float[np.ndarray, " time"]
    kind: np.ndarray
    snr: Float[np.ndarray, " time"]
    group: np.ndarray
    part: np.ndarray
    weight: Float[np.ndarray, " time"]

    def __len__(self) -> int:
        return len(self.time)

    def of(self, chosen: Bool[np.ndarray, " time"]) -> "Times":
        """Some of the times."""
        return Times(**{name: values[chosen] for name, values in vars(self).items()})


def read_times(path: Path | str) -> Times:
    """Read times from Parquet, or from CSV, where `time` may be in s with decimals.

    Raises:
        FormatError: There is no such file or column, or a value is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path} does not exist. Expected a table of times, Parquet or CSV.").lacking(path)
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else _csv(path)
        return _times(table, path)
    except (pa.ArrowException, ArithmeticError, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no table of times ({error}). Expected the columns {SCHEMA.names}.") from error


def write_times(path: Path | str, columns: Mapping[str, Any]) -> None:
    """Write times as Parquet, whole.

    Args:
        path: The file.
        columns: By name as in `SCHEMA`; what is left out is null, and so is NaN.

    Raises:
        FormatError: A column is unknown or missing.
    """
    unknown = set(columns) - set(SCHEMA.names)
    if unknown or "time" not in columns:
        raise FormatError(f"times: expected a column time and others out of {SCHEMA.names}, got {sorted(columns)}.")
    rows = len(columns["time"])
    made = [
        pa.array(columns[one.name], one.type, from_pandas=True) if one.name in columns else pa.nulls(rows, one.type)
        for one in SCHEMA
    ]
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(made, schema=SCHEMA), temporary)


def _csv(path: Path) -> pa.Table:
    """Times as text, so that no digit of them is lost."""
    texts = csv.ConvertOptions(column_types={"time": pa.string()}, strings_can_be_null=True)
    table = csv.read_csv(path, convert_options=texts)
    if "time" not in table.column_names:
        return table
    seconds = [Decimal(one) for one in table["time"].to_pylist() if one is not None]
    whole = pa.array([round(one * NANOSECONDS) for one in seconds], pa.int64())
    if len(whole) < len(table):
        raise FormatError(f"{path}: expected a GPS time in each row, {len(table) - len(whole)} have none.")
    return table.set_column(table.column_names.index("time"), "time", whole)


def _times(table: pa.Table, path: Path) -> Times:
    if "time" not in table.column_names or table["time"].null_count:
        raise FormatError(f"{path}: expected a GPS time in each row, in a column time, got {table.column_names[:12]}.")
    held = {
        one.name: (table[one.name].cast(one.type) if one.name in table.column_names else pa.nulls(len(table), one.type))
        for one in SCHEMA
    }
    texts = {name: np.array(held[name].fill_null("").to_pylist(), dtype=object) for name in ("class", "group", "part")}
    numbers = {
        name: np.asarray(
            held[name].cast(pa.float64() if name != "glitch" else pa.int8()).cast(pa.float64()).fill_null(missing)
        )
        for name, missing in (("glitch", np.nan), ("snr", np.nan), ("weight", 1.0))
    }
    wrong = sorted({one for one in texts["part"] if one and one not in PARTS})
    if wrong:
        raise FormatError(f"{path}: expected the parts {', '.join(PARTS)} or none, got {wrong[0]!r}.")
    if not (numbers["weight"] >= 0).all() or (numbers["snr"] < 0).any():
        raise FormatError(f"{path}: expected weights and SNRs of at least 0.")
    time = np.asarray(held["time"]).astype(np.int64)
    alone = np.array([f"time {one}" for one in time], dtype=object)
    group = np.where(texts["group"] == "", alone, texts["group"])
    times = Times(time, numbers["glitch"], texts["class"], numbers["snr"], group, texts["part"], numbers["weight"])
    shared = _shared_groups(times)
    if shared:
        raise FormatError(
            f"{path}: the group {shared[0]!r} is in more than one part: a test on it would prove nothing."
        )
    order = np.argsort(time, kind="stable")
    return Times(**{name: values[order] for name, values in vars(times).items()})


def _shared_groups(times: Times) -> list[str]:
    found: dict[str, str] = {}
    return sorted(
        {group for group, part in zip(times.group, times.part, strict=True) if found.setdefault(group, part) != part}
    )
