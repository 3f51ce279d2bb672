"""Whole events as torch sees them: whitened series, read from the shards when they are asked for."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.window_dataset import CachedEvents
from glitchflow_plugin.errors import FormatError


class SeriesDataset(CachedEvents):
    """Events of one part of a training set, in the order of its index.

    Args:
        training_set: Which events; those that have a window.
        events: The event set that its maps were made of.
        part: `train`, `validation` or `test`.
        witnesses: Witness channels, in the order in which they are wanted.
        cache_mib: Largest size of the series kept in memory, MiB.
        glitches: The glitch alone in the whitened strain, (time,), by event id. With it, items have a second row of
            strain: this, or what was measured of an event that is not named.

    Raises:
        ChannelMismatchError: The event set lacks a channel.
        FormatError: The event set is not whitened, or lacks an event.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        events: EventSet,
        part: str,
        witnesses: tuple[str, ...],
        cache_mib: float = 512.0,
        *,
        glitches: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        if events.manifest.units != "whitened":
            raise FormatError(
                f"{events.folder} is not whitened, and a twin of waveforms needs that. Set processing.whiten: true in "
                "datasets.yaml and run the preprocessing again."
            )
        per_window = training_set.part(part)
        loudest = per_window.sort_values("peak", kind="stable").groupby("event_id", sort=False).tail(1)
        windows = loudest.sort_values("row", kind="stable").reset_index(drop=True)
        missing = [event_id for event_id in windows["event_id"] if event_id not in events.row_of]
        if missing:
            raise FormatError(
                f"{events.folder} lacks {len(missing)} events of the training set (the first is {missing[0]}). "
                "Run preprocessing, Splitter and Processor on one event set."
            )
        rows = np.array([events.row_of[event_id] for event_id in windows["event_id"]], dtype=np.int64)
        super().__init__(events, windows, rows, (events.target, *witnesses), cache_mib)
        self.name, self.events, self.glitches = part, events, glitches

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Whitened witnesses (witness, time), zero where not valid, and strain (1, time), with glitches (2, time)."""
        series = torch.from_numpy(self._event(int(self._rows[index])))
        witnesses, strain = series[1:], series[:1]
        if self.glitches is None:
            return witnesses, strain
        alone = self.glitches.get(str(self.windows["event_id"].iat[index]))
        return witnesses, torch.cat([strain, strain if alone is None else torch.from_numpy(alone)[None]])

    def _read(self, row: int) -> np.ndarray:
        read = self.events.read([row], self.channels)
        return np.asarray(read.series[0] * read.valid[0][:, None], dtype=np.float32)

    @property
    def gps_start(self) -> np.ndarray:
        """GPS time of the first sample of each item, s, float64."""
        return self.events.gps_start[self._rows]
