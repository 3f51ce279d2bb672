"""The event layout: a folder with one HDF5 file an event.

In each file one top-level group, named by the event id, holds one dataset per channel with the attributes `t0`
(GPS seconds, float64) and `sample_rate` (Hz), and optionally `unit`. The group may carry `gps_event`, the trigger
time; without it the trigger is the middle of the longest channel. Channels may differ in sample rate and length.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.data.files import new_hdf5
from glitchflow_plugin.errors import DataError, FormatError

TRUTH_FILE_NAME = "truth.h5"
_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, eq=False)
class Channel:
    """One channel of one event as recorded.

    Attributes:
        name: Channel name, for instance `V1:Hrec_hoft_16384Hz`.
        series: Samples, shape (time,), in `unit`.
        t0: GPS time of the first sample, s.
        sample_rate: Hz.
        unit: As the frame or file says; empty if unknown.
    """

    name: str
    series: np.ndarray
    t0: float
    sample_rate: float
    unit: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no time series."""
        if self.series.ndim != 1:
            raise FormatError(f"Channel {self.name}: expected one dimension (time), got shape {self.series.shape}.")
        if not (np.isfinite(self.sample_rate) and self.sample_rate > 0):
            raise FormatError(f"Channel {self.name}: sample_rate must be positive (Hz), got {self.sample_rate}.")
        if not np.isfinite(self.t0):
            raise FormatError(f"Channel {self.name}: t0 must be a GPS time in seconds, got {self.t0}.")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.series) / self.sample_rate


@dataclass(frozen=True, eq=False)
class RawEvent:
    """All channels recorded around one trigger.

    Attributes:
        event_id: Name of the event; data sets are merged on it.
        gps_event: Trigger time, GPS s.
        channels: Channels by name.
    """

    event_id: str
    gps_event: float
    channels: dict[str, Channel] = field(default_factory=dict)


@dataclass(frozen=True)
class EventHeader:
    """What an event file holds, without its samples."""

    event_id: str
    gps_event: float
    channels: tuple[str, ...]


def list_event_files(folder: Path | str) -> list[Path]:
    """Event files of a folder, sorted by name; the simulator's truth file is left out.

    Raises:
        DataError: The folder is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of event files. Correct `path`, or run simulate_pipeline first.")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in _SUFFIXES and path.name != TRUTH_FILE_NAME and not path.name.startswith(".")
    )


def read_event_header(path: Path | str) -> EventHeader:
    """Read an event file's id, trigger time and channel names.

    Raises:
        FormatError: The file is truncated or not in the event layout.
    """
    with _opened(path) as file:
        event_id, group = _only_group(file, path)
        return EventHeader(event_id, _gps_event(group, path), tuple(sorted(group)))


def read_event(path: Path | str, channels: Iterable[str] | None = None) -> RawEvent:
    """Read an event file.

    Args:
        path: The file.
        channels: Names to read; those the file lacks are left out. All by default.

    Raises:
        FormatError: The file is truncated or not in the event layout.
    """
    with _opened(path) as file:
        event_id, group = _only_group(file, path)
        names = sorted(group) if channels is None else [name for name in channels if name in group]
        read = {name: _read_channel(group[name], name, path) for name in names}
        return RawEvent(event_id, _gps_event(group, path), read)


def write_event(path: Path | str, event: RawEvent) -> None:
    """Write an event file, whole or not at all."""
    with new_hdf5(path, seal=False) as file:
        group = file.create_group(event.event_id)
        group.attrs["gps_event"] = np.float64(event.gps_event)
        for name, channel in event.channels.items():
            dataset = group.create_dataset(name, data=channel.series)
            dataset.attrs["t0"] = np.float64(channel.t0)
            dataset.attrs["sample_rate"] = np.float64(channel.sample_rate)
            dataset.attrs["unit"] = channel.unit


def _opened(path: Path | str) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist.") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read as HDF5 ({error}). It may be truncated: fetch it again.") from error


def _only_group(file: h5py.File, path: Path | str) -> tuple[str, h5py.Group]:
    groups = [name for name, item in file.items() if isinstance(item, h5py.Group)]
    if len(groups) != 1:
        raise FormatError(f"{path}: expected one top-level group named by the event id, got {groups or 'none'}.")
    return groups[0], file[groups[0]]


def _read_channel(dataset: h5py.Dataset, name: str, path: Path | str) -> Channel:
    missing = {"t0", "sample_rate"} - set(dataset.attrs)
    if missing:
        raise FormatError(f"{path}: dataset {name} lacks the attributes {sorted(missing)}.")
    unit = dataset.attrs.get("unit", "")
    try:
        series = dataset[()]
    except OSError as error:
        raise FormatError(f"{path}: dataset {name} cannot be read ({error}). The file may be truncated.") from error
    return Channel(
        name=name,
        series=series,
        t0=float(dataset.attrs["t0"]),
        sample_rate=float(dataset.attrs["sample_rate"]),
        unit=unit.decode() if isinstance(unit, bytes) else str(unit),
    )


def _gps_event(group: h5py.Group, path: Path | str) -> float:
    if "gps_event" in group.attrs:
        return float(group.attrs["gps_event"])
    spans = []
    for name, dataset in group.items():
        if {"t0", "sample_rate"} <= set(dataset.attrs) and dataset.ndim == 1:
            duration = len(dataset) / float(dataset.attrs["sample_rate"])
            spans.append((duration, float(dataset.attrs["t0"]) + duration / 2, name))
    if not spans:
        raise FormatError(f"{path}: no channel with the attributes t0 and sample_rate, so no time is known.")
    return max(spans)[1]
