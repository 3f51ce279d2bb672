"""What a ranking of channels tells: its figures, what the user should know, and the witnesses that it selects."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from glitchflow_plugin.data.ranking_file import ChannelRanking
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.channel_recipe import slow_channels
from glitchflow_plugin.products.summary import Metric

#: A channel that shares more than this part of the strain's spikes is likely to be made from the strain.
_ECHO = 0.9

logger = logging.getLogger(__name__)


def ranking_metrics(ranking: ChannelRanking) -> dict[str, Metric]:
    """How many channels were selected, how good the best is, and which share of the spikes the rounds explain."""
    known = np.isfinite(ranking.correlation)
    rounds = ranking.rounds
    return {
        "channels_selected": Metric(float(len(ranking.selected))),
        "channels_without_information": Metric(float((~known).sum())),
        "channels_unsafe": Metric(float(len(ranking.unsafe))),
        "rounds": Metric(float(len(rounds))),
        "strain_spikes_explained": Metric(
            sum(one.explained for one in rounds) / rounds[0].remaining if rounds else None
        ),
        "best_correlation": Metric(float(ranking.correlation[known].max()) if known.any() else None),
        "best_iou": Metric(float(ranking.iou[known].max()) if known.any() else None),
    }


def ranking_warnings(ranking: ChannelRanking) -> tuple[str, ...]:
    """What to look at before the selection is used."""
    found = [f"{name} is left out: {why}" for name, why in ranking.unsafe.items() if why != "listed"]
    found += [f"{name} may be selected by safe_override: {why}" for name, why in ranking.overridden.items()]
    if not ranking.strain_spikes.any():
        limit = ranking.parameters["threshold"]
        nothing = f"no spike of {ranking.target} above {limit:g} SNR²: nothing to compare; lower threshold in scan.yaml"
        return (*found, nothing)
    correlation = dict(zip(ranking.channels, ranking.correlation, strict=True))
    silent = [name for name, value in correlation.items() if np.isnan(value)]
    if silent:
        found.append(
            f"no information about {len(silent)} channel(s): {', '.join(silent[:5])}{'...' * (len(silent) > 5)}"
        )
    echoes = [name for name, value in correlation.items() if name in ranking.selected and value > _ECHO]
    if echoes:
        found.append(
            f"{', '.join(echoes)} share nearly all spikes of {ranking.target}: if they see the strain itself, list "
            "them as unsafe in conf/scan.yaml, or cleaning will remove signals"
        )
    if not ranking.selected:
        found.append(
            f"no channel is selected: expected {ranking.requirements}; see in ranking.csv what the best lack, and "
            "change threshold or these limits in conf/scan.yaml"
        )
    if ranking.parameters["num_slides"] and np.isnan(ranking.chance).all():
        found.append("level of chance not estimated: time_window is too short for time slides")
    return tuple(found)


@dataclass(frozen=True)
class Witnesses:
    """Channels to make maps of.

    Attributes:
        channels: Names, in the order of the maps.
        selection: How they were chosen; kept in the recipe of the maps.
        warnings: What the user should know of the choice.
    """

    channels: tuple[str, ...]
    selection: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def selected_witnesses(ranking: ChannelRanking, events: EventSet, place: object) -> Witnesses:
    """The channels that a scan has selected for an event set.

    The scan of other events with the same target is taken with a warning: its selection may still hold.

    Args:
        ranking: The scan's result.
        events: The set that maps shall be made of.
        place: Where the ranking lies, for the messages.

    Raises:
        ConfigurationError: The scan is of another target, or has selected none.
    """
    expected = ranking.parameters.get("refchan") or events.target
    if ranking.target != expected:
        raise ConfigurationError(
            f"the scan in {place} ranked channels by their coincidence with {ranking.target}, expected "
            f"{expected}, the target of {events.folder}. Run Annalisa-scan again on this event set."
        )
    warnings = ()
    if ranking.event_set != events.manifest.fingerprint:
        warnings = (f"the scan in {place} was made on another event set; run Annalisa-scan again",)
        logger.warning("%s.", *warnings)
    limits = {key: ranking.parameters.get(key) for key in ("threshold", "threshold_corr", "threshold_iou", "fdr")}
    if not ranking.selected:
        raise ConfigurationError(
            f"the scan selected no channel: expected {ranking.requirements} for spikes above "
            f"{limits['threshold']:g} SNR², of a channel that is not unsafe; {_best(ranking)}. Change these limits in "
            "conf/scan.yaml and run [Annalisa-scan,QT-dataset] again, or name channels as ch_list."
        )
    slow = _slow_witnesses(ranking, events)
    return Witnesses((*ranking.selected, *slow), {"channels": "scan", "reference": ranking.target, **limits}, warnings)


def _slow_witnesses(ranking: ChannelRanking, events: EventSet) -> tuple[str, ...]:
    """Channels of which the motion below the band was asked for: a scan looks within it, and cannot find them."""
    there = events.valid.any(axis=0)
    return tuple(
        name
        for name in slow_channels(events.recipe)
        if name not in {events.target, *ranking.selected, *ranking.unsafe} and there[events.channels.index(name)]
    )


def _best(ranking: ChannelRanking) -> str:
    """The figures of the channel that shares most spikes."""
    if not np.isfinite(ranking.correlation).any():
        return "no channel gave any information"
    best = int(np.nanargmax(ranking.correlation))
    name = ranking.channels[best]
    return (
        f"the best is {name} with correlation {ranking.correlation[best]:.3f} "
        f"(by chance {ranking.chance[best]:.3f}), IoU {ranking.iou[best]:.3f} and false-discovery rate "
        f"{ranking.q_value[best]:.2g}{', which is unsafe' * (name in ranking.unsafe)}"
    )
