"""How steps get a model: by name and version from the registry."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from glitchflow_plugin.models.bundle import ModelBundle

_KEYS = {"name", "version"}


def check_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """The keys `name` and `version` (a number or an alias) of inference.yaml.

    Raises:
        ConfigurationError: A key is missing or misspelt.
    """
    if not isinstance(model, Mapping) or set(model) != _KEYS or not model["name"] or model["version"] in (None, ""):
        raise ConfigurationError(
            f"inference.yaml: model must have the keys name and version (a number or an alias), got {model!r}."
        )
    return dict(model)


def load_model(model: Mapping[str, Any], tracking_uri: str) -> "ModelBundle":
    """Load a registered twin; its name and number stand in `notes["registered"]` afterwards.

    Args:
        model: `name` and `version` (a number or an alias).
        tracking_uri: Of the registry.

    Raises:
        RegistryError: There is no such model or version.
        ConnectionFailedError: The server cannot be reached.
    """
    from glitchflow_plugin.tracking.registry import find, load

    wanted = check_model(model)
    # an alias can move between two calls: look up the number once, then load that number
    found = find(wanted["name"], wanted["version"], tracking_uri)
    bundle = load(found.name, found.version, tracking_uri)
    return replace(bundle, notes={**bundle.notes, "registered": {"name": found.name, "version": found.version}})


def model_name(bundle: "ModelBundle") -> dict[str, Any]:
    """Name and version of a bundle from `load_model`; empty for one that was not registered."""
    return dict(bundle.notes.get("registered") or {})


def model_inputs(bundle: "ModelBundle") -> dict[str, Any]:
    """The same for the inputs of a run summary."""
    return {("model" if key == "name" else f"model_{key}"): value for key, value in model_name(bundle).items()}


def open_events(bundle: "ModelBundle", folder: Path | str | None) -> EventSet | None:
    """The event set that a model of waveforms needs beside the maps; None for one of energies, or without folder."""
    if bundle.representation == "energy" or folder is None:
        return None
    return EventSet.open(folder)


def require(value: Any, key: str) -> Any:
    """A setting that a step needs when it runs alone.

    Raises:
        ConfigurationError: It is not given.
    """
    if value is None:
        raise ConfigurationError(f"this step runs alone and needs `{key}`. Give it, or run the step before it as well.")
    return value
