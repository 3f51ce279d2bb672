"""What travels between the steps in memory: batches of events, checked at birth."""

from dataclasses import dataclass

import numpy as np

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.types.arrays import GpsTimes, MapArray, SeriesArray, ValidityMask


@dataclass(frozen=True, eq=False)
class EventBatch:
    """Conditioned time series of several events.

    Attributes:
        event_ids: One id an event.
        gps_start: GPS time of the first sample, s, shape (event,).
        gps_event: Trigger time, GPS s, shape (event,).
        series: Shape (event, channel, time); channel 0 is the target. Zero where not valid.
        valid: Shape (event, channel).
        groups: One label an event, "" where unknown (data/groups.py); none at all counts as unknown.
    """

    event_ids: tuple[str, ...]
    gps_start: GpsTimes
    gps_event: GpsTimes
    series: SeriesArray
    valid: ValidityMask
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that do not belong together."""
        object.__setattr__(self, "groups", self.groups or ("",) * len(self.event_ids))
        _check(
            self.event_ids, self.gps_start, self.gps_event, self.series, self.valid, groups=self.groups, dimensions=3
        )

    def __len__(self) -> int:
        return len(self.event_ids)


@dataclass(frozen=True, eq=False)
class SpectrogramBatch:
    """Q-transform maps of several events.

    Attributes:
        event_ids: One id an event.
        gps_start: GPS time of the left edge of the maps, s, shape (event,).
        gps_event: Trigger time, GPS s, shape (event,).
        maps: Energy in SNR², shape (event, channel, frequency, time); channel 0 is the target. Zero where not valid.
        valid: Shape (event, channel).
        groups: One label an event, "" where unknown (data/groups.py); none at all counts as unknown.
    """

    event_ids: tuple[str, ...]
    gps_start: GpsTimes
    gps_event: GpsTimes
    maps: MapArray
    valid: ValidityMask
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that do not belong together."""
        object.__setattr__(self, "groups", self.groups or ("",) * len(self.event_ids))
        _check(self.event_ids, self.gps_start, self.gps_event, self.maps, self.valid, groups=self.groups, dimensions=4)

    def __len__(self) -> int:
        return len(self.event_ids)


def _check(
    event_ids: tuple[str, ...],
    gps_start: np.ndarray,
    gps_event: np.ndarray,
    data: np.ndarray,
    valid: np.ndarray,
    *,
    groups: tuple[str, ...],
    dimensions: int,
) -> None:
    if data.ndim != dimensions:
        raise FormatError(f"expected data of {dimensions} dimensions, got shape {data.shape}")
    events, channels = data.shape[:2]
    shapes = {
        "event_ids": ((len(event_ids),), (events,)),
        "gps_start": (gps_start.shape, (events,)),
        "gps_event": (gps_event.shape, (events,)),
        "valid": (valid.shape, (events, channels)),
        "groups": ((len(groups),), (events,)),
    }
    for name, (found, expected) in shapes.items():
        if found != expected:
            raise FormatError(f"{name} has shape {found}, expected {expected} for data of shape {data.shape}")
    if len(set(event_ids)) != events:
        raise FormatError("event ids must be unique within a batch")
    for name, times in (("gps_start", gps_start), ("gps_event", gps_event)):
        if times.dtype != np.float64:
            raise FormatError(f"{name} must be float64 (float32 rounds GPS times to 128 s), got {times.dtype}")
    if valid.dtype != np.bool_:
        raise FormatError(f"valid must be bool, got {valid.dtype}")
