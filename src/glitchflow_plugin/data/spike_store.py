"""Spikes that a scan has found: a folder of small HDF5 files, one a shard of events, so that a killed scan goes on.

Each file holds one dataset a column and two attributes: the fingerprint of everything that decides the spikes, and a
checksum of the columns. A file that is missing, damaged, or of another recipe is made again.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.files import HDF5_DAMAGE, content_hash, new_hdf5, sealed_hdf5
from glitchflow_plugin.data.sharded_writer import ShardPlan, plan_shards
from glitchflow_plugin.errors import FormatError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
#: Stored columns: row of the event and of the channel in the event set, s from the event's left edge, Hz, SNR².
COLUMNS = {"event": "i4", "channel": "i4", "time": "f8", "frequency": "f8", "energy": "f8"}


@dataclass(frozen=True)
class SpikeStore:
    """Spikes of an event set, shard by shard; picklable, so that worker processes can each write theirs.

    Attributes:
        folder: Where the files are.
        recipe: Everything but the events that decides the spikes, JSON-like.
        inputs: Fingerprint of the event set.
        event_ids: All events, in order.
        shard_size: Events a file.
    """

    folder: Path
    recipe: Mapping[str, object]
    inputs: str
    event_ids: tuple[str, ...]
    shard_size: int

    @cached_property
    def plans(self) -> tuple[ShardPlan, ...]:
        """The shards, in order."""
        return plan_shards(self.event_ids, self.shard_size)

    @cached_property
    def fingerprint(self) -> str:
        """Checksum over all that decides the content."""
        return content_hash([dict(self.recipe), self.inputs, self.event_ids, self.shard_size, FORMAT_VERSION])

    def pending(self) -> list[ShardPlan]:
        """Shards that are not there, are damaged, or are of another recipe."""
        return [plan for plan in self.plans if self._read(plan) is None]

    def write(self, plan: ShardPlan, columns: Mapping[str, np.ndarray]) -> None:
        """Write the spikes of one shard, whole or not at all.

        Raises:
            DataError: The disk is full.
        """
        stored = {name: np.ascontiguousarray(columns[name], dtype=kind) for name, kind in COLUMNS.items()}
        with new_hdf5(self._path(plan)) as file:
            file.attrs["fingerprint"] = self.fingerprint
            file.attrs["sha256"] = _checksum(stored)
            for name, column in stored.items():
                file[name] = column

    def read(self) -> dict[str, np.ndarray]:
        """The columns of all shards, in order; what killed runs and larger sets left is removed.

        Raises:
            FormatError: A shard is missing or damaged.
        """
        parts = [self._read(plan) for plan in self.plans]
        missing = [plan.index for plan, part in zip(self.plans, parts, strict=True) if part is None]
        if missing:
            raise FormatError(f"{self.folder}: spikes of the shards {missing[:10]} are missing. Run the scan again.")
        planned = {self._path(plan) for plan in self.plans}
        # All shards are made, so nobody is writing one any more.
        for path in {*self.folder.glob("spikes-*.h5"), *self.folder.glob(".spikes-*.tmp.h5")} - planned:
            path.unlink(missing_ok=True)
        return {name: np.concatenate([part[name] for part in parts if part is not None]) for name in COLUMNS}

    def _path(self, plan: ShardPlan) -> Path:
        return self.folder / f"spikes-{plan.index:05d}.h5"

    def _read(self, plan: ShardPlan) -> dict[str, np.ndarray] | None:
        path = self._path(plan)
        if not path.exists():
            return None
        try:
            with sealed_hdf5(path) as file:
                if file.attrs["fingerprint"] != self.fingerprint:
                    return None
                columns = {name: file[name][()] for name in COLUMNS}
                intact = file.attrs["sha256"] == _checksum(columns)
        except HDF5_DAMAGE:
            intact, columns = False, {}
        if not intact:
            logger.warning("%s is damaged: its spikes are looked for again.", path)
            return None
        return columns


def _checksum(columns: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in COLUMNS:
        digest.update(np.ascontiguousarray(columns[name]).tobytes())
    return digest.hexdigest()
