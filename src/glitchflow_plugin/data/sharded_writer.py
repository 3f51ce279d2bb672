"""How a set is written: shard by shard, by any number of processes, and the manifest last."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from glitchflow_plugin.data.files import HDF5_DAMAGE, content_hash, is_intact, new_hdf5, sha256, write_json
from glitchflow_plugin.data.manifest import FORMAT_VERSION, MANIFEST_NAME, ROWS_NAME, Kind, Manifest, Shard
from glitchflow_plugin.data.records import EventBatch, SpectrogramBatch
from glitchflow_plugin.data.sharded import ROWS, EventSet, SpectrogramSet
from glitchflow_plugin.errors import FormatError, NoEventsError

logger = logging.getLogger(__name__)

_SETS: dict[Kind, type[EventSet] | type[SpectrogramSet]] = {"events": EventSet, "spectrograms": SpectrogramSet}


@dataclass(frozen=True)
class ShardPlan:
    """The events that one shard is to be made from."""

    index: int
    event_ids: tuple[str, ...]


def plan_shards(event_ids: Sequence[str], shard_size: int) -> tuple[ShardPlan, ...]:
    """Consecutive events, so many a shard."""
    starts = range(0, len(event_ids), shard_size)
    return tuple(ShardPlan(i, tuple(event_ids[start : start + shard_size])) for i, start in enumerate(starts))


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
    axes: Mapping[str, object]
    units: str
    recipe: Mapping[str, object]
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
        ids = tuple(self.event_ids)
        set_(self, "_plans", plan_shards(ids, self.shard_size))
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
            if damaged:
                # the manifest, which tells, goes with the first shard that is made; this one must not stay behind
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
            found = _SETS[self.kind].open(self.folder)
        except FormatError:
            return None
        return found if found.manifest.fingerprint == self.fingerprint else None

    def write(
        self,
        plan: ShardPlan,
        batch: EventBatch | SpectrogramBatch | None,
        rejected: Mapping[str, str] | None = None,
        notes: object = None,
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
                    rows.append({name: file[name][()] for name in ROWS})
            if ids:
                shards.append(Shard(path.name, ids, path.stat().st_size, sha256(path), groups))
        if not shards:
            reasons = sorted(set(rejected.values()))
            raise NoEventsError(
                f"No event is left of {len(self.event_ids)}. Reasons: {'; '.join(reasons[:5]) or 'none'}."
            )
        with new_hdf5(self.folder / ROWS_NAME) as file:
            for name in ROWS:
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
        return _SETS[self.kind].open(self.folder)

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


def _fingerprint(path: Path) -> str | None:
    """Of the set that a shard belongs to; None where there is no shard, or part of one."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("fingerprint"))
    except HDF5_DAMAGE:
        return None
