"""What a result of inference is of, and how it is called."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from glitchflow_plugin.components._model import model_name
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.results import gps_range
from glitchflow_plugin.data.sharded import SpectrogramSet

if TYPE_CHECKING:
    from glitchflow_plugin.models.bundle import ModelBundle


def check_result(name: object) -> str | None:
    """A name for a result's folder, or None for one that is made from what it is of.

    Raises:
        ConfigurationError: It would lead elsewhere.
    """
    return None if name is None else check_name(str(name), "inference.yaml: result")


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
    times = spectrograms.times
    return gps_range(spectrograms.gps_start.tolist(), float(times[-1] + times[1] - times[0]))
