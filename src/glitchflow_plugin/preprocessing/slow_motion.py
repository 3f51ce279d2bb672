"""The unit in which the motion of slow channels is told: found once for an event set, and kept in its recipe."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.sources import Catalogue
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.channel_recipe import ChannelRecipe
from glitchflow_plugin.signal.slow import SlowScale, find_scale, low_passed, slow_edge

logger = logging.getLogger(__name__)

_MOST_EVENTS = 48
"""Events that are looked at, evenly over all."""


def with_slow_motion(recipes: Sequence[ChannelRecipe], catalogue: Catalogue) -> list[ChannelRecipe]:
    """Recipes that keep the slow motion of those channels of which it is asked for.

    Raises:
        ConfigurationError: It is asked for and the event set is not whitened, or of the target.
    """
    wanted = {one.name: one for one in recipes if catalogue.channels[one.name].slow}
    if not wanted:
        return list(recipes)
    if not recipes[0].settings.whiten or catalogue.target in wanted:
        raise ConfigurationError(
            "channels.slow: expected witnesses of an event set with whiten: true, got "
            f"{sorted(wanted)} with whiten: {str(recipes[0].settings.whiten).lower()} and the target "
            f"{catalogue.target}. Correct datasets.yaml."
        )
    scales = _scales(wanted, catalogue)
    for name in sorted(wanted.keys() - scales.keys()):
        logger.warning("%s: nothing moves below the band, or no event is whole. Take it out of channels.slow.", name)
    return [replace(one, slow=scales.get(one.name)) for one in recipes]


def _scales(wanted: dict[str, ChannelRecipe], catalogue: Catalogue) -> dict[str, SlowScale]:
    """Unit of each channel, from events all over the set."""
    motions: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    places = np.linspace(0, len(catalogue.events) - 1, min(len(catalogue.events), _MOST_EVENTS)).astype(int)
    for place in places:
        source = catalogue.events[place]
        for name, channel in source.load(list(wanted)).event.channels.items():
            found = _motion(channel, source.gps_event, wanted[name])
            if found is not None:
                motions[name].append(found)
    found = {name: find_scale(motions[name], one.settings.low) for name, one in wanted.items()}
    return {name: scale for name, scale in found.items() if scale is not None}


def _motion(channel: Channel, gps_event: float, recipe: ChannelRecipe) -> np.ndarray | None:
    """Slow motion about an event, in the channel's unit; None where that is not whole."""
    half, rate = recipe.settings.duration / 2, channel.sample_rate
    series = np.asarray(channel.series, dtype=np.float64)
    first, last = (round((gps_event + side - channel.t0) * rate) for side in (-half, half))
    if first < 0 or last > len(series) or not np.isfinite(series).all():
        return None
    return low_passed(series, rate, slow_edge(recipe.settings.low))[first:last]
