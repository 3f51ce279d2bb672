"""The model registry: MLflow, with nothing pickled in it.

One registered version holds the twin as an exported program (torch.export, MLflow's `pt2`), and beside it
`bundle.json` (channels, recipe, axes, scaling, figures, versions) and `baseline.safetensors` (the linear filter).
MLflow's own API finds and loads it; nothing outside the version is needed.
"""

import json
import logging
import math
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import numpy as np
import requests
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from glitchflow_plugin.errors import ConnectionFailedError, FormatError, RegistryError
from glitchflow_plugin.models.bundle import ExportedTwin, ModelBundle, load_twin, save_twin

logger = logging.getLogger(__name__)

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
DEFAULT_EXPERIMENT = "glitchflow"
DEFAULT_ARTIFACTS = "./artifacts"
CHAMPION = "champion"
_BUNDLE_FILE = "bundle.json"
_BASELINE_FILE = "baseline.safetensors"
#: Asked for by whoever installs the model elsewhere. Given, because MLflow's own search takes half a minute.
_REQUIREMENTS = ["mlflow", "torch", "numpy"]
#: MLflow tries seven times with growing pauses, which makes minutes of a server that is simply not there.
_QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_QUIET = {
    # a bar for each small file, and a link that nobody asked for
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class ModelVersion:
    """One version in the registry.

    Attributes:
        name: Of the registered model.
        version: Its number.
        tracking_uri: Of the registry.
        run_id: MLflow run that made it.
        promoted: Whether it has become the champion; None if that was not asked.
        reason: Why, or why not.
        validation_loss: By which champions are compared.
    """

    name: str
    version: int
    tracking_uri: str
    run_id: str
    promoted: bool | None = None
    reason: str = ""
    validation_loss: float | None = None

    @property
    def uri(self) -> str:
        """What MLflow's own API takes, for instance `mlflow.pytorch.load_model(uri)`."""
        return f"models:/{self.name}/{self.version}"


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
    twin = bundle.twin.cpu().eval()
    shape = bundle.input_shape
    # two of them: with one, torch.export would take the batch size for a constant of the model
    example = np.zeros((2, *shape), dtype=np.float32)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *shape))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 1, *shape[1:]))]),
    )
    with _registry(tracking_uri), tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / _BUNDLE_FILE]
        files[0].write_text(json.dumps(bundle.to_dict(), indent=2), encoding="utf-8")
        if bundle.baseline is not None:
            files.append(Path(temporary) / _BASELINE_FILE)
            network: Any = bundle.baseline.network
            name_of_baseline = "wiener" if bundle.representation == "waveform" else "linear"
            files[1].write_bytes(save_twin(bundle.baseline.cpu(), name_of_baseline, network.settings))
        experiment_id = ensure_experiment(tracking_uri, experiment, artifacts)
        active = mlflow.active_run()
        if active is not None and run_id not in (None, active.info.run_id):
            message = f"run {active.info.run_id} is still active; end it before a model of run {run_id} is registered."
            raise RegistryError(message)
        opened = None if active is not None else mlflow.start_run(run_id=run_id, experiment_id=experiment_id)
        try:
            info = mlflow.pytorch.log_model(  # pyright: ignore[reportPrivateImportUsage]
                twin,
                name="twin",
                signature=signature,
                input_example=example,
                registered_model_name=name,
                pip_requirements=_REQUIREMENTS,
                extra_files=[str(file) for file in files],
                serialization_format="pt2",
                metadata={"target": bundle.target, "witnesses": ",".join(bundle.witnesses)},
            )
            used = mlflow.active_run()
            found_run = used.info.run_id if used is not None else ""
        finally:
            if opened is not None:
                mlflow.end_run()
        client = MlflowClient(tracking_uri, tracking_uri)
        # an int from a database, a str from a server
        version = int(str(info.registered_model_version))
        for key, value in (tags or {}).items():
            client.set_model_version_tag(name, str(version), key, str(value))
    logger.info("Registered %s version %d at %s", name, version, tracking_uri)
    return ModelVersion(name=name, version=version, tracking_uri=tracking_uri, run_id=found_run)


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
        FormatError: The version was not made by this program.
    """
    with _registry(tracking_uri, must_exist=True), _no_pickle():
        version = _resolve(name, version_or_alias, tracking_uri)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(download_artifacts(f"models:/{name}/{version}", dst_path=temporary))
            described = next(iter(folder.rglob(_BUNDLE_FILE)), None)
            if described is None:
                message = (
                    f"version {version} of {name} has no {_BUNDLE_FILE}: it was not registered by the training "
                    "pipeline. Choose another version."
                )
                raise FormatError(message)
            program = mlflow.pytorch.load_model(str(folder))  # pyright: ignore[reportPrivateImportUsage]
            saved = next(iter(folder.rglob(_BASELINE_FILE)), None)
            baseline = load_twin(saved.read_bytes()) if saved is not None else None
            content = json.loads(described.read_text(encoding="utf-8"))
    return ModelBundle.from_dict(content, ExportedTwin(program), baseline)


def find(name: str, version_or_alias: int | str = CHAMPION, tracking_uri: str = DEFAULT_TRACKING_URI) -> ModelVersion:
    """Look a version up without loading it; errors as for `load`."""
    with _registry(tracking_uri, must_exist=True):
        version = _resolve(name, version_or_alias, tracking_uri)
        stored = MlflowClient(tracking_uri, tracking_uri).get_model_version(name, str(version))
    return ModelVersion(name, version, tracking_uri, stored.run_id or "")


def promote_if_better(
    challenger: ModelVersion,
    bundle: ModelBundle,
    evaluate: Callable[..., float],
    *,
    alias: str = CHAMPION,
) -> ModelVersion:
    """Give a version the alias if it does better than the version that has it now.

    Both are judged by the same function on the same validation windows, without those events that the present champion
    was trained on (its note `training_events`). A champion that was trained on other channels or another recipe cannot
    be fed with these windows: then nothing is promoted, and the reason says so.

    Args:
        challenger: The new version.
        bundle: The same, loaded or as it was registered.
        evaluate: Validation loss of a bundle, smaller is better; called with the bundle, and as second argument with
            the ids of events to leave out where there are any. NaN where nothing is left.
        alias: To be given.

    Returns:
        The version with `promoted`, `reason` and `validation_loss`; the same stands in the version's tags.

    Raises:
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    name, uri = challenger.name, challenger.tracking_uri
    value = float(evaluate(bundle))
    with _registry(uri):
        held = _aliases(MlflowClient(uri, uri), name).get(alias)
    promoted, reason = True, f"the first {alias}"
    rival: float | None = None
    if held is not None and held != challenger.version:
        promoted, reason, rival = _compare(
            value, bundle, held=held, challenger=challenger, evaluate=evaluate, alias=alias
        )
    with _registry(uri):
        client = MlflowClient(uri, uri)
        if promoted:
            client.set_registered_model_alias(name, alias, str(challenger.version))
        tags = {"promoted": str(promoted).lower(), "promotion_reason": reason, "validation_loss": f"{value:.6g}"}
        if rival is not None:
            tags["champion_validation_loss"] = f"{rival:.6g}"
        for key, text in tags.items():
            client.set_model_version_tag(name, str(challenger.version), key, text[:4000])
    logger.info("%s version %d %s: %s", name, challenger.version, "is now champion" if promoted else "waits", reason)
    return replace(challenger, promoted=promoted, reason=reason, validation_loss=value)


