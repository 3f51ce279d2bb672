"""From triggers to the sets about some times: the triggers of all channels but the strain's own.

Rows of a table become `Points`, which lie in arrays, rising in time; out of these any sets are cut (`Points.about`),
of different length one after another (`Flat`), and padded where a network is to see them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.data.triggers.table import NANOSECONDS, in_order
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Count, Positive, section
from glitchflow_plugin.types.triggers import POINT_FEATURES, UNKNOWN, TriggerSets

_SMALLEST_SNR = 1e-3
_LOGARITHMS = ("q", "duration", "bandwidth")


@section
class SetSettings:
    """What a set holds.

    Attributes:
        window: Triggers within this time of the anchor, s.
        rate_window: Rates are counted within this time of it, s.
        most: Largest number of triggers; of more, the loudest are kept.
        batch: Sets made at once: bounds the memory.
    """

    window: Positive = 0.5
    rate_window: Positive = 64.0
    most: Count = 2000
    batch: Count = 256

    @property
    def near(self) -> int:
        """How far from its anchor a set has triggers, ns."""
        return int(self.window * NANOSECONDS)

    @property
    def reach(self) -> int:
        """How far triggers matter, be it that they are counted, ns."""
        return int(max(self.window, self.rate_window) * NANOSECONDS)


@dataclass(frozen=True)
class Vocabulary:
    """What a model knows by name; indices are places here.

    Attributes:
        channels: Channels but the strain's own; index `UNKNOWN`, 0, is none of them, so the first has index 1.
        kinds: Classes of glitches.
    """

    channels: tuple[str, ...]
    kinds: tuple[str, ...] = ()

    @property
    def num_channels(self) -> int:
        """Indices of channels, UNKNOWN included."""
        return len(self.channels) + 1

    def places(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Index of each channel.

        >>> Vocabulary(("L1:A", "L1:B")).places(["L1:B", "L1:C"])
        array([2, 0])
        """
        known = {name: place for place, name in enumerate(self.channels, start=1)}
        return np.array([known.get(name, UNKNOWN) for name in names], dtype=np.int64)


COLUMNS = ("time", "frequency", "snr", *_LOGARITHMS, "channel")
"""What of the table of triggers a set is made of."""


