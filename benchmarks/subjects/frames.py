"""Reading many channels of one event from a frame file (from the page cache, after the first round)."""

from pathlib import Path

import numpy as np
from gwpy.timeseries import TimeSeriesDict

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import frames, hdf5
from harness import Candidate, Subject, Work

GPS, DURATION, SAMPLE_RATE, SEGMENT = 1_264_000_000, 64, 128.0, 16.0


def subject(folder: Path, _: str, *, quick: bool) -> Subject:
    num_channels = 50 if quick else 1000
    name = f"V-BENCH{num_channels}-{GPS}-{DURATION}"
    path, twin = folder / f"{name}.gwf", folder / f"{name}.h5"
    names = [f"V1:CHANNEL_{index:05d}" for index in range(num_channels)]
    if not twin.exists():
        noise = np.random.default_rng(0)
        size = round(DURATION * SAMPLE_RATE)
        channels = {
            name: Channel(name, noise.normal(size=size).astype(np.float32), float(GPS), SAMPLE_RATE) for name in names
        }
        frames.write(path, channels)
        hdf5.write(twin, channels)
    start = GPS + (DURATION - SEGMENT) / 2
    stop = start + SEGMENT
    return Subject(
        item="series",
        setting=f"{num_channels} channels, {SEGMENT:g} s of {DURATION} s at {SAMPLE_RATE:g} Hz, float32",
        candidates=(
            Candidate("ours", lambda: frames.read(path, names, start, stop), num_channels),
            Candidate(
                "gwpy GWF",
                lambda: TimeSeriesDict.read(str(path), names, format="gwf", start=start, end=stop),
                num_channels,
            ),
            Candidate("ours HDF5", lambda: hdf5.read(twin, names, start, stop), num_channels),
        ),
        work=Work(bytes=4 * SAMPLE_RATE * (DURATION + SEGMENT)),
        notes=("A frame is decompressed whole; gwpy searches the table of contents again for every channel.",),
    )
