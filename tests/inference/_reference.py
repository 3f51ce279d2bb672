"""Gains that a model carries, measured apart from training."""

from glitchflow_plugin.inference.closed_loop import measure_gains, reference_of
from glitchflow_plugin.signal.gain_watch import WatchSettings


def measure_reference(twin, witnesses, batches, groups, sample_rate):
    settings = WatchSettings()
    return reference_of(witnesses, measure_gains(twin, batches, sample_rate, settings), groups, settings)
