"""Classes of glitches from tables of others: which class a trigger of the strain has by its time."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from numpy.typing import NDArray

from glitchflow_plugin.data.readers.tables import peak_nanoseconds
from glitchflow_plugin.data.readers.trigger_files import table_columns, table_kind, trigger_files
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import FormatError

CLASS_COLUMNS = ("kind", "ml_label", "label", "class")
"""Names that the column of classes goes by, the first that is there; `ml_label` is Gravity Spy's."""


def read_classes(path: Path | str, table: str | None = None) -> tuple[Int[np.ndarray, " glitch"], NDArray[np.str_]]:
    """Times (GPS ns, rising) and classes of glitches.

    Args:
        path: A table in any format of `triggers.path`, several, a folder or a pattern.
        table: Its name within the files.

    Raises:
        FormatError: A file cannot be read, or has no column of classes.
    """
    times, classes = [np.zeros(0, np.int64)], [np.zeros(0, np.str_)]
    for file in trigger_files(str(path)):
        columns = table_columns(file, table_kind(file, "auto"), table, list)
        held = next((one for one in CLASS_COLUMNS if one in columns), None)
        if held is None:
            raise FormatError(
                f"{file}: expected a column of classes, one of {list(CLASS_COLUMNS)}, got {list(columns)[:16]}. "
                "Rename it."
            )
        times.append(peak_nanoseconds(columns, file))
        classes.append(np.array(pa.array(columns[held]).cast(pa.string()).fill_null("").to_pylist(), dtype=np.str_))
    joined, names = np.concatenate(times), np.concatenate(classes)
    order = np.argsort(joined, kind="stable")
    return joined[order], names[order]


def classes_near(
    time: Int[np.ndarray, " trigger"],
    known: Int[np.ndarray, " glitch"],
    classes: NDArray[np.str_],
    within: float,
) -> NDArray[np.str_]:
    """The class of the glitch next to each trigger; "" where none is near.

    Args:
        time: Of triggers, GPS ns.
        known: Of glitches with a class, GPS ns, rising.
        classes: Theirs.
        within: How near, s.

    >>> classes_near(np.array([5, 40]) * NANOSECONDS, np.array([4, 8]) * NANOSECONDS, np.array(["a", "b"]), 2.0)
    array(['a', ''], dtype='<U1')
    """
    if not len(known):
        return np.full(len(time), "", dtype="U1")
    after = np.searchsorted(known, time).clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    place = np.where(np.abs(time - known[before]) <= np.abs(known[after] - time), before, after)
    return np.where(np.abs(time - known[place]) <= int(within * NANOSECONDS), classes[place], "")
