"""Networks by name."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from glitchflow_plugin.errors import ConfigurationError, nearest
from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.models.encoder_decoders import DeepDecoder, PlainUNet, ResNetGenerator, ShallowDecoder
from glitchflow_plugin.models.linear import LinearFilter
from glitchflow_plugin.models.stft_unet import SpectrumUNet
from glitchflow_plugin.models.tcn import TemporalConvolutions
from glitchflow_plugin.models.transfer import TransferFunctions
from glitchflow_plugin.models.unet import UNet
from glitchflow_plugin.models.wiener import WienerFilter
from glitchflow_plugin.types.plain import JsonObject

MODELS: dict[str, Callable[..., nn.Module]] = {
    "coupling": CouplingNet,
    "deep_decoder": DeepDecoder,
    "linear": LinearFilter,
    "plain_unet": PlainUNet,
    "resnet": ResNetGenerator,
    "shallow_decoder": ShallowDecoder,
    "stft_unet": SpectrumUNet,
    "tcn": TemporalConvolutions,
    "transfer": TransferFunctions,
    "unet": UNet,
    "wiener": WienerFilter,
}
"""Every network takes `in_channels` and `window_size` and its own settings by keyword."""

_BY_DATA = ("in_channels", "window_size")
"""Arguments that follow from the data, not from settings."""

WAVEFORM_MODELS = frozenset({"coupling", "stft_unet", "tcn", "transfer", "wiener"})
"""Those that look at whitened series; the others look at maps of energy."""


def representation(name: str) -> str:
    """What a network of this name looks at: `energy` or `waveform`."""
    return "waveform" if name in WAVEFORM_MODELS else "energy"


def check_network(model: JsonObject) -> None:
    """Refuse the name of a network, and keys of its settings, that there are not.

    Args:
        model: `name` and settings; None stands for a network's own default, also of a key that is another network's.

    Raises:
        ConfigurationError: The message lists what there is, and the nearest.
    """
    name = model.get("name")
    if name not in MODELS:
        raise ConfigurationError(
            f"model.name: expected one of {', '.join(sorted(MODELS))}, got {name!r}.{nearest(name, MODELS)}"
        )
    own = [key for key in inspect.signature(MODELS[name]).parameters if key not in _BY_DATA]
    for key, value in model.items():
        if value is not None and key != "name" and key not in own:
            raise ConfigurationError(
                f"model {name!r} does not take the setting {key!r}.{nearest(key, own)} It takes {', '.join(own)}. A "
                f"network is chosen together with its settings: conf/model={name}."
            )


def build_model(name: str, **settings: object) -> nn.Module:
    """Build a network by its name in conf/model/.

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
        raise ConfigurationError(
            f"model {name!r} cannot be built of {complete} ({error}). Correct them in conf/model/."
        ) from error


def full_settings(name: str, **settings: object) -> dict[str, Any]:
    """The settings of a network with its own defaults in place of what is None or missing, as a record.

    Args:
        name: One of `MODELS`.
        settings: Arguments of that network.

    Raises:
        ConfigurationError: The name or a setting is unknown, or a setting without default is missing.

    >>> full_settings("resnet", in_channels=7, base=16, depth=None)["depth"]
    2
    """
    check_network({"name": name, **{key: value for key, value in settings.items() if key not in _BY_DATA}})
    try:
        bound = inspect.signature(MODELS[name]).bind(**{key: one for key, one in settings.items() if one is not None})
    except TypeError as error:
        raise ConfigurationError(f"model {name!r} cannot be built of {settings} ({error}).") from error
    bound.apply_defaults()
    return dict(bound.arguments)