def disagreement(first: ModelBundle, second: ModelBundle) -> str | None:
    """Why two bundles cannot be judged on the same windows; None if they can."""
    reasons = []
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


def ensure_experiment(tracking_uri: str, experiment: str, artifacts: Path | str = DEFAULT_ARTIFACTS) -> str:
    """Id of an experiment, which is made if it is new.

    Without a server the experiment gets the folder for artifacts, as an absolute path, so that models are found from
    any working directory; MLflow would otherwise write to `mlruns`. A server has its own place.

    Raises:
        RegistryError: The experiment was deleted, or the database cannot be used.
        ConnectionFailedError: The server cannot be reached.
    """
    with _registry(tracking_uri):
        client = MlflowClient(tracking_uri, tracking_uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            place = None if _is_server(tracking_uri) else Path(artifacts).resolve().as_uri()
            return client.create_experiment(experiment, artifact_location=place)
        if found.lifecycle_stage != "active":
            message = f"the experiment {experiment} was deleted. Restore it in MLflow, or choose another name."
            raise RegistryError(message)
        return found.experiment_id


def check_connection(tracking_uri: str, timeout: float = 5.0) -> None:
    """Find out in seconds, not minutes, whether a server answers. A database needs no server.

    Args:
        tracking_uri: Of the registry.
        timeout: s.

    Raises:
        ConnectionFailedError: Nobody listens there.
        RegistryError: The address is unusable.
    """
    if not _is_server(tracking_uri):
        if urlparse(tracking_uri).scheme not in ("sqlite", "postgresql", "mysql", "mssql"):
            message = (
                f"expected a database such as {DEFAULT_TRACKING_URI} or a server such as http://127.0.0.1:5005 as "
                f"tracking_uri, got {tracking_uri!r}."
            )
            raise RegistryError(message)
        return
    address = urlparse(tracking_uri)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=timeout):
            return
    except OSError as error:
        raise _unreachable(tracking_uri, error) from error


