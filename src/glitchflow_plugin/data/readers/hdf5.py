"""Continuous data in HDF5 as gwpy lays them out: a dataset a channel with the attributes `x0` and `dx` (s) and `unit`.

`t0` and `sample_rate` are taken in their place, so that our own event files can be cut as well.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.data.apart import apart, shown
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import new_hdf5
from glitchflow_plugin.data.foreign_hdf5 import (
    FASTEST_RATE,
    gps,
    has,
    number,
    opened,
    require_series,
    sample_rate,
    samples,
    text_attribute,
    walk,
)
from glitchflow_plugin.data.readers.continuous import StoredChannel, StoredFile, slice_bounds
from glitchflow_plugin.errors import FormatError

SUFFIXES = (".h5", ".hdf5", ".hdf")

_SECONDS = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    "ms": 1e-3,
    **dict.fromkeys(("us", "µs", "μs"), 1e-6),
    "ns": 1e-9,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
"""Length of what times may be counted in (`xunit`), s."""

_STRING = h5py.string_dtype()
_TEXT, _NUMBER, _ONE = h5py.h5t.py_create(_STRING, logical=True), h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple(())
"""How HDF5 stores a text and a number, and that it is one."""


@apart
def describe(path: Path | str) -> StoredFile:
    """Span and channels of a file; of a channel that cannot be read, neither rate nor unit.

    Raises:
        FormatError: It is truncated or holds no time series.
    """
    spans, channels = [], {}
    problem = "no dataset with the attributes x0 and dx (gwpy) or t0 and sample_rate"
    with opened(path) as file:
        for name, alias, item in _series(file):
            try:
                t0, rate, unit, size = _axis(item)
            except FormatError as error:
                channels[name] = StoredChannel(alias=alias)
                problem = f"{name}: {str(error).rstrip('.')}"
                continue
            channels[name] = StoredChannel(rate, unit, alias)
            spans.append((t0, t0 + size / rate))
    if not spans:
        raise FormatError(f"{shown(path)}: {problem}.")
    return StoredFile(Path(path), min(start for start, _ in spans), max(stop for _, stop in spans), channels)


@apart
def read(path: Path | str, channels: Sequence[str], start: float, stop: float) -> dict[str, Channel]:
    """Read the samples in [start, stop) GPS s of the channels that the file holds.

    Args:
        path: The file.
        channels: Names, or unique aliases, as `describe` tells them.
        start: GPS s.
        stop: GPS s.

    Raises:
        FormatError: The file is truncated, or one of the channels cannot be read.
    """
    found = {}
    with opened(path) as file:
        for name, alias, item in _series(file):
            for asked in {name, alias}.intersection(channels):
                try:
                    t0, rate, unit, size = _axis(item)
                    first, last = slice_bounds(t0, rate, size, start, stop)
                    found[asked] = Channel(asked, samples(item, first, last), t0 + first / rate, rate, unit)
                except FormatError as error:
                    raise FormatError(f"{shown(path)}: {name}: {str(error).rstrip('.')}.") from error
    return found


@apart
def read_attributes(path: Path | str) -> dict[str, str]:
    """Texts that a file as a whole has as attributes.

    Raises:
        FormatError: It is truncated, or no HDF5.
    """
    with opened(path) as file:
        return {name: text_attribute(file, name) for name in file.attrs if isinstance(file.attrs[name], str)}


def write(
    path: Path | str,
    channels: Mapping[str, Channel],
    *,
    attributes: Mapping[str, str] | None = None,
    bits: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write channels so that gwpy's `TimeSeriesDict.read(path)` finds them, whole or not at all.

    Args:
        path: The file.
        channels: By name.
        attributes: What the file says of itself, by name.
        bits: By channel the names of its bits, for gwpy's `StateVector`.
    """
    with new_hdf5(path, seal=False) as file:
        _tell(file, attributes or {})
        for name, channel in channels.items():
            dataset = file.create_dataset(name, data=channel.series)
            axis = {"x0": float(channel.t0), "dx": 1 / channel.sample_rate, "xunit": "s"}
            _tell(dataset, {"name": name, "channel": name, **axis, "unit": channel.unit})
            if name in (bits or {}):
                dataset.attrs["bits"] = np.array((bits or {})[name], dtype=h5py.string_dtype())


def _tell(item: h5py.HLObject, told: Mapping[str, str | float]) -> None:
    """Give a new item attributes, which it has none of yet: `item.attrs` would take four times as long to find out."""
    for name, value in told.items():
        kind, data = (_TEXT, np.array(value, _STRING)) if isinstance(value, str) else (_NUMBER, np.array(value))
        h5py.h5a.create(item.id, name.encode(), kind, _ONE).write(data)


def _series(file: h5py.File) -> list[tuple[str, str | None, h5py.Dataset | FormatError]]:
    """Channel, alias and data set of the time series in a file; an error in place of what cannot be opened.

    The key of a data set names the channel, with the groups above it where the same key stands in several. What gwpy
    keeps as `name` is an alias, if it differs and nothing else in the file is called so.
    """
    found = []
    for path, item in walk(file):
        try:
            if isinstance(item, FormatError) or _is_series(item):
                found.append((path, item))
        except FormatError as error:
            found.append((path, error))
    keys = Counter(path.rsplit("/", 1)[-1] for path, _ in found)
    names = [shown(path if keys[path.rsplit("/", 1)[-1]] > 1 else path.rsplit("/", 1)[-1]) for path, _ in found]
    aliases = [_alias(item) for _, item in found]
    taken = Counter([*aliases, *set(names), *map(shown, keys)])
    return [
        (name, alias if alias and alias != name and taken[alias] == 1 else None, item)
        for name, alias, (_, item) in zip(names, aliases, found, strict=True)
    ]


def _is_series(dataset: h5py.Dataset) -> bool:
    """Whether a data set claims to be a time series; a frequency series has the same attributes, but other units."""
    if has(dataset, "x0", "dx"):
        return text_attribute(dataset, "xunit") in _SECONDS
    return has(dataset, "t0", "sample_rate")


def _alias(item: h5py.Dataset | FormatError) -> str | None:
    if isinstance(item, FormatError):
        return None
    try:
        return text_attribute(item, "name") or None
    except FormatError:
        return None


def _axis(item: h5py.Dataset | FormatError) -> tuple[float, float, str, int]:
    """GPS time of the first sample (s), rate (Hz), unit and number of samples."""
    if isinstance(item, FormatError):
        raise item
    require_series(item)
    if not len(item):
        raise FormatError("it holds no sample")
    unit = text_attribute(item, "unit")
    if not has(item, "x0", "dx"):
        return gps(item, "t0"), sample_rate(item, "sample_rate"), unit, len(item)
    seconds = _SECONDS[text_attribute(item, "xunit")]
    spacing = float(number(item, "dx")) * seconds
    rate = 1 / spacing if spacing > 0 else 0.0
    # 1/dx is not exact for rates that are no power of two; such rates are whole numbers of hertz
    rate = float(round(rate)) if np.isfinite(rate) and abs(rate - round(rate)) < 1e-6 * rate else rate
    if not 0 < rate <= FASTEST_RATE:
        raise FormatError(f"dx must be positive (s between two samples), got {spacing:g} s")
    return gps(item, "x0", seconds), rate, unit, len(item)
