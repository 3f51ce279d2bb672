"""How a trained twin gets into the registry: kept first, then registered, then judged by the gate."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from glitchflow_plugin.data.names import LONGEST_MODEL, check_alias, check_name
from glitchflow_plugin.data.reference_file import read_reference
from glitchflow_plugin.errors import (
    ConnectionFailedError,
    DataError,
    FormatError,
    GlitchflowError,
    RegistryError,
)
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.environment import environment
from glitchflow_plugin.settings import built
from glitchflow_plugin.tracking.connection import check_connection, ensure_experiment, is_server
from glitchflow_plugin.tracking.outbox import (
    BusyError,
    Destination,
    Entry,
    discard,
    judged,
    keep,
    release,
    send,
    upload,
    waiting,
)
from glitchflow_plugin.tracking.registry import compare, register
from glitchflow_plugin.tracking.runs import Unsent, tidy
from glitchflow_plugin.tracking.versions import ModelVersion, settle
from glitchflow_plugin.training.gate import GateSettings, Verdict

logger = logging.getLogger(__name__)

Decide = Callable[[ModelBundle | None], Verdict]
"""Decides about the new version against the present champion, or against no prediction if there is none."""


@dataclass(frozen=True)
class RegistrySettings:
    """The keys of registry.yaml.

    Attributes:
        tracking_uri: A database or a server.
        name: Of the registered model.
        experiment: MLflow experiment.
        artifacts: Where a database keeps its files.
        alias: Of the champion.
        required: Whether a registry that cannot be reached ends the run with an error, before training and after it.
            If not, a warning; in both cases what is trained is kept in the outbox.
        outbox: Folder of trained twins that the registry has not taken yet.
        system_metrics: Whether MLflow records what the machine does during training.
        provenance: Whether itwinai's yProv logger writes W3C PROV documents.
        gate: What a champion must fulfil.
    """

    tracking_uri: str
    name: str
    experiment: str = "glitchflow"
    artifacts: str = "./artifacts"
    alias: str = "champion"
    required: bool = True
    outbox: str = "outbox"
    system_metrics: bool = True
    provenance: bool = False
    gate: GateSettings = field(default_factory=GateSettings)

    @classmethod
    def of(cls, content: "Mapping[str, Any] | RegistrySettings | None") -> "RegistrySettings | None":
        """From YAML; None stays None.

        Raises:
            ConfigurationError: A key is unknown or missing, or a limit is impossible.
        """
        if content is None or isinstance(content, RegistrySettings):
            return content
        gate = built(GateSettings, content.get("gate"), "registry.gate")
        settings = built(cls, {**content, "gate": gate}, "registry")
        check_name(settings.name, "registry.yaml: name", LONGEST_MODEL)
        check_alias(settings.alias, "registry.yaml: alias")
        return settings

    @property
    def destination(self) -> Destination:
        """Where models go."""
        return Destination(self.tracking_uri, self.name, self.experiment, self.artifacts, self.alias)

    def reachable(self) -> bool:
        """Look for the registry before hours of training.

        Returns:
            Whether it is there.

        Raises:
            ConnectionFailedError: It is not, and it is required.
            RegistryError: It cannot be used, and it is required.
        """
        try:
            check_connection(self.tracking_uri)
            ensure_experiment(self.tracking_uri, self.experiment, self.artifacts)
            tidy(self.tracking_uri)
        except (ConnectionFailedError, RegistryError) as error:
            if self.required:
                raise
            logger.warning("%s The trained twin will be kept in %s.", error, self.outbox)
            return False
        return True


@dataclass(frozen=True)
class Outcome:
    """What became of a trained twin.

    Attributes:
        version: In the registry; None if it was not taken.
        trouble: What went wrong, with advice; empty if nothing.
        error: The same as it was met.
    """

    version: ModelVersion | None = None
    trouble: str = ""
    error: Exception | None = None

    def raise_if(self, required: bool) -> None:
        """Raise what went wrong, with the advice."""
        if self.error is not None and required:
            raise type(self.error)(self.trouble) from self.error


def origin(dataset: str) -> dict[str, str]:
    """Parameters of a run that say what it was made from.

    Args:
        dataset: Fingerprint of the spectrogram set.
    """
    here = environment()
    return {
        "dataset_fingerprint": dataset,
        "code_version": here["glitchflow_plugin"],
        "git_commit": here["git_commit"] or "installed package",
        "python": here["python"],
        "platform": here["platform"],
    }


def register_trained(
    bundle: ModelBundle,
    settings: RegistrySettings,
    decide: Decide,
    *,
    training: Path,
    checkpoint: Path,
    run_id: str | None = None,
    trained_by: str = "",
    unsent: list[Unsent] | None = None,
) -> Outcome:
    """Keep a trained twin, register it, and let the gate decide whether it becomes champion.

    Args:
        bundle: The twin.
        settings: The registry.
        decide: The gate.
        training: Folder of the training set, whose statistics go with the model.
        checkpoint: Where the network is as well.
        run_id: Run of MLflow that trained it.
        trained_by: Id of the training, as it stands in its checkpoints.
        unsent: What that run could not log.

    Returns:
        What became of it. Nothing is raised for a registry that is down or full.
    """
    try:
        reference = read_reference(training)
    except FormatError as error:  # no reason to lose what was trained
        logger.warning("%s The twin is registered without these statistics: its drift cannot be told.", error)
        reference = None
    if reference is not None:
        bundle = replace(bundle, notes={**bundle.notes, "reference": reference})
    made = origin(bundle.dataset)
    tags = {key: made[key] for key in ("dataset_fingerprint", "code_version", "git_commit")}
    tags["trained_by"] = trained_by
    waits = [asdict(item) for item in unsent or ()]
    entry, full = None, None
    try:
        entry = keep(settings.outbox, bundle, settings.destination, run_id=run_id, unsent=waits, tags=tags, hold=True)
    except DataError as error:
        logger.warning("The outbox does not take the trained twin: %s", error)
        full = error
    try:
        return _judge_and_send(bundle, settings, decide, entry, full, run_id=run_id, tags=tags, checkpoint=checkpoint)
    finally:
        if entry is not None:
            release(entry)


def _judge_and_send(
    bundle: ModelBundle,
    settings: RegistrySettings,
    decide: Decide,
    entry: Entry | None,
    full: Exception | None,
    *,
    run_id: str | None,
    tags: Mapping[str, str],
    checkpoint: Path,
) -> Outcome:
    try:
        first = decide(None)
    except Exception:
        logger.error("The trained twin was not judged. %s", _advice(None, entry, full, checkpoint, settings))
        raise
    if entry is not None:
        entry = _noted(entry, asdict(first))

    version = None
    try:
        version = _taken(entry, bundle, settings, run_id, tags)
        # a training that had ended before, and was resumed, has its verdict
        if version.promoted is None:
            decision = compare(
                version, bundle, lambda champion: first if champion is None else decide(champion), alias=settings.alias
            )
            if entry is not None:
                entry = _noted(entry, decision)
            version = settle(version, decision, settings.alias)
        if entry is not None:
            discard(entry)
    except (ConnectionFailedError, RegistryError) as error:
        return Outcome(version, f"{error} {_advice(version, entry, full, checkpoint, settings)}", error)
    logger.info("%s version %d, %s: %s", version.name, version.version, _state(version, settings), version.reason)
    logger.info("Its page in MLflow%s: %s", "" if is_server(version.tracking_uri) else " (make mlflow)", version.page)
    _upload_waiting(settings)
    return Outcome(version)


def _state(version: ModelVersion, settings: RegistrySettings) -> str:
    return settings.alias if version.promoted else "waiting"


def _noted(entry: Entry, decision: Mapping[str, Any]) -> Entry:
    """The entry with what was decided of it, so that a later run can carry that out."""
    try:
        return judged(entry, decision)
    except DataError as error:
        logger.warning("What the gate says is not kept with the trained twin: %s", error)
        return entry


def _taken(
    entry: Entry | None, bundle: ModelBundle, settings: RegistrySettings, run_id: str | None, tags: Mapping[str, str]
) -> ModelVersion:
    if entry is not None:
        return send(entry)
    there = settings.destination
    where = {"experiment": there.experiment, "artifacts": there.artifacts, "alias": there.alias}
    return register(bundle, there.name, there.tracking_uri, run_id=run_id, tags=tags, **where)


def _advice(
    version: ModelVersion | None,
    entry: Entry | None,
    full: Exception | None,
    checkpoint: Path,
    settings: RegistrySettings,
) -> str:
    if version is not None:
        later = f"The next run completes that, or: glitchflow models upload --outbox {settings.outbox}"
        by_hand = f"glitchflow models promote {version.name} {version.version}"
        return (
            f"It is registered as version {version.version}, but whether it becomes {settings.alias} is not settled. "
            f"{by_hand if entry is None else later}"
        )
    if entry is not None:
        return (
            f"Nothing is lost: the trained twin waits in {entry.folder}. The next run uploads it, or: "
            f"glitchflow models upload --outbox {settings.outbox}"
        )
    return (
        f"The outbox does not take it either ({full}). The trained network is kept in {checkpoint}: make room, then "
        f"register it with training.from_checkpoint={checkpoint.parent / 'last'}"
    )


def _upload_waiting(settings: RegistrySettings) -> None:
    """Send what earlier runs could not; the registry answers now. What one entry meets concerns no other."""
    for entry in waiting(settings.outbox):
        if entry.destination.tracking_uri != settings.tracking_uri:
            continue
        try:
            version = upload(entry)
            logger.info("Uploaded %s version %d, which had waited in the outbox", version.name, version.version)
        except BusyError as error:
            logger.info("Not uploaded: %s", error)
        except GlitchflowError as error:
            logger.warning("%s was not uploaded: %s", entry.folder, error)
