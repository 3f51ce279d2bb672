"""A trained twin with everything that is needed to use it."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.models.build import build_model, representation
from glitchflow_plugin.types.plain import plain
from glitchflow_plugin.types.tensors import SeriesBatch, StrainSeries, StrainWindows, WindowBatch

Energies: TypeAlias = Float[Tensor, "*pixels"]
"""Energies or scaled energies of any shape."""

PROBABILITIES = (0.5, 0.68, 0.9, 0.95, 0.99)
"""For which a waveform twin says how much will be left at most."""

#: Groups of references below which a p-value cannot reach 0.05.
_FEWEST_REFERENCES = 19

BUNDLE_VERSION = 1
_CHECKSUM = "sha256"
TRANSFORMS = ("sqrt", "log1p", "none")
#: Numbers that a network may hold beside its weights; those of the networks of this package are some hundreds.
_LARGEST_BUFFERS = 1 << 26


def scale_energy(energy: Energies, clamp: Tensor, scale: Tensor, transform: str) -> Energies:
    """Bring energies to a common range; why so, `signal.scaling` says.

    Args:
        energy: Energies, SNR².
        clamp: Largest energy that is told apart, SNR², a scalar.
        scale: Divisor, broadcast against the energies.
        transform: `sqrt`, `log1p`, or `none` (energies as they are, without scale).
    """
    limited = torch.minimum(energy.clamp(min=0), clamp)
    match transform:
        case "sqrt":
            return torch.sqrt(limited) / scale
        case "log1p":
            return torch.log1p(limited) / scale
        case _:
            return limited


def unscale_energy(scaled: Energies, clamp: Tensor, scale: Tensor, transform: str) -> Energies:
    """Inverse of `scale_energy` between 0 and the clamp; more than the clamp is never returned."""
    match transform:
        case "sqrt":
            energy = torch.square(scaled * scale)
        case "log1p":
            energy = torch.expm1(scaled * scale)
        case _:
            energy = scaled
    return torch.minimum(energy, clamp)


class EnergyTwin(nn.Module):
    """A network between energies: witness SNR² in, strain SNR² out, with the scaling inside.

    Args:
        network: From scaled witness windows to scaled strain windows.
        clamp: Largest energy that the scaling tells apart, SNR².
        witness_scale: Divisor of each witness's transformed energy, in channel order.
        target_scale: Divisor of the strain's.
        transform: `sqrt`, `log1p`, or `none`, see `scale_energy`.

    Raises:
        FormatError: The transform is unknown.

    >>> twin = EnergyTwin(nn.Identity(), clamp=1e4, witness_scale=[2.0], target_scale=2.0)
    >>> twin(torch.full((1, 1, 2, 2), 5.0)).mean().round(decimals=4)
    tensor(5.)
    """

    clamp: Tensor
    witness_scale: Tensor
    target_scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        clamp: float,
        witness_scale: Sequence[float],
        target_scale: float,
        transform: str = "sqrt",
    ) -> None:
        super().__init__()
        if transform not in TRANSFORMS:
            message = f"expected a transform out of {TRANSFORMS}, got {transform!r}."
            raise FormatError(message)
        self.network = network
        self.transform = transform
        self.register_buffer("clamp", torch.tensor(float(clamp)))
        self.register_buffer("witness_scale", torch.tensor(list(witness_scale), dtype=torch.float32)[:, None, None])
        self.register_buffer("target_scale", torch.tensor(float(target_scale)))

    def forward(self, witnesses: WindowBatch) -> StrainWindows:
        """Predict strain energy.

        Args:
            witnesses: Witness energies, SNR², (window, witness, frequency, column).

        Returns:
            Strain energy, SNR², (window, 1, frequency, column).
        """
        scaled = self.network(self.scale_witnesses(witnesses))
        return unscale_energy(scaled, self.clamp, self.target_scale, self.transform)

    def scale_witnesses(self, witnesses: WindowBatch) -> WindowBatch:
        """What the network sees of the witness energies."""
        return scale_energy(witnesses, self.clamp, self.witness_scale, self.transform)

    def scale_target(self, strain: StrainWindows) -> StrainWindows:
        """What the network is asked to give for a strain energy; about 0..1."""
        return scale_energy(strain, self.clamp, self.target_scale, self.transform)


def gaussian_limits() -> Tensor:
    """Powers, over their mean, below which those of a complex Gaussian lie with each of `PROBABILITIES`.

    The share p of exponential powers lies below -log(1 - p) of their mean.
    """
    return -torch.log1p(-torch.tensor(PROBABILITIES))


class WaveformTwin(nn.Module):
    """A network between whitened series: witnesses in, the strain that they explain out.

    Whitened series have noise of variance 1 at every frequency, so there is nothing to scale. With a network that says
    how sure it is (`models.coupling`), the twin holds what calibrates that, fitted on validation events by
    `training.calibration`.

    What the network announces depends on how many witnesses are missing, so the calibration is one for each of some
    such numbers, the `levels`.

    Args:
        network: From witness series (event, witness, time) to strain (event, 1, time).
        summary_size: Length of the network's summary of an event; 0 if it gives none.
        num_references: Validation events whose summaries are kept for comparison.
        num_levels: Numbers of missing witnesses that are calibrated.
    """

    levels: Tensor
    variance_noise: Tensor
    variance_factor: Tensor
    limits: Tensor
    summary_mean: Tensor
    summary_covariance: Tensor
    summary_references: Tensor
    summary_groups: Tensor

    def __init__(self, network: nn.Module, summary_size: int = 0, num_references: int = 0, num_levels: int = 1) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("levels", torch.arange(float(num_levels)))
        self.register_buffer("variance_noise", torch.ones(num_levels))
        self.register_buffer("variance_factor", torch.ones(num_levels))
        self.register_buffer("limits", gaussian_limits().repeat(num_levels, 2, 1))
        self.register_buffer("summary_mean", torch.zeros(summary_size))
        self.register_buffer("summary_covariance", torch.eye(summary_size))
        self.register_buffer("summary_references", torch.zeros(num_references, summary_size))
        self.register_buffer("summary_groups", torch.arange(float(num_references)))

    def keep(self, **found: Tensor | float) -> None:
        """Put what calibration found into the buffers of these names, on the twin's own device and in its precision.

        References without groups are each of a group of its own.
        """
        if "summary_references" in found:
            references = torch.as_tensor(found["summary_references"])
            found = {"summary_groups": torch.arange(len(references))} | found
        for name, value in found.items():
            setattr(self, name, torch.as_tensor(value).to(self.limits))

    def forward(self, witnesses: SeriesBatch) -> StrainSeries:
        """Predict whitened strain, (event, 1, time); a witness of zeros is missing."""
        return self.network(witnesses)

    @property
    def explains(self) -> bool:
        """Whether the network says how sure it is."""
        return hasattr(self.network, "transform")

    def explain(self, witnesses: SeriesBatch) -> "Explained":
        """Prediction, and how far it can be trusted.

        Args:
            witnesses: As for `forward`.

        Raises:
            FormatError: The network does not say.
        """
        if not self.explains:
            message = f"{type(self.network).__name__} does not say how sure it is. Use the model coupling."
            raise FormatError(message)
        strain, announced, summary = self.network(witnesses, explained=True)
        missing = (witnesses.abs().amax(dim=-1) == 0).sum(dim=-1)
        level = self.level_of(missing)
        noise, factor = (values[level][:, None, None] for values in (self.variance_noise, self.variance_factor))
        return Explained(strain, noise + factor * (announced - 1), summary, level)

    def level_of(self, missing: Tensor) -> Tensor:
        """Place in `levels` of the next number of missing witnesses that was calibrated; more than all cannot be."""
        return torch.searchsorted(self.levels, missing.to(self.levels)).clamp(max=len(self.levels) - 1)

    def is_loud(self, variance: Tensor, level: Tensor | int = 0) -> Tensor:
        """Pixels in which a glitch was predicted: at least twice the noise's power is expected to be left.

        Args:
            variance: As from `explain`, (event, ...) or of one level.
            level: Of each event, or of all.
        """
        return variance > 2 * _beside(self.variance_noise[level], variance)

    def residual_limits(self, variance: Tensor, level: Tensor | int = 0) -> Tensor:
        """Powers below which what is left lies with the probabilities of `PROBABILITIES`, (..., probability).

        Args:
            variance: As from `explain`, (event, ...) or of one level.
            level: Of each event, or of all.
        """
        limits = self.limits[level]
        quiet, loud = (limits[..., row, :] for row in (0, 1))
        if limits.dim() > 2:
            between = (1,) * (variance.dim() - 1)
            quiet, loud = (each.reshape(len(each), *between, -1) for each in (quiet, loud))
        return variance[..., None] * torch.where(self.is_loud(variance, level)[..., None], loud, quiet)

    def novelty(self, summary: Tensor) -> Tensor:
        """Squared Mahalanobis distance from the training events, over the number of features, (event,).

        Of a missing witness nothing is known: distances are those of the present ones, by their own covariance.

        Args:
            summary: As from `explain`, (event, feature); NaN for a missing witness.
        """
        distances = summary.new_zeros(len(summary), dtype=torch.float64)
        for known, rows in _patterns(summary):
            distances[rows] = self._distances(summary[rows], known)
        return distances

    def strangeness(self, summary: Tensor) -> Tensor:
        """Share of validation events that were at least as new: small for what was never seen, float64, (event,).

        A p-value under the hypothesis that the event is like those of validation; never 0. Validation events of one
        group (`data.groups`) are no independent cases: each counts as one over the size of its group, and the groups
        are counted, as in hierarchical conformal prediction (Lee, Barber and Willett 2023, arXiv:2306.06342). They are
        compared by the witnesses that the event has; where fewer than 19 groups have all of these, a p-value cannot
        reach 0.05 and is NaN.

        Args:
            summary: As from `explain`, (event, feature); NaN for a missing witness.
        """
        p_values = torch.full((len(summary),), torch.nan, dtype=torch.float64, device=summary.device)
        if len(self.summary_references) < _FEWEST_REFERENCES:
            return p_values
        for known, rows in _patterns(summary):
            seen = ~torch.isnan(self.summary_references[:, known]).any(dim=1)
            references = self.summary_references[seen]
            _, group, sizes = torch.unique(self.summary_groups[seen], return_inverse=True, return_counts=True)
            if len(sizes) >= _FEWEST_REFERENCES:
                usual, own = self._distances(references, known), self._distances(summary[rows], known)
                beyond = ((usual[None, :] >= own[:, None]) / sizes.double()[group]).sum(dim=1)
                p_values[rows] = (beyond + 1) / (len(sizes) + 1)
        return p_values

    def _distances(self, summary: Tensor, known: Tensor) -> Tensor:
        if not len(known):
            return summary.new_zeros(len(summary), dtype=torch.float64)
        away = (summary - self.summary_mean)[:, known].double()
        root = torch.linalg.cholesky(self.summary_covariance[known][:, known].double())
        return torch.linalg.solve_triangular(root, away.T, upper=False).square().mean(dim=0)


class Explained(NamedTuple):
    """A prediction and how far it can be trusted.

    Attributes:
        strain: Whitened, (event, 1, time).
        variance: Expected power of strain minus prediction by pixel of the short-time spectrum, where noise has about
            1, calibrated; (event, frequency, frame).
        summary: What the encoder saw of each witness, (event, feature); NaN for a missing one.
        level: Which of the twin's `levels` holds for the event, (event,).
    """

    strain: Tensor
    variance: Tensor
    summary: Tensor
    level: Tensor


def _beside(values: Tensor, variance: Tensor) -> Tensor:
    """One number an event, or one for all, in a shape that goes with (event, ...)."""
    return values.reshape(*values.shape, *(1,) * (variance.dim() - values.dim()))


def _patterns(summary: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Events of which the same features are known: those features, and the events."""
    patterns, which = torch.unique(~torch.isnan(summary), dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        yield torch.nonzero(pattern)[:, 0], torch.nonzero(which == number)[:, 0]


Twin: TypeAlias = EnergyTwin | WaveformTwin
"""Either kind."""


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
        versions: Of the program and its libraries, when trained.
        dataset: Fingerprint of the spectrogram set.
        model: Name and settings of the network.
        notes: Whatever else shall be kept.
        baseline: The linear witness filter as a twin, fitted on the same training data; None if there is none.
    """

    twin: nn.Module
    target: str
    witnesses: tuple[str, ...]
    recipe: Mapping[str, Any]
    window_size: int
    frequencies: tuple[float, ...]
    times: tuple[float, ...]
    scaling: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    baseline: Twin | None = None

    def __post_init__(self) -> None:
        """Refuse a bundle that cannot be fed."""
        if not self.witnesses or self.target in self.witnesses or len(set(self.witnesses)) != len(self.witnesses):
            message = (
                f"expected one or more different witness channels without the target {self.target}, "
                f"got {list(self.witnesses)}."
            )
            raise FormatError(message)
        if len(self.frequencies) != self.window_size or len(self.times) < self.window_size:
            message = (
                f"expected {self.window_size} frequency rows and at least as many columns for windows of that size, "
                f"got {len(self.frequencies)} and {len(self.times)}."
            )
            raise FormatError(message)

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
    def from_dict(cls, content: Mapping[str, Any], twin: nn.Module, baseline: Twin | None) -> "ModelBundle":
        """Rebuild a bundle from `to_dict` and its networks.

        Raises:
            FormatError: The content is of another version or incomplete.
        """
        values = dict(content) if isinstance(content, Mapping) else {}
        version = values.pop("format_version", None)
        if version != BUNDLE_VERSION:
            message = f"the model has format version {version}, this program reads {BUNDLE_VERSION}. Train it again."
            raise FormatError(message)
        for name, wanted in _KINDS.items():
            if name in values and not wanted(values[name]):
                message = (
                    f"the description of the model is damaged: {name} is {str(values[name])[:60]}. Train it again."
                )
                raise FormatError(message)
        try:
            for name in ("witnesses", "frequencies", "times"):
                values[name] = tuple(values[name])
            return cls(twin=twin, baseline=baseline, **values)
        except (KeyError, TypeError) as error:
            message = f"the description of the model is incomplete or has unknown parts ({error}). Train it again."
            raise FormatError(message) from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_record(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_axis(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(item, int | float) and math.isfinite(item) for item in value
    )


#: What each part of a description must be.
_KINDS: dict[str, Callable[[Any], bool]] = {
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


def save_twin(twin: Twin, name: str, settings: Mapping[str, Any]) -> bytes:
    """A twin as safetensors, with the name and settings of its network in the header.

    Args:
        twin: To be saved; it stays on its device.
        name: Of its network, as for `build_model`.
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
        written, described = _header(content)
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
        message = f"these are not the weights of a twin ({type(error).__name__}: {error}). Train and register again."
        raise FormatError(message) from error
    return twin.eval()


def unpack(content: Any, twin: bytes, baseline: bytes | None) -> ModelBundle:
    """Rebuild a bundle from `to_dict`, `pack_twin` and `pack_baseline`.

    Args:
        content: The description.
        twin: Safetensors of the twin.
        baseline: Those of the linear filter; None if there is none.

    Raises:
        FormatError: A part cannot be read, or they are not of one model.
    """
    bundle = ModelBundle.from_dict(content, load_twin(twin), None if baseline is None else load_twin(baseline))
    parts = [_header(part)[1] for part in (twin, baseline) if part is not None]
    name, witnesses = parts[0]["name"], len(bundle.witnesses)
    if name != bundle.model.get("name") or any(part["settings"]["in_channels"] != witnesses for part in parts):
        message = (
            f"the description is of {bundle.model.get('name')} with {witnesses} witnesses, the weights are of {name} "
            f"with {parts[0]['settings']['in_channels']}. Train and register again."
        )
        raise FormatError(message)
    return bundle


def _digest(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Checksum of a network's name and settings and of all its numbers."""
    said = {key: value for key, value in described.items() if key != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _header(content: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
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

    def counted(*_: Any) -> None:
        nonlocal built
        built += 1
        if built > count:
            raise FormatError(f"its settings are of a network of more than {count} tensors")

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


def _twin_of(described: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Twin:
    """An untrained twin of a network by name and settings, with room for tensors of these shapes."""
    network = build_model(described["name"], **described["settings"])
    if representation(described["name"]) == "waveform":
        num_references, summary_size = shapes["summary_references"]
        return WaveformTwin(network, summary_size, num_references, shapes["levels"][0])
    witness_scale = [1.0] * shapes["witness_scale"][0]
    return EnergyTwin(
        network, clamp=1.0, witness_scale=witness_scale, target_scale=1.0, transform=described["transform"]
    )
