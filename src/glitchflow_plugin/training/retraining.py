"""Whether a champion is trained again: what the latest events say, and what was begun and has not ended."""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from glitchflow_plugin.data.buffer import buffered_events, pin_events
from glitchflow_plugin.data.files import content_hash, read_record, write_json
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.drift import drift_metrics
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
from glitchflow_plugin.settings import Count, section
from glitchflow_plugin.signal.drift import DriftReport, DriftSettings
from glitchflow_plugin.signal.gain_watch import WatchSettings
from glitchflow_plugin.signal.residual_watch import ResidualReport, ResidualSettings

if TYPE_CHECKING:
    from glitchflow_plugin.tracking.versions import ModelVersion

logger = logging.getLogger(__name__)

_PLAN = "plan.json"
#: A cycle that has failed so often is given up, and the next run begins a new one with fresh events. Failures of the
#: registry do not count.
_MOST_ATTEMPTS = 3


@section
class RetrainSettings:
    """The keys of retrain.yaml, which explains them."""

    buffer: str
    max_events: int = 2000
    min_events: Count = 400
    force: bool = False
    drift: DriftSettings = field(default_factory=DriftSettings)
    closed_loop: WatchSettings = field(default_factory=WatchSettings)
    residual: ResidualSettings = field(default_factory=ResidualSettings)

    def __post_init__(self) -> None:
        """Refuse what is never looked at."""
        if not self.min_events <= self.max_events:
            message = f"retrain.yaml: expected 1 <= min_events <= max_events, got {self.min_events}, {self.max_events}."
            raise ConfigurationError(message)


@dataclass(frozen=True)
class GateNeeds:
    """What it takes for the gate to decide.

    Attributes:
        groups: Independent groups of events below which it promotes nothing.
        share: Share of the events that is its part.
    """

    groups: int
    share: float

    @property
    def events(self) -> float:
        """Events of which its part has enough groups, if each is a group of its own; infinite without a part."""
        # shares such as 0.15 are not exact: 50 / 0.25 shall not become 201
        return math.ceil(self.groups / self.share - 1e-9) if self.share else math.inf

    def __str__(self) -> str:
        enough = f": {self.events} events or more." if self.share else "."
        return (
            f"It needs {self.groups} independent groups (registry.gate.min_groups) in a share of {self.share:g} "
            f"(split.gate){enough}"
        )


@dataclass(frozen=True)
class RetrainDecision:
    """What is done about the latest events, and why."""

    action: Literal["wait", "keep", "train"]
    reason: str


def too_few(num_events: int, settings: RetrainSettings, needs: GateNeeds) -> str | None:
    """Why so many events are not worth a look; None if they are."""
    if num_events < settings.min_events:
        return f"{num_events} events in the buffer, at least {settings.min_events} are needed"
    if num_events < needs.events and not settings.force:
        return f"{num_events} events in the buffer are too few for the gate to decide. {needs}"
    return None


def decide(
    drift: DriftReport | None, changed: Sequence[str] | None = None, grown: Sequence[str] | None = None
) -> RetrainDecision:
    """Train where something has changed, or where nobody has looked, since it is forced.

    Args:
        drift: Distance of the events from the training data; None where training is forced.
        changed: Witnesses that the strain no longer follows as it did; None where that cannot be told.
        grown: Kinds of glitches of which more is left than in validation; None likewise.
    """
    if drift is None:
        return RetrainDecision("train", "forced")
    drifted = [channel.channel for channel in drift.drifted]
    found = {"drifted": drifted, "coupling changed": changed, "more is left": grown}
    reasons = [f"{what}: {', '.join(names)}" for what, names in found.items() if names]
    if reasons:
        return RetrainDecision("train", "; ".join(reasons))
    known = [changed is not None, grown is not None]
    same = ["no coupling has changed", "of no kind of glitch more is left"]
    *most, last = ["no channel has drifted", *compress(same, known)]
    return RetrainDecision("keep", f"{', '.join(most)} and {last}" if most else last)


def residual_warnings(report: ResidualReport | None) -> tuple[str, ...]:
    """For the run summary."""
    if report is None:
        return ()
    return tuple(f"More is left than of the champion's validation glitches: {kind}" for kind in report.grown)


def with_groups(decision: RetrainDecision, num_groups: int, needs: GateNeeds, *, force: bool) -> RetrainDecision:
    """The decision to train, or to wait where the gate's part has too few groups and nobody forces it."""
    if num_groups >= needs.groups:
        return decision
    few = f"with {num_groups} groups in its part the gate could promote nothing. {needs}"
    if force:
        logger.warning("Training all the same (retrain.force): %s", few)
        return decision
    return RetrainDecision("wait", f"{decision.reason}; but {few}")


