"""The order in which windows are visited: seeded, balanced if wished, and such that few maps are in use at a time."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from glitchflow_plugin.data.readers.tables import read_csv
from glitchflow_plugin.errors import ConfigurationError, FormatError

#: A block is put together from at least this many pieces of shards, so that a batch holds windows of several.
_PIECES = 4


@dataclass(frozen=True, eq=False)
class WindowPlaces:
    """Where each window of a data set lies.

    Attributes:
        event: Number of the event that each window is cut from, any integers.
        shard: Number of the shard that holds that event.
        glitch: Whether the window holds a glitch.
        event_bytes: Memory that the data of one event take.
    """

    event: np.ndarray
    shard: np.ndarray
    glitch: np.ndarray
    event_bytes: int

    def __post_init__(self) -> None:
        """Refuse columns of different length."""
        if not len(self.event) == len(self.shard) == len(self.glitch):
            raise FormatError(
                f"expected one event, shard and label a window, got {len(self.event)}, {len(self.shard)} and "
                f"{len(self.glitch)}."
            )


@dataclass(frozen=True, eq=False)
class WindowOrder:
    """Orders of the windows of a data set, one for each epoch.

    An order is a function of these settings and the epoch alone: not of the number of processes or loader workers.
    Where the events of all windows exceed `block_bytes`, pieces of shards are permuted and joined to blocks that fit,
    and windows are permuted within a block: each event is read once an epoch, and no more than a block is in use.

    Attributes:
        places: Where the windows lie.
        shuffle: Draw a new order each epoch; otherwise the order of the index.
        seed: Decides the orders.
        block_bytes: Memory that the events of a block may take.
        weights: How often each window shall come, relative to the others; None: each once.
    """

    places: WindowPlaces
    shuffle: bool = True
    seed: int = 0
    block_bytes: int = 2**62
    weights: np.ndarray | None = field(default=None)

    def __post_init__(self) -> None:
        """Refuse a quoted false, which is a true string: maps were compared with other events' maps through this."""
        if not isinstance(self.shuffle, bool):
            raise ConfigurationError(
                f"expected shuffle to be true or false, got {self.shuffle!r}. Write it without quotes."
            )
        if self.weights is not None and not self.shuffle:
            raise ConfigurationError(
                "a balanced order is drawn anew each epoch: set shuffle_train: true, or balance: none."
            )

    def __call__(self, epoch: int) -> np.ndarray:
        """Numbers of the windows of an epoch, in the order in which all processes together visit them."""
        everything = np.arange(len(self.places.event))
        if not self.shuffle:
            return everything
        generator = np.random.default_rng([self.seed, epoch])
        chosen = everything if self.weights is None else draw(self.weights, generator)
        fit = max(1, self.block_bytes // max(1, self.places.event_bytes))
        mixed = generator.permutation(chosen)
        events = self.places.event[mixed]
        if len(np.unique(events)) <= fit:
            return mixed
        blocks = _blocks(events, self.places.shard[mixed], fit, generator)
        return mixed[np.argsort(blocks, kind="stable")]


def _blocks(events: np.ndarray, shards: np.ndarray, fit: int, generator: np.random.Generator) -> np.ndarray:
    """Number of the block that each window belongs to; a block has at most `fit` events."""
    names, first, inverse = np.unique(events, return_index=True, return_inverse=True)
    shard_of = shards[first]
    # events in a random order within their shards, cut into pieces
    order = generator.permutation(len(names))
    order = order[np.argsort(shard_of[order], kind="stable")]
    size = max(1, fit // _PIECES)
    pieces = [
        members[start : start + size]
        for members in np.split(order, np.flatnonzero(np.diff(shard_of[order])) + 1)
        for start in range(0, len(members), size)
    ]
    block_of = np.empty(len(names), dtype=np.int64)
    block, filled = 0, 0
    for number in generator.permutation(len(pieces)):
        if filled + len(pieces[number]) > fit:
            block, filled = block + 1, 0
        block_of[pieces[number]] = block
        filled += len(pieces[number])
    return block_of[inverse]


def draw(weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw as many windows as there are, each as often as its weight wants, rounded up or down by chance.

    Systematic resampling (Kitagawa 1996, doi:10.1080/10618600.1996.10474692): the spread is below one draw, where that
    of independent draws is about the square root of their number.

    Args:
        weights: How often each window shall come, relative to the others.
        generator: Source of the draws.

    Returns:
        Numbers of windows, len(weights) of them, in no order that means anything.

    Raises:
        ConfigurationError: The weights are negative or all zero.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if not len(weights) or not (weights >= 0).all() or not weights.sum() > 0:
        raise ConfigurationError("expected weights of at least 0, not all 0.")
    order = generator.permutation(len(weights))
    edges = np.cumsum(weights[order])
    marks = np.floor(edges / edges[-1] * len(weights) + generator.uniform()).astype(np.int64)
    # rounding must not cost or give a draw at the end
    marks[edges == edges[-1]] = len(weights)
    return np.repeat(order, np.diff(marks, prepend=0))


def balancing_weights(
    places: WindowPlaces,
    balance: Literal["none", "event", "class"],
    event_ids: np.ndarray,
    labels: Mapping[str, str] | None = None,
) -> np.ndarray | None:
    """Weights of windows for a balanced order.

    Args:
        places: Where the windows lie.
        balance: `none`; `event`: each event counts the same, whatever the number of its windows; `class`: each class
            of glitches counts the same, windows of a class among themselves too.
        event_ids: Event id of each window.
        labels: Class by event id; None: there is one class. Windows without a glitch are a class of their own, and so
            are glitches that the table does not name.

    Returns:
        One number a window; None for `none`.

    Raises:
        ConfigurationError: The balance is unknown, or the table is about other events.
    """
    if balance == "none":
        return None
    if balance == "event":
        groups: np.ndarray = np.asarray(places.event)
    elif balance == "class":
        if labels is not None and not set(map(str, event_ids)) & set(labels):
            raise ConfigurationError(
                f"labels: the table names none of the training events, such as {event_ids[0]}. Correct the path."
            )
        named = np.array([(labels or {}).get(str(name), "") for name in event_ids], dtype=object)
        groups = np.where(places.glitch, np.char.add("glitch ", named.astype(str)), "background")
    else:
        raise ConfigurationError(
            f"expected balance to be none, event or class, got {balance!r}. Correct training.yaml."
        )
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def read_labels(path: Path | str) -> dict[str, str]:
    """Class of each event, from a table with the columns `event_id` and `label`.

    Raises:
        FormatError: The file is no such table, or names an event twice.
    """
    try:
        table = read_csv(path)
    except FormatError as error:
        raise FormatError(f"labels: {error} Expected a CSV file with the columns event_id and label.") from error
    missing = sorted({"event_id", "label"} - set(table))
    if missing:
        raise FormatError(f"labels: {path} lacks the columns {missing}; it has {list(table)}.")
    twice = sorted(name for name, count in Counter(table["event_id"]).items() if count > 1)
    if twice:
        raise FormatError(
            f"labels: {path} names {len(twice)} events more than once, the first is {twice[0]}. Keep one of each."
        )
    return dict(zip(table["event_id"], table["label"], strict=True))
