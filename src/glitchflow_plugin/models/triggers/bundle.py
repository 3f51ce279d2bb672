"""A model of triggers with all that is needed to ask it: what a registered version of it holds."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glitchflow_plugin.errors import DataError, FormatError
from glitchflow_plugin.models.triggers.build import load_network, save_network
from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.models.triggers.program import packed_onnx, packed_program
from glitchflow_plugin.models.triggers.trees import TriggerTrees, unpacked
from glitchflow_plugin.types.plain import plain

NETWORK_FILE = "network.safetensors"
TREES_FILE = "trees.skops"
_KIND = "triggers"


@dataclass(frozen=True, eq=False)
class TriggerModel:
    """A model of triggers.

    Attributes:
        model: Network or trees.
        settings: What it was made of: `model`, its name, and its arguments.
        target: Channel of the strain, whose triggers it must not see.
        channels: Names by index, from 1 on.
        kinds: Classes by index.
        sets: What a set held: arguments of `SetSettings`.
        half_width: Half the interval of ln(1 + SNR); infinite where it is not known.
        log_prior: What is added to log-odds, so that they hold for all times that the labelled ones stand for.
        metrics: Figures by name.
        notes: What else is told of it.
    """

    model: TriggerNetwork | TriggerTrees
    settings: Mapping[str, Any]
    target: str
    channels: tuple[str, ...]
    kinds: tuple[str, ...]
    sets: Mapping[str, Any]
    half_width: float
    log_prior: float = 0.0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Its description, as JSON holds it; `model` and `witnesses` are named as for twins, whose pages it shares."""
        described = {name: value for name, value in vars(self).items() if name not in ("model", "settings", "channels")}
        model = {"name": self.settings["model"], **self.settings}
        return plain({"kind": _KIND, **described, "witnesses": self.channels, "model": model}, finite=True)

    def packed(self) -> dict[str, bytes]:
        """Its contents by name of file; nothing in it is run when it is read."""
        if isinstance(self.model, TriggerTrees):
            return {TREES_FILE: self.model.packed()}
        settings = {key: value for key, value in self.settings.items() if key != "model"}
        return {NETWORK_FILE: save_network(self.model, str(self.settings["model"]), settings)}

    def program(self) -> bytes | None:
        """The network as a pt2 file with this description in it; None of trees, which are no program of torch."""
        return None if isinstance(self.model, TriggerTrees) else packed_program(_apart(self.model), self.to_dict())

    def onnx(self) -> tuple[bytes, float]:
        """The network as an ONNX file, and by how much its answers differ: `packed_onnx`.

        Raises:
            DataError: These are trees, or the file would be too large or wrong.
            MissingDependencyError: The extra `onnx` is not installed.
        """
        if isinstance(self.model, TriggerTrees):
            raise DataError("expected a network to export, got trees. Choose another version: glitchflow models list.")
        return packed_onnx(_apart(self.model), self.to_dict())


def _apart(network: TriggerNetwork) -> TriggerNetwork:
    """A copy that can be traced, whatever goes on with the network itself."""
    return copy.deepcopy(network).cpu().eval()


def trigger_model(described: Mapping[str, Any], files: Mapping[str, bytes]) -> TriggerModel:
    """The model that a description and its files are of.

    Raises:
        FormatError: They are of something else.
    """
    if described.get("kind") != _KIND or not {NETWORK_FILE, TREES_FILE} & set(files):
        raise FormatError(
            "this is no model of triggers. Choose one that the step Train of triggers_pipeline registered."
        )
    model = load_network(files[NETWORK_FILE]) if NETWORK_FILE in files else unpacked(files[TREES_FILE])
    try:
        half_width = described["half_width"]
        settings = {key: value for key, value in described["model"].items() if key != "name"}
        return TriggerModel(
            model,
            settings,
            described["target"],
            tuple(described["witnesses"]),
            tuple(described["kinds"]),
            described["sets"],
            float("inf") if half_width is None else float(half_width),
            float(described["log_prior"]),
            described["metrics"],
            described["notes"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"the description of a model of triggers is damaged ({error}). Register it again.") from error
