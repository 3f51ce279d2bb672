"""Which triggers become events: selected, clustered in time, and inside the science segments."""

import logging
from dataclasses import replace

import numpy as np

from glitchflow_plugin.data.datasets import DatasetSettings, ProcessingSettings
from glitchflow_plugin.data.readers.segments import read_segments
from glitchflow_plugin.data.readers.trigger_table import CLUSTER, SEGMENTS, TriggerTable
from glitchflow_plugin.data.readers.triggers import NEAR, TriggerSettings, read_table
from glitchflow_plugin.errors import ConfigurationError, NoEventsError
from glitchflow_plugin.signal.conditioning import ConditioningSettings, needed_length
from glitchflow_plugin.signal.trigger_clusters import cluster_times, crowded
from glitchflow_plugin.signal.whitening import WhiteningSettings

logger = logging.getLogger(__name__)


def chosen(settings: TriggerSettings, needed: float = 0.0, crop: float = 0.0, *, progress: bool = True) -> TriggerTable:
    """The triggers that become events, sorted by time.

    Args:
        settings: Table of the triggers, and which are wanted.
        needed: Length (s) of data about a trigger, that in its middle, that must lie within one science segment.
        crop: Length of an event (s), by which those that overlap are counted.
        progress: Whether to show a bar over many files.

    Raises:
        FormatError: Triggers or segments cannot be read.
        ConfigurationError: A time is no GPS time.
        NoEventsError: None passes the selection, or none lies in the segments.
    """
    table = read_table(settings, progress=progress)
    if settings.cluster is not None:
        loudness = np.zeros(len(table)) if table.loudness is None else table.loudness
        kept = cluster_times(table.times, loudness, settings.cluster)
        if table.loudness is None and len(kept) < len(table):
            logger.warning("%s: no loudness is known, so of each cluster the earliest is kept.", table.report.source)
        table = table.take(kept, CLUSTER)
    if settings.segments is not None:
        table = _inside(table, read_segments(settings.segments, settings.segments_flag), needed)
    near, _ = crowded(table.times, NEAR)
    overlapping, _ = crowded(table.times, crop)
    return replace(table, report=replace(table.report, crowded=near, overlapping=overlapping))


def chosen_for(
    dataset: DatasetSettings, whitening: WhiteningSettings, band: ProcessingSettings | None = None
) -> TriggerTable:
    """The triggers of a data set that become events.

    Args:
        dataset: Which.
        whitening: How its channels are whitened.
        band: How the strain is conditioned, where that is from another data set: all must take the same events.

    Raises:
        ConfigurationError: It has no triggers.
    """
    band = band or dataset.processing
    return chosen_by(dataset, ConditioningSettings(band.minf, band.maxf, band.sr, band.len, band.whiten, whitening))


def chosen_by(dataset: DatasetSettings, settings: ConditioningSettings) -> TriggerTable:
    """The triggers of a data set that become events, when its target is conditioned like this.

    Raises:
        ConfigurationError: It has no triggers.
    """
    if dataset.triggers is None:
        raise ConfigurationError("a data set without `triggers` has none to choose from")
    # the strain is faster than the common rate; what is slower and needs more is told as too short, event by event
    needed = needed_length(settings, 4 * settings.sample_rate, aligned=False)
    return chosen(dataset.triggers, needed, settings.duration)


def _inside(table: TriggerTable, segments: np.ndarray, needed: float) -> TriggerTable:
    """The triggers that lie, with half of what is needed at either side, within one segment."""
    place = np.searchsorted(segments[:, 0], table.times, side="right") - 1
    own = np.where(place[:, None] >= 0, segments[np.maximum(place, 0)], np.nan)
    reach = np.minimum(table.times - own[:, 0], own[:, 1] - table.times)
    rows = np.flatnonzero(reach >= needed / 2)  # NaN is none
    if len(table) and not len(rows):
        near = int(np.count_nonzero(reach >= 0))
        edge = f" {near} lie in a segment, but less than {needed / 2:.2f} s from its ends." if near else ""
        raise NoEventsError(
            f"{table.report.source}: none of {len(table)} triggers has the {needed:.2f} s that an event needs within a "
            f"science segment. The triggers reach from GPS {table.times[0]:.3f} to {table.times[-1]:.3f}, the segments "
            f"from {segments[0, 0]:.3f} to {segments[-1, 1]:.3f}.{edge} Correct `segments` or `triggers`."
        )
    table = replace(table, within=np.where(np.isfinite(own), own, table.within))
    return table.take(rows, SEGMENTS)
