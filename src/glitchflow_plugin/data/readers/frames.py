"""Frame files (GWF), through gwpy and whichever frame library it finds (LALFrame, frameCPP or FrameL)."""

import struct
from collections.abc import Mapping, Sequence
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.readers.continuous import StoredChannel, StoredFile, slice_bounds, span_in_name
from glitchflow_plugin.errors import FormatError, MissingDependencyError

if TYPE_CHECKING:
    from gwpy.timeseries import TimeSeries

SUFFIXES = (".gwf",)


def require_backend() -> None:
    """Refuse to go on without a frame library.

    Raises:
        MissingDependencyError: gwpy finds none.
    """
    from gwpy.io.gwf import get_backend

    try:
        get_backend()
    except ImportError as error:
        raise MissingDependencyError(
            "Frame files (GWF) need a frame library, and none is installed. Run: "
            'pip install "glitchflow_plugin[frames]" '
            "(or convert the data to HDF5, which always works)."
        ) from error


def describe(path: Path | str) -> StoredFile:
    """Span and channel names of a file; rates and units are known only after reading.

    Raises:
        MissingDependencyError: There is no frame library.
        FormatError: The file is truncated or no GWF.
    """
    require_backend()
    _refuse_truncated(Path(path))
    from gwpy.io import gwf

    try:
        names = gwf.get_channel_names(str(path))
        span = span_in_name(path)
        if span is None:
            segments = list(gwf.data_segments([str(path)], names[0]))
            span = (float(segments[0][0]), float(segments[-1][1]))
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        raise FormatError(f"{path} cannot be read as a frame file ({error}). It may be truncated.") from error
    return StoredFile(Path(path), *span, {name: StoredChannel() for name in names})


def read(path: Path | str, channels: Sequence[str], start: float, stop: float) -> dict[str, Channel]:
    """Read the samples in [start, stop) GPS s of the channels that the file holds.

    Raises:
        MissingDependencyError: There is no frame library.
        FormatError: The file is truncated or no GWF.
    """
    require_backend()
    _refuse_truncated(Path(path))
    from gwpy.io import gwf
    from gwpy.timeseries import TimeSeriesDict

    try:
        held = set(gwf.get_channel_names(str(path)))
        names = [name for name in channels if name in held]
        if not names:
            return {}
        # Whole seconds are asked for and cut here: frame libraries round start and end in different ways.
        span = span_in_name(path)
        bounds = {} if span is None else {"start": max(floor(start), span[0]), "end": min(ceil(stop), span[1])}
        series = TimeSeriesDict.read(str(path), names, format="gwf", **bounds)
    except (RuntimeError, OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as a frame file ({error}). It may be truncated.") from error
    return {name: _cut(as_channel(name, series[name]), start, stop) for name in names}


def write(path: Path | str, channels: Mapping[str, Channel]) -> None:
    """Write channels into one frame file, whole or not at all.

    Args:
        path: Should follow `X-TAG-GPSSTART-DURATION.gwf`, by which other programs find its span.
        channels: By name, all over the same span.

    Raises:
        MissingDependencyError: There is no frame library.
    """
    require_backend()
    from gwpy.timeseries import TimeSeries, TimeSeriesDict

    frames = TimeSeriesDict()
    for name, channel in channels.items():
        frames[name] = TimeSeries(
            channel.series, t0=channel.t0, sample_rate=channel.sample_rate, unit=channel.unit, name=name, channel=name
        )
    with atomic_path(path) as temporary:
        frames.write(str(temporary), format="gwf", overwrite=True)


def as_channel(name: str, series: "TimeSeries") -> Channel:
    """One of our channels from gwpy's series."""
    rate = float(series.sample_rate.to("Hz").value)
    rate = float(round(rate)) if abs(rate - round(rate)) < 1e-6 * rate else rate
    unit = "" if series.unit is None else str(series.unit)
    return Channel(
        name, np.asarray(series.value), float(series.t0.value), rate, "" if unit == "dimensionless" else unit
    )


def _refuse_truncated(path: Path) -> None:
    """Compare the size of a file with the one that its last structure states.

    LALFrame ends the whole process (a segmentation fault) when it looks for the table of contents of a truncated file,
    so it must not see one. Layout: LIGO-T970130, structures FrHeader and FrEndOfFile.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(14)
            file.seek(max(size - 46, 0))
            tail = file.read()
    except OSError as error:
        raise FormatError(f"{path} cannot be read as a frame file ({error}).") from error
    if len(head) < 14 or not head.startswith(b"IGWD\0") or len(tail) < 46:
        raise FormatError(f"{path} is no frame file (GWF). Correct `path` or `format` in datasets.yaml.")
    order = "<" if head[12:14] == b"\x34\x12" else ">"
    # bytes from the end of the file to the field nBytes, by version of the format
    offset = 28 if head[5] >= 8 else 24
    (stated,) = struct.unpack(f"{order}Q", tail[-offset : 8 - offset])
    if stated != size:
        raise FormatError(f"{path} holds {size} bytes and does not end as a frame file must: it is truncated.")


def _cut(channel: Channel, start: float, stop: float) -> Channel:
    first, last = slice_bounds(channel.t0, channel.sample_rate, len(channel.series), start, stop)
    t0 = channel.t0 + first / channel.sample_rate
    return Channel(channel.name, channel.series[first:last], t0, channel.sample_rate, channel.unit)
