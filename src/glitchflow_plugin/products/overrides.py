"""Where the settings of a run are not those of the files of conf/, and which steps that concerns."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from glitchflow_plugin.products.summary import Changed

_SELECTION = ("pipe_key", "pipe_steps", "hydra")
_REFERENCE = re.compile(r"\$\{(\w+)")
_PASSWORD = re.compile(r"(?<=://)[^/@\s'\"]+@")


@dataclass(frozen=True)
class Applied:
    """Where a configuration differs from its files.

    Attributes:
        profile: Its name; None: none.
        changed: By key.
        concerns: By step the sections that it refers to.
    """

    profile: str | None = None
    changed: Mapping[str, Changed] = field(default_factory=dict)
    concerns: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, step: str) -> dict[str, Changed]:
        """What concerns a step; all of it where the step is not known."""
        sections = self.concerns.get(step)
        return {key: one for key, one in self.changed.items() if sections is None or key.partition(".")[0] in sections}


def differences(
    config: DictConfig,
    files: DictConfig | None,
    profile: str | None,
    overrides: Iterable[str] = (),
    usual: DictConfig | None = None,
) -> Applied:
    """Compare a configuration with that of the files alone.

    Args:
        config: As composed.
        files: Without profile and command line, but for the network that they choose; None: not known.
        profile: Name of the profile.
        overrides: Those of the command line: they tell who changed a key.
        usual: With the network of config.yaml, where another one is told of as a whole.
    """
    if files is None:
        return Applied(profile)
    now, before = dict(_leaves(unresolved(config))), dict(_leaves(unresolved(files)))
    said = [word.lstrip("+~").partition("=")[0] for word in overrides]
    changed = {}
    network, former = (OmegaConf.select(one, "model.name") if one is not None else None for one in (files, usual))
    if former is not None and network != former:
        changed["model"] = Changed(network, former, "command line" if "conf/model" in said else f"profile {profile}")
    for key in dict.fromkeys([*before, *now]):
        if now.get(key) == before.get(key) or key.partition(".")[0] in _SELECTION:
            continue
        here = any(key == one or key.startswith(f"{one}.") for one in said)
        by = "command line" if here else f"profile {profile}"
        changed[key] = Changed(_public(_value(config, key, now)), _public(_value(files, key, before)), by)
    return Applied(profile, changed, _concerns(config))


def unresolved(config: Mapping[Any, Any]) -> dict[str, Any]:
    """A configuration as dictionaries and lists, references as they stand."""
    content: Any = OmegaConf.to_container(config, resolve=False) if isinstance(config, DictConfig) else config
    return {str(key): value for key, value in content.items()}


def _leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(config: DictConfig, key: str, leaves: Mapping[str, Any]) -> Any:
    """A value that is a reference as what it refers to, where there is that."""
    value = leaves.get(key)
    if not isinstance(value, str) or not _REFERENCE.search(value):
        return value
    try:
        found = OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return value
    return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found


def _public(value: Any) -> Any:
    """The value without the passwords of addresses."""
    if isinstance(value, dict):
        return {str(key): _public(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_public(one) for one in value]
    return _PASSWORD.sub("***@", value) if isinstance(value, str) else value


def _concerns(config: DictConfig) -> dict[str, frozenset[str]]:
    """Sections that each step refers to, directly or through others."""
    content = unresolved(config)
    sections = {key: set(_REFERENCE.findall(str(value))) & set(content) for key, value in content.items()}

    def reached(start: set[str]) -> frozenset[str]:
        seen: set[str] = set()
        while start:
            seen |= start
            start = set().union(*(sections[key] for key in start if not _is_pipeline(content[key]))) - seen
        return frozenset(seen)

    found: dict[str, set[str]] = {}
    for key, section in content.items():
        for step, arguments in section["steps"].items() if _is_pipeline(section) else ():
            if isinstance(arguments, dict):  # else a step of another pipeline, told of there
                found.setdefault(str(step), {key}).update(_REFERENCE.findall(str(arguments)))
    return {step: reached(start & set(content)) for step, start in found.items()}


def _is_pipeline(section: Any) -> bool:
    return isinstance(section, dict) and isinstance(section.get("steps"), dict)
