"""Tables of what a model says of times, on disk: Parquet, and text whose times are as exact."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.triggers.table import exact_seconds

STEM = "classified"
FORMATS = ("parquet", "csv")
TABLE_NAME = f"{STEM}.{FORMATS[0]}"
"""Name of the table below a result."""

QUIET = "quiet"
"""What a time is called that has no glitch."""

GLITCH = "glitch"
"""What a time is called that has one, where no class is known."""


def said(table: pd.DataFrame) -> NDArray[np.object_]:
    """What a model says of times, in a word each: quiet where a glitch is less likely than none, else its class.

    >>> said(pd.DataFrame({"glitch": [0.2, 0.7], "kind": ["blip", "blip"]}))
    array(['quiet', 'blip'], dtype=object)
    """
    kind = table["kind"].to_numpy(dtype=object) if "kind" in table else GLITCH
    return np.where(table["glitch"].to_numpy() < 0.5, QUIET, kind)


HEADINGS: Mapping[str, str] = {
    "gps": "GPS [s]",
    "said": "said",
    "entropy": "entropy [bit]",
    "glitch": "glitch",
    "false_alarm": "false alarm",
    "share": "class share",
    "snr": "SNR expected",
    "snr_low": "from",
    "snr_high": "to",
    "channel": "loudest channel",
    "triggers": "triggers",
    "unknown_triggers": "of unknown channels",
}
"""Columns of the tables of times and their headings, as far as they are there."""

EXPLAINED = (
    "glitch: probability of one in the strain; where it is below 0.5, the time is said to be quiet. false alarm: share "
    "of quiet times that rank as high. class share: probability of the likeliest class, if it is a glitch. loudest "
    "channel: that of the loudest trigger about the time. entropy: what is not known of the answer, quiet or one of "
    "the classes; 0 where one is certain."
)
"""What these columns are."""


def readable(told: pd.DataFrame) -> pd.DataFrame:
    """A classified table with the other columns of `HEADINGS`: what is `said`, the `share` of its class, and `gps`."""
    shares = [name for name in told if str(name).startswith("kind_")]
    largest = told[shares].max(axis=1) if shares else np.nan
    return told.assign(said=said(told), share=largest, gps=[exact_seconds(one) for one in told["time"]])


def write_classified(tables: Iterable[pa.Table], folder: Path | str, *, text: bool) -> tuple[list[Path], pa.Table]:
    """Write tables one after the other as one, each file whole or not at all.

    Args:
        tables: With the same columns; `time` in GPS ns. One at least.
        folder: Where the files go.
        text: Whether `classified.csv` is wanted beside `classified.parquet`; its times are s with nine decimals.

    Returns:
        What was written, and the columns of numbers that summaries and flags are made of.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{STEM}.{kind}" for kind in FORMATS[: 1 + text]]
    kept: list[pa.Table] = []
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic_path(path)) for path in paths]
        writer: pq.ParquetWriter | None = None
        for table in tables:
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(temporary[0], table.schema, compression="zstd"))
            writer.write_table(table)
            if text:
                frame = table.to_pandas()
                frame["time"] = [exact_seconds(one) for one in table["time"].to_pylist()]
                frame.to_csv(temporary[1], index=False, header=not kept, mode="a" if kept else "w")
            kept.append(table.select([name for name in _KEPT if name in table.column_names]))
    return paths, pa.concat_tables(kept)


_KEPT = ("time", "glitch", "false_alarm", "kind", "triggers", "unknown_triggers")
