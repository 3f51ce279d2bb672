"""Spikes without maps: what the statistics of a scan are tried on."""

import numpy as np
import pytest

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.livetime import LiveTime

DURATION, COLUMN = 6.0, 6.0 / 257


class Spiking:
    """Makes spikes at random times of events of 6 s, rounded to columns as those of maps are."""

    duration, column = DURATION, COLUMN

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def at(self, event, time, channel=0):
        """Spikes at these times; those outside the event are dropped."""
        event, time = np.asarray(event), np.asarray(time, dtype=np.float64)
        channel = np.broadcast_to(channel, event.shape)
        inside = (time >= 0) & (time < DURATION - COLUMN / 2)
        event, time, channel = event[inside], time[inside], channel[inside]
        rounded = np.round(time / COLUMN) * COLUMN
        frequency = np.exp(self.rng.uniform(np.log(20), np.log(300), len(event)))
        return Spikes(event.astype(int), channel.astype(int), rounded, frequency, np.full(len(event), 30.0))

    def noise(self, num_events, num_channels, rate):
        """A Poisson number of spikes in each event of each channel, anywhere."""
        number = self.rng.poisson(rate, (num_events, num_channels))
        event, channel = (np.repeat(axis.ravel(), number.ravel()) for axis in np.indices(number.shape))
        return self.at(event, self.rng.uniform(0, DURATION - COLUMN, len(event)), channel)

    @staticmethod
    def live(num_events, **changes):
        spans = changes.pop("spans", np.tile([0.0, DURATION], (num_events, 1)))
        return LiveTime(spans, Columns(COLUMN * np.arange(257)), **changes)


@pytest.fixture
def spiking():
    return Spiking
