"""The event layout: a folder with one HDF5 file an event.

In each file one top-level group, named by the event id, holds one dataset per channel with the attributes `t0`
(GPS seconds, float64) and `sample_rate` (Hz), and optionally `unit`. The group may carry `gps_event`, the trigger
time; without it the trigger is the middle of the longest channel; and `group`, a label that it shares with the events
that it is not independent of. Channels may differ in sample rate and length.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.data.apart import apart, shown
from glitchflow_plugin.data.files import new_hdf5
from glitchflow_plugin.data.foreign_hdf5 import (
    gps,
    has,
    member,
    number,
    opened,
    require_series,
    sample_rate,
    samples,
    text_attribute,
)
from glitchflow_plugin.errors import DataError, FormatError

TRUTH_FILE_NAME = "truth.h5"
_SUFFIXES = (".h5", ".hdf5")
_LONGEST = 256.0
"""Longest stretch about the trigger that is read of an event, s."""


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
        if self.series.dtype.kind not in "biuf":
            raise FormatError(
                f"Channel {self.name}: expected samples that are real numbers, got {self.series.dtype}. Of complex "
                "samples store two real channels instead."
            )
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
        group: Events that share it are no independent cases (data/groups.py); empty if unknown.
    """

    event_id: str
    gps_event: float
    channels: dict[str, Channel] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True)
class EventHeader:
    """What an event file holds, without its samples."""

    event_id: str
    gps_event: float
    channels: tuple[str, ...]
    group: str = ""


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


@apart
def is_event_file(path: Path | str) -> bool:
    """Whether an HDF5 file is laid out like this; what stands in it may yet be wrong.

    Raises:
        FormatError: It is truncated, or no HDF5.
    """
    with opened(path) as file:
        try:
            _, group = _only_group(file, path)
        except FormatError:
            return False
        if has(group, "gps_event"):
            return True
        for name in group:
            with suppress(FormatError):
                if has(member(group, name), "t0", "sample_rate"):
                    return True
    return False


@apart
def read_event_header(path: Path | str) -> EventHeader:
    """Read an event file's id, trigger time and channel names.

    Raises:
        FormatError: The file is truncated or not in the event layout.
    """
    with opened(path) as file:
        event_id, group = _only_group(file, path)
        names = tuple(sorted(shown(name) for name in group))
        return EventHeader(event_id, _gps_event(group, path), names, _label(group, path))


@dataclass(frozen=True)
class StoredSpan:
    """GPS span [start, stop) of a channel (s), its rate (Hz) and unit."""

    start: float
    stop: float
    sample_rate: float
    unit: str


@apart
def read_event_spans(path: Path | str) -> tuple[EventHeader, dict[str, StoredSpan], dict[str, str]]:
    """Read where the channels of an event file lie, without their samples.

    Returns:
        Its header; the span of each channel that can be read; and by channel why the others cannot.

    Raises:
        FormatError: The file is truncated or not in the event layout.
    """
    spans, problems = {}, {}
    with opened(path) as file:
        event_id, group = _only_group(file, path)
        for name, span in _spans(group):
            if isinstance(span, FormatError):
                problems[name] = str(span).rstrip(".")
            else:
                spans[name] = span
        names = tuple(sorted({*spans, *problems}))
        return EventHeader(event_id, _gps_event(group, path), names, _label(group, path)), spans, problems


@apart
def read_event_axes(path: Path | str) -> dict[str, tuple[float, str]]:
    """Sample rate (Hz) and unit of the channels of an event file that can be read, by name.

    Raises:
        FormatError: The file is truncated or not in the event layout.
    """
    with opened(path) as file:
        _, group = _only_group(file, path)
        return {name: (span.sample_rate, span.unit) for name, span in _spans(group) if isinstance(span, StoredSpan)}


def _spans(group: h5py.Group) -> Iterator[tuple[str, StoredSpan | FormatError]]:
    """Where each channel of an event lies, or why that cannot be read."""
    for key in group:
        try:
            item = member(group, key)
            t0, rate, unit = _axis(item)
            yield shown(key), StoredSpan(t0, t0 + len(item) / rate, rate, unit)
        except FormatError as error:
            yield shown(key), error