def _compare(
    value: float,
    bundle: ModelBundle,
    *,
    held: int,
    challenger: ModelVersion,
    evaluate: Callable[..., float],
    alias: str,
) -> tuple[bool, str, float | None]:
    by_hand = f"Give version {challenger.version} the alias by hand if it shall replace it"
    try:
        champion = load(challenger.name, held, challenger.tracking_uri)
    except (RegistryError, FormatError) as error:
        return False, f"the present {alias} (version {held}) cannot be loaded: {error} {by_hand}.", None
    why = disagreement(bundle, champion)
    if why is not None:
        return False, f"cannot be compared with the present {alias} (version {held}): {why}. {by_hand}.", None
    seen = frozenset(champion.notes.get("training_events", ()))
    rival = float(evaluate(champion, seen)) if seen else float(evaluate(champion))
    value = float(evaluate(bundle, seen)) if seen else value
    if not math.isfinite(rival):
        why = f"version {held} was trained on all of these validation events"
        return False, f"cannot be compared with the present {alias}: {why}. {by_hand}.", None
    better = value < rival
    word = "less" if better else "not less"
    reason = (
        f"validation loss {value:.6g} is {word} than {rival:.6g} of version {held}, on the same windows of events that "
        "neither was trained on"
    )
    return better, reason, rival


def _resolve(name: str, version_or_alias: int | str, tracking_uri: str) -> int:
    client = MlflowClient(tracking_uri, tracking_uri)
    models = {model.name: model for model in client.search_registered_models()}
    if name not in models:
        known = ", ".join(sorted(models)) or "none"
        message = (
            f"no registered model {name!r} at {tracking_uri}. Models there: {known}. Train one or correct the name."
        )
        raise RegistryError(message)
    versions = sorted(int(str(found.version)) for found in client.search_model_versions(f"name='{name}'"))
    aliases = _aliases(client, name)
    wanted = str(version_or_alias)
    number = int(wanted) if wanted.isdigit() else aliases.get(wanted)
    if number is None or number not in versions:
        known = ", ".join(f"{key} (version {value})" for key, value in sorted(aliases.items())) or "none"
        message = (
            f"{name} has no version or alias {wanted!r} at {tracking_uri}. "
            f"Versions: {', '.join(map(str, versions)) or 'none'}. Aliases: {known}."
        )
        raise RegistryError(message)
    return number


def _aliases(client: MlflowClient, name: str) -> dict[str, int]:
    return {alias: int(str(number)) for alias, number in client.get_registered_model(name).aliases.items()}


@contextmanager
def guarded(tracking_uri: str | None, *, patient: bool = False) -> Iterator[None]:
    """Code that talks to MLflow: errors in the user's words, no run left open by a failure.

    Args:
        tracking_uri: Of the registry, for the messages; None if none is used.
        patient: Keep MLflow's own retries, which ride out minutes, where long work is at stake; else give up quickly.

    Raises:
        RegistryError: MLflow refused.
        ConnectionFailedError: The server cannot be reached.
    """
    with _environment(_QUIET if patient else {**_QUIET, **_QUICK}, keep=True):
        try:
            yield
        except BaseException as error:
            # MLflow would otherwise try for minutes when the program ends
            with _environment(_QUICK, keep=True), suppress(Exception):
                mlflow.end_run(status="FAILED")
            text = str(error)
            if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
                raise _unreachable(str(tracking_uri), error) from error
            if not isinstance(error, MlflowException):
                raise
            if any(sign in text for sign in ("Max retries exceeded", "Connection refused", "timed out")):
                raise _unreachable(str(tracking_uri), error) from error
            raise RegistryError(f"MLflow at {tracking_uri} refused: {text}") from error


@contextmanager
def _registry(tracking_uri: str, *, must_exist: bool = False) -> Iterator[None]:
    """MLflow talking to this registry."""
    check_connection(tracking_uri)
    path = _database_file(tracking_uri)
    if path is not None and must_exist and not path.exists():
        message = f"no registry at {tracking_uri}: {path} does not exist. Train a model first, or correct tracking_uri."
        raise RegistryError(message)
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    with guarded(tracking_uri):
        # the registry follows the tracking address as long as nobody sets it apart
        mlflow.set_tracking_uri(tracking_uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before)  # pyright: ignore[reportArgumentType]  # None resets it


@contextmanager
def _no_pickle() -> Iterator[None]:
    with _environment({"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}, keep=False):
        yield


@contextmanager
def _environment(values: Mapping[str, str], *, keep: bool) -> Iterator[None]:
    """Environment variables for a while; with `keep`, those that the user has set stay as they are."""
    before = {key: os.environ.get(key) for key in values}
    for key, value in values.items():
        if not (keep and before[key] is not None):
            os.environ[key] = value
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _is_server(tracking_uri: str) -> bool:
    return urlparse(tracking_uri).scheme in ("http", "https")


def _database_file(tracking_uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(tracking_uri.removeprefix(prefix)) if tracking_uri.startswith(prefix) else None


def _unreachable(tracking_uri: str, error: BaseException) -> ConnectionFailedError:
    message = (
        f"the MLflow server at {tracking_uri} cannot be reached ({type(error).__name__}). Start it, correct "
        f"tracking_uri in registry.yaml, or use {DEFAULT_TRACKING_URI}, which needs no server."
    )
    return ConnectionFailedError(message)


def _close(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return len(first) == len(second) and bool(np.allclose(first, second))
