"""The two sets between the steps, event set and spectrogram set: folders of HDF5 shards with a manifest.

A shard is written whole and carries the fingerprint of the set it belongs to, so a killed run resumes at the missing
shards. The manifest is written last: a folder without one is an unfinished set. Several processes may write one set at
the same time, each its own shards, and more than one may finish it: nothing is removed that another has just written.

Nothing of a shard is believed before its checksum is compared. That takes reading it whole, so it is done once a
handle, when its data are first asked for; what is known of the events beside their data (times, validity) is in one
small file of its own as well, which is compared at every opening.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeGuard

import h5py
import numpy as np

from glitchflow_plugin.data.files import (
    check_file,
    content_hash,
    is_intact,
    new_hdf5,
    read_record,
    sha256,
    write_json,
)
from glitchflow_plugin.data.records import EventBatch, SpectrogramBatch
from glitchflow_plugin.errors import ChannelMismatchError, FormatError, NoEventsError, nearest

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
ROWS_NAME = "rows.h5"
_ROWS = {"gps_start": np.float64, "gps_event": np.float64, "valid": np.bool_}
_STEP = "the step that made the set"
Kind = Literal["events", "spectrograms"]


@dataclass(frozen=True)
class Shard:
    """One file of a set: its name, the events it holds, and what its bytes must be.

    Attributes:
        file: Name.
        event_ids: One id an event.
        num_bytes: Size.
        sha256: Checksum.
        groups: One label an event (data/groups.py), "" where unknown; none in sets of earlier versions.
    """

    file: str
    event_ids: tuple[str, ...]
    num_bytes: int
    sha256: str
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no shard."""
        if not re.fullmatch(r"shard-\d{5,}\.h5", self.file):  # never a path that leads out of the folder
            raise FormatError(f"expected a shard named shard-00000.h5 or alike, got {self.file!r}")
        if not self.event_ids or self.num_bytes < 1 or not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise FormatError(f"{self.file}: expected events, a size and a SHA-256 checksum")
        if self.groups and len(self.groups) != len(self.event_ids):
            raise FormatError(
                f"{self.file}: expected a group for each of {len(self.event_ids)}, got {len(self.groups)}"
            )


