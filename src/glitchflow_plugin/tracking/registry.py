"""The model registry: MLflow, with nothing pickled in it.

One registered version holds the twin as an exported program (torch.export, MLflow's `pt2`), and beside it
`bundle.json` (channels, recipe, axes, scaling, figures, versions), `baseline.safetensors` (the linear filter) and, for
a twin of waveforms, `twin.safetensors` (its network and calibration: the program alone does not say how sure it is).
MLflow's own API finds and loads it; nothing outside the version is needed. The checksums of all files stand in a tag
of the version, in the database, and are compared before anything is parsed.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from glitchflow_plugin.data.names import LONGEST_MODEL, check_name
from glitchflow_plugin.errors import FormatError, RegistryError
from glitchflow_plugin.models.bundle import ExportedTwin, ModelBundle, WaveformTwin, load_twin, pack_baseline, pack_twin
from glitchflow_plugin.tracking.connection import (
    DEFAULT_ARTIFACTS,
    DEFAULT_EXPERIMENT,
    DEFAULT_TRACKING_URI,
    ensure_experiment,
    environment,
    registry,
)
from glitchflow_plugin.tracking.versions import (
    BUNDLE_FILE,
    CHAMPION,
    CHECKSUMS,
    ModelVersion,
    aliases_of,
    checksums,
    crown,
    find,
    note,
    verify,
)

logger = logging.getLogger(__name__)

BASELINE_FILE = "baseline.safetensors"
TWIN_FILE = "twin.safetensors"
#: Asked for by whoever installs the model elsewhere. Given, because MLflow's own search takes half a minute.
_REQUIREMENTS = ["mlflow", "torch", "numpy"]


class Verdict(Protocol):
    """What a gate says of a challenger: `training.gate.Verdict`."""

    @property
    def promoted(self) -> bool:
        """Whether it becomes champion."""
        ...

    @property
    def reason(self) -> str:
        """Why, or why not."""
        ...

    @property
    def figures(self) -> Mapping[str, float]:
        """Figures behind the reason, by name."""
        ...


class Judge(Protocol):
    """Decides about a challenger against the champion, None for the first one.

    The second argument are the ids of events that the champion was trained on.
    """

    def __call__(self, champion: ModelBundle | None, seen: frozenset[str]) -> Verdict:
        """Judge."""
        ...


def register(
    bundle: ModelBundle,
    name: str,
    tracking_uri: str = DEFAULT_TRACKING_URI,
    *,
    experiment: str = DEFAULT_EXPERIMENT,
    artifacts: Path | str = DEFAULT_ARTIFACTS,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> ModelVersion:
    """Store a twin as the next version of a registered model.

    Args:
        bundle: The twin (moved to the CPU, in evaluation mode) and its description.
        name: Of the registered model; made if it is new.
        tracking_uri: A database (`sqlite:///mlflow.db`) or a server (`http://127.0.0.1:5005`).
        experiment: MLflow experiment; made if it is new.
        artifacts: Where a database keeps its files. A server has its own place.
        run_id: Run to which the model belongs; a new one if None.
        tags: Kept with the version.

    Returns:
        The version.

    Raises:
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    check_name(name, "name", LONGEST_MODEL)
    with registry(tracking_uri), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "twin"
        _write(bundle, folder)
        sealed = checksums(folder)
        client = MlflowClient(tracking_uri, tracking_uri)
        experiment_id = ensure_experiment(tracking_uri, experiment, artifacts)
        if run_id is None:
            run_id = str(client.create_run(experiment_id).info.run_id)
            client.set_terminated(run_id)
        logged = client.create_logged_model(experiment_id, name="twin", source_run_id=run_id)
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        info = mlflow.register_model(f"models:/{logged.model_id}", name)
        # an int from a database, a str from a server
        version = int(str(info.version))
        # the checksums first: without them the version cannot be loaded
        client.set_model_version_tag(name, str(version), CHECKSUMS, json.dumps(sealed))
        note(client, name, version, tags or {})
    logger.info("Registered %s version %d at %s", name, version, tracking_uri)
    return find(name, version, tracking_uri)


def load(name: str, version_or_alias: int | str = CHAMPION, tracking_uri: str = DEFAULT_TRACKING_URI) -> ModelBundle:
    """Load a registered twin with all that is needed to use it. No pickle is read.

    Args:
        name: Of the registered model.
        version_or_alias: A number (also as text) or an alias such as `champion`.
        tracking_uri: Of the registry.

    Returns:
        The bundle, on the CPU.

    Raises:
        RegistryError: There is no such model, version or alias; the message lists what there is.
        ConnectionFailedError: The server cannot be reached.
        FormatError: The version was not made by this program, or its files are not those that were registered.
    """
    version = find(name, version_or_alias, tracking_uri)
    with registry(tracking_uri, must_exist=True), _no_pickle(), tempfile.TemporaryDirectory() as temporary:
        folder = Path(download_artifacts(version.uri, dst_path=temporary))
        # MLflow's own note about where the model came from, made by the download
        (folder / "registered_model_meta").unlink(missing_ok=True)
        verify(version, folder)
        described = next(folder.rglob(BUNDLE_FILE))
        program = mlflow.pytorch.load_model(str(folder))  # pyright: ignore[reportPrivateImportUsage]
        saved = next(iter(folder.rglob(BASELINE_FILE)), None)
        baseline = load_twin(saved.read_bytes()) if saved is not None else None
        content = json.loads(described.read_text(encoding="utf-8"))
        own = next(iter(folder.rglob(TWIN_FILE)), None)
        twin = ExportedTwin(program) if own is None else load_twin(own.read_bytes())
    return ModelBundle.from_dict(content, twin, baseline)


