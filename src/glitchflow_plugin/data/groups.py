"""Which events are no independent cases: those of one label, else the unlabelled of one block of GPS time.

The label of an event names what it shares with others: the waveform of its glitch, the stretch of strain it lies in.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glitchflow_plugin.data.readers.tables import column_of, read_csv
from glitchflow_plugin.errors import ConfigurationError, FormatError

ID_COLUMN, GROUP_COLUMN = "event_id", "group"

LEAST_GROUPS = 5
"""Independent groups of events below which no interval is given."""


def group_keys(labels: Sequence[str], gps_event: NDArray[np.float64], block_length: float) -> list[str | int]:
    """What the events of one group have in common: their label, or the number of their GPS block.

    Args:
        labels: One an event; "" where nothing is known.
        gps_event: Trigger times, GPS s, shape (event,).
        block_length: Unlabelled events whose trigger times lie in one block of this length (s) are one group: detector
            noise drifts, and neighbours in time are too alike.

    Raises:
        ConfigurationError: `block_length` is no positive number, or there is not one label an event.
    """
    if not (block_length > 0 and math.isfinite(block_length)):
        raise ConfigurationError(f"expected block_length > 0 (s), got {block_length}. Correct split.yaml.")
    if len(labels) != len(gps_event):
        raise ConfigurationError(f"expected one label an event, got {len(labels)} for {len(gps_event)} events.")
    blocks = np.floor(np.asarray(gps_event, dtype=np.float64) / block_length).tolist()
    return [label or int(block) for label, block in zip(labels, blocks, strict=True)]


def group_numbers(labels: Sequence[str], gps_event: NDArray[np.float64], block_length: float) -> NDArray[np.int64]:
    """Number of the group that each event belongs to, consecutive from 0 in the order in which groups appear.

    Args:
        labels: One an event; "" where nothing is known.
        gps_event: Trigger times, GPS s, shape (event,).
        block_length: Unlabelled events whose trigger times lie in one block of this length (s) are one group.

    Returns:
        Shape (event,).

    Raises:
        ConfigurationError: `block_length` is no positive number, or there is not one label an event.

    >>> group_numbers(["blip", "", "", "blip", ""], np.array([0.0, 10.0, 20.0, 900.0, 900.0]), 256.0)
    array([0, 1, 1, 0, 2])
    """
    numbers: dict[str | int, int] = {}
    found = [numbers.setdefault(key, len(numbers)) for key in group_keys(labels, gps_event, block_length)]
    return np.array(found, dtype=np.int64)


def read_groups(path: Path | str) -> dict[str, str]:
    """Labels by event id from a table of text with the columns `event_id` and `group`.

    Events without a label (an empty value) are left out.

    Raises:
        FormatError: The table cannot be read, lacks a column or an id, or gives an event two labels.
    """
    columns = read_csv(path)
    ids, labels = (column_of(columns, name, path) for name in (ID_COLUMN, GROUP_COLUMN))
    if not all(ids):
        raise FormatError(
            f"{path}: {ID_COLUMN} is empty in {ids.count('')} row(s). Give every row the id of its event."
        )
    return one_label_each(zip(ids, labels, strict=True), str(path))


def one_label_each(pairs: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    """The label of each event that has one, from pairs of event id and label.

    Args:
        pairs: May name an event several times; "" says nothing.
        where: They come from, for the message.

    Raises:
        FormatError: An event has two labels.
    """
    given = [(event_id, label) for event_id, label in pairs if label]
    known = dict(reversed(given))
    conflicting = {event_id: label for event_id, label in given if label != known[event_id]}
    if conflicting:
        first, other = next(iter(conflicting.items()))
        raise FormatError(
            f"{where}: expected one group an event, got two for {len(conflicting)} event(s): {first} is of "
            f"{known[first]!r} and of {other!r}. Correct the labels, or give both groups one name if they are one."
        )
    return known
