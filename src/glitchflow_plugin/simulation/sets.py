"""The sets of one simulation: what each has of its own, over what all share."""

from collections.abc import Mapping
from itertools import pairwise

from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation.settings import SimulationSettings


def settings_by_set(
    sets: Mapping[str, Mapping[str, object] | None], detector: Mapping[str, object] | None = None
) -> dict[str, SimulationSettings]:
    """Settings of each set.

    Args:
        sets: By name of the set, the keys in which it differs; parts such as `bank` are merged key by key.
        detector: Keys that all sets share.

    Raises:
        ConfigurationError: There is no set, a name or key is wrong, or two sets of one detector overlap in time.
    """
    if not sets:
        raise ConfigurationError("simulate.sets is empty. Name at least one set, for instance `training: {}`.")
    for name in sets:
        check_name(name, "simulate.sets: name of a set")
    made = {
        name: built(SimulationSettings, _merged(detector or {}, own or {}), f"simulate.sets.{name}")
        for name, own in sets.items()
    }
    _refuse_overlap(made)
    return made


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
                f"Set simulate.sets.{next_name}.gps_start to {end} or later."
            )