@dataclass(frozen=True)
class Manifest:
    """What a set holds and how it was made.

    Attributes:
        kind: `events` (time series) or `spectrograms` (maps).
        target: The strain channel; always the first of `channels`.
        channels: Channel names in the order of the channel axis.
        axes: `sample_rate` (Hz) and `num_samples`, or `frequencies` (Hz) and `times` (s from `gps_start`).
        units: Unit of the data.
        recipe: Everything needed to make the same set from the same input.
        shards: The files, in order.
        rejected: Reason by event id for the events that were asked for and are not in the set.
        fingerprint: Checksum over recipe, channels, axes, planned events and input.
        format_version: Version of this layout.
        rows_sha256: Of the file of ids, times and validity of all events; empty in sets of earlier versions.
    """

    kind: Kind
    target: str
    channels: tuple[str, ...]
    axes: dict[str, Any]
    units: str
    recipe: dict[str, Any]
    shards: tuple[Shard, ...]
    rejected: dict[str, str]
    fingerprint: str
    format_version: int = FORMAT_VERSION
    rows_sha256: str = ""

    def __post_init__(self) -> None:
        """Refuse a manifest that contradicts itself."""
        if not self.channels or self.channels[0] != self.target:
            raise FormatError(f"the target {self.target} must be the first channel, got {list(self.channels)[:3]}")
        if len(set(self.channels)) != len(self.channels):
            raise FormatError("channel names must be unique")
        if self.format_version != FORMAT_VERSION:
            raise FormatError(
                f"the set has format version {self.format_version}, this program reads {FORMAT_VERSION}. Make it again."
            )
        ids = [event_id for shard in self.shards for event_id in shard.event_ids]
        if not ids or len({*ids, *self.rejected}) != len(ids) + len(self.rejected):
            raise FormatError("expected events, each in one shard or rejected, got none, or some twice")
        if len({shard.file for shard in self.shards}) != len(self.shards):
            raise FormatError("shards must be different files")
        self.data_shape  # noqa: B018  # the axes are checked where they are used

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of the data of one event: (channel, time) or (channel, frequency, time).

        Raises:
            FormatError: The axes are not those of this kind of set.
        """
        if self.kind == "events":
            rate, number = self.axes.get("sample_rate"), self.axes.get("num_samples")
            if not (_is_number(rate) and _is_number(number) and rate > 0 and number > 0 and number == int(number)):
                raise FormatError(f"expected axes sample_rate > 0 and num_samples >= 1, got {rate!r}, {number!r}")
            return len(self.channels), int(number)
        return len(self.channels), _size(self.axes, "frequencies"), _size(self.axes, "times")


@dataclass(frozen=True)
class ShardPlan:
    """The events that one shard is to be made from."""

    index: int
    event_ids: tuple[str, ...]


@dataclass(frozen=True)
class ShardedWriter:
    """Writes a set shard by shard; picklable, so that worker processes can each write theirs.

    Attributes:
        folder: Where the set goes.
        kind: `events` or `spectrograms`.
        target: The strain channel.
        channels: Channel axis, target first.
        axes: See `Manifest`.
        units: Unit of the data.
        recipe: JSON-like; a set with another recipe in the same folder is replaced.
        event_ids: All events that are asked for, in order.
        shard_size: Events a shard.
        inputs: Fingerprint of the input, so that changed input is noticed.
    """

    folder: Path
    kind: Kind
    target: str
    channels: tuple[str, ...]
    axes: Mapping[str, Any]
    units: str
    recipe: Mapping[str, Any]
    event_ids: tuple[str, ...]
    shard_size: int = 32
    inputs: str = ""
    _plans: tuple[ShardPlan, ...] = field(init=False, repr=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        """Plan the shards."""
        if self.shard_size < 1:
            raise FormatError(f"shard_size must be at least 1, got {self.shard_size}")
        if len(set(self.event_ids)) != len(self.event_ids):
            raise FormatError("event ids must be unique; merge data sets on the event id first")
        set_ = object.__setattr__
        set_(self, "folder", Path(self.folder))
        starts = range(0, len(self.event_ids), self.shard_size)
        ids = tuple(self.event_ids)
        plans = tuple(ShardPlan(i, ids[start : start + self.shard_size]) for i, start in enumerate(starts))
        set_(self, "_plans", plans)
        described = [self.kind, self.target, self.channels, dict(self.axes), self.units, dict(self.recipe), ids]
        set_(self, "fingerprint", content_hash([*described, self.shard_size, self.inputs, FORMAT_VERSION]))

    def pending(self) -> list[ShardPlan]:
        """Shards that are not on disk yet, are damaged, or belong to another recipe or input.

        The checksums of a set that was finished tell of damage; of one that was not, those in the shards.
        """
        finished = self._finished()
        known = {} if finished is None else {shard.file: shard.sha256 for shard in finished.manifest.shards}
        pending, replaced = [], 0
        for plan in self._plans:
            path = self._path(plan.index)
            there = path.exists()
            known_good = known.get(path.name)
            damaged = there and not (is_intact(path) if known_good is None else sha256(path) == known_good)
            if (
                damaged
            ):  # the manifest, which tells, goes with the first shard that is made; this one must not stay behind
                path.unlink(missing_ok=True)
            if damaged or _fingerprint(path) != self.fingerprint:
                pending.append(plan)
                replaced += there
        if replaced:
            logger.warning(
                "%s holds %d shard(s) that are damaged or of another recipe or input: made anew.",
                self.folder,
                replaced,
            )
        return pending

    def _finished(self) -> "EventSet | SpectrogramSet | None":
        """The set in the folder, if it was finished with the same recipe and input, and nothing is missing."""
        try:
            found = _KINDS[self.kind].open(self.folder)
        except FormatError:
            return None
        return found if found.manifest.fingerprint == self.fingerprint else None

    def write(
        self,
        plan: ShardPlan,
        batch: EventBatch | SpectrogramBatch | None,
        rejected: Mapping[str, str] | None = None,
        notes: Any = None,
    ) -> None:
        """Write one shard, whole or not at all, in place of what another recipe left there.

        Args:
            plan: Which shard.
            batch: Its events; None if all were rejected.
            rejected: Reason by event id. Every planned event is in `batch` or here.
            notes: JSON-like extras kept with the shard (quality reports).

        Raises:
            FormatError: Batch, plan and set do not fit each other.
            DataError: The disk is full.
        """
        rejected = dict(rejected or {})
        kept = batch.event_ids if batch is not None else ()
        if sorted([*kept, *rejected]) != sorted(plan.event_ids):
            raise FormatError(f"shard {plan.index}: events kept and rejected must be the planned ones")
        if batch is not None and batch.valid.shape[1] != len(self.channels):
            raise FormatError(f"shard {plan.index}: {batch.valid.shape[1]} channels, the set has {len(self.channels)}")
        # While a shard is missing nobody can finish the set, so a manifest that is here tells of other files.
        (self.folder / MANIFEST_NAME).unlink(missing_ok=True)
        with new_hdf5(self._path(plan.index)) as file:
            file.attrs["fingerprint"] = self.fingerprint
            file.attrs["rejected"] = json.dumps(rejected)
            file.attrs["notes"] = json.dumps(notes)
            file.create_dataset("event_id", data=list(kept), dtype=h5py.string_dtype())
            if batch is not None:
                file.create_dataset("group", data=list(batch.groups), dtype=h5py.string_dtype())
                file["gps_start"], file["gps_event"], file["valid"] = batch.gps_start, batch.gps_event, batch.valid
                file["data"] = batch.series if isinstance(batch, EventBatch) else batch.maps

    def finish(self) -> "EventSet | SpectrogramSet":
        """Write the manifest and open the set.

        Raises:
            FormatError: Shards are missing.
            NoEventsError: Every event was rejected.
        """
        # Whoever made the shards has asked for those that are damaged: their bytes are not read a second time.
        missing = [plan.index for plan in self._plans if _fingerprint(self._path(plan.index)) != self.fingerprint]
        if missing:
            raise FormatError(
                f"{self.folder}: shards {missing[:10]} are missing, or another run has put its own in their place. Run "
                "the step again to make them, and no other on this folder."
            )
        finished = self._finished()
        if finished is not None:
            self._tidy()
            return finished
        shards, rejected, rows = [], {}, []
        for plan in self._plans:
            path = self._path(plan.index)
            with h5py.File(path, "r") as file:
                rejected.update(json.loads(file.attrs["rejected"]))
                ids = tuple(file["event_id"].asstr()[()])
                groups = tuple(file["group"].asstr()[()]) if "group" in file else ()
                if ids:
                    rows.append({name: file[name][()] for name in _ROWS})
            if ids:
                shards.append(Shard(path.name, ids, path.stat().st_size, sha256(path), groups))
        if not shards:
            reasons = sorted(set(rejected.values()))
            raise NoEventsError(
                f"No event is left of {len(self.event_ids)}. Reasons: {'; '.join(reasons[:5]) or 'none'}."
            )
        with new_hdf5(self.folder / ROWS_NAME) as file:
            for name in _ROWS:
                file[name] = np.concatenate([part[name] for part in rows])
        manifest = Manifest(
            kind=self.kind,
            target=self.target,
            channels=tuple(self.channels),
            axes=dict(self.axes),
            units=self.units,
            recipe=dict(self.recipe),
            shards=tuple(shards),
            rejected=rejected,
            fingerprint=self.fingerprint,
            rows_sha256=sha256(self.folder / ROWS_NAME),
        )
        write_json(self.folder / MANIFEST_NAME, asdict(manifest))
        self._tidy()
        return _KINDS[self.kind].open(self.folder)

    def notes(self) -> list[Any]:
        """The notes of all shards on disk, in order."""
        found = []
        for plan in self._plans:
            if self._path(plan.index).exists():
                with h5py.File(self._path(plan.index), "r") as file:
                    found.append(json.loads(file.attrs["notes"]))
        return found

    def _path(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.h5"

    def _tidy(self) -> None:
        """Remove what killed runs and longer sets left. All shards are made, so nobody is writing one any more."""
        ours = {self._path(plan.index) for plan in self._plans}
        for path in (*self.folder.glob("shard-*.h5"), *self.folder.glob(".shard-*.tmp.h5")):
            if path not in ours:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class _ShardedSet:
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

    def _read(self, rows: np.ndarray | Sequence[int] | None, channels: Sequence[str] | None) -> dict[str, Any]:
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
        return {
            "event_ids": tuple(self.event_ids[row] for row in wanted),
            "gps_start": self.gps_start[wanted],
            "gps_event": self.gps_event[wanted],
            "valid": valid if columns is None else valid[:, columns],
            "data": data,
            "groups": tuple(self.groups[row] for row in wanted),
        }

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
                return {name: self._column(file, name, len(self)) for name in _ROWS}
        parts: dict[str, list[np.ndarray]] = {name: [] for name in _ROWS}
        for shard in self.manifest.shards:
            with self._opened(shard.file) as file:
                for name, found in parts.items():
                    found.append(self._column(file, name, len(shard.event_ids)))
        return {name: np.concatenate(found) for name, found in parts.items()}

    def _column(self, file: h5py.File, name: str, events: int) -> np.ndarray:
        """A small data set of a file, once its shape and type are what they must be, and its times are times."""
        shape = (events, len(self.channels)) if name == "valid" else (events,)
        stored = _dataset(file, name, shape, np.dtype(_ROWS[name]))
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
        except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise FormatError(
                f"{self.folder / name} cannot be read ({error}). Delete it and run {_STEP} again: only that file is "
                "remade."
            ) from error


@dataclass(frozen=True, eq=False)
class EventSet(_ShardedSet):
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

    def read(self, rows: np.ndarray | Sequence[int] | None = None, channels: Sequence[str] | None = None) -> EventBatch:
        """Read events, in the order of `rows` and `channels`; all by default.

        Only the wanted channels are read. A shard's checksum is compared when the handle first reads from it.

        Raises:
            ChannelMismatchError: The set lacks a channel.
            FormatError: A shard's bytes have changed.
            IndexError: A row is out of range.
        """
        found = self._read(rows, channels)
        return EventBatch(series=found.pop("data"), **found)

    def batches(self, max_events: int, channels: Sequence[str] | None = None) -> Iterator[EventBatch]:
        """All events in order, at most `max_events` in memory at a time."""
        return (self.read(rows, channels) for rows in self._spans(max_events))


@dataclass(frozen=True, eq=False)
class SpectrogramSet(_ShardedSet):
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

    def read(
        self, rows: np.ndarray | Sequence[int] | None = None, channels: Sequence[str] | None = None
    ) -> SpectrogramBatch:
        """Read events, in the order of `rows` and `channels`; all by default.

        Only the wanted channels are read. A shard's checksum is compared when the handle first reads from it.

        Raises:
            ChannelMismatchError: The set lacks a channel.
            FormatError: A shard's bytes have changed.
            IndexError: A row is out of range.
        """
        found = self._read(rows, channels)
        return SpectrogramBatch(maps=found.pop("data"), **found)

    def batches(self, max_events: int, channels: Sequence[str] | None = None) -> Iterator[SpectrogramBatch]:
        """All events in order, at most `max_events` in memory at a time."""
        return (self.read(rows, channels) for rows in self._spans(max_events))


_KINDS: dict[Kind, type[EventSet] | type[SpectrogramSet]] = {"events": EventSet, "spectrograms": SpectrogramSet}


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


def _size(axes: Mapping[str, Any], name: str) -> int:
    """Length of an axis that is a list of rising numbers.

    Raises:
        FormatError: It is something else.
    """
    axis = axes.get(name)
    if not isinstance(axis, list | tuple) or not axis or not all(map(_is_number, axis)):
        raise FormatError(f"expected the axis {name} as a list of numbers")
    if any(after <= before for before, after in pairwise(axis)):
        raise FormatError(f"expected the axis {name} to rise")
    return len(axis)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fingerprint(path: Path) -> str | None:
    """Of the set that a shard belongs to; None where there is no shard, or part of one."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("fingerprint"))
    except (OSError, RuntimeError, ValueError, TypeError):  # what h5py raises depends on where the damage is
        return None