@dataclass(frozen=True, eq=False)
class Flat:
    """Sets one after another, without padding.

    Attributes:
        points: `POINT_FEATURES` of all triggers, those of the first set first, float32.
        channels: Index of each into the vocabulary.
        counts: Triggers of each set.
        globals_: Of each set, float32.
    """

    points: Float[np.ndarray, "trigger feature"]
    channels: Int[np.ndarray, " trigger"]
    counts: Int[np.ndarray, " set"]
    globals_: Float[np.ndarray, "set global"]

    def __len__(self) -> int:
        """Number of sets."""
        return len(self.counts)

    def __getitem__(self, sets: NDArray[np.int64]) -> "Flat":
        """Some of the sets, in the order asked for."""
        counts = self.counts[sets]
        rows = _ranges((np.cumsum(self.counts) - self.counts)[sets], counts)
        return Flat(self.points[rows], self.channels[rows], counts, self.globals_[sets])

    @classmethod
    def joined(cls, parts: Sequence["Flat"]) -> "Flat":
        """The sets of all parts, those of the first part first."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))

    def padded(self) -> TriggerSets:
        """The sets as tensors, as wide as the largest."""
        width = int(self.counts.max(initial=0))
        mask = np.arange(width) < self.counts[:, None]
        points = np.zeros((*mask.shape, len(POINT_FEATURES)), dtype=np.float32)
        channels = np.full(mask.shape, UNKNOWN, dtype=np.int64)
        points[mask], channels[mask] = self.points, self.channels
        globals_ = torch.from_numpy(self.globals_)
        return TriggerSets(
            torch.from_numpy(points),
            torch.from_numpy(channels),
            torch.from_numpy(mask),
            globals_,
            torch.ones_like(globals_, dtype=torch.bool),
        )


@dataclass(frozen=True, eq=False)
class Points:
    """Triggers of all channels but the strain's own, rising in time.

    Attributes:
        time: GPS ns.
        features: `POINT_FEATURES` but the first, float32; NaN where a format does not know one.
        channels: Index into the vocabulary, int32.
        by_channel: channel x number of triggers + place in `time`, rising: the places of each channel in turn.
    """

    time: Int[np.ndarray, " trigger"]
    features: Float[np.ndarray, "trigger feature"]
    channels: Int[np.ndarray, " trigger"]
    by_channel: Int[np.ndarray, " trigger"]

    @classmethod
    def of(cls, tables: Sequence[pa.Table], vocabulary: Vocabulary, target: str) -> "Points":
        """Those of tables with `COLUMNS`, each in order of time and channel.

        Args:
            tables: For instance one a file.
            vocabulary: Channels by index.
            target: Channel whose triggers are left out.
        """
        held = [table.unify_dictionaries() for table in tables if len(table)]
        names = sorted({name for table in held for name in table["channel"].chunk(0).dictionary.to_pylist()})
        rank = {name: place for place, name in enumerate(names)}
        codes = [_codes(table["channel"], rank) for table in held]
        kept = [np.flatnonzero(one != rank.get(target, -1)) for one in codes]
        time = _gathered(held, kept, "time", np.int64)
        code = np.concatenate([np.zeros(0, np.int32), *(one[rows] for one, rows in zip(codes, kept, strict=True))])
        order = np.argsort(time, kind="stable")
        if (np.diff(time[order]) == 0).any():  # of the same ns: by channel, as in one table
            order = np.lexsort((code, time))
        features = np.empty((len(time), len(POINT_FEATURES) - 1), dtype=np.float32)
        for place, name in enumerate(("frequency", "snr", *_LOGARITHMS)):
            features[:, place] = _scaled(name, _gathered(held, kept, name, np.float64))[order]
        channels = vocabulary.places(names).astype(np.int32)[code[order]] if names else code
        by_channel = np.sort(channels.astype(np.int64) * len(channels) + np.arange(len(channels)), kind="stable")
        return cls(time[order], features, channels, by_channel)

    def about(self, times: Int[np.ndarray, " set"], num_channels: int, settings: SetSettings) -> Flat:
        """The sets about some times, in their order.

        Args:
            times: GPS ns, in any order.
            num_channels: Of the vocabulary, UNKNOWN included.
            settings: What a set holds.
        """
        first = np.searchsorted(self.time, times - settings.near, "left")
        counts = np.searchsorted(self.time, times + settings.near, "right") - first
        rows = _ranges(first, counts)
        if counts.max(initial=0) > settings.most:
            loudness = self.features[:, 1]
            chosen = [_loudest(one, loudness, settings.most) for one in np.split(rows, np.cumsum(counts)[:-1])]
            rows, counts = np.concatenate(chosen), np.minimum(counts, settings.most)
        points = np.empty((len(rows), len(POINT_FEATURES)), dtype=np.float32)
        # differences of whole ns: float32 holds no GPS time
        points[:, 0] = (self.time[rows] - np.repeat(times, counts)) / NANOSECONDS
        points[:, 1:] = self.features[rows]
        rates = self._counts(times, num_channels, int(settings.rate_window * NANOSECONDS))
        return Flat(points, self.channels[rows].astype(np.int64), counts, np.log1p(rates, dtype=np.float32))

    def _counts(self, times: NDArray[np.int64], num_channels: int, reach: int) -> NDArray[np.int64]:
        """Triggers of each known channel within reach of each time, (set, channel)."""
        edges = (np.searchsorted(self.time, times - reach, "left"), np.searchsorted(self.time, times + reach, "right"))
        begin = np.arange(1, num_channels) * len(self.time)
        low, high = (np.searchsorted(self.by_channel, begin + edge[:, None]) for edge in edges)
        return high - low


def trigger_sets(
    triggers: ds.Dataset,
    times: Int[np.ndarray, " set"],
    vocabulary: Vocabulary,
    target: str,
    settings: SetSettings,
) -> Iterator[TriggerSets]:
    """The sets about some times, some at once; only the rows about those are read.

    Globals of a set are ln(1 + number of triggers within the rate window) of each channel of the vocabulary.

    Args:
        triggers: As `open_triggers` gives them.
        times: Rising, GPS ns.
        vocabulary: Channels by index.
        target: Channel whose triggers are left out: they would tell the answer.
        settings: What a set holds.

    Raises:
        ConfigurationError: Times do not rise, or the vocabulary has the target.
    """
    check_asked(times, vocabulary, target)
    for first in range(0, len(times), settings.batch):
        own = times[first : first + settings.batch]
        about = (pc.field("time") >= int(own[0]) - settings.reach) & (pc.field("time") <= int(own[-1]) + settings.reach)
        table = in_order(triggers.to_table(filter=about))
        yield Points.of([table], vocabulary, target).about(own, vocabulary.num_channels, settings).padded()


def check_asked(times: Int[np.ndarray, " set"], vocabulary: Vocabulary, target: str) -> None:
    """See that sets can be made about times in turn, and that none holds its answer.

    Raises:
        ConfigurationError: Times do not rise, or the vocabulary has the target.
    """
    if target in vocabulary.channels:
        raise ConfigurationError(f"expected a vocabulary without the target {target}, whose triggers are the answer.")
    if (np.diff(times) < 0).any():
        raise ConfigurationError("expected rising times of sets. Sort them.")


def _codes(column: pa.ChunkedArray, rank: Mapping[str, int]) -> NDArray[np.int32]:
    """Each row's channel, by the rank of its name."""
    names = column.chunk(0).dictionary.to_pylist()
    places = np.array([rank[name] for name in names], dtype=np.int32)
    return places[np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])]


def _gathered(
    tables: Sequence[pa.Table], rows: Sequence[NDArray[np.int64]], name: str, kind: type[np.generic]
) -> NDArray[Any]:
    """Some rows of a column of all tables; NaN where it is null."""
    parts = [table[name].to_numpy()[own] for table, own in zip(tables, rows, strict=True)]
    return np.concatenate([np.zeros(0, kind), *parts])


def _scaled(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a feature is of a column; NaN where the number is not known, or 0."""
    if name == "frequency":
        return np.log2(values)
    if name == "snr":
        return np.log(np.maximum(values, _SMALLEST_SNR))
    return np.log(np.where(values > 0, values, np.nan))


def _ranges(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers first, first + 1, ..., one range after another."""
    begin = np.cumsum(counts) - counts
    return np.repeat(first - begin, counts) + np.arange(int(counts.sum()))


def _loudest(rows: NDArray[np.int64], loudness: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    return rows if len(rows) <= most else np.sort(rows[np.argsort(-loudness[rows], kind="stable")[:most]])
