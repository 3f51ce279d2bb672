from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance, coincidence
from glitchflow_plugin.signal.slides import slide_statistics
from glitchflow_plugin.signal.stretches import LONGEST, join_overlapping

GPS = 1_200_000_000.0


class Observed:
    """What a detector does on one axis of time, cut into events about triggers.

    Args:
        world: Of the fixture `spiking`.
        triggers: s, shape (event,).
    """

    def __init__(self, world, triggers):
        self.world = world
        self.gps_event = GPS + np.sort(triggers)
        self.gps_start = self.gps_event - world.duration / 2
        self.crops = world.live(len(triggers), cycles=12 / (2 * np.pi))
        self.stretches = join_overlapping(self.gps_start, self.gps_event, self.crops, margin=12 / (2 * np.pi * 20))
        self.tolerance = Tolerance(0.25).between_columns(world.column)

    def spikes(self, times, channel=0):
        """Spikes of all events from those of the detector: each where it is seen, rounded to the event's columns."""
        times, channel = np.atleast_1d(times), np.broadcast_to(channel, np.shape(np.atleast_1d(times)))
        order = np.argsort(times)
        times, channel = times[order], channel[order]
        frequency = np.exp(self.world.rng.uniform(np.log(20), np.log(300), len(times)))
        energy = self.world.rng.uniform(25, 100, len(times))
        left = self.gps_start - GPS
        begin, end = np.searchsorted(times, left), np.searchsorted(times, left + self.world.duration)
        event = np.repeat(np.arange(len(left)), end - begin)
        row = np.concatenate([np.arange(a, b) for a, b in zip(begin, end, strict=True)])
        column = np.round((times[row] - left[event]) / self.world.column)
        inside = column < 257
        event, row, column = event[inside], row[inside], column[inside]
        louder = energy[row] * self.world.rng.uniform(0.98, 1.02, len(row))
        return Spikes(event, channel[row], column * self.world.column, frequency[row], louder)

    def apart(self, spikes):
        """Taken for independent events."""
        return self.crops, spikes.select(self.crops.holds(spikes))

    def joined(self, spikes):
        return self.stretches.live, self.stretches.merged(spikes, self.tolerance)

    def p_values(self, view, reference, witness, num_channels):
        live, reference = view(reference)
        _, witness = view(witness)
        found = slide_statistics(reference, witness, live, self.tolerance, num_channels=num_channels, num_slides=128)
        return found.p_value


def glitches(rng, num_glitches, per_glitch, spread):
    """Times of triggers, s: some for each glitch, within `spread` of each other in turn; glitches are far apart."""
    steps = rng.uniform(0, spread, (num_glitches, per_glitch))
    steps[:, 0] = 0
    return (200.0 * (1 + np.arange(num_glitches))[:, None] + np.cumsum(steps, axis=1)).ravel()


def bursts(rng, triggers, num_channels, rate=0.15, size=3.0, length=0.5):
    """Spikes of channels that know nothing of the strain, about the triggers: a Poisson process of bursts."""
    first, last = triggers.min() - 20, triggers.max() + 20
    number = rng.poisson(rate * (last - first), num_channels)
    channel = np.repeat(np.arange(num_channels), number)
    centre = rng.uniform(first, last, len(channel))
    members = 1 + rng.poisson(size - 1, len(channel))
    channel, centre = np.repeat(channel, members), np.repeat(centre, members)
    return centre + rng.uniform(0, length, len(centre)), channel


def null(world, per_glitch, spread, *, num_glitches=12, num_channels=1500, view="joined", train=False):
    """p-values of unrelated channels, for strain that glitches once (or, `train`, at every trigger)."""
    triggers = glitches(world.rng, num_glitches, per_glitch, spread)
    data = Observed(world, triggers)
    times, channel = bursts(world.rng, triggers, num_channels)
    near = np.abs(times[:, None] - triggers[None, ::per_glitch]).min(axis=1) < 8 + spread * per_glitch
    strain = triggers if train else triggers[::per_glitch]
    witness = data.spikes(times[near], channel[near])
    return data.p_values(getattr(data, view), data.spikes(strain), witness, num_channels)


def excess(p, level):
    """Share of p-values at or below a level, and the largest that so many tests may show by accident."""
    return (p <= level).mean(), binom.isf(1e-4, len(p), level) / len(p)
