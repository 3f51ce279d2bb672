"""HDF5 files of the Gravitational Wave Open Science Center, as they are distributed.

The strain of one detector stands in `strain/Strain`; the channel gets the name it has in GWOSC's frame files, such as
`H1:GWOSC-16KHZ_R1_STRAIN`. The release (R1) stands in the name of the file alone. Missing data are NaN there already.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.data.apart import apart, shown
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.foreign_hdf5 import gps, member, number, opened, require_series, samples
from glitchflow_plugin.data.readers.continuous import StoredChannel, StoredFile, description_in_name, slice_bounds
from glitchflow_plugin.errors import FormatError

SUFFIXES = (".hdf5", ".h5")
UNIT = "strain"


@apart
def is_gwosc(path: Path | str) -> bool:
    """Whether an HDF5 file is laid out like this; False also where it cannot be opened."""
    try:
        with opened(path) as file:
            return all(key in _group(file, group) for group, key in (("strain", "Strain"), ("meta", "Detector")))
    except FormatError:
        return False


def channel_name(detector: str, sample_rate: float, path: Path | str = "", release: int = 1) -> str:
    """Name of the strain channel, for instance `H1:GWOSC-4KHZ_R1_STRAIN`.

    Args:
        detector: Its prefix, `H1`.
        sample_rate: Hz.
        path: File, whose name tells the release: `H-H1_GWOSC_O4a_4KHZ_R2-1384120320-4096.hdf5`. Files of before
            the releases (`H-H1_LOSC_4_V2-...`) have one name for all.
        release: Where the name does not tell it.
    """
    description = description_in_name(path) or Path(path).stem
    if re.search(r"_LOSC_\d+_V\d+$", description):
        return f"{detector}:LOSC-STRAIN"
    told = re.search(r"_R(\d+)(?=_|$)", description)
    return f"{detector}:GWOSC-{sample_rate / 1024:g}KHZ_R{told[1] if told else release}_STRAIN"


@apart
def describe(path: Path | str) -> StoredFile:
    """Span and channel of a file.

    Raises:
        FormatError: It is truncated or in another layout.
    """
    with opened(path) as file:
        name, t0, rate, size = _header(file, path)
    return StoredFile(Path(path), t0, t0 + size / rate, {name: StoredChannel(rate, UNIT)})


@apart
def read(path: Path | str, channels: Sequence[str], start: float, stop: float) -> dict[str, Channel]:
    """Read the samples in [start, stop) GPS s, if the file's channel is among `channels`.

    Raises:
        FormatError: The file is truncated or in another layout.
    """
    with opened(path) as file:
        name, t0, rate, size = _header(file, path)
        if name not in channels:
            return {}
        first, last = slice_bounds(t0, rate, size, start, stop)
        try:
            series = samples(_dataset(file, "strain", "Strain"), first, last)
        except FormatError as error:
            raise FormatError(f"{shown(path)}: the strain: {str(error).rstrip('.')}. Fetch the file again.") from error
    return {name: Channel(name, series, t0 + first / rate, rate, UNIT)}


def _header(file: h5py.File, path: Path | str) -> tuple[str, float, float, int]:
    try:
        strain = _dataset(file, "strain", "Strain")
        require_series(strain)
        named = _dataset(file, "meta", "Detector")
        if named.size != 1:
            raise FormatError("meta/Detector is no text")
        detector = shown(np.asarray(named[()]).item())
        spacing = float(number(strain, "Xspacing"))
        if not spacing > 0:
            raise FormatError(f"Xspacing must be positive (s between two samples), got {spacing:g}")
        rate = float(round(1 / spacing))
        return channel_name(detector, rate, path), gps(strain, "Xstart"), rate, len(strain)
    except FormatError as error:
        raise FormatError(
            f"{shown(path)} is not laid out like a file of GWOSC ({str(error).rstrip('.')}). Correct `format`."
        ) from error


def _group(file: h5py.File, name: str) -> h5py.Group:
    item = member(file, name)
    if not isinstance(item, h5py.Group):
        raise FormatError(f"{name} is no group")
    return item


def _dataset(file: h5py.File, group: str, name: str) -> h5py.Dataset:
    item = member(_group(file, group), name)
    if not isinstance(item, h5py.Dataset):
        raise FormatError(f"{group}/{name} is no data set")
    return item
