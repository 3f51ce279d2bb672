"""What a result of inference is of, and how it is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glitchflow_plugin.components._model import check_model, load_model, model_name, require
from glitchflow_plugin.components.load_infdata import find_sets
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.results import gps_range
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.signal.columns import Columns

if TYPE_CHECKING:
    from glitchflow_plugin.models.bundle import ModelBundle


def check_result(name: object) -> str | None:
    """A name for a result's folder, or None for one that is made from what it is of.

    Raises:
        ConfigurationError: It would lead elsewhere.
    """
    return None if name is None else check_name(str(name), "inference.yaml: result")


@dataclass(frozen=True, eq=False)
class Subject:
    """What a step of inference works on.

    Attributes:
        bundle: The model.
        spectrograms: The maps that it looks at.
        events: The event set that they were made of, for a model of waveforms.
        what: All that decides about the result.
        name: Of the result's folder, by data and model.
    """

    bundle: "ModelBundle"
    spectrograms: SpectrogramSet
    events: EventSet | None
    what: Mapping[str, Any]
    name: str


@dataclass(frozen=True)
class Sought:
    """Where a step of inference finds what it works on, if that does not come from the step before.

    Attributes:
        registered: `name` and `version` of the model.
        tracking_uri: Of the registry.
        sets: Where the maps and their events are, see `find_sets`.
    """

    registered: Mapping[str, Any] | None
    tracking_uri: str
    sets: Mapping[str, Any]

    @classmethod
    def of(cls, model: Mapping[str, Any] | None, tracking_uri: str, **sets: Any) -> "Sought":
        """From the arguments of a step.

        Raises:
            ConfigurationError: The model is named wrongly.
        """
        return cls(None if model is None else check_model(model), tracking_uri, sets)

    def find(self, bundle: "ModelBundle | None", made: SpectrogramSet | None, settings: Mapping[str, Any]) -> Subject:
        """What comes from the step before, or is found where this says.

        Args:
            bundle: Model from the step before.
            made: Maps from the step before.
            settings: Those that change what comes of it.

        Raises:
            ConfigurationError: Nothing says which model, or where the maps are.
        """
        if bundle is None:
            bundle = load_model(require(self.registered, "model"), self.tracking_uri)
        spectrograms, events = find_sets(bundle, made, **self.sets)
        what = what_is_analysed(bundle, spectrograms, settings)
        return Subject(bundle, spectrograms, events, what, result_name(bundle, spectrograms))


def what_is_analysed(
    bundle: "ModelBundle", spectrograms: SpectrogramSet, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """All that decides about a result.

    Args:
        bundle: The model.
        spectrograms: What it looks at.
        settings: Those that change what comes of it.
    """
    from glitchflow_plugin.inference.run import weights_fingerprint

    return {
        "gps": set_gps(spectrograms),
        "data": spectrograms.manifest.fingerprint,
        "model": model_name(bundle),
        "weights": weights_fingerprint(bundle.twin),
        **settings,
    }


def result_name(bundle: "ModelBundle", spectrograms: SpectrogramSet) -> str:
    """GPS seconds and version of the model, for instance `1400100000-1400106353-v3`."""
    version = model_name(bundle).get("version")
    return set_gps(spectrograms) + (f"-v{version}" if version is not None else "")


def set_gps(spectrograms: SpectrogramSet) -> str:
    """First and last GPS second of a set."""
    if not len(spectrograms):
        return "empty"
    return gps_range(spectrograms.gps_start.tolist(), Columns(spectrograms.times).duration)