def promote_if_better(
    challenger: ModelVersion, bundle: ModelBundle, judge: Judge, *, alias: str = CHAMPION
) -> ModelVersion:
    """Give a version the alias if a gate lets it pass.

    A champion that was trained on other channels or another recipe cannot be fed with the challenger's data: then
    nothing is promoted, and the reason says so.

    Args:
        challenger: The new version.
        bundle: The same, loaded or as it was registered.
        judge: The gate; called with the present champion and the events that it was trained on (its note
            `training_events`), or with None for the first.
        alias: To be given.

    Returns:
        The version with `promoted` and `reason`; these and the gate's figures stand in the version's tags.

    Raises:
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    name, uri = challenger.name, challenger.tracking_uri
    with registry(uri):
        held = aliases_of(MlflowClient(uri, uri), name).get(alias)
    champion, why = None, None
    if held is not None and held != challenger.version:
        champion, why = _rival(bundle, challenger, held, alias)
    figures: Mapping[str, float] = {}
    if why is not None:
        promoted, reason = False, why
    else:
        seen = frozenset(champion.notes.get("training_events", ())) if champion is not None else frozenset()
        verdict = judge(champion, seen)
        promoted, figures = verdict.promoted, verdict.figures
        reason = verdict.reason if champion is None else f"against version {held}: {verdict.reason}"
    with registry(uri):
        client = MlflowClient(uri, uri)
        note(client, name, challenger.version, {key: f"{value:.6g}" for key, value in figures.items()})
        note(client, name, challenger.version, {"promoted": str(promoted).lower(), "promotion_reason": reason})
        if promoted:
            crown(client, name, challenger.version, alias)
    logger.info("%s version %d %s: %s", name, challenger.version, f"is now {alias}" if promoted else "waits", reason)
    return replace(find(name, challenger.version, uri), promoted=promoted, reason=reason)


def disagreement(first: ModelBundle, second: ModelBundle) -> str | None:
    """Why two bundles cannot be judged on the same windows; None if they can."""
    reasons = []
    if first.representation != second.representation:
        reasons.append(f"one looks at {first.representation}, the other at {second.representation}")
    if first.target != second.target:
        reasons.append(f"targets {first.target} and {second.target}")
    if set(first.witnesses) != set(second.witnesses):
        only = sorted(set(first.witnesses) ^ set(second.witnesses))
        reasons.append(f"witnesses that only one has: {', '.join(only)}")
    if first.window_size != second.window_size:
        reasons.append(f"window sizes {first.window_size} and {second.window_size}")
    same_axes = _close(first.frequencies, second.frequencies) and _close(first.times, second.times)
    if not same_axes:
        reasons.append("different axes")
    one, other = _fed_by(first), _fed_by(second)
    if one != other:
        keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
        reasons.append(f"different recipes ({', '.join(keys)})")
    return "; ".join(reasons) or None


def _fed_by(bundle: ModelBundle) -> dict[str, Any]:
    """The part of the recipe that makes the maps: not how channels were chosen, nor channels that are not used."""
    recipe = json.loads(json.dumps(bundle.to_dict()["recipe"]))
    recipe.pop("selection", None)
    channels = recipe.get("events", {}).get("channels") if isinstance(recipe.get("events"), dict) else None
    if isinstance(channels, dict):
        # rate and unit of the recording may differ: conditioning brings them to a common rate and scale
        recipe["events"]["channels"] = {
            name: {key: value for key, value in channels[name].items() if key not in ("unit", "recorded_sample_rate")}
            for name in bundle.channels
            if name in channels
        }
    return recipe


def _rival(
    bundle: ModelBundle, challenger: ModelVersion, held: int, alias: str
) -> tuple[ModelBundle | None, str | None]:
    """The champion, or why it cannot be compared with."""
    name, number = challenger.name, challenger.version
    by_hand = f"If version {number} shall replace it: glitchflow models promote {name} {number}"
    try:
        champion = load(challenger.name, held, challenger.tracking_uri)
    except (RegistryError, FormatError) as error:
        return None, f"the present {alias} (version {held}) cannot be loaded: {error} {by_hand}"
    why = disagreement(bundle, champion)
    if why is not None:
        return None, f"cannot be compared with the present {alias} (version {held}): {why}. {by_hand}"
    return champion, None


def _write(bundle: ModelBundle, folder: Path) -> None:
    """The files of a version: MLflow's own model folder with the description and the linear filter in it."""
    twin = bundle.twin.cpu().eval()
    shape = bundle.input_shape
    # two of them: with one, torch.export would take the batch size for a constant of the model
    example = np.zeros((2, *shape), dtype=np.float32)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *shape))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 1, *shape[1:]))]),
    )
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / BUNDLE_FILE]
        files[0].write_text(json.dumps(bundle.to_dict(), indent=2), encoding="utf-8")
        # the exported program only predicts; how sure a waveform twin is takes the network itself
        own = pack_twin(bundle) if isinstance(bundle.twin, WaveformTwin) else None
        for name, content in ((TWIN_FILE, own), (BASELINE_FILE, pack_baseline(bundle))):
            if content is not None:
                files.append(Path(temporary) / name)
                files[-1].write_bytes(content)
        mlflow.pytorch.save_model(  # pyright: ignore[reportPrivateImportUsage]
            twin,
            str(folder),
            signature=signature,
            input_example=example,
            pip_requirements=_REQUIREMENTS,
            extra_files=[str(file) for file in files],
            serialization_format="pt2",
            metadata={"target": bundle.target, "witnesses": ",".join(bundle.witnesses)},
        )


def _no_pickle() -> Any:
    return environment({"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}, keep=False)


def _close(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return len(first) == len(second) and bool(np.allclose(first, second))
