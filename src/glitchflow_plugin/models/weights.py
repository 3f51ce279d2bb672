"""Twins as safetensors: numbers and text, nothing that is run when they are read."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.models.build import build_model, representation
from glitchflow_plugin.models.twins import EnergyTwin, Twin, WaveformTwin
from glitchflow_plugin.types.plain import JsonObject, plain

_CHECKSUM = "sha256"
#: Numbers that a network may hold beside its weights; those of the networks of this package are some hundreds.
_LARGEST_BUFFERS = 1 << 26


def save_twin(twin: Twin, name: str, settings: Mapping[str, object]) -> bytes:
    """A twin as safetensors, with the name and settings of its network in the header.

    Args:
        twin: To be saved; it stays on its device.
        name: Name of its network, as for `build_model`.
        settings: Arguments of `build_model`.

    Returns:
        Contents of a .safetensors file: tensors and text, nothing that is run when it is read.
    """
    described = {"name": name, "settings": plain(settings)}
    if isinstance(twin, EnergyTwin):
        described["transform"] = twin.transform
    tensors = {key: value.cpu().contiguous() for key, value in twin.state_dict().items()}
    described[_CHECKSUM] = _digest(described, tensors)
    return save(tensors, metadata={"model": json.dumps(described)})


def load_twin(content: bytes) -> Twin:
    """Rebuild what `save_twin` wrote. Nothing in it is run: the network is one of `models.build`, by its name.

    Raises:
        FormatError: The content is something else, or its tensors are not those of the network that it names.
    """
    try:
        written, described = read_header(content)
        shapes = _shapes_now(written)
        # without memory at first: settings can ask for more than any machine has
        with torch.device("meta"), _at_most(len(shapes)):
            sketch = _twin_of(described, shapes)
        expected = {key: tuple(value.shape) for key, value in sketch.state_dict().items()}
        other = [key for key in sorted({*shapes, *expected}) if shapes.get(key) != expected.get(key)]
        if other:
            raise FormatError(f"other tensors than those of its settings: {', '.join(other[:3])}")
        held = sum(buffer.numel() for buffer in sketch.buffers())
        if held > _LARGEST_BUFFERS:
            raise FormatError(f"{held} numbers beside its weights, at most {_LARGEST_BUFFERS} expected")
        tensors = load(content)
        # not there in files of earlier versions
        if described.get(_CHECKSUM, known := _digest(described, tensors)) != known:
            raise FormatError("its numbers or settings are not those that were written")
        twin = _twin_of(described, shapes)
        if written != shapes:
            tensors = {**twin.state_dict(), **_kept(tensors, shapes)}
        twin.load_state_dict(tensors, strict=True)
    except Exception as error:
        raise FormatError(
            f"these are not the weights of a twin ({type(error).__name__}: {error}). Train and register again."
        ) from error
    return twin.eval()


def _digest(described: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """Checksum of a network's name and settings and of all its numbers."""
    said = {key: value for key, value in described.items() if key != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_header(content: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Shape by tensor, and name and settings of the network, of a safetensors file; its data are not looked at."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header.pop("__metadata__")["model"])
    return {str(key): tuple(map(int, value["shape"])) for key, value in header.items()}, described


def _shapes_now(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of a twin's tensors in the present layout, for files of earlier versions too."""
    if "novelty_reference" in shapes:  # version 0.4 and before
        same = {key: shape for key, shape in shapes.items() if key not in ("novelty_reference", "summary_axes")}
        one = {key: (1, *shapes[key]) for key in ("variance_noise", "variance_factor", "limits")}
        empty = {"summary_mean": (0,), "summary_covariance": (0, 0), "summary_references": (0, 0)}
        shapes = {**same, **one, **empty, "levels": (1,)}
    if "summary_references" in shapes and "summary_groups" not in shapes:
        shapes = {**shapes, "summary_groups": shapes["summary_references"][:1]}
    if "summary_references" in shapes and "summary_powers" not in shapes:
        shapes = {**shapes, "summary_powers": (shapes["summary_references"][0], 0)}
    if "limits" in shapes and "loudness" not in shapes:  # told apart were pixels with and without a prediction
        shapes = {**shapes, "loudness": (1,)}
    return shapes


def _kept(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """What of an earlier version's numbers holds in the present layout.

    The calibration of version 0.4 and before holds for no missing witness, and its novelty counted otherwise: that is
    left out. A twin without groups of references has each as one of its own.
    """
    other = ("summary_mean",) if "novelty_reference" in tensors else ()
    return {key: value.reshape(shapes[key]) for key, value in tensors.items() if key in shapes and key not in other}


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Modules with more parameters than this cannot be built."""
    built = 0

    def counted(*_: object) -> None:
        nonlocal built
        built += 1
        if built > count:
            raise FormatError(f"its settings are of a network of more than {count} tensors")

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


def _twin_of(described: JsonObject, shapes: Mapping[str, tuple[int, ...]]) -> Twin:
    """An untrained twin of a network by name and settings, with room for tensors of these shapes."""
    network = build_model(described["name"], **described["settings"])
    if representation(described["name"]) == "waveform":
        num_references, summary_size = shapes["summary_references"]
        return WaveformTwin(
            network,
            summary_size,
            num_references,
            num_levels=shapes["levels"][0],
            num_bins=shapes["loudness"][0] + 1,
            num_parts=shapes["summary_powers"][1],
        )
    witness_scale = [1.0] * shapes["witness_scale"][0]
    return EnergyTwin(
        network, clamp=1.0, witness_scale=witness_scale, target_scale=1.0, transform=described["transform"]
    )
