"""The channel scan of an event set, with our maps and with the peers' in their place."""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from gwpy.timeseries import TimeSeries
from ml4gw.transforms import SingleQTransform

from glitchflow_plugin.data.records import EventBatch
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.preprocessing.scan import scan_channels
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from harness import Candidate, Subject, Work
from subjects.qtransform import BAND, DURATION, SAMPLE_RATE, SHAPE, gwpy_map, work

MAPS = "glitchflow_plugin.preprocessing.spectrograms.q_transform"


def event_set(folder: Path, events: int, channels: int) -> EventSet:
    """White noise with a burst in the middle of the target and of every other witness; made once."""
    generator = np.random.default_rng(0)
    names = ("V1:STRAIN", *(f"V1:WITNESS_{row}" for row in range(1, channels)))
    size = round(SAMPLE_RATE * DURATION)
    writer = ShardedWriter(
        folder=folder / f"events-{events}x{channels}",
        kind="events",
        target=names[0],
        channels=names,
        axes={"sample_rate": SAMPLE_RATE, "num_samples": size},
        units="whitened",
        recipe={"made": "for a benchmark"},
        event_ids=tuple(f"event-{row:04d}" for row in range(events)),
        shard_size=8,
    )
    time = np.arange(size) / SAMPLE_RATE - DURATION / 2
    burst = 8 * np.exp(-0.5 * (time / 0.02) ** 2) * np.sin(2 * np.pi * 100 * time)
    for plan in writer.pending():
        series = generator.normal(size=(len(plan.event_ids), channels, size))
        series[:, ::2] += burst
        start = 1.2e9 + 100.0 * (8 * plan.index + np.arange(len(plan.event_ids)))
        valid = np.ones(series.shape[:2], dtype=bool)
        writer.write(plan, EventBatch(plan.event_ids, start, start + DURATION / 2, series.astype(np.float32), valid))
    found = writer.finish()
    assert isinstance(found, EventSet)
    return found


def with_maps(maps: Callable[[torch.Tensor], torch.Tensor], call: Callable[[], object]) -> None:
    """Do a call while Q-transforms are made by another function."""
    replacement = mock.Mock(side_effect=lambda series, *_: maps(series))
    with mock.patch(MAPS, replacement):
        call()
    if not replacement.called:
        raise RuntimeError(f"the scan no longer makes its maps by {MAPS}: correct benchmarks/subjects/scan.py")


def subject(folder: Path, device: str, *, quick: bool) -> Subject:
    num_events, num_channels = (2, 4) if quick else (16, 32)
    events, few = event_set(folder, num_events, num_channels), event_set(folder, 2, 4)
    settings = ScanSettings()
    transform = SingleQTransform(DURATION, SAMPLE_RATE, SHAPE, q=12, frange=list(BAND)).to(device)

    def gwpy(series: torch.Tensor) -> torch.Tensor:
        maps = [
            gwpy_map(TimeSeries(row, sample_rate=SAMPLE_RATE), (12.0, 12.0), BAND).T for row in series.cpu().numpy()
        ]
        return torch.as_tensor(np.stack(maps))

    def scan(chosen: EventSet) -> Callable[[], object]:
        return lambda: scan_channels(chosen, settings, device=device)

    def ml4gw(series: torch.Tensor) -> torch.Tensor:
        return transform(series[:, None]).reshape(-1, *SHAPE)

    one = work([12.0], BAND)
    return Subject(
        item="map",
        setting=f"{num_events} events x {num_channels} channels, {DURATION:g} s at {SAMPLE_RATE:g} Hz, from disk",
        candidates=(
            Candidate("ours", scan(events), num_events * num_channels),
            Candidate("ml4gw maps", lambda: with_maps(ml4gw, scan(events)), num_events * num_channels),
            Candidate("gwpy maps", lambda: with_maps(gwpy, scan(few)), 2 * 4),
        ),
        work=Work(ffts=one.ffts, multiplications=one.multiplications, bytes=one.bytes + 4 * SHAPE[0] * SHAPE[1]),
        notes=("Spikes, coincidence and time slides are ours in all three; the floor counts maps read once more.",),
    )
