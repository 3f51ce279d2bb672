"""Drift of maps against the statistics that a model carries."""

from collections.abc import Mapping
from typing import Any

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.summary import Metric
from glitchflow_plugin.signal.drift import DriftReport, DriftSettings, ExceedanceCount, Reference, compare

#: Events in memory at a time.
_BATCH = 16


def drift_of(
    maps: SpectrogramSet, witnesses: tuple[str, ...], notes: Mapping[str, Any], settings: DriftSettings
) -> DriftReport | None:
    """Compare the witnesses' maps with those that a model was trained on.

    Args:
        maps: New maps.
        witnesses: The model's.
        notes: The model's, which hold the statistics as `reference`.
        settings: When a channel has drifted.

    Returns:
        The report; None where the model carries no statistics.
    """
    content = notes.get("reference")
    if content is None:
        return None
    reference = Reference.from_dict(content)
    found = ExceedanceCount(witnesses)
    for batch in maps.batches(_BATCH, channels=list(witnesses)):
        found.add(batch.maps, batch.valid)
    return compare(found, reference, settings)


def drift_or_refuse(
    maps: SpectrogramSet, witnesses: tuple[str, ...], notes: Mapping[str, Any], settings: DriftSettings
) -> DriftReport:
    """The same, where drift decides.

    Raises:
        FormatError: The model carries no statistics.
    """
    report = drift_of(maps, witnesses, notes, settings)
    if report is None:
        raise FormatError("the champion carries no reference statistics. Train once more, or set retrain.force=true.")
    return report


def drift_metrics(report: DriftReport | None) -> dict[str, Metric]:
    """For the run summary: channels with an alarm, and the largest distance of all."""
    if report is None:
        return {}
    return {
        "drifted_channels": Metric(float(len(report.drifted))),
        "largest_drift_distance": Metric(report.largest_distance),
    }


def drift_warnings(report: DriftReport | None) -> tuple[str, ...]:
    """For the run summary."""
    if report is None:
        return ()
    return tuple(f"{channel.channel} has drifted: {channel.alarm}" for channel in report.drifted)
