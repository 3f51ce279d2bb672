"""Which events a twin has seen in training or validation, told by when they were and what they hold."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.splits import Split
from glitchflow_plugin.types.arrays import MapArray

#: Blocks of a map, rows and columns, whose mean energies tell it from all others.
_BLOCKS = (4, 8)
#: Steps in the logarithm of a mean energy: far above rounding on another machine, below what differs between maps.
_STEP = 0.02


@dataclass(frozen=True, eq=False)
class SeenEvents:
    """Events of a twin's training and validation.

    Attributes:
        spans: First and last GPS time of each event's maps, s, (event, 2).
        contents: Checksums of what their strain holds.
        told: Whether more than the times of the whole set is known.
    """

    spans: NDArray[np.float64]
    contents: frozenset[str]
    told: bool = True

    @classmethod
    def of(cls, split: Split, maps: SpectrogramSet) -> "SeenEvents":
        """Those of a split's parts `train` and `validation`."""
        parts = [split.part(name) for name in ("train", "validation")]
        spans = np.concatenate([np.stack([part.gps_start, part.gps_stop], axis=1) for part in parts])
        return cls(spans, frozenset(contents(maps, [event for part in parts for event in part.event_ids])) - {""})

    @classmethod
    def from_notes(cls, notes: Mapping[str, Any]) -> "SeenEvents | None":
        """Those of a bundle.

        Bundles of earlier versions say from when to when their data set lasts: all of that counts as seen, and what
        their events hold is not known. None where not even that is said.
        """
        seen = notes.get("seen_events")
        if isinstance(seen, Mapping):
            spans = np.asarray(seen.get("gps", ()), dtype=np.float64).reshape(-1, 2)
            return cls(spans, frozenset(map(str, seen.get("contents", ()))))
        whole = notes.get("gps")
        if not isinstance(whole, Sequence) or len(whole) != 2:
            return None
        return cls(np.asarray([whole], dtype=np.float64), frozenset(), told=False)

    def to_notes(self) -> dict[str, Any]:
        """For a bundle."""
        return {"seen_events": {"gps": self.spans.tolist(), "contents": sorted(self.contents)}}

    def among(
        self, gps_start: NDArray[np.float64], gps_stop: NDArray[np.float64], contents: Sequence[str]
    ) -> NDArray[np.bool_]:
        """Which of some events it has seen: at an overlapping time, or with the same content at another.

        Args:
            gps_start: Left edges, GPS s, (event,).
            gps_stop: Right edges, GPS s, (event,).
            contents: Checksums of what the events hold, from `contents`.
        """
        # an event is seen where more spans have begun before its end than have ended at its start
        starts, stops = np.sort(self.spans[:, 0]), np.sort(self.spans[:, 1])
        begun = np.searchsorted(starts, gps_stop, side="left")
        over = np.searchsorted(stops, gps_start, side="right")
        return (begun > over) | np.array([content in self.contents for content in contents], dtype=bool)


def contents(maps: SpectrogramSet, event_ids: Sequence[str], batch_events: int = 64) -> list[str]:
    """Checksum of what the strain of each event holds; empty where it is not valid.

    Args:
        maps: The set.
        event_ids: Events of it.
        batch_events: Events in memory at a time.
    """
    rows = [maps.row_of[event_id] for event_id in event_ids]
    found: list[str] = []
    for first in range(0, len(rows), batch_events):
        batch = maps.read(rows[first : first + batch_events], channels=[maps.target])
        strain = zip(batch.maps[:, 0], batch.valid[:, 0], strict=True)
        found += [content_of(each) if valid else "" for each, valid in strain]
    return found


def content_of(energies: MapArray) -> str:
    """Checksum of a map that does not change with the last digits, which differ between machines.

    Args:
        energies: SNR², (frequency, time).
    """
    blocks = [np.array_split(rows, _BLOCKS[1], axis=1) for rows in np.array_split(energies, _BLOCKS[0], axis=0)]
    means = np.array([[block.mean(dtype=np.float64) for block in row] for row in blocks])
    steps = np.round(np.log(np.maximum(means, 1e-6)) / _STEP).astype("<i4")
    return hashlib.sha256(steps.tobytes()).hexdigest()[:16]
