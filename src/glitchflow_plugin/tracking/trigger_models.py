"""Models of triggers in the registry: `TriggerModel` in and out, sealed and read as twins are."""

import json
import tempfile
from pathlib import Path
from typing import Any

from mlflow.models import Model

from glitchflow_plugin.models.triggers.build import NETWORKS
from glitchflow_plugin.models.triggers.bundle import NETWORK_FILE, TREES_FILE, TriggerModel, trigger_model
from glitchflow_plugin.models.triggers.trees import TREES
from glitchflow_plugin.tracking.connection import DEFAULT_TRACKING_URI
from glitchflow_plugin.tracking.registry import register_files
from glitchflow_plugin.tracking.versions import (
    BUNDLE_FILE,
    CHAMPION,
    OWN_FILES,
    ModelVersion,
    fetch,
    find,
    list_versions,
    model_names,
    parse_description,
)

PROGRAM_FILE = "program.pt2"
"""The network for other tools, which is never read here, since parsing one can run code."""


def register_trigger_model(model: TriggerModel, name: str, tracking_uri: str, **where: Any) -> ModelVersion:
    """Store a model of triggers as the next version of a registered model.

    Args:
        model: The model.
        name: Name of the registered model; made if it is new.
        tracking_uri: Address of the registry.
        where: Further arguments of `register_files`.

    Raises:
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        own = folder / OWN_FILES
        own.mkdir(parents=True)
        content = model.to_dict()
        (own / BUNDLE_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
        for file, held in model.packed().items():
            (own / file).write_bytes(held)
        if (program := model.program()) is not None:
            (folder / PROGRAM_FILE).write_bytes(program)
        # MLflow's note of what is in a folder; without flavours, since its loaders run what they find
        Model(metadata={"target": model.target}).save(str(folder / "MLmodel"))
        return register_files(folder, content, name, tracking_uri, **where)


def trigger_versions(tracking_uri: str = DEFAULT_TRACKING_URI) -> list[ModelVersion]:
    """All registered versions of models of triggers, champions first, then the newest.

    Args:
        tracking_uri: Address of the registry.

    Raises:
        RegistryError: There is no registry.
        ConnectionFailedError: The server cannot be reached.
    """
    every = [one for name in model_names(tracking_uri) for one in list_versions(name, tracking_uri)]
    found = [one for one in every if one.tags.get("network") in (*NETWORKS, *TREES)]
    return sorted(found, key=lambda one: (CHAMPION not in one.aliases, -one.created))


def load_trigger_model(
    name: str, version_or_alias: int | str = CHAMPION, tracking_uri: str = DEFAULT_TRACKING_URI
) -> tuple[TriggerModel, ModelVersion]:
    """Load a registered model of triggers, on the CPU, and which version it is. Nothing that is stored is run.

    Args:
        name: Name of the registered model.
        version_or_alias: A number or an alias.
        tracking_uri: Address of the registry.

    Raises:
        RegistryError: There is no such model, version or alias.
        ConnectionFailedError: The server cannot be reached.
        FormatError: The version is no model of triggers, or its files are not those that were registered.
    """
    version = find(name, version_or_alias, tracking_uri)
    with tempfile.TemporaryDirectory() as temporary:
        own = fetch(name, version.version, temporary, tracking_uri) / OWN_FILES
        files = {file: (own / file).read_bytes() for file in (NETWORK_FILE, TREES_FILE) if (own / file).is_file()}
        return trigger_model(parse_description(version, own / BUNDLE_FILE), files), version
