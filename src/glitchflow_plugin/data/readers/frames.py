"""Frame files (GWF), through LALFrame.

A file is opened once and its table of contents read once for all its channels; each frame's samples then come straight
from where the table says. LALFrame's streams, which gwpy reads through, search the table again for every channel, take
any hole in a file for the end of the data, and any path for a URL.
"""

import errno
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from glitchflow_plugin.data.apart import apart
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.readers.continuous import StoredChannel, StoredFile, slice_bounds, span_in_name
from glitchflow_plugin.errors import FormatError, MissingDependencyError

if TYPE_CHECKING:
    from gwpy.timeseries import TimeSeries

SUFFIXES = (".gwf",)

_PROBES = 8
"""Channels that are tried in search of a sound one; a file without one among them is damaged."""


def require_backend() -> None:
    """Refuse to go on without a frame library.

    Raises:
        MissingDependencyError: LALFrame is not installed.
    """
    try:
        import lalframe  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "Frame files (GWF) need a frame library, LALFrame, and it is not installed. Run: "
            'pip install "glitchflow_plugin[frames]" '
            "(or convert the data to HDF5, which always works)."
        ) from error


def load_writer() -> None:
    """Import what `write` needs, which takes seconds.

    Raises:
        MissingDependencyError: There is no frame library.
    """
    require_backend()
    import gwpy.io.gwf.lalframe
    import gwpy.timeseries  # noqa: F401


def describe(path: Path | str) -> StoredFile:
    """Span and channel names of a file; rates and units are known only after reading.

    Raises:
        MissingDependencyError: There is no frame library.
        FormatError: The file is truncated or no GWF.
    """
    require_backend()
    return _describe(path)


@apart
def _describe(path: Path | str) -> StoredFile:
    with _opened(path) as file:
        if not file.names or not file.spans:
            raise FormatError(f"{path} is a frame file without a channel. Take it out of the data set.")
        span = span_in_name(path) or (min(start for start, _ in file.spans), max(stop for _, stop in file.spans))
        return StoredFile(Path(path), *span, {name: StoredChannel() for name in file.names})


def read_axes(path: Path | str, channels: Sequence[str]) -> dict[str, StoredChannel]:
    """Rate and unit of channels, from the first frame that has them; of one that cannot be read, neither.

    Raises:
        MissingDependencyError: There is no frame library.
        FormatError: The file is truncated or no GWF.
    """
    require_backend()
    return _read_axes(path, channels)


@apart
def _read_axes(path: Path | str, channels: Sequence[str]) -> dict[str, StoredChannel]:
    with _opened(path) as file:
        return {name: file.axis(name) for name in channels if name in file.names}


def read(path: Path | str, channels: Sequence[str], start: float, stop: float) -> dict[str, list[Channel]]:
    """Read the samples in [start, stop) GPS s of the channels that the file holds.

    Returns:
        For each of them its pieces, one from each frame: they need not touch, and there is none where all of
        [start, stop) lies in a hole of the file.

    Raises:
        MissingDependencyError: There is no frame library.
        FormatError: The file is truncated, damaged or no GWF, or a channel is damaged or holds no real numbers.
    """
    require_backend()
    return _read(path, channels, start, stop)


@apart
def _read(path: Path | str, channels: Sequence[str], start: float, stop: float) -> dict[str, list[Channel]]:
    with _opened(path) as file:
        pieces: dict[str, list[Channel]] = {name: [] for name in channels if name in file.names}
        for position, (first, last) in enumerate(file.spans):
            if last <= start or first >= stop:
                continue
            for name, parts in pieces.items():
                if (series := file.series(name, position)) is not None:
                    parts.append(_cut(name, series, start, stop))
    return pieces


