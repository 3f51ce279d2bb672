"""What a step of inference works on: a registered model, maps, and the event set that they were made of."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, TypeVar, cast

from torch import nn

from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.model_data import EVENTS, SPECTROGRAMS, Datasets, data_folder, gps_of
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.tracking import registry
from glitchflow_plugin.types.tensors import host

T = TypeVar("T")


class ModelChoice(TypedDict):
    """A registered model; its version is a number or an alias."""

    name: str
    version: int | str


def check_model(model: Mapping[str, object]) -> ModelChoice:
    """The keys `name` and `version` (a number or an alias) of inference.yaml.

    Raises:
        ConfigurationError: A key is missing or misspelt.
    """
    if (
        not isinstance(model, Mapping)
        or set(model) != {"name", "version"}
        or not model["name"]
        or model["version"] in (None, "")
    ):
        raise ConfigurationError(
            f"inference.yaml: model must have the keys name and version (a number or an alias), got {model!r}."
        )
    return cast("ModelChoice", dict(model))


def load_model(model: Mapping[str, object], tracking_uri: str) -> ModelBundle:
    """Load a registered twin; its name and number stand in `notes["registered"]` afterwards.

    Args:
        model: `name` and `version` (a number or an alias).
        tracking_uri: Address of the registry.

    Raises:
        RegistryError: There is no such model or version.
        ConnectionFailedError: The server cannot be reached.
    """
    wanted = check_model(model)
    # an alias can move between two calls: look up the number once, then load that number
    found = registry.find(wanted["name"], wanted["version"], tracking_uri)
    bundle = registry.load(found.name, found.version, tracking_uri)
    return replace(bundle, notes={**bundle.notes, "registered": {"name": found.name, "version": found.version}})


def registered(bundle: ModelBundle) -> dict[str, object]:
    """Name and version of a bundle from `load_model`; empty for one that was not registered."""
    return dict(bundle.notes.get("registered") or {})


def model_inputs(bundle: ModelBundle) -> dict[str, object]:
    """The same for the inputs of a run summary."""
    return {("model" if key == "name" else f"model_{key}"): value for key, value in registered(bundle).items()}


def weights_fingerprint(twin: nn.Module) -> str:
    """Checksum of a twin's weights, so that maps of another model are never taken for finished."""
    digest = hashlib.sha256()
    for name, tensor in sorted(twin.state_dict().items()):
        digest.update(name.encode())
        digest.update(host(tensor).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Subject:
    """What a step of inference works on.

    Attributes:
        bundle: The model.
        spectrograms: The maps that it looks at.
        events: The event set that they were made of, for a model of waveforms.
    """

    bundle: ModelBundle
    spectrograms: SpectrogramSet
    events: EventSet | None

    @property
    def name(self) -> str:
        """GPS seconds and version of the model, for instance `1400100000-1400106353-v3`."""
        version = registered(self.bundle).get("version")
        return gps_of(self.spectrograms) + (f"-v{version}" if version is not None else "")

    def record(self, settings: Mapping[str, object]) -> dict[str, object]:
        """All that decides about a result, with those settings that change what comes of it."""
        return {
            "gps": gps_of(self.spectrograms),
            "data": self.spectrograms.manifest.fingerprint,
            "model": registered(self.bundle),
            "weights": weights_fingerprint(self.bundle.twin),
            **settings,
        }


@dataclass(frozen=True)
class Sources:
    """Where a step of inference finds what does not come from the step before.

    Attributes:
        model: `name` and `version` of the registered model.
        tracking_uri: Address of the registry.
        spectrograms: Folder of the maps.
        events: Folder of the event set.
        data: Folder of Load-infdata, whose sets are used where the former two are not given.
        datasets: What Load-infdata made them of.
    """

    model: Mapping[str, object] | None
    tracking_uri: str
    spectrograms: str | None
    events: str | None
    data: str | None
    datasets: Datasets | None

    def __post_init__(self) -> None:
        """Refuse a model that is named wrongly."""
        if self.model is not None:
            check_model(self.model)

    def find(self, bundle: ModelBundle | None, spectrograms: SpectrogramSet | None) -> Subject:
        """Model and maps from the step before, or from where this says.

        Raises:
            ConfigurationError: Nothing says which model, or where the maps are.
            FormatError: There are no maps.
        """
        if bundle is None:
            bundle = load_model(_required(self.model, "model"), self.tracking_uri)
        if spectrograms is None:
            spectrograms = SpectrogramSet.open(self._maps_of(bundle))
        events = self.events
        if events is None and self.data and Path(self.data).resolve() in spectrograms.folder.resolve().parents:
            beside = spectrograms.folder.parent / EVENTS
            events = str(beside) if beside.exists() else None
        if bundle.representation == "energy" or events is None:
            return Subject(bundle, spectrograms, None)
        return Subject(bundle, spectrograms, EventSet.open(events))

    def _maps_of(self, bundle: ModelBundle) -> Path:
        if self.spectrograms is not None or not self.data:
            return Path(_required(self.spectrograms, "spectrograms"))
        if not self.datasets:
            raise ConfigurationError(
                "this step runs alone, and its maps lie below `data` in a folder named after `datasets`, which it "
                "lacks. Give it `datasets: ${inference.datasets}` in conf/pipelines/, as a new run folder has it, or "
                "`spectrograms`."
            )
        return data_folder(Path(self.data), bundle, self.datasets) / SPECTROGRAMS


def _required(value: T | None, key: str) -> T:
    if value is None:
        raise ConfigurationError(f"this step runs alone and needs `{key}`. Give it, or run the step before it as well.")
    return value
