"""A trained twin with everything that is needed to use it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.models.build import representation
from glitchflow_plugin.models.twins import Twin
from glitchflow_plugin.models.weights import load_twin, read_header, save_twin
from glitchflow_plugin.types.plain import JsonObject, plain

BUNDLE_VERSION = 1


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """A twin and what must be known to feed it.

    Attributes:
        twin: Witness energies SNR² (window, witness, frequency, column) to strain energy SNR² (window, 1, ...).
        target: The strain channel.
        witnesses: Witness channels in the order of the twin's input.
        recipe: How the maps were made (the recipe of the spectrogram set): conditioning, whitening, Q-transform.
        window_size: Rows and columns of a window.
        frequencies: Centre frequency of each row, Hz.
        times: Time of each column of a whole map, s from its left edge.
        scaling: `transform`, `clamp`, `scale` by channel.
        metrics: Figures on the validation data, by name.
        versions: Versions of the program and its libraries when it was trained.
        dataset: Fingerprint of the spectrogram set.
        model: Name and settings of the network.
        notes: Whatever else shall be kept.
        baseline: The linear witness filter as a twin, fitted on the same training data; None if there is none.
    """

    twin: nn.Module
    target: str
    witnesses: tuple[str, ...]
    recipe: JsonObject
    window_size: int
    frequencies: tuple[float, ...]
    times: tuple[float, ...]
    scaling: JsonObject = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    model: JsonObject = field(default_factory=dict)
    notes: JsonObject = field(default_factory=dict)
    baseline: Twin | None = None

    def __post_init__(self) -> None:
        """Refuse a bundle that cannot be fed."""
        if not self.witnesses or self.target in self.witnesses or len(set(self.witnesses)) != len(self.witnesses):
            raise FormatError(
                f"expected one or more different witness channels without the target {self.target}, "
                f"got {list(self.witnesses)}."
            )
        if len(self.frequencies) != self.window_size or len(self.times) < self.window_size:
            raise FormatError(
                f"expected {self.window_size} frequency rows and at least as many columns for windows of that size, "
                f"got {len(self.frequencies)} and {len(self.times)}."
            )

    @property
    def representation(self) -> str:
        """What the twin looks at: `energy` (maps) or `waveform` (whitened series)."""
        return representation(str(self.model.get("name", "unet")))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what the twin takes for one window or event."""
        if self.representation == "waveform":
            return len(self.witnesses), round(self.recipe["events"]["duration"] * self.recipe["events"]["sample_rate"])
        return len(self.witnesses), self.window_size, self.window_size

    @property
    def channels(self) -> tuple[str, ...]:
        """Target first, then the witnesses: the channel axis of the maps it was trained on."""
        return (self.target, *self.witnesses)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the networks, JSON-like."""
        names = [item.name for item in fields(self) if item.name not in ("twin", "baseline")]
        return {"format_version": BUNDLE_VERSION, **{name: plain(getattr(self, name)) for name in names}}

    @classmethod
    def from_dict(cls, content: JsonObject, twin: nn.Module, baseline: Twin | None) -> "ModelBundle":
        """Rebuild a bundle from `to_dict` and its networks.

        Raises:
            FormatError: The content is of another version or incomplete.
        """
        values = dict(content) if isinstance(content, Mapping) else {}
        version = values.pop("format_version", None)
        if version != BUNDLE_VERSION:
            raise FormatError(
                f"the model has format version {version}, this program reads {BUNDLE_VERSION}. Train it again."
            )
        for name, wanted in _KINDS.items():
            if name in values and not wanted(values[name]):
                raise FormatError(
                    f"the description of the model is damaged: {name} is {str(values[name])[:60]}. Train it again."
                )
        try:
            for name in ("witnesses", "frequencies", "times"):
                values[name] = tuple(values[name])
            return cls(twin=twin, baseline=baseline, **values)
        except (KeyError, TypeError) as error:
            raise FormatError(
                f"the description of the model is incomplete or has unknown parts ({error}). Train it again."
            ) from error


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_record(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_axis(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(item, int | float) and math.isfinite(item) for item in value
    )


#: What each part of a description must be.
_KINDS: dict[str, Callable[[object], bool]] = {
    "target": _is_text,
    "witnesses": lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)),
    "recipe": _is_record,
    "window_size": lambda value: type(value) is int and value > 0,
    "frequencies": _is_axis,
    "times": _is_axis,
    **dict.fromkeys(("scaling", "metrics", "versions", "model", "notes"), _is_record),
    "dataset": _is_text,
}


def pack_twin(bundle: ModelBundle) -> bytes:
    """A bundle's twin by `save_twin`."""
    twin: Any = bundle.twin
    own = {key: value for key, value in bundle.model.items() if key != "name"}
    settings = {"in_channels": len(bundle.witnesses), "window_size": bundle.window_size, **own}
    return save_twin(twin, bundle.model["name"], settings)


def pack_baseline(bundle: ModelBundle) -> bytes | None:
    """A bundle's linear filter by `save_twin`; None if it has none."""
    if bundle.baseline is None:
        return None
    network: Any = bundle.baseline.network
    name = "wiener" if bundle.representation == "waveform" else "linear"
    return save_twin(bundle.baseline, name, network.settings)


def unpack(content: JsonObject, twin: bytes, baseline: bytes | None) -> ModelBundle:
    """Rebuild a bundle from `to_dict`, `pack_twin` and `pack_baseline`.

    Args:
        content: The description.
        twin: Safetensors of the twin.
        baseline: Those of the linear filter; None if there is none.

    Raises:
        FormatError: A part cannot be read, or they are not of one model.
    """
    bundle = ModelBundle.from_dict(content, load_twin(twin), None if baseline is None else load_twin(baseline))
    parts = [read_header(part)[1] for part in (twin, baseline) if part is not None]
    name, witnesses = parts[0]["name"], len(bundle.witnesses)
    if name != bundle.model.get("name") or any(part["settings"]["in_channels"] != witnesses for part in parts):
        raise FormatError(
            f"the description is of {bundle.model.get('name')} with {witnesses} witnesses, the weights are of {name} "
            f"with {parts[0]['settings']['in_channels']}. Train and register again."
        )
    return bundle
