"""Continuous data in HDF5 as gwpy lays them out: a dataset a channel with the attributes `x0` and `dx` (s) and `unit`.

`t0` and `sample_rate` are taken in their place, so that our own event files can be cut as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import new_hdf5
from glitchflow_plugin.data.readers.continuous import StoredChannel, StoredFile, slice_bounds
from glitchflow_plugin.errors import FormatError

SUFFIXES = (".h5", ".hdf5", ".hdf")


def describe(path: Path | str) -> StoredFile:
    """Span and channels of a file.

    Raises:
        FormatError: It is truncated or holds no time series.
    """
    with opened(path) as file:
        spans, channels = [], {}
        for name, dataset in _datasets(file):
            t0, rate, unit = _axis(dataset)
            channels[name] = StoredChannel(rate, unit)
            spans.append((t0, t0 + len(dataset) / rate))
    if not channels:
        raise FormatError(f"{path}: no dataset with the attributes x0 and dx (gwpy) or t0 and sample_rate.")
    return StoredFile(Path(path), min(start for start, _ in spans), max(stop for _, stop in spans), channels)


def read(path: Path | str, channels: Sequence[str], start: float, stop: float) -> dict[str, Channel]:
    """Read the samples in [start, stop) GPS s of the channels that the file holds.

    Raises:
        FormatError: The file is truncated.
    """
    found = {}
    with opened(path) as file:
        for name, dataset in _datasets(file):
            if name not in channels:
                continue
            t0, rate, unit = _axis(dataset)
            first, last = slice_bounds(t0, rate, len(dataset), start, stop)
            try:
                series = dataset[first:last]
            except OSError as error:
                raise FormatError(f"{path}: {name} cannot be read ({error}). The file may be truncated.") from error
            found[name] = Channel(name, series, t0 + first / rate, rate, unit)
    return found


def write(path: Path | str, channels: Mapping[str, Channel]) -> None:
    """Write channels so that gwpy's `TimeSeriesDict.read(path)` finds them, whole or not at all."""
    with new_hdf5(path, seal=False) as file:
        for name, channel in channels.items():
            dataset = file.create_dataset(name, data=channel.series)
            dataset.attrs.update(
                name=name,
                channel=name,
                x0=np.float64(channel.t0),
                dx=1 / channel.sample_rate,
                xunit="s",
                unit=channel.unit,
            )


def opened(path: Path | str) -> h5py.File:
    """Open an HDF5 file to read.

    Raises:
        FormatError: It is missing, truncated or no HDF5.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path} cannot be read as HDF5 ({error}). It may be truncated: fetch it again.") from error


def text(value: object) -> str:
    """An attribute or scalar dataset as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    found: list[h5py.Dataset] = []

    def visit(_: str, item: h5py.Dataset | h5py.Group) -> None:
        if not isinstance(item, h5py.Dataset) or item.ndim != 1 or not len(item):
            return
        if {"x0", "dx"} <= set(item.attrs) or {"t0", "sample_rate"} <= set(item.attrs):
            found.append(item)

    file.visititems(visit)
    for dataset in found:
        yield text(dataset.attrs.get("name") or dataset.name.rsplit("/", 1)[-1]), dataset


def _axis(dataset: h5py.Dataset) -> tuple[float, float, str]:
    attributes = dataset.attrs
    if "dx" in attributes:
        # 1/dx is not exact for rates that are no power of two; such rates are whole numbers of hertz
        rate = 1 / float(attributes["dx"])
        rate = float(round(rate)) if abs(rate - round(rate)) < 1e-6 * rate else rate
        return float(attributes["x0"]), rate, text(attributes.get("unit", ""))
    return float(attributes["t0"]), float(attributes["sample_rate"]), text(attributes.get("unit", ""))
