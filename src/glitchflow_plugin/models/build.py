"""Networks by name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.models.linear import LinearFilter
from glitchflow_plugin.models.unet import UNet
from glitchflow_plugin.models.wiener import WienerFilter

MODELS: dict[str, Callable[..., nn.Module]] = {
    "coupling": CouplingNet,
    "linear": LinearFilter,
    "unet": UNet,
    "wiener": WienerFilter,
}
"""Every network takes `in_channels` and `window_size` and its own settings by keyword."""


WAVEFORM_MODELS = frozenset({"coupling", "wiener"})
"""Those that look at whitened series; the others look at maps of energy."""


def representation(name: str) -> str:
    """What a network of this name looks at: `energy` or `waveform`."""
    return "waveform" if name in WAVEFORM_MODELS else "energy"


def build_model(name: str, **settings: Any) -> nn.Module:
    """Build a network by its name in model.yaml.

    Args:
        name: One of `MODELS`.
        settings: Arguments of that network.

    Returns:
        The network, untrained: scaled witness windows in, scaled strain windows out.

    Raises:
        ConfigurationError: The name or a setting is unknown.

    >>> type(build_model("unet", in_channels=2, base=4, depth=2)).__name__
    'UNet'
    """
    if name not in MODELS:
        message = f"expected a model name out of {sorted(MODELS)}, got {name!r}. Correct `name` in model.yaml."
        raise ConfigurationError(message)
    try:
        return MODELS[name](**settings)
    except TypeError as error:
        message = f"model {name!r} does not take these settings ({error}). Correct model.yaml."
        raise ConfigurationError(message) from error
