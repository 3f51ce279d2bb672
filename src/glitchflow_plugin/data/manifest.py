"""What a set of shards holds and how it was made: the manifest, and the checks that it must stand."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeGuard

from glitchflow_plugin.errors import FormatError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
ROWS_NAME = "rows.h5"
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
        rows_sha256: Checksum of the file of ids, times and validity of all events; empty in sets of earlier versions.
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


def _size(axes: Mapping[str, object], name: str) -> int:
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


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