def read_event(path: Path | str, channels: Iterable[str] | None = None) -> RawEvent:
    """Read an event file.

    Args:
        path: The file.
        channels: Names to read; those the file lacks are left out. All by default.

    Raises:
        FormatError: The file is truncated or not in the event layout, or one of the channels cannot be read.
    """
    event, problems = read_usable(path, channels)
    for name, reason in problems.items():
        raise FormatError(f"{shown(path)}: {name}: {reason}.")
    return event


@apart
def read_usable(path: Path | str, channels: Iterable[str] | None = None) -> tuple[RawEvent, dict[str, str]]:
    """Read those channels of an event file that can be read. Of one that is longer, 256 s about the trigger are read.

    Args:
        path: The file.
        channels: Names to read; those the file lacks are left out. All by default.

    Returns:
        The event, and by channel why the others cannot be read.

    Raises:
        FormatError: The file is truncated or not in the event layout.
    """
    with opened(path) as file:
        event_id, group = _only_group(file, path)
        gps_event = _gps_event(group, path)
        keys = {shown(name): name for name in group}
        found, problems = {}, {}
        for name in sorted(keys) if channels is None else [name for name in channels if name in keys]:
            try:
                found[name] = _read_channel(member(group, keys[name]), name, gps_event)
            except FormatError as error:
                problems[name] = str(error).rstrip(".")
        return RawEvent(event_id, gps_event, found, _label(group, path)), problems


def write_event(path: Path | str, event: RawEvent) -> None:
    """Write an event file, whole or not at all."""
    with new_hdf5(path, seal=False) as file:
        group = file.create_group(event.event_id)
        group.attrs["gps_event"] = np.float64(event.gps_event)
        if event.group:
            group.attrs["group"] = event.group
        for name, channel in event.channels.items():
            dataset = group.create_dataset(name, data=channel.series)
            dataset.attrs["t0"] = np.float64(channel.t0)
            dataset.attrs["sample_rate"] = np.float64(channel.sample_rate)
            dataset.attrs["unit"] = channel.unit


def _only_group(file: h5py.File, path: Path | str) -> tuple[str, h5py.Group]:
    groups, refused = {}, []
    for name in file:
        try:
            item = member(file, name)
        except FormatError as error:
            refused.append(f"{shown(name)}: {error}")
            continue
        if isinstance(item, h5py.Group):
            groups[shown(name)] = item
    if len(groups) != 1:
        raise FormatError(
            f"{shown(path)}: expected one top-level group named by the event id, got {sorted(groups)[:5] or 'none'}"
            f"{' (' + '; '.join(refused[:3]) + ')' if refused else ''}."
        )
    return groups.popitem()


def _label(group: h5py.Group, path: Path | str) -> str:
    """The text or number that names the group of an event; empty if there is none."""
    try:
        text = text_attribute(group, "group").strip()
    except FormatError as error:
        raise FormatError(f"{shown(path)}: {error}.") from error
    if not text and has(group, "group"):
        with suppress(FormatError):
            return str(number(group, "group"))
    return text


def _axis(item: h5py.Dataset | h5py.Group) -> tuple[float, float, str]:
    """GPS time of the first sample (s), rate (Hz) and unit of a channel."""
    require_series(item)
    return gps(item, "t0"), sample_rate(item, "sample_rate"), text_attribute(item, "unit")


def _read_channel(item: h5py.Dataset | h5py.Group, name: str, gps_event: float) -> Channel:
    t0, rate, unit = _axis(item)
    size = len(item)
    first, last = 0, size
    if size > _LONGEST * rate:
        first = round(min(max((gps_event - t0 - _LONGEST / 2) * rate, 0), size - _LONGEST * rate))
        last = first + round(_LONGEST * rate)
    return Channel(name, samples(item, first, last), t0 + first / rate, rate, unit)


def _gps_event(group: h5py.Group, path: Path | str) -> float:
    try:
        if has(group, "gps_event"):
            return gps(group, "gps_event")
    except FormatError as error:
        raise FormatError(f"{shown(path)}: {error}.") from error
    spans = []
    reason = "it holds no channel"
    for name in group:
        try:
            item = member(group, name)
            t0, rate, _ = _axis(item)
            spans.append((len(item) / rate, t0 + len(item) / rate / 2, name))
        except FormatError as error:
            reason = f"{shown(name)}: {error}"
    if not spans:
        raise FormatError(f"{shown(path)}: no gps_event, and no channel that tells a time ({reason}).")
    return max(spans)[1]
