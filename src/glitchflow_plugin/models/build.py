"""Networks by name."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from glitchflow_plugin.errors import ConfigurationError, nearest
from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.models.deep_decoder import DeepDecoder
from glitchflow_plugin.models.linear import LinearFilter
from glitchflow_plugin.models.plain_unet import PlainUNet
from glitchflow_plugin.models.resnet import ResNetGenerator
from glitchflow_plugin.models.shallow_decoder import ShallowDecoder
from glitchflow_plugin.models.unet import UNet
from glitchflow_plugin.models.wiener import WienerFilter

MODELS: dict[str, Callable[..., nn.Module]] = {
    "coupling": CouplingNet,
    "deep_decoder": DeepDecoder,
    "linear": LinearFilter,
    "plain_unet": PlainUNet,
    "resnet": ResNetGenerator,
    "shallow_decoder": ShallowDecoder,
    "unet": UNet,
    "wiener": WienerFilter,
}
"""Every network takes `in_channels` and `window_size` and its own settings by keyword."""


WAVEFORM_MODELS = frozenset({"coupling", "wiener"})
"""Those that look at whitened series; the others look at maps of energy."""


def representation(name: str) -> str:
    """What a network of this name looks at: `energy` or `waveform`."""
    return "waveform" if name in WAVEFORM_MODELS else "energy"


def check_network(name: object) -> None:
    """Refuse the name of a network that there is not.

    Raises:
        ConfigurationError: The message lists the names, and the nearest.
    """
    if name not in MODELS:
        message = f"model.name: expected one of {', '.join(sorted(MODELS))}, got {name!r}.{nearest(name, MODELS)}"
        raise ConfigurationError(message)


def build_model(name: str, **settings: Any) -> nn.Module:
    """Build a network by its name in model.yaml.

    Args:
        name: One of `MODELS`.
        settings: Arguments of that network; None stands for its own default.

    Returns:
        The network, untrained: scaled witness windows in, scaled strain windows out.

    Raises:
        ConfigurationError: The name or a setting is unknown or out of range.

    >>> type(build_model("unet", in_channels=2, base=4, depth=2, attention_heads=None)).__name__
    'UNet'
    """
    complete = full_settings(name, **settings)
    try:
        return MODELS[name](**complete)
    except TypeError as error:
        message = f"model {name!r} cannot be built of {complete} ({error}). Correct model.yaml."
        raise ConfigurationError(message) from error


def full_settings(name: str, **settings: Any) -> dict[str, Any]:
    """The settings of a network with its own defaults in place of what is None or missing, as a record.

    Args:
        name: One of `MODELS`.
        settings: Arguments of that network.

    Raises:
        ConfigurationError: The name or a setting is unknown, or a setting without default is missing.

    >>> full_settings("resnet", in_channels=7, base=16, depth=None)["depth"]
    2
    """
    check_network(name)
    signature = inspect.signature(MODELS[name])
    try:
        bound = signature.bind(**{key: value for key, value in settings.items() if value is not None})
    except TypeError as error:
        own = [key for key in signature.parameters if key not in ("in_channels", "window_size")]
        message = (
            f"model {name!r} does not take these settings ({error}); it takes {', '.join(own)}. Correct model.yaml; "
            "null stands for a network's own default."
        )
        raise ConfigurationError(message) from error
    bound.apply_defaults()
    return dict(bound.arguments)
