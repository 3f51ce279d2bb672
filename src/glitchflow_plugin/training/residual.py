"""Whether a champion leaves more of the latest glitches than of those of its validation."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from glitchflow_plugin.data.groups import group_numbers
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.inference.closed_loop import ClosedLoop
from glitchflow_plugin.inference.residual import NOTE, EventsLeft, strongest_part
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.signal.residual_watch import ResidualReference, ResidualReport, ResidualSettings
from glitchflow_plugin.training.evaluation import pixels_inside
from glitchflow_plugin.verdict import GLITCH_THRESHOLD, holds_glitch

#: Events in memory at a time.
_BATCH = 64


def watch_residual(
    bundle: ModelBundle,
    maps: SpectrogramSet,
    loop: ClosedLoop,
    classes: Mapping[str, str],
    settings: ResidualSettings,
    *,
    block_length: float,
) -> ResidualReport | None:
    """Compare what the champion leaves of new glitches with what it left of its validation events.

    Args:
        bundle: The champion.
        maps: Of the new events.
        loop: What the closed loop has found in them.
        classes: Class of the glitch by event id, where known.
        settings: When more is left.
        block_length: Unlabelled events of one block of GPS time are one group, s.

    Returns:
        None where the champion carries nothing to compare with, or only gains were measured.
    """
    content, left = bundle.notes.get(NOTE), events_left(bundle, maps, loop, block_length)
    if content is None or left is None:
        return None
    return left.compare(classes, ResidualReference.from_dict(content), settings)


def events_left(bundle: ModelBundle, maps: SpectrogramSet, loop: ClosedLoop, block_length: float) -> EventsLeft | None:
    """What a model leaves of the events that the closed loop went through; None where that was not measured."""
    if loop.power is None:
        return None
    threshold = float(bundle.notes.get("threshold", GLITCH_THRESHOLD))
    return EventsLeft(
        event_ids=tuple(maps.event_ids),
        groups=group_numbers(maps.groups, maps.gps_event, block_length),
        power=loop.power,
        glitch=_glitches(maps, bundle.target, threshold),
        witness=strongest_part(loop.reference.parts, np.where(loop.told, loop.gains.power, 0)),
    )


def _glitches(maps: SpectrogramSet, target: str, threshold: float) -> Bool[np.ndarray, " event"]:
    """Whether each event has usable strain and holds a glitch in it, as inference says it."""
    inside, found = pixels_inside(maps), []
    for batch in maps.batches(_BATCH, channels=[target]):
        peak = np.where(inside, batch.maps[:, 0], 0.0).max(axis=(1, 2))
        found.append(holds_glitch(peak, threshold) & batch.valid[:, 0])
    return np.concatenate(found)
