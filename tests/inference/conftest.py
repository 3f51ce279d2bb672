import numpy as np
import pytest
import torch
from torch import nn

from glitchflow_plugin.data.records import SpectrogramBatch
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.models.bundle import ModelBundle

TARGET = "V1:STRAIN"
WITNESSES = ("V1:SEIS", "V1:MIC", "V1:DISTRACTOR")
FREQUENCIES = np.linspace(8, 400, 64)
TIMES = np.arange(257) * 6 / 257
RECIPE = {
    "events": {
        "target": TARGET,
        "sample_rate": 1024.0,
        "channels": {name: {"minf": 8.0, "maxf": 400.0, "unit": None} for name in (TARGET, *WITNESSES)},
    },
    "qtransform": {"q": 12.0, "num_times": 257},
    "selection": {"channels": "scan"},
}


class Follow(nn.Module):
    """Predicts a share of what the first witness shows."""

    def __init__(self, share=0.9):
        super().__init__()
        self.register_buffer("share", torch.tensor(share))

    def forward(self, windows):
        return self.share * windows[:, :1]


@pytest.fixture
def make_bundle():
    def _make(twin=None, witnesses=WITNESSES[:2], **changes):
        values = {
            "twin": twin or Follow(),
            "target": TARGET,
            "witnesses": witnesses,
            "recipe": RECIPE,
            "window_size": 64,
            "frequencies": tuple(FREQUENCIES),
            "times": tuple(TIMES),
            "baseline": Follow(0.3),
            **changes,
        }
        return ModelBundle(**values)

    return _make


@pytest.fixture
def make_set(tmp_path):
    """Sets of quiet maps; every second event has a glitch, which the first witness sees as the strain does."""

    def _make(
        num_events=10,
        channels=(TARGET, *WITNESSES),
        valid=None,
        *,
        name="maps",
        recipe=RECIPE,
        shard_size=4,
        groups=(),
    ):
        generator = np.random.default_rng(1)
        maps = generator.exponential(1.0, (num_events, len(channels), 64, 257)).clip(max=9).astype(np.float32)
        for event in range(0, num_events, 2):
            start, row = 22 + 14 * event, 10 + event  # each within one window
            for channel in range(min(2, len(channels))):
                maps[event, channel, row : row + 3, start : start + 8] = 60 + 10 * event
        valid = np.ones((num_events, len(channels)), bool) if valid is None else valid
        maps[~valid] = 0
        # names in an order that is not that of time, to catch any sorting
        ids = tuple(f"event-{(7 * index) % 97:03d}" for index in range(num_events))
        gps = 1238166018.25 + 40.0 * np.arange(num_events)
        writer = ShardedWriter(
            folder=tmp_path / name,
            kind="spectrograms",
            target=channels[0],
            channels=tuple(channels),
            axes={"frequencies": FREQUENCIES.tolist(), "times": TIMES.tolist()},
            units="SNR^2",
            recipe=recipe,
            event_ids=ids,
            shard_size=shard_size,
        )
        for plan in writer.pending():
            rows = [ids.index(event) for event in plan.event_ids]
            labels = tuple(groups[row] for row in rows) if groups else ()
            batch = SpectrogramBatch(plan.event_ids, gps[rows], gps[rows] + 3, maps[rows], valid[rows], labels)
            writer.write(plan, batch)
        return writer.finish()

    return _make
