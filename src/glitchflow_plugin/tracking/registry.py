"""The model registry: MLflow, with nothing pickled in it.

One registered version holds the networks as safetensors (`twin`, and `baseline`, the linear filter) with the names and
settings of the classes that they belong to, and `bundle.json`: channels, recipe, axes, scaling, figures, versions.
Nothing else is read here, and none of it is run. Beside them is the twin as an exported program (torch.export, MLflow's
`pt2`), by which MLflow's own API finds and loads it; it is for other tools, since parsing one can run code. The
checksums of all files stand in a tag of the version, in the database, and are compared before anything is parsed.
"""

import copy
import json
import logging
import tempfile
from collections.abc import Mapping
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
from glitchflow_plugin.data.recipe import Recipe, told
from glitchflow_plugin.errors import FormatError, RegistryError
from glitchflow_plugin.models.bundle import ModelBundle, pack_baseline, pack_twin, unpack
from glitchflow_plugin.tracking import card
from glitchflow_plugin.tracking.connection import (
    DEFAULT_ARTIFACTS,
    DEFAULT_EXPERIMENT,
    DEFAULT_TRACKING_URI,
    ensure_experiment,
    environment,
    nonsense,
    registry,
)
from glitchflow_plugin.tracking.runs import record_run
from glitchflow_plugin.tracking.versions import (
    BUNDLE_FILE,
    CHAMPION,
    CHECKSUMS,
    OWN_FILES,
    Decision,
    ModelVersion,
    aliases_of,
    checksums,
    fetch,
    find,
    parse_description,
    tag,
    write_pages,
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
    """Decides about a challenger against the champion, None for the first one."""

    def __call__(self, champion: ModelBundle | None, /) -> Verdict:
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
    alias: str = CHAMPION,
) -> ModelVersion:
    """Store a twin as the next version of a registered model.

    Args:
        bundle: The twin, which stays on its device and in its mode, and its description.
        name: Name of the registered model; made if it is new.
        tracking_uri: A database (`sqlite:///mlflow.db`) or a server (`http://127.0.0.1:5005`).
        experiment: MLflow experiment; made if it is new.
        artifacts: Where a database keeps its files. A server has its own place.
        run_id: Run to which the model belongs; if None, one that is made from the description of the bundle.
        tags: Kept with the version.
        alias: Alias of the champion, which the model's page names; it is not given here.

    Returns:
        The version.

    Raises:
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    check_name(name, "name", LONGEST_MODEL)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "twin"
        _write(bundle, folder)
        where = {"experiment": experiment, "artifacts": artifacts, "run_id": run_id, "tags": tags, "alias": alias}
        return register_files(folder, bundle.to_dict(), name, tracking_uri, **where)


def register_files(
    folder: Path,
    content: Mapping[str, Any],
    name: str,
    tracking_uri: str,
    *,
    experiment: str = DEFAULT_EXPERIMENT,
    artifacts: Path | str = DEFAULT_ARTIFACTS,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    alias: str = CHAMPION,
) -> ModelVersion:
    """Store files as the next version of a registered model, sealed by their checksums.

    Args:
        folder: The files, below `OWN_FILES` those that this program reads.
        content: Their description, which is `BUNDLE_FILE` there.
        name: Arguments of `register`, from here on.
        tracking_uri: Address of the registry.
        experiment: MLflow experiment.
        artifacts: Where a database keeps its files.
        run_id: Run to which the model belongs.
        tags: Kept with the version.
        alias: Alias of the champion.
    """
    check_name(name, "name", LONGEST_MODEL)
    sealed = checksums(folder)
    with registry(tracking_uri):
        client = MlflowClient(tracking_uri, tracking_uri)
        experiment_id = ensure_experiment(tracking_uri, experiment, artifacts)
        if run_id is None:
            run_id = record_run(client, experiment_id, str(content.get("notes", {}).get("run_name") or name), content)
        logged = client.create_logged_model(experiment_id, name="twin", source_run_id=run_id)
        if not (run_id and logged.model_id):
            raise nonsense(tracking_uri, "a new model")
        client.log_model_artifacts(logged.model_id, str(folder))
        _read_back(f"models:/{logged.model_id}", sealed, tracking_uri)
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        # with all its tags at once: a version without checksums cannot be loaded
        noted = {key: tag(text) for key, text in {**card.tags(content), **(tags or {})}.items()}
        # asked once: a second try after a lost answer would make a second version
        with environment({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}, keep=False):
            sealed_tags = {**noted, CHECKSUMS: json.dumps(sealed)}
            # nor is it waited for (MLflow: 300 s, whatever is answered): what was made is read below
            uri = f"models:/{logged.model_id}"
            info = mlflow.register_model(uri, name, await_registration_for=0, tags=sealed_tags)
        # an int from a database, a str from a server
        version = int(str(info.version))
    found = find(name, version, tracking_uri)
    if found.tags.get(CHECKSUMS) != json.dumps(sealed):
        raise nonsense(tracking_uri, f"version {version} of {name}")
    write_pages(found, content, alias)
    logger.info("Registered %s version %d at %s", name, version, tracking_uri)
    return found


def load(name: str, version_or_alias: int | str = CHAMPION, tracking_uri: str = DEFAULT_TRACKING_URI) -> ModelBundle:
    """Load a registered twin with all that is needed to use it. Nothing that is stored is run.

    Args:
        name: Name of the registered model.
        version_or_alias: A number (also as text) or an alias such as `champion`.
        tracking_uri: Address of the registry.

    Returns:
        The bundle, on the CPU.

    Raises:
        RegistryError: There is no such model, version or alias; the message lists what there is.
        ConnectionFailedError: The server cannot be reached.
        FormatError: The version was not made by this program, or its files are not those that were registered.
    """
    version = find(name, version_or_alias, tracking_uri)
    with tempfile.TemporaryDirectory() as temporary:
        own = fetch(name, version.version, temporary, tracking_uri) / OWN_FILES
        if not (own / BUNDLE_FILE).is_file():
            raise FormatError(f"version {version.version} of {name} has no {BUNDLE_FILE}. Choose another version.")
        if not (own / TWIN_FILE).is_file():
            message = (
                f"version {version.version} of {name} is from an older release and holds its network only as a "
                "program, which is not run any more. Register it again from its checkpoint "
                "(training.from_checkpoint=.../checkpoints/last), train again, or choose another version."
            )
            raise FormatError(message)
        return unpacked(own, parse_description(version, own / BUNDLE_FILE))


def packed(bundle: ModelBundle) -> dict[str, bytes]:
    """The networks of a bundle as safetensors, by name of file."""
    found = {TWIN_FILE: pack_twin(bundle), BASELINE_FILE: pack_baseline(bundle)}
    return {name: content for name, content in found.items() if content is not None}


def unpacked(folder: Path, description: Mapping[str, Any]) -> ModelBundle:
    """The bundle whose networks `packed` has put into a folder, on the CPU.

    Raises:
        FormatError: They are not those that are described.
    """
    baseline = folder / BASELINE_FILE
    linear = baseline.read_bytes() if baseline.is_file() else None
    return unpack(description, (folder / TWIN_FILE).read_bytes(), linear)


def compare(challenger: ModelVersion, bundle: ModelBundle, judge: Judge, *, alias: str = CHAMPION) -> Decision:
    """Ask a gate whether a version shall have the alias.

    A champion that was trained on other channels or another recipe cannot be fed with the challenger's data: then
    nothing is promoted, and the reason says so.

    Args:
        challenger: The new version.
        bundle: The same, loaded or as it was registered.
        judge: The gate; called with the present champion, or with None for the first.
        alias: The alias in question.

    Returns:
        What is decided, against the version that has the alias.

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
    if why is not None:
        return Decision(promoted=False, reason=why, figures={}, against=held)
    verdict = judge(champion)
    reason = verdict.reason if champion is None else f"against version {held}: {verdict.reason}"
    return Decision(promoted=verdict.promoted, reason=reason, figures=dict(verdict.figures), against=held)


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
    recipes = [Recipe.from_dict(bundle.recipe) for bundle in (second, first)]
    differing = recipes[0].differences(recipes[1], {*first.channels, *second.channels}, origin=True)
    if differing:
        reasons.append(f"different recipes ({told(differing)})")
    return "; ".join(reasons) or None