@dataclass(frozen=True)
class Finding:
    """What a run has found and done.

    Attributes:
        champion: The present one.
        decision: What was done.
        events: Counts.
        drift: Distance of the events from the champion's training data; None where nobody has looked.
        coupling: By witness, its gain in training and now; None where that cannot be told.
        residual: What is left of kinds of glitches, in validation and now; None likewise.
        warnings: What the user should know.
        trained: The new version; None where nothing was trained.
    """

    champion: "ModelVersion"
    decision: RetrainDecision
    events: EventCounts
    drift: DriftReport | None = None
    coupling: Mapping[str, Any] | None = None
    residual: ResidualReport | None = None
    warnings: tuple[str, ...] = ()
    trained: "ModelVersion | None" = None

    def to_status(self) -> dict[str, Any]:
        """For status.json."""
        new = self.trained
        return {
            "decision": self.decision.action,
            "reason": self.decision.reason,
            "champion": (new if new is not None and new.promoted else self.champion).version,
            "trained": None if new is None else {key: getattr(new, key) for key in ("version", "promoted", "reason")},
            "drift": None if self.drift is None else self.drift.to_dict(),
            "coupling": self.coupling,
            "residual": None if self.residual is None else self.residual.to_dict(),
        }

    def summary(self, *, started: str, buffer: str, status: Path) -> RunSummary:
        """The run summary.

        Args:
            started: When, ISO 8601, UTC.
            buffer: Folder of the latest events.
            status: The file that says the same.
        """
        action, new = self.decision.action, self.trained
        outputs = {"status": str(status), "decision": f"{action}: {self.decision.reason}"}
        if new is not None:
            outputs["registered model"] = f"{new.name} version {new.version}"
            outputs["champion"] = f"{'yes' if new.promoted else 'no'}: {new.reason}"
        return RunSummary(
            pipeline="retrain_pipeline/Retrain",
            started=started,
            inputs={"buffer": buffer, "champion": f"{self.champion.name} version {self.champion.version}"},
            events=self.events,
            metrics={**drift_metrics(self.drift), "trained": Metric(float(action == "train"))},
            outputs=outputs,
            warnings=self.warnings,
            details={
                **({} if self.coupling is None else {"coupling": dict(self.coupling)}),
                **({} if self.residual is None else {"residual": self.residual.to_dict()}),
            },
        )


# ---------------------------------------------------------------- what was begun, in the folder of one set of events


@dataclass(frozen=True)
class Plan:
    """What a run has begun: the content of the events that it has pinned, and how often it was tried."""

    buffer: str
    attempts: int


@dataclass(frozen=True)
class Waiting:
    """Why nothing is begun.

    Attributes:
        reason: For the user.
        num_events: In the buffer.
        seen: Content of the events, where the last run has looked at the same; None: nobody has looked at them.
    """

    reason: str
    num_events: int
    seen: str | None = None


def next_plan(
    cycle: Path, last: Mapping[str, Any], champion: int, settings: RetrainSettings, needs: GateNeeds
) -> Plan | Waiting:
    """Go on with what was begun, or begin with the latest events, if they are worth a look.

    Args:
        cycle: Folder of one set of events.
        last: What the last run has written of itself.
        champion: The present version.
        settings: Where the events are, and how many are looked at.
        needs: What it takes for the gate to decide.
    """
    plan = resume(cycle, last.get("state"))
    if plan is not None:
        return plan
    events = buffered_events(settings.buffer, settings.max_events)
    if reason := too_few(len(events), settings, needs):
        return Waiting(reason, len(events))
    buffer = content_hash(events)
    if last.get("buffer") == buffer and last.get("champion") == champion and not settings.force:
        return Waiting("no new event and no new champion since the last run", len(events), buffer)
    return begin(cycle, buffer, settings)


def pinned(cycle: Path) -> Path:
    """Where the events are that a run has begun with."""
    return cycle / "buffer"


def begin(cycle: Path, buffer: str, settings: RetrainSettings) -> Plan:
    """Pin the latest events, in place of all that was made of earlier ones."""
    shutil.rmtree(cycle, ignore_errors=True)
    pin_events(settings.buffer, pinned(cycle), settings.max_events)
    return _write(cycle, Plan(buffer, 1))


def resume(cycle: Path, state: str | None) -> Plan | None:
    """What a killed or failed run had begun, counted as tried once more; None if nothing is to be continued.

    Args:
        cycle: Folder of one set of events.
        state: What the last run has written of itself.
    """
    if state not in ("running", "failed") or not (cycle / _PLAN).exists():
        return None
    plan = _read(cycle)
    if plan.attempts >= _MOST_ATTEMPTS:
        logger.warning("The last run failed %d times: beginning anew with the latest events.", plan.attempts)
        return None
    logger.info("Continuing a run that did not end (attempt %d)", plan.attempts + 1)
    return _write(cycle, replace(plan, attempts=plan.attempts + 1))


def forgive(cycle: Path) -> None:
    """Take an attempt back: a registry that is away must not cost a twin that is trained."""
    plan = _read(cycle)
    _write(cycle, replace(plan, attempts=plan.attempts - 1))


def end(cycle: Path) -> None:
    """The next failure must not take this finished cycle for one to continue."""
    (cycle / _PLAN).unlink(missing_ok=True)


def _read(cycle: Path) -> Plan:
    return read_record(cycle / _PLAN, Plan, "Retrain")


def _write(cycle: Path, plan: Plan) -> Plan:
    write_json(cycle / _PLAN, asdict(plan))
    return plan
