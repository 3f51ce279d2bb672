"""In what precision a network is run while it learns."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from glitchflow_plugin.errors import ConfigurationError


@cache
def cpu_instructions() -> frozenset[str]:
    """Names of the instructions that the processor has beyond the usual ones; none where the system does not tell."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(next((line for line in told.splitlines() if line.startswith("flags")), "").split())


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices natively; elsewhere they cost more time than they save."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        native = not cpu_instructions().isdisjoint({"amx_tile", "avx512_bf16"})
        return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return False


def choose_precision(precision: Literal["auto", "float32", "bf16"], device: torch.device) -> torch.dtype:
    """Resolve `auto` to bfloat16 where the device has it.

    Raises:
        ConfigurationError: The precision is unknown.
    """
    if precision == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    known = {"float32": torch.float32, "bf16": torch.bfloat16}
    if precision not in known:
        message = f"expected precision to be auto, float32 or bf16, got {precision!r}. Correct training.yaml."
        raise ConfigurationError(message)
    return known[precision]


def in_precision(network: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    """The network with its products in `dtype`; weights and what comes out stay float32.

    bfloat16 has the exponents of float32, so that gradients need no scaling.
    """
    if dtype is torch.float32:
        return network

    def mixed(witnesses: Tensor, **how: Any) -> Any:
        with torch.autocast(witnesses.device.type, dtype):
            predicted = network(witnesses, **how)
        return predicted.float() if isinstance(predicted, Tensor) and predicted.dtype is dtype else predicted

    return mixed