def _rival(
    bundle: ModelBundle, challenger: ModelVersion, held: int, alias: str
) -> tuple[ModelBundle | None, str | None]:
    """The champion, or why it cannot be compared with."""
    name, number = challenger.name, challenger.version
    by_hand = f"If version {number} shall replace it: glitchflow models promote {name} {number}"
    try:
        champion = load(challenger.name, held, challenger.tracking_uri)
        why = disagreement(bundle, champion)
    except (RegistryError, FormatError) as error:
        return None, f"the present {alias} (version {held}) cannot be loaded: {error} {by_hand}"
    if why is not None:
        return None, f"cannot be compared with the present {alias} (version {held}): {why}. {by_hand}"
    return champion, None


def _read_back(uri: str, sealed: Mapping[str, str], tracking_uri: str) -> None:
    """Refuse a store that does not hold what it took: what is registered is removed from the outbox."""
    with tempfile.TemporaryDirectory() as temporary:
        stored = checksums(Path(download_artifacts(uri, dst_path=temporary)))
        lost = sorted(name for name, digest in sealed.items() if stored.get(name) != digest)
    if lost:
        raise nonsense(tracking_uri, f"back the files that it took ({', '.join(lost[:5])})")


def _write(bundle: ModelBundle, folder: Path) -> None:
    """The files of a version: MLflow's own model folder with the description and the linear filter in it."""
    twin = copy.deepcopy(bundle.twin).cpu().eval()  # whoever gives it may go on with it where it is
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
        for name, content in packed(bundle).items():
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


def _close(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return len(first) == len(second) and bool(np.allclose(first, second))
