"""Networks of triggers by name, and their weights as safetensors."""

import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load, save

from glitchflow_plugin.errors import ConfigurationError, FormatError, nearest
from glitchflow_plugin.models.triggers.condonly import ConditionsOnly
from glitchflow_plugin.models.triggers.hypertransformer import HyperTransformer
from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.models.triggers.pet import PointEdgeTransformer
from glitchflow_plugin.models.triggers.pointvit import PointViT

NETWORKS: Mapping[str, type[TriggerNetwork]] = {
    "condonly": ConditionsOnly,
    "hypertransformer": HyperTransformer,
    "pet": PointEdgeTransformer,
    "pointvit": PointViT,
}

SIZES: Mapping[str, Mapping[str, int]] = {
    "S": {"dim": 128, "heads": 8, "layers": 8},
    "M": {"dim": 512, "heads": 16, "layers": 12},
    "L": {"dim": 1024, "heads": 32, "layers": 28},
}
"""Sizes of `pointvit` and `pet`."""


def build_network(name: str, *, size: str | None = None, **settings: Any) -> TriggerNetwork:
    """An untrained network.

    Args:
        name: One of `NETWORKS`.
        size: One of `SIZES`, for what is not among the settings; None: the network's own.
        settings: Its arguments.

    Raises:
        ConfigurationError: The name or a setting is unknown or out of range.
    """
    if name not in NETWORKS:
        raise ConfigurationError(
            f"expected a network out of {', '.join(sorted(NETWORKS))}, got {name!r}.{nearest(name, NETWORKS)}"
        )
    if size is not None and size not in SIZES:
        raise ConfigurationError(f"expected a size out of {', '.join(SIZES)}, got {size!r}.")
    try:
        return NETWORKS[name](**{**SIZES.get(size or "", {}), **settings})
    except TypeError as error:
        raise ConfigurationError(f"network {name!r} cannot be built of {settings} ({error}).") from error


def save_network(network: TriggerNetwork, name: str, settings: Mapping[str, Any]) -> bytes:
    """A network as safetensors, with its name and settings in the header: nothing that is run when it is read."""
    tensors = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    return save(tensors, metadata={"network": json.dumps({"name": name, "settings": dict(settings)})})


def load_network(content: bytes) -> TriggerNetwork:
    """Rebuild what `save_network` wrote, ready to answer.

    Raises:
        FormatError: The content is something else.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        described = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["network"])
        network = build_network(described["name"], **described["settings"])
        network.load_state_dict(load(content))
    except Exception as error:
        raise FormatError(
            f"these are not the weights of a network of triggers ({type(error).__name__}: {error}). Train it again."
        ) from error
    return network.eval()
