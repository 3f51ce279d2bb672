"""The two sets between the steps, event set and spectrogram set: folders of HDF5 shards with a manifest.

A shard is written whole and carries the fingerprint of the set it belongs to, so a killed run resumes at the missing
shards. The manifest is written last: a folder without one is an unfinished set. Several processes may write one set at
the same time, each its own shards, and more than one may finish it: nothing is removed that another has just written.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import h5py
import numpy as np

from glitchflow_plugin.data.files import content_hash, new_hdf5, read_json, sha256, write_json
from glitchflow_plugin.data.records import EventBatch, SpectrogramBatch
from glitchflow_plugin.errors import ChannelMismatchError, FormatError, NoEventsError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
Kind = Literal["events", "spectrograms"]


@dataclass(frozen=True)
class Shard:
    """One file of a set: its name, the events it holds, and what its bytes must be."""

    file: str
    event_ids: tuple[str, ...]
    num_bytes: int
    sha256: str


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

        A truncated shard cannot be opened. Where the set was finished before, checksums tell of any other damage.
        """
        finished = self._finished()
        known = {} if finished is None else {shard.file: shard.sha256 for shard in finished.manifest.shards}
        pending, replaced = [], 0
        for plan in self._plans:
            path = self._path(plan.index)
            there = path.exists()
            damaged = there and path.name in known and sha256(path) != known[path.name]
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
        shards, rejected = [], {}
        for plan in self._plans:
            path = self._path(plan.index)
            with h5py.File(path, "r") as file:
                rejected.update(json.loads(file.attrs["rejected"]))
                ids = tuple(file["event_id"].asstr()[()])
            if ids:
                shards.append(Shard(path.name, ids, path.stat().st_size, sha256(path)))
        if not shards:
            reasons = sorted(set(rejected.values()))
            raise NoEventsError(
                f"No event is left of {len(self.event_ids)}. Reasons: {'; '.join(reasons[:5]) or 'none'}."
            )
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
            )
        content = read_json(path)
        try:
            shards = tuple(Shard(**{**shard, "event_ids": tuple(shard["event_ids"])}) for shard in content["shards"])
            manifest = Manifest(**{**content, "channels": tuple(content["channels"]), "shards": shards})
        except (KeyError, TypeError) as error:
            raise FormatError(f"{path} is not a manifest of this program ({error}). Make the set again.") from error
        if manifest.kind != cls.kind:
            raise FormatError(f"{folder} holds a set of {manifest.kind}, expected {cls.kind}. Correct the path.")
        for shard in manifest.shards:
            file = folder / shard.file
            found = file.stat().st_size if file.exists() else None
            if found != shard.num_bytes:
                raise FormatError(
                    f"{file}: expected {shard.num_bytes} bytes, found {'nothing' if found is None else found}. "
                    "Run the step that made the set again: only that shard is remade."
                )
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
    def gps_start(self) -> np.ndarray:
        """GPS time of each event's first sample or left edge, s, float64."""
        return self._gathered("gps_start")

    @cached_property
    def gps_event(self) -> np.ndarray:
        """Trigger time of each event, GPS s, float64."""
        return self._gathered("gps_event")

    @cached_property
    def valid(self) -> np.ndarray:
        """Validity mask, bool, shape (event, channel)."""
        return self._gathered("valid")

    def channel_rows(self, channels: Sequence[str]) -> list[int]:
        """Positions of channels on the channel axis.

        Raises:
            ChannelMismatchError: The set lacks some; the message lists them.
        """
        missing = [name for name in channels if name not in self.channels]
        if missing:
            raise ChannelMismatchError(
                f"{self.folder} lacks the channels {missing}. It holds {list(self.channels)}. "
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
            with h5py.File(self.folder / shard.file, "r") as file:
                stored = file["data"]
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

    def _gathered(self, name: str) -> np.ndarray:
        parts = []
        for shard in self.manifest.shards:
            try:
                with h5py.File(self.folder / shard.file, "r") as file:
                    parts.append(file[name][()])
            except OSError as error:
                raise FormatError(
                    f"{self.folder / shard.file} cannot be read ({error}). Run the step that made the set again: only "
                    "that shard is remade."
                ) from error
        return np.concatenate(parts)


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


def _fingerprint(path: Path) -> str | None:
    """Of the set that a shard belongs to; None where there is no shard, or part of one."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("fingerprint"))
    except OSError:
        return None
