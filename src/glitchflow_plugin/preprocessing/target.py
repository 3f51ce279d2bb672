"""Which channel is the strain, told by its name; and which others hold the strain as well."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.inspection import SeenChannel, SeenData

_TARGETS = (
    re.compile(r"Hrec_hoft|CALIB_STRAIN|GWOSC-.*STRAIN|LOSC-STRAIN|CAL-CS_PROC_.*STRAIN|DAC-STRAIN"),
    re.compile(r"(?<![a-z])(strain|hoft|h_of_t|h_t|h\(t\))(?![a-z])", re.IGNORECASE),
)
"""Names of the strain channel: those of LIGO, Virgo, KAGRA and GWOSC, then what else it may be called."""

_SEES_STRAIN = re.compile(r"LSC-DARM|CAL-DARM|CAL-DELTAL|OMC-DCPD|DARM_ERR|DARM_CTRL")
"""Channels of the loop that the strain is made from: whatever is in the strain is in them, signals too."""


def find_target(channels: Mapping[str, SeenChannel], target: str | None = None) -> str:
    """The strain channel: as asked for, or the only one that is called like it.

    Raises:
        ConfigurationError: There is none, or there are several; the message lists them.
    """
    held = sorted(channels)
    if target is not None:
        if target in channels:
            return target
        near = get_close_matches(target, held, n=5, cutoff=0.4) or held[:10]
        raise ConfigurationError(f"--target {target} is in none of the files; they hold for instance {near}.")
    for found in _candidates(channels):
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(f"{name} ({channels[name].rate})" for name in found[:20])
            raise ConfigurationError(
                f"{len(found)} channels may be the strain: {listed}. Choose one: --target {found[0]}"
            )
    listed = ", ".join(held[:20]) + (f" and {len(held) - 20} more" if len(held) > 20 else "")
    raise ConfigurationError(f"No channel is called like a strain channel: {listed}. Name it: --target CHANNEL")


def _candidates(channels: Mapping[str, SeenChannel]) -> Iterator[list[str]]:
    for pattern in _TARGETS:
        yield sorted(name for name in channels if pattern.search(name))
    yield sorted(name for name, channel in channels.items() if channel.unit == "strain")


def with_alias(seen: SeenData, target: str | None) -> SeenData:
    """The data set with the strain under its alias, where only that tells that it is the strain."""

    def wanted(alias: str) -> bool:
        return alias == target if target is not None else bool(_TARGETS[0].search(alias))

    aliases = [channel.alias for channel in seen.channels.values() if channel.alias]
    names = {
        name: channel.alias
        for name, channel in seen.channels.items()
        if channel.alias
        and channel.alias not in seen.channels
        and aliases.count(channel.alias) == 1
        and wanted(channel.alias)
        and not _TARGETS[0].search(name)
    }
    if not names:
        return seen
    return replace(seen, channels={names.get(name, name): channel for name, channel in seen.channels.items()})


def unsafe_channels(target: str, used: Mapping[str, object]) -> tuple[str, ...]:
    """Channels of the target's detector that hold the strain itself."""
    detector = target.partition(":")[0] if ":" in target else ""
    return tuple(
        sorted(
            name
            for name in used
            if name != target and name.startswith(detector) and (_TARGETS[0].search(name) or _SEES_STRAIN.search(name))
        )
    )
