"""The one place where a device is chosen; below the components, tensors stay where they are."""

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.engine import RAY, EngineSettings


def choose_device(device: str = "auto", engine: EngineSettings | None = None) -> str:
    """Resolve `auto` to the accelerator if there is one that the engine can use, else the CPU.

    Raises:
        ConfigurationError: The device is unknown or not present.
    """
    import torch

    if device == "auto" and engine is not None and engine.name == RAY:
        return "cpu"
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigurationError(f"device: expected auto, cpu, cuda or cuda:N, got {device!r}.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device: {device} was asked for, but there is no GPU here. Set device: auto.")
    return device
