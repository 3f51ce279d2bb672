"""Parts of HDF5 files from elsewhere, each checked before it is used: links, data sets, numbers, times and texts.

To be called within functions that are marked with `apart.apart`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from glitchflow_plugin.data.apart import explained, require_regular, shown
from glitchflow_plugin.data.readers.tables import is_rounded
from glitchflow_plugin.errors import FormatError

_MOST_SAMPLES = 1 << 24
"""Largest piece of one channel that is read: 256 s at 65536 Hz."""
_LARGEST_CHUNK = 1 << 28
"""Bytes. To read one sample HDF5 unpacks a whole chunk."""
_SLOWEST_RATE, FASTEST_RATE = 1e-6, 1e9
"""Hz. What is beyond is no rate, and overflows."""
_TAKEN = ("unable to lock file", "already open for write")
"""How HDF5 says that a file is sound, and somebody else has it."""
_TIME_STEP = 1e-4
"""s: a time that is stored in coarser steps is not known."""


def opened(path: Path | str) -> h5py.File:
    """Open an HDF5 file to read.

    Raises:
        FormatError: It is missing, no regular file, truncated or no HDF5, or another process writes to it.
    """
    require_regular(path)
    with explained(f"{shown(path)} cannot be read as HDF5"):
        try:
            return h5py.File(path, "r")
        except OSError as error:
            if not any(sign in str(error) for sign in _TAKEN):
                raise
            raise FormatError(
                f"{shown(path)} cannot be opened ({error}). Another process writes to it, or ended while it did "
                "(`h5clear -s FILE` mends that), or the file system does not lock (HDF5_USE_FILE_LOCKING=FALSE in the "
                "environment). Run again when it is closed."
            ) from error


def member(group: h5py.Group, name: str | bytes) -> h5py.Group | h5py.Dataset:
    """A member of a group, if its data stand in this file or in one of the same folder.

    Raises:
        FormatError: A link leads nowhere, in a circle, or to another folder; or the data are damaged, or stand outside
            HDF5 or in another file without a link that says so (external storage, virtual data sets).
    """
    with explained("it cannot be opened, a link may lead nowhere"):
        key = name if isinstance(name, bytes) else name.encode()  # what is no UTF-8, h5py gives as bytes
        kind = group.id.links.get_info(key).type
        if kind == h5py.h5l.TYPE_EXTERNAL:
            home = _file(group).parent
            target = (home / os.fsdecode(group.id.links.get_val(key)[0])).resolve()
            _require_near(target, home)
            require_regular(target)
        item = group[key]
        if kind != h5py.h5l.TYPE_HARD:
            _require_near(_file(item), _file(group).parent)
        if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            raise FormatError("its samples stand in other files (virtual or external storage): copy them in")
        if not isinstance(item, h5py.Group | h5py.Dataset):
            raise FormatError(f"expected a data set, got a {type(item).__name__}")
    return item


def walk(group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset | FormatError]]:
    """Path within the file and data set, for all that is below a group; an error in place of what cannot be used.

    Links are followed as `member` does; a group that several paths lead to is entered once.
    """
    waiting: list[tuple[str, h5py.Group]] = [("", group)]
    entered = set()
    while waiting:
        above, current = waiting.pop()
        info = h5py.h5o.get_info(current.id)
        if (info.fileno, info.addr) in entered:
            continue
        entered.add((info.fileno, info.addr))
        for name in current:
            path = f"{above}{shown(name)}"
            try:
                item = member(current, name)
            except FormatError as error:
                yield path, error
                continue
            if isinstance(item, h5py.Group):
                waiting.append((f"{path}/", item))
            else:
                yield path, item


def number(item: h5py.Group | h5py.Dataset, name: str) -> np.floating | np.integer:
    """An attribute that is one real, finite number (in an array of one, or as text, if need be), in its own type.

    Raises:
        FormatError: It is anything else.
    """
    return _number(_attribute(item, name), name)


def _number(value: Any, name: str) -> np.floating | np.integer:
    if isinstance(value, bytes | str):
        try:
            value = np.float64(shown(value))
        except ValueError:
            raise FormatError(f"{name}: expected a number, got {shown(value)[:40]!r}") from None
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise FormatError(f"{name}: expected a number, got {array.dtype} of shape {array.shape}")
    found = array.reshape(-1)[0]
    if not np.isfinite(found):
        raise FormatError(f"{name}: expected a number, got {found}")
    return found


def gps(item: h5py.Group | h5py.Dataset, name: str, unit: float = 1.0) -> float:
    """An attribute that is a GPS time, s.

    Args:
        item: What has the attribute.
        name: Its name.
        unit: What it is counted in, s.

    Raises:
        FormatError: It is no number, or stored in a type that does not resolve it.
    """
    text = _attribute(item, name)
    value = _number(text, name)
    if isinstance(text, bytes | str) and is_rounded(shown(text)):
        raise FormatError(
            f"{name}: the time {shown(text)[:40]} is rounded to whole seconds or worse; expected GPS seconds as float64"
        )
    step = unit * float(np.spacing(np.abs(value) if value.dtype.kind == "f" else np.float64(abs(float(value)))))
    if not step <= _TIME_STEP:
        raise FormatError(
            f"{name}: the time {float(value):.10g} is stored as {value.dtype} and known to {step:.3g} s only; expected "
            "GPS seconds as float64"
        )
    # thousands to a second: the product with 0.001 would be rounded twice
    return float(value) * unit if unit >= 1 else float(value) / round(1 / unit)


def sample_rate(item: h5py.Group | h5py.Dataset, name: str) -> float:
    """An attribute that is a sample rate, Hz.

    Raises:
        FormatError: It is no positive number.
    """
    rate = float(number(item, name))
    if not _SLOWEST_RATE <= rate <= FASTEST_RATE:
        raise FormatError(f"{name} must be positive (Hz, at most {FASTEST_RATE:g}), got {rate:g}")
    return rate


def text_attribute(item: h5py.Group | h5py.Dataset, name: str) -> str:
    """A text attribute; empty if there is none, or something that is no text.

    Raises:
        FormatError: It is damaged, or there are several texts.
    """
    value = _attribute(item, name, missing="")
    value = value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return shown(value) if isinstance(value, bytes | str) else ""


def samples(dataset: h5py.Dataset, first: int, last: int) -> np.ndarray:
    """Samples [first, last) of a data set of one dimension and a real type.

    Raises:
        FormatError: It is not like this, or damaged, or that is more than is ever needed.
    """
    require_series(dataset)
    if last - first > _MOST_SAMPLES:
        raise FormatError(
            f"{last - first} samples are asked for, at most {_MOST_SAMPLES} are read of a channel: is the rate right?"
        )
    chunk = int(np.prod(dataset.chunks, dtype=float)) * dataset.dtype.itemsize if dataset.chunks else 0
    if chunk > _LARGEST_CHUNK:
        raise FormatError(f"its chunks hold {chunk} bytes, expected at most {_LARGEST_CHUNK}: store it in smaller ones")
    with explained("its samples cannot be read"):
        return dataset[first:last]


def require_series(item: h5py.Group | h5py.Dataset) -> None:
    """Refuse what holds no real numbers along one dimension.

    Raises:
        FormatError: It is a group, has another number of dimensions, or complex, compound or other values.
    """
    if not isinstance(item, h5py.Dataset):
        raise FormatError("expected a data set, got a group")
    with explained("its type is not known"):
        dtype, shape = item.dtype, item.shape
    if dtype.kind == "c":
        raise FormatError(f"its samples are complex ({dtype}): store two real channels instead")
    if dtype.kind not in "biuf" or dtype.subdtype:
        raise FormatError(f"expected samples that are real numbers, got {shown(dtype)[:80]}")
    if shape is None or len(shape) != 1:
        raise FormatError(f"expected one dimension (time), got shape {shape}")


def has(item: h5py.Group | h5py.Dataset, *names: str) -> bool:
    """Whether there are attributes of these names.

    Raises:
        FormatError: The attributes are damaged.
    """
    with explained("its attributes cannot be read"):
        return all(h5py.h5a.exists(item.id, name.encode()) for name in names)


def _attribute(item: h5py.Group | h5py.Dataset, name: str, missing: str | None = None) -> Any:
    """An attribute of one value; `missing` (None: an error) where there is none."""
    with explained(f"{name} cannot be read"):
        try:
            found = h5py.h5a.open(item.id, name.encode())
        except KeyError:
            if has(item, name):
                raise
            if missing is not None:
                return missing
            raise FormatError(f"lacks the attribute {name}") from None
        size = found.get_space().get_simple_extent_npoints()
        if size > 1:  # an attribute can be a bomb like a data set
            raise FormatError(f"{name}: expected one value, got {size}")
        dtype = found.dtype
        text = h5py.check_string_dtype(dtype)
        if not size or not (dtype.kind in "iuf" or (text and text.length is None)):
            return item.attrs[name]
        value = np.empty(found.shape, dtype)
        found.read(value)
        return value.reshape(-1)[0] if text else value


def _file(item: h5py.Group | h5py.Dataset) -> Path:
    """The file that an item stands in."""
    return Path(os.fsdecode(h5py.h5f.get_name(item.id))).resolve()


def _require_near(path: Path, home: Path) -> None:
    if path.parent != home:
        raise FormatError(f"it is a link to {shown(path)}, outside the folder of the file: copy the data in")
