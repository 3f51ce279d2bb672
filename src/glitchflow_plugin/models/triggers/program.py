"""A network of triggers as a program that needs none of its code: torch.export (pt2) and ONNX.

Both take the tensors of `TriggerSets` by the names in `INPUTS`, for any number of sets and of triggers, none included,
and give those of `TriggerAnswers` by the names in `OUTPUTS`.
"""

import copy
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from glitchflow_plugin.errors import DataError, MissingDependencyError
from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import POINT_FEATURES, TriggerSets

INPUTS = ("points", "channels", "mask", "globals", "globals_valid")
OUTPUTS = ("glitch", "kind", "log1p_snr", "channel")
DESCRIPTION = "bundle.json"
"""What a program carries beside its weights: name of the file in pt2, key of the metadata in ONNX."""

PARITY = 1e-6
"""By how much an answer may differ, in units of its size where that exceeds 1."""

_PADDING = 2
_LARGEST_FILE = 2**31
"""Bytes of one ONNX file, a limit of protocol buffers."""
_ROUNDING = 4.0
"""By how much more than torch's own single precision a runtime may be away from double precision."""


class Program(nn.Module):
    """A network of triggers with tensors in and out.

    Args:
        network: The network.
    """

    def __init__(self, network: TriggerNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        points: Float[Tensor, "set trigger feature"],
        channels: Int[Tensor, "set trigger"],
        mask: Bool[Tensor, "set trigger"],
        globals_: Float[Tensor, "set global"],
        globals_valid: Bool[Tensor, "set global"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Answers by the names in `OUTPUTS`."""
        # with padding there are two triggers or more: the tracer takes sizes of 0 and 1 for constants
        longer = functional.pad(points, (0, 0, 0, _PADDING)), functional.pad(channels, (0, _PADDING))
        sets = TriggerSets(*longer, functional.pad(mask, (0, _PADDING)), globals_, globals_valid)
        told = self.network(sets)
        return told.glitch, told.kind, told.log1p_snr, told.channel


def exported(network: TriggerNetwork) -> ExportedProgram:
    """The network, in evaluation mode and on the CPU, as a program of any number of sets and triggers."""
    sets, triggers = Dim("sets"), Dim("triggers", min=0)
    both, one = {0: sets, 1: triggers}, {0: sets}
    example = example_sets(network, (5, 3, 4))
    with sdpa_kernel(SDPBackend.MATH):  # others lay out their results in ways that later steps would rely on
        return torch.export.export(
            Program(network), _inputs(example), dynamic_shapes=(both, both, both, one, one), strict=False
        )


def packed_program(network: TriggerNetwork, description: Mapping[str, Any]) -> bytes:
    """Contents of a pt2 file; `torch.export.load` reads it.

    Args:
        network: In evaluation mode, on the CPU.
        description: What is kept with it, as JSON holds it.
    """
    content = io.BytesIO()
    torch.export.save(exported(network), content, extra_files={DESCRIPTION: json.dumps(description)})
    return content.getvalue()


def packed_onnx(network: TriggerNetwork, description: Mapping[str, Any]) -> tuple[bytes, float]:
    """Contents of an ONNX file whose answers were compared with the network's.

    Compared are sets of 0, 1, 40 and 2,000 drawn triggers. Single precision rounds differently in each runtime: where
    answers differ by more than `PARITY`, the file is taken if they are about as near to those in double precision as
    the network's own are.

    Args:
        network: In evaluation mode, on the CPU.
        description: What is kept with it, as JSON holds it.

    Returns:
        The contents, and the largest difference from the network's answers, in the units of `PARITY`.

    Raises:
        MissingDependencyError: The extra `onnx` is not installed.
        DataError: The file would be larger than ONNX allows, or answers differently.
    """
    runtime = _runtime()
    if sum(one.nbytes for one in network.state_dict().values()) >= _LARGEST_FILE:
        raise DataError("expected a network below 2 GiB, which one ONNX file can hold. Export it as pt2.")
    with sdpa_kernel(SDPBackend.MATH):
        made = torch.onnx.export(
            exported(network), dynamo=True, input_names=INPUTS, output_names=OUTPUTS, verbose=False
        )
    if made is None:
        raise DataError("torch made no ONNX of the network. Export it as pt2.")
    model = made.model_proto
    model.metadata_props.add(key=DESCRIPTION, value=json.dumps(description))
    content = model.SerializeToString()
    away = _difference(runtime.InferenceSession(content, providers=["CPUExecutionProvider"]), network)
    return content, away


def example_sets(network: TriggerNetwork, counts: tuple[int, ...], seed: int = 0) -> TriggerSets:
    """Sets of so many drawn triggers each; all that a network can be asked about, without data."""
    generator = torch.Generator().manual_seed(seed)
    scaling, width, number = network.scaling, max(counts), len(counts)
    spread, globals_spread = scaling.point_spread, scaling.global_spread
    points = torch.randn(number, width, len(POINT_FEATURES), generator=generator) * spread + scaling.point_mean
    globals_ = torch.randn(number, len(globals_spread), generator=generator) * globals_spread + scaling.global_mean
    return TriggerSets(
        points,
        torch.randint(0, network.num_channels, (number, width), generator=generator),
        torch.arange(width) < torch.tensor(counts)[:, None],
        globals_,
        torch.rand(globals_.shape, generator=generator) < 0.9,
    )


def _difference(session: Any, network: TriggerNetwork) -> float:
    """Largest difference of the answers of a session from the network's.

    Raises:
        DataError: It is too large.
    """
    taken = {one.name for one in session.get_inputs()}
    exact = Program(copy.deepcopy(network).double())
    largest = 0.0
    for counts in ((0,), (1,), (40, 0, 1), (2000,)):
        sets = example_sets(network, counts)
        fed = {name: host(one) for name, one in zip(INPUTS, _inputs(sets), strict=True) if name in taken}
        found = session.run(list(OUTPUTS), fed)
        with torch.no_grad():
            told, true = Program(network)(*_inputs(sets)), exact(*_inputs(_double(sets)))
        for name, one, own, best in zip(OUTPUTS, found, told, true, strict=True):
            away, rounded = _away(one, host(own)), _away(host(own), host(best))
            allowed = max(PARITY, _ROUNDING * rounded)
            if not (away <= PARITY or _away(one, host(best)) <= allowed):
                raise DataError(
                    f"expected ONNX to answer as the network does, got {name} away by {away:.2g} for sets of {counts} "
                    "triggers. Export it as pt2, and keep this file from use."
                )
            largest = max(largest, away)
    return largest


def _away(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.max(np.abs(one - other) / np.maximum(1.0, np.abs(other)), initial=0.0))


def _double(sets: TriggerSets) -> TriggerSets:
    return TriggerSets(sets.points.double(), sets.channels, sets.mask, sets.globals_.double(), sets.globals_valid)


def _inputs(sets: TriggerSets) -> tuple[Tensor, ...]:
    return sets.points, sets.channels, sets.mask, sets.globals_, sets.globals_valid


def _runtime() -> Any:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            'ONNX needs packages that are not installed: pip install "glitchflow_plugin[onnx]", or export as pt2.'
        ) from error
    return onnxruntime
