"""A buffer of the latest events: what is there now is pinned, so that a run sees the same events until it ends."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.event_files import list_event_files, read_event_header
from glitchflow_plugin.data.manifest import MANIFEST_NAME
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.errors import DataError, FormatError


def buffered_events(buffer: Path | str, max_events: int) -> list[tuple[str, float]]:
    """Id and trigger time of the latest events, the oldest first. A file that cannot be read is left out.

    Args:
        buffer: Folder of event files, or of an event set.
        max_events: Most events.

    Raises:
        DataError: The folder is missing.
    """
    return [(event_id, gps) for event_id, gps, _ in _latest(Path(buffer), max_events)]


def pin_events(buffer: Path | str, folder: Path | str, max_events: int) -> Path:
    """Make a folder that holds the latest events of a buffer and does not change when the buffer does.

    Event files are linked, not copied; the buffer may drop its own name of them. Of an event set the events are copied.

    Args:
        buffer: Folder of event files, or of an event set.
        folder: Where to pin; what is there is replaced.
        max_events: Most events.

    Returns:
        The folder.

    Raises:
        DataError: The buffer is missing, or the folder cannot be written.
    """
    buffer, folder = Path(buffer), Path(folder)
    latest = _latest(buffer, max_events)
    shutil.rmtree(folder, ignore_errors=True)
    if is_event_set(buffer):
        _copy(EventSet.open(buffer), [event_id for event_id, _, _ in latest], folder)
        return folder
    try:
        folder.mkdir(parents=True)
        for _, _, path in latest:
            _link(path.resolve(), folder / path.name)
    except OSError as error:
        raise DataError(f"Cannot pin events in {folder}: {error.strerror or error}.") from error
    return folder


def is_event_set(buffer: Path | str) -> bool:
    """Whether the folder holds an event set rather than event files."""
    return (Path(buffer) / MANIFEST_NAME).exists()


def _latest(buffer: Path, max_events: int) -> list[tuple[str, float, Path]]:
    found: list[tuple[str, float, Path]] = []
    if is_event_set(buffer):
        events = EventSet.open(buffer)
        found = [(name, float(gps), buffer) for name, gps in zip(events.event_ids, events.gps_event, strict=True)]
    else:
        for path in list_event_files(buffer):
            # a file that is being written just now belongs to the next run
            with suppress(FormatError):
                header = read_event_header(path)
                found.append((header.event_id, header.gps_event, path))
    return sorted(found, key=lambda entry: (entry[1], entry[0]))[-max_events:]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # another file system
        target.symlink_to(source)


def _copy(events: EventSet, wanted: list[str], folder: Path) -> None:
    writer = ShardedWriter(
        folder=folder,
        kind="events",
        target=events.target,
        channels=events.channels,
        axes=events.manifest.axes,
        units=events.manifest.units,
        recipe=events.recipe,
        event_ids=tuple(wanted),
        inputs=events.manifest.fingerprint,
    )
    for plan in writer.pending():
        writer.write(plan, events.read(np.array([events.row_of[name] for name in plan.event_ids])))
    writer.finish()
