"""How a trained twin gets into the registry: it is kept, judged, sent, and its promotion is settled.

It goes into the outbox before anything else is tried, and leaves it when nothing is open any more.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from glitchflow_plugin.data.names import LONGEST_MODEL, check_alias, check_name
from glitchflow_plugin.data.reference_file import read_reference
from glitchflow_plugin.data.splits import Split
from glitchflow_plugin.errors import (
    ConnectionFailedError,
    DataError,
    FormatError,
    GlitchflowError,
    RegistryError,
)
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.environment import program
from glitchflow_plugin.settings import section
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
from glitchflow_plugin.tracking.versions import Decision, ModelVersion, settle
from glitchflow_plugin.training.gate import GateSettings, Verdict

logger = logging.getLogger(__name__)

Decide = Callable[[ModelBundle | None], Verdict]
"""Decides about the new version against the present champion, or against no prediction if there is none."""


@section
class RegistrySettings:
    """The keys of registry.yaml, which explains them."""

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

    def __post_init__(self) -> None:
        """Refuse names that a registry does not take."""
        check_name(self.name, "registry.yaml: name", LONGEST_MODEL)
        check_alias(self.alias, "registry.yaml: alias")

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
        version: Its version; None if the registry did not take it.
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


def warn_of_a_small_gate(split: Split, settings: RegistrySettings) -> None:
    """Say before training, not after it, that nothing can be promoted."""
    groups = split.gate.num_groups(split.block_length)
    if groups < settings.gate.min_groups:
        logger.warning(
            "The gate's part has %d group(s) of %d event(s), and with fewer than %d (registry.gate.min_groups) "
            "nothing becomes %s by itself. The model is trained and registered all the same, to be used by number.",
            groups,
            len(split.gate),
            settings.gate.min_groups,
            settings.alias,
        )


def provenance(dataset: str) -> dict[str, str]:
    """Parameters of a run that say what it was made from.

    Args:
        dataset: Fingerprint of the spectrogram set.
    """
    here = program()
    return {
        "dataset_fingerprint": dataset,
        "code_version": str(here["glitchflow_plugin"]),
        "git_commit": str(here["git_commit"] or "installed package"),
        "python": str(here["python"]),
        "platform": str(here["platform"]),
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
    unsent: Sequence[Unsent] = (),
) -> Outcome:
    """Keep a trained twin, let the gate judge it, send it, and settle whether it becomes champion.

    Args:
        bundle: The twin.
        settings: The registry.
        decide: The gate.
        training: Folder of the training set, whose statistics go with the model.
        checkpoint: Where the network is as well.
        run_id: MLflow run that trained it.
        trained_by: Id of the training, as it stands in its checkpoints.
        unsent: What that run could not log.

    Returns:
        What became of it. Nothing is raised for a registry that is down or full.
    """
    bundle = _with_reference(bundle, training)
    made_from = provenance(bundle.dataset)
    tags = {key: made_from[key] for key in ("dataset_fingerprint", "code_version", "git_commit")}
    twin = _Kept(bundle, settings, checkpoint, run_id, {**tags, "trained_by": trained_by})
    with closing(twin):
        twin.keep(unsent)
        try:
            first = decide(None)
        except Exception:
            logger.error("The trained twin was not judged. %s", twin.advice())
            raise
        twin.note(Decision(promoted=first.promoted, reason=first.reason, figures=dict(first.figures)))
        version = None
        try:
            version = twin.send()
            if version.promoted is None:  # else a training that had ended before was resumed, and has its verdict
                decision = compare(
                    version,
                    bundle,
                    lambda champion: first if champion is None else decide(champion),
                    alias=settings.alias,
                )
                twin.note(decision)
                version = settle(version, decision, settings.alias)
            twin.discard()
        except (ConnectionFailedError, RegistryError) as error:
            return Outcome(version, f"{error} {twin.advice(version)}", error)
    state = settings.alias if version.promoted else "waiting"
    logger.info("%s version %d, %s: %s", version.name, version.version, state, version.reason)
    logger.info("Its page in MLflow%s: %s", "" if is_server(version.tracking_uri) else " (make mlflow)", version.page)
    _upload_waiting(settings)
    return Outcome(version)


@dataclass
class _Kept:
    """A trained twin until the registry has it: in the outbox or, where that is full, in its checkpoint alone."""

    bundle: ModelBundle
    settings: RegistrySettings
    checkpoint: Path
    run_id: str | None
    tags: Mapping[str, str]
    entry: Entry | None = None
    full: DataError | None = None

    def keep(self, unsent: Sequence[Unsent]) -> None:
        """Put it into the outbox, and let no other run take it."""
        waits, there = [asdict(item) for item in unsent], self.settings.destination
        try:
            self.entry = keep(
                self.settings.outbox, self.bundle, there, run_id=self.run_id, unsent=waits, tags=self.tags, hold=True
            )
        except DataError as error:
            logger.warning("The outbox does not take the trained twin: %s", error)
            self.full = error

    def note(self, decision: Decision) -> None:
        """Write down what was decided, so that a later run can carry that out."""
        if self.entry is None:
            return
        try:
            self.entry = judged(self.entry, decision)
        except DataError as error:
            logger.warning("What the gate says is not kept with the trained twin: %s", error)

    def send(self) -> ModelVersion:
        """Register it."""
        if self.entry is not None:
            return send(self.entry)
        there = self.settings.destination
        where = {"experiment": there.experiment, "artifacts": there.artifacts, "alias": there.alias}
        return register(self.bundle, there.name, there.tracking_uri, run_id=self.run_id, tags=self.tags, **where)

    def discard(self) -> None:
        """Remove it from the outbox: nothing is open any more."""
        if self.entry is not None:
            discard(self.entry)

    def close(self) -> None:
        """Let other runs take it."""
        if self.entry is not None:
            release(self.entry)

    def advice(self, version: ModelVersion | None = None) -> str:
        """Where it is, and what to do next; `version` once it is registered."""
        later = f"glitchflow models upload --outbox {self.settings.outbox}"
        if version is not None:
            by_hand = f"glitchflow models promote {version.name} {version.version}"
            return (
                f"It is registered as version {version.version}, but whether it becomes {self.settings.alias} is not "
                f"settled. {by_hand if self.entry is None else f'The next run completes that, or: {later}'}"
            )
        if self.entry is not None:
            return (
                f"Nothing is lost: the trained twin waits in {self.entry.folder}. The next run uploads it, or: {later}"
            )
        return (
            f"The outbox does not take it either ({self.full}). The trained network is kept in {self.checkpoint}: make "
            f"room, then register it with training.from_checkpoint={self.checkpoint.parent / 'last'}"
        )


def _with_reference(bundle: ModelBundle, training: Path) -> ModelBundle:
    """The twin with the statistics of its training set, by which drift is told."""
    try:
        reference = read_reference(training)
    except FormatError as error:  # no reason to lose what was trained
        logger.warning("%s The twin is registered without these statistics: its drift cannot be told.", error)
        return bundle
    return bundle if reference is None else replace(bundle, notes={**bundle.notes, "reference": reference})


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