def write(path: Path | str, channels: Mapping[str, Channel], *, history: Mapping[str, str] | None = None) -> None:
    """Write channels into one frame, whole or not at all.

    Args:
        path: Should follow `X-TAG-GPSSTART-DURATION.gwf`, by which other programs find its span.
        channels: By name, all over the same span.
        history: Records of where it comes from (FrHistory), by name.

    Raises:
        MissingDependencyError: There is no frame library.
        DataError: The disk is full or the folder cannot be written.
    """
    require_backend()
    import lalframe
    from gwpy.io.gwf import lalframe as gwpy_frames
    from gwpy.timeseries import TimeSeries
    from gwpy.utils.lal import LAL_TYPE_STR_FROM_NUMPY

    start = min(channel.t0 for channel in channels.values())
    stop = max(channel.t0 + channel.duration for channel in channels.values())
    detectors = {name.partition(":")[0] for name in channels}
    frame = gwpy_frames.create_frame(start, stop - start, "glitchflow", 0, 0, detectors)
    for name, channel in channels.items():
        series = TimeSeries(
            channel.series, t0=channel.t0, sample_rate=channel.sample_rate, unit=channel.unit, name=name, channel=name
        )
        kind = LAL_TYPE_STR_FROM_NUMPY[series.dtype.type]
        getattr(lalframe, f"FrameAdd{kind}TimeSeriesProcData")(frame, series.to_lal())
    for name, text in (history or {}).items():
        record = lalframe.FrameUFrHistoryAlloc(name, int(start), text)
        lalframe.FrameUFrameHFrHistoryAdd(frame, record)
    with atomic_path(path) as temporary:
        try:
            gwpy_frames.write_frames(str(temporary), [frame])
            # the library does not tell where the disk is full only when it closes the file
            whole = lalframe.FrameUFileCksumValid(lalframe.FrameUFrFileOpen(str(temporary), "r"))
        except RuntimeError:
            whole = False
        if not whole:
            raise OSError(errno.EIO, "the frame library could not write all of it; the disk may be full")


def as_channel(name: str, series: "TimeSeries") -> Channel:
    """One of our channels from gwpy's series."""
    return Channel(
        name,
        np.asarray(series.value),
        float(series.t0.value),
        _whole(float(series.sample_rate.to("Hz").value)),
        "" if series.unit is None else _unit_text(series.unit),
    )


@contextmanager
def _opened(path: Path | str) -> Iterator["_FrameFile"]:
    """Open a frame file if it is whole, and turn what LALFrame raises into our error.

    LALFrame takes a path for a URL, or for several; an open file has a name that it takes as it is.
    """
    import lal

    path = Path(path)
    level = lal.GetDebugLevel()
    try:
        with path.open("rb") as file:
            refuse_truncated(path, file)
            file.seek(0)
            # what goes wrong is told by the exception; LAL would print it as well
            lal.ClobberDebugLevel(level & ~(lal.LALERRORBIT | lal.LALWARNINGBIT))
            yield _FrameFile(f"/dev/fd/{file.fileno()}")
    except (RuntimeError, OSError) as error:
        raise FormatError(
            f"{path} cannot be read as a frame file ({error}). If it is damaged, fetch it again; a channel that is no "
            "series of real numbers is left out by `channels.exclude`."
        ) from error
    finally:
        lal.ClobberDebugLevel(level)


