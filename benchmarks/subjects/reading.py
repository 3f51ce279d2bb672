"""Reading events from disk (from the page cache, after the first round)."""

from pathlib import Path

import h5py
from gwpy.timeseries import TimeSeriesDict

from glitchflow_plugin.data.event_files import Channel, RawEvent, read_event, write_event
from glitchflow_plugin.data.sharded import EventSet
from harness import Candidate, Subject, Work
from subjects.qtransform import DURATION, SAMPLE_RATE
from subjects.scan import event_set


def event_files(folder: Path, events: EventSet) -> list[Path]:
    """The same events as gwpy stores them: a file an event, a dataset a channel; made once."""
    paths = []
    for batch in events.batches(1):
        path = folder / f"{batch.event_ids[0]}-{len(events)}.h5"
        paths.append(path)
        if path.exists():
            continue
        with h5py.File(path, "w") as file:
            for name, series in zip(events.channels, batch.series[0], strict=True):
                file[name] = series
                file[name].attrs.update(x0=float(batch.gps_start[0]), dx=1 / SAMPLE_RATE, xunit="s", unit="")
    return paths


def raw_files(folder: Path, events: EventSet) -> list[Path]:
    """The same events as detectors' event files; made once."""
    paths = []
    for batch in events.batches(1):
        path = folder / f"raw-{batch.event_ids[0]}-{len(events)}.h5"
        paths.append(path)
        if not path.exists():
            start = float(batch.gps_start[0])
            held = {
                name: Channel(name, series, start, SAMPLE_RATE)
                for name, series in zip(events.channels, batch.series[0], strict=True)
            }
            write_event(path, RawEvent(batch.event_ids[0], float(batch.gps_event[0]), held))
    return paths


def read_unchecked(path: Path) -> None:
    """All samples and attributes of an event file, and no question asked."""
    with h5py.File(path) as file:
        for group in file.values():
            for dataset in group.values():
                dataset[:]
                dict(dataset.attrs)


def subject(folder: Path, _: str, *, quick: bool) -> Subject:
    num_events, num_channels = (2, 4) if quick else (16, 32)
    events = event_set(folder, num_events, num_channels)
    files, raw = event_files(folder, events), raw_files(folder, events)
    items = num_events * num_channels

    def gwpy() -> None:
        for path in files:
            TimeSeriesDict.read(path, events.channels, format="hdf5")

    return Subject(
        item="series",
        setting=f"{num_events} events x {num_channels} channels, {DURATION:g} s at {SAMPLE_RATE:g} Hz, float32",
        candidates=(
            Candidate("ours", lambda: EventSet.open(events.folder).read(), items),
            Candidate("gwpy HDF5", gwpy, items),
            Candidate("ours, event files", lambda: [read_event(path) for path in raw], items),
            Candidate("h5py, event files", lambda: [read_unchecked(path) for path in raw], items),
        ),
        work=Work(bytes=2 * 4 * SAMPLE_RATE * DURATION),
        notes=(
            "Ours compares every shard with its checksum, as each new handle does; gwpy has none.",
            "Event files are read in a process apart and checked; h5py alone reads them here and checks nothing.",
        ),
    )
