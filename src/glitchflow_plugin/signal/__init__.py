"""Pure functions on arrays and tensors: filters, spectra, whitening, the Q-transform and its inverse, coincidences."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glitchflow_plugin.signal.qtransform import QScan, SingleQTransform

__all__ = ["QScan", "SingleQTransform"]


def __getattr__(name: str) -> type:
    """Import what needs torch when it is asked for: steps that only read data never do."""
    if name in __all__:
        return getattr(import_module("glitchflow_plugin.signal.qtransform"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