class _FrameFile:
    """An open frame file.

    Attributes:
        names: Its channels, each once.
        spans: GPS span [start, stop) of each of its frames, s.
    """

    def __init__(self, source: str) -> None:
        import lal
        import lalframe

        self._source = source
        self._file = lalframe.FrFileOpenURL(source)
        self._handle = lalframe.FrameUFrFileOpen(source, "r")  # the table lives as long as its handle
        self._table = lalframe.FrameUFrTOCRead(self._handle)
        self.names = dict.fromkeys(name for kind in ("Adc", "Proc", "Sim") for name in self._listed(kind))
        self.spans: list[tuple[float, float]] = []
        for position in range(lalframe.FrFileQueryNFrame(self._file)):
            start = float(lalframe.FrFileQueryGTime(lal.LIGOTimeGPS(), self._file, position))
            self.spans.append((start, start + lalframe.FrFileQueryDt(self._file, position)))

    def _listed(self, kind: str) -> Iterator[str]:
        import lalframe

        name_of = getattr(lalframe, f"FrameUFrTOCQuery{kind}Name")
        for index in range(getattr(lalframe, f"FrameUFrTOCQuery{kind}N")(self._table)):
            yield name_of(self._table, index)

    def series(self, name: str, position: int) -> Any:
        """LAL's series of a channel in one frame; None where the frame lacks the channel."""
        import lalframe
        from gwpy.utils.lal import LAL_TYPE_STR

        try:
            kind = LAL_TYPE_STR.get(lalframe.FrFileQueryChanType(self._file, name, position), "characters")
        except RuntimeError:
            if self._lacks(name, position):
                return None
            raise RuntimeError(f"{name} fails its checksum") from None
        if not kind.startswith(("INT", "UINT", "REAL")):
            raise RuntimeError(f"{name} holds {kind}, expected real numbers")
        return getattr(lalframe, f"FrFileRead{kind}TimeSeries")(self._file, name, position)

    def axis(self, name: str) -> StoredChannel:
        """Rate and unit of a channel, without its samples."""
        import lalframe
        from gwpy.utils.lal import LAL_TYPE_STR

        for position in range(len(self.spans)):
            try:
                kind = LAL_TYPE_STR.get(lalframe.FrFileQueryChanType(self._file, name, position), "")
                if not kind.startswith(("INT", "UINT", "REAL")):
                    break
                head = getattr(lalframe, f"FrFileRead{kind}TimeSeriesMetadata")(self._file, name, position)
            except RuntimeError:  # this frame lacks it, or it is damaged there
                continue
            return StoredChannel(_whole(1 / head.deltaT), _unit(str(head.sampleUnits)))
        return StoredChannel()

    def _lacks(self, name: str, position: int) -> bool:
        """Whether a channel that cannot be read from a frame is just not there: LALFrame says the same of damage.

        A checksum that fails spoils whatever is read through the same handle afterwards.
        """
        import lalframe

        def readable(handle: Any, channel: str, frame: int) -> bool:
            try:
                lalframe.FrameUFrChanRead(handle, channel, frame)
            except RuntimeError:
                return False
            return True

        pairs = ((channel, frame) for frame in range(len(self.spans)) for channel in self.names)
        for other in islice(pairs, _PROBES):
            if other != (name, position) and readable(lalframe.FrameUFrFileOpen(self._source, "r"), *other):
                probe = lalframe.FrameUFrFileOpen(self._source, "r")
                readable(probe, name, position)
                return readable(probe, *other)
        return False


def refuse_truncated(path: Path, file: IO[bytes]) -> None:
    """Compare the size of a file with the one that its last structure states.

    LALFrame ends the whole process (a segmentation fault) when it looks for the table of contents of a truncated file,
    so it must not see one. Layout: LIGO-T970130, structures FrHeader and FrEndOfFile.

    Args:
        path: The file, for the message.
        file: The same, open.

    Raises:
        FormatError: It is truncated, or no GWF.
    """
    head = file.read(14)
    size = file.seek(0, 2)
    file.seek(max(size - 46, 0))
    tail = file.read()
    if len(head) < 14 or not head.startswith(b"IGWD\0") or len(tail) < 46:
        raise FormatError(f"{path} is no frame file (GWF). Correct `path` or `format` in datasets.yaml.")
    order = "<" if head[12:14] == b"\x34\x12" else ">"
    # bytes from the end of the file to the field nBytes, by version of the format
    offset = 28 if head[5] >= 8 else 24
    (stated,) = struct.unpack(f"{order}Q", tail[-offset : 8 - offset])
    if stated != size:
        raise FormatError(f"{path} holds {size} bytes and does not end as a frame file must: it is truncated.")


def _cut(name: str, series: Any, start: float, stop: float) -> Channel:
    """Our channel from the part of LAL's series in [start, stop) GPS s."""
    values = np.empty(0) if series.data is None else series.data.data
    t0, rate = float(series.epoch), _whole(1 / series.deltaT)
    first, last = slice_bounds(t0, rate, len(values), start, stop)
    # copied: a view would keep the whole frame in memory
    return Channel(name, values[first:last].copy(), t0 + first / rate, rate, _unit(str(series.sampleUnits)))


@lru_cache(maxsize=1024)
def _unit(text: str) -> str:
    """A unit of LAL as gwpy writes it."""
    import lal
    from gwpy.timeseries import TimeSeries
    from gwpy.utils.lal import from_lal_unit

    return _unit_text(TimeSeries([], unit=from_lal_unit(lal.Unit(text))).unit)


def _unit_text(unit: Any) -> str:
    return "" if str(unit) == "dimensionless" else str(unit)


def _whole(rate: float) -> float:
    """A rate (Hz) that is a whole number but for rounding, as that number."""
    return float(round(rate)) if abs(rate - round(rate)) < 1e-6 * rate else rate
