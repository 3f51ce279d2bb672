"""The two sets between the steps, event set and spectrogram set: folders of HDF5 shards with a manifest.

A shard is written whole and carries the fingerprint of the set it belongs to, so a killed run resumes at the missing
shards. The manifest is written last: a folder without one is an unfinished set. Several processes may write one set at
the same time, each its own shards, and more than one may finish it: nothing is removed that another has just written.

Nothing of a shard is believed before its checksum is compared. That takes reading it whole, so it is done once a
handle, when its data are first asked for; what is known of the events beside their data (times, validity) is in one
small file of its own as well, which is compared at every opening.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import h5py
import numpy as np

from glitchflow_plugin.data.files import HDF5_DAMAGE, check_file, read_record, sha256
from glitchflow_plugin.data.manifest import MANIFEST_NAME, ROWS_NAME, Kind, Manifest, Shard
from glitchflow_plugin.data.records import EventBatch, SpectrogramBatch
from glitchflow_plugin.errors import ChannelMismatchError, FormatError, NoEventsError, nearest

ROWS = {"gps_start": np.float64, "gps_event": np.float64, "valid": np.bool_}
"""What is known of each event beside its data, and its type."""
_STEP = "the step that made the set"


Batch = TypeVar("Batch", EventBatch, SpectrogramBatch)


@dataclass(frozen=True, eq=False)
class _ShardedSet(ABC, Generic[Batch]):
    """A set on disk; opening it reads the manifest alone."""

    folder: Path
    manifest: Manifest
    kind: ClassVar[Kind]

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a set.

        Raises:
            FormatError: There is no finished set, it is of another kind, or a shard is missing or truncated.
        """
        folder = Path(folder)
        path = folder / MANIFEST_NAME
        if not path.exists():
            raise FormatError(
                f"{folder} holds no finished {cls.kind} set (no {MANIFEST_NAME}). Run the step that makes it."
            ).lacking(folder)
        manifest = read_record(path, Manifest, _STEP)
        if manifest.kind != cls.kind:
            raise FormatError(f"{folder} holds a set of {manifest.kind}, expected {cls.kind}. Correct the path.")
        for shard in manifest.shards:
            file = folder / shard.file
            found = file.stat().st_size if file.is_file() else None
            if found != shard.num_bytes:
                raise FormatError(
                    f"{file}: expected {shard.num_bytes} bytes, found {'nothing' if found is None else found}. "
                    "Run the step that made the set again: only that shard is remade."
                )
        if manifest.rows_sha256:
            check_file(folder / ROWS_NAME, manifest.rows_sha256, f"{_STEP} (no shard is remade)")
        return cls(folder, manifest)

    def verify(self) -> None:
        """Compare every shard with its checksum.

        Raises:
            FormatError: A shard's bytes have changed.
        """
        for shard in self.manifest.shards:
            self._verify(shard)

    def __len__(self) -> int:
        return len(self.event_ids)

    @property
    def target(self) -> str:
        """The strain channel."""
        return self.manifest.target

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names, target first."""
        return self.manifest.channels

    @property
    def recipe(self) -> dict[str, Any]:
        """How the set was made."""
        return self.manifest.recipe

    @cached_property
    def event_ids(self) -> tuple[str, ...]:
        """Ids of the events, in order."""
        return tuple(event_id for shard in self.manifest.shards for event_id in shard.event_ids)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Label of each event, which it shares with those that it is not independent of; "" if unknown."""
        shards = self.manifest.shards
        return tuple(label for shard in shards for label in shard.groups or ("",) * len(shard.event_ids))

    @cached_property
    def gps_start(self) -> np.ndarray:
        """GPS time of each event's first sample or left edge, s, float64."""
        return self._rows["gps_start"]

    @cached_property
    def gps_event(self) -> np.ndarray:
        """Trigger time of each event, GPS s, float64."""
        return self._rows["gps_event"]

    @cached_property
    def valid(self) -> np.ndarray:
        """Validity mask, bool, shape (event, channel)."""
        return self._rows["valid"]

    def channel_rows(self, channels: Sequence[str]) -> list[int]:
        """Positions of channels on the channel axis.

        Raises:
            ChannelMismatchError: The set lacks some; the message lists them.
        """
        missing = [name for name in channels if name not in self.channels]
        if missing:
            raise ChannelMismatchError(
                f"{self.folder} lacks the channels {missing}.{nearest(missing[0], self.channels)} It holds "
                f"{list(self.channels)}. "
                "Make the set again with these channels, or choose others."
            )
        return [self.channels.index(name) for name in channels]

    def _verify(self, shard: Shard) -> None:
        if sha256(self.folder / shard.file) != shard.sha256:
            raise FormatError(
                f"{self.folder / shard.file} does not match its checksum. Delete it and run the step that made the set "
                "again: only that shard is remade."
            )
        self._verified.add(shard.file)

    @cached_property
    def _verified(self) -> set[str]:
        """Shards whose bytes this handle has compared; a pickled handle takes them along."""
        return set()

    def read(self, rows: np.ndarray | Sequence[int] | None = None, channels: Sequence[str] | None = None) -> Batch:
        """Read events, in the order of `rows` and `channels`; all by default.

        Only the wanted channels are read. A shard's checksum is compared when the handle first reads from it.

        Raises:
            ChannelMismatchError: The set lacks a channel.
            FormatError: A shard's bytes have changed.
            IndexError: A row is out of range.
        """
        wanted = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64).reshape(-1)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows must be within 0..{len(self) - 1}, got {wanted.min()}..{wanted.max()}")
        columns = None if channels is None else self.channel_rows(channels)
        selected, order = _hyperslab(columns)
        data: np.ndarray | None = None
        for shard, first in zip(self.manifest.shards, self._first_rows, strict=True):
            here = np.flatnonzero((wanted >= first) & (wanted < first + len(shard.event_ids)))
            if not here.size:
                continue
            if shard.file not in self._verified:  # once, so that random rows do not pay for it again
                self._verify(shard)
            with self._opened(shard.file) as file:
                stored = _dataset(file, "data", (len(shard.event_ids), *self.manifest.data_shape))
                if data is None:
                    width = stored.shape[1] if columns is None else len(columns)
                    data = np.empty((len(wanted), width, *stored.shape[2:]), stored.dtype)
                for row in here:
                    event = stored[wanted[row] - first, selected]
                    data[row] = event if order is None else event[order]
        if data is None:
            raise NoEventsError(f"no rows asked for in {self.folder}")
        valid = self.valid[wanted]
        return self._batch(
            data,
            event_ids=tuple(self.event_ids[row] for row in wanted),
            gps_start=self.gps_start[wanted],
            gps_event=self.gps_event[wanted],
            valid=valid if columns is None else valid[:, columns],
            groups=tuple(self.groups[row] for row in wanted),
        )

    @abstractmethod
    def _batch(self, data: np.ndarray, **columns: Any) -> Batch:
        """Events of this kind, from their data."""

    def batches(self, max_events: int, channels: Sequence[str] | None = None) -> Iterator[Batch]:
        """All events in order, at most `max_events` in memory at a time."""
        return (self.read(rows, channels) for rows in self._spans(max_events))

    def _spans(self, max_events: int) -> Iterator[np.ndarray]:
        """Consecutive rows, at most `max_events` at a time and never across shards, so that each file is read once."""
        for shard, first in zip(self.manifest.shards, self._first_rows, strict=True):
            last = first + len(shard.event_ids)
            for start in range(first, last, max_events):
                yield np.arange(start, min(start + max_events, last))

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each event by its id."""
        return {event_id: row for row, event_id in enumerate(self.event_ids)}

    @cached_property
    def shard_of_row(self) -> np.ndarray:
        """Number of the shard that holds each event, int64."""
        sizes = [len(shard.event_ids) for shard in self.manifest.shards]
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def _first_rows(self) -> list[int]:
        sizes = [len(shard.event_ids) for shard in self.manifest.shards]
        return [int(first) for first in np.cumsum([0, *sizes[:-1]])]

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """Times and validity of all events."""
        if self.manifest.rows_sha256:
            with self._opened(ROWS_NAME) as file:
                return {name: self._column(file, name, len(self)) for name in ROWS}
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ROWS}
        for shard in self.manifest.shards:
            with self._opened(shard.file) as file:
                for name, found in parts.items():
                    found.append(self._column(file, name, len(shard.event_ids)))
        return {name: np.concatenate(found) for name, found in parts.items()}

    def _column(self, file: h5py.File, name: str, events: int) -> np.ndarray:
        """A small data set of a file, once its shape and type are what they must be, and its times are times."""
        shape = (events, len(self.channels)) if name == "valid" else (events,)
        stored = _dataset(file, name, shape, np.dtype(ROWS[name]))
        values = stored[()]
        if not np.isfinite(values).all():
            raise OSError(f"{name} holds what is no finite number")
        return values

    @contextmanager
    def _opened(self, name: str) -> Iterator[h5py.File]:
        """A file of the set; whatever HDF5 raises at damage is one error."""
        try:
            with h5py.File(self.folder / name, "r") as file:
                yield file
        except HDF5_DAMAGE as error:
            raise FormatError(
                f"{self.folder / name} cannot be read ({error}). Delete it and run {_STEP} again: only that file is "
                "remade."
            ) from error


@dataclass(frozen=True, eq=False)
class EventSet(_ShardedSet[EventBatch]):
    """Conditioned time series of events, on disk."""

    kind: ClassVar[Kind] = "events"

    @property
    def sample_rate(self) -> float:
        """Common sample rate of all channels, Hz."""
        return float(self.manifest.axes["sample_rate"])

    @property
    def num_samples(self) -> int:
        """Samples an event and channel."""
        return int(self.manifest.axes["num_samples"])

    @property
    def duration(self) -> float:
        """Length of an event, s."""
        return self.num_samples / self.sample_rate

    def _batch(self, data: np.ndarray, **columns: Any) -> EventBatch:
        return EventBatch(series=data, **columns)


@dataclass(frozen=True, eq=False)
class SpectrogramSet(_ShardedSet[SpectrogramBatch]):
    """Q-transform maps of events, on disk."""

    kind: ClassVar[Kind] = "spectrograms"

    @cached_property
    def frequencies(self) -> np.ndarray:
        """Centre frequency of each row, Hz, float64."""
        return np.asarray(self.manifest.axes["frequencies"], dtype=np.float64)

    @cached_property
    def times(self) -> np.ndarray:
        """Time of each column, s from `gps_start`, float64."""
        return np.asarray(self.manifest.axes["times"], dtype=np.float64)

    def _batch(self, data: np.ndarray, **columns: Any) -> SpectrogramBatch:
        return SpectrogramBatch(maps=data, **columns)


def _hyperslab(columns: Sequence[int] | None) -> tuple[slice | list[int], np.ndarray | None]:
    """What of the channel axis to read, as HDF5 wants it (rising, each once), and how to arrange it; None: as it is."""
    if columns is None:
        return slice(None), None
    rising, order = np.unique(np.asarray(columns, dtype=np.int64), return_inverse=True)
    arrange = None if np.array_equal(order, np.arange(len(rising))) else order
    if rising.size and rising[-1] - rising[0] == len(rising) - 1:
        return slice(int(rising[0]), int(rising[-1]) + 1), arrange  # one stretch: far cheaper than a list of rows
    return rising.tolist(), arrange


def _dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype | None = None) -> h5py.Dataset:
    """A data set, before anything of it is read. Without a `dtype` it must hold floating-point numbers.

    Raises:
        OSError: It is not there, or of another shape or type.
    """
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset):
        raise OSError(f"there is no data set {name}")
    fits = stored.dtype == dtype if dtype is not None else stored.dtype.kind == "f"
    if stored.shape != shape or not fits:
        raise OSError(f"{name} has shape {stored.shape} and type {stored.dtype}, the manifest asks for {shape}")
    return stored
