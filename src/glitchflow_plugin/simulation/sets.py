"""The sets of one simulation: what each has of its own, over what all share."""

from collections.abc import Mapping
from itertools import pairwise

from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation.settings import SimulationSettings

Own = Mapping[str, Mapping[str, object] | None]
"""By name of a set, the keys in which it differs from what all share."""


def settings_by_set(
    sets: Own, detector: Mapping[str, object] | None = None, streams: Own | None = None
) -> tuple[dict[str, SimulationSettings], dict[str, SimulationSettings]]:
    """Settings of each set of events, and of each that runs on.

    Args:
        sets: By name of the set, the keys in which it differs; parts such as `bank` are merged key by key.
        detector: Keys that all sets share.
        streams: The same of data that run on.

    Raises:
        ConfigurationError: There is no set, a name or key is wrong, or two sets of one detector overlap in time.
    """
    if not sets:
        raise ConfigurationError("simulate.sets is empty. Name at least one set, for instance `training: {}`.")
    both = {"sets": sets, "streams": streams or {}}
    twice = sorted(set(sets) & set(both["streams"]))
    if twice:
        raise ConfigurationError(
            f"simulate.sets and simulate.streams both have {twice}, and each is a folder: rename one."
        )
    made: dict[str, dict[str, SimulationSettings]] = {key: {} for key in both}
    for key, named in both.items():
        for name, own in named.items():
            check_name(name, f"simulate.{key}: name of a set")
            made[key][name] = built(SimulationSettings, _merged(detector or {}, own or {}), f"simulate.{key}.{name}")
    _refuse_overlap({f"{key}.{name}": one for key, named in made.items() for name, one in named.items()})
    return made["sets"], made["streams"]


def _merged(shared: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    merged = dict(shared)
    for key, value in own.items():
        before = shared.get(key)
        merged[key] = {**before, **value} if isinstance(value, Mapping) and isinstance(before, Mapping) else value
    return merged


def _refuse_overlap(sets: Mapping[str, SimulationSettings]) -> None:
    """Events are merged on ids made of the GPS second."""
    spans = sorted(
        (one.ifo, one.gps_start, one.gps_start + one.num_events * one.spacing, name) for name, one in sets.items()
    )
    for (ifo, _, end, name), (next_ifo, start, _, next_name) in pairwise(spans):
        if ifo == next_ifo and start < end:
            raise ConfigurationError(
                f"Simulated sets {name!r} (until GPS {end}) and {next_name!r} (from GPS {start}) overlap in time. "
                f"Set simulate.{next_name}.gps_start to {end} or later."
            )
