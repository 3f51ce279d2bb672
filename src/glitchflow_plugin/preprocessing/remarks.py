"""What the user should know of data and of the settings that were found for them, one sentence each."""

from collections.abc import Iterator, Sequence

import numpy as np

from glitchflow_plugin.data.readers.triggers import NEAR
from glitchflow_plugin.preprocessing.fit import Fit
from glitchflow_plugin.preprocessing.inspection import SeenData
from glitchflow_plugin.preprocessing.survey import Survey
from glitchflow_plugin.signal.trigger_clusters import crowded

_CROWDED = 0.1
"""From this share of triggers that follow another closely, the user is told."""

ENOUGH_BLOCKS = 20
"""Groups of events that make a split into training, validation, gate and test a good one."""


def trigger_remarks(survey: Survey, data: Sequence[SeenData], *, continuous: bool) -> Iterator[str]:
    """Triggers that are not used, or crowd."""
    own = {event_id for seen in data for event_id in seen.events}
    if survey.triggers and not continuous:
        yield "The triggers are not used: event files bring their own times."
    elif survey.triggers and own and not own & set(survey.cuts):
        yield (
            "No trigger has the id of an event file, so the two kinds of data do not merge: give the table a column "
            "event_id."
        )
    elif continuous and not survey.triggers and not own:
        yield (
            f"No triggers were given: each stretch of files makes one event, in its middle ({len(survey.cuts)} in "
            "all). Give the times of glitches by --triggers."
        )
    near, groups = crowded(list(survey.events.values()), NEAR)
    if near > _CROWDED * len(survey.events):
        yield (
            f"{near} of {len(survey.events)} triggers follow another within {NEAR:g} s, in {groups} group(s): one "
            "glitch would be several events. Set `cluster` of `triggers` in conf/datasets.yaml (0.1 to 0.5 s): of each "
            "group, the loudest stays."
        )


def length_remarks(target: str, lengths: np.ndarray, needed: float) -> Iterator[str]:
    """Events that the target does not cover."""
    outside = int(np.count_nonzero(lengths <= 0))
    short = int(np.count_nonzero((lengths > 0) & (lengths < needed)))
    if outside:
        yield f"{outside} of {len(lengths)} triggers lie outside the data of {target}, and will be rejected."
    if short:
        yield (
            f"{short} of {len(lengths)} events have less of {target} about the trigger than the {needed:.2f} s that "
            "the settings need; most of them will be rejected as too short."
        )


def file_remarks(survey: Survey, data: Sequence[SeenData], fit: Fit) -> Iterator[str]:
    """Files that are masked, left out, or were not looked into."""
    for seen in data:
        for name, channel in seen.channels.items():
            if channel.other_rates and name in fit.bands:
                yield f"{name} is masked in {channel.other_rates} file(s), which do not have it at {channel.rate}."
        if seen.looked < len(seen.files):
            yield f"{seen.looked} of {len(seen.files)} files of {seen.path or seen.files[0].parent} were looked into."
    if survey.ignored:
        name, why = next(iter(survey.ignored.items()))
        yield f"{len(survey.ignored)} file(s) cannot be read and are left out; the first, {name}: {why}"


def chance_remarks(kept: int, wanted: int) -> Iterator[str]:
    """Too few events for a test against chance."""
    if kept < wanted:
        yield (
            f"{kept} event(s) cannot tell coincidence from chance ({wanted} could at best): the scan selects by shared "
            "spikes alone, without time slides. Give more events before you trust what it selects."
        )


def block_remarks(events: int, blocks: int, block_length: float) -> Iterator[str]:
    """Too few blocks for a split."""
    if blocks < ENOUGH_BLOCKS:
        yield (
            f"{events} event(s) in {blocks} block(s) of {block_length:g} s: training wants {ENOUGH_BLOCKS} or more, to "
            "divide them into training, validation, gate and test (conf/split.yaml)."
        )
