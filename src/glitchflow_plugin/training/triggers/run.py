"""From a store of triggers and labelled times to a judged model: the one that validation chooses."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit
from torch.nn import functional

from glitchflow_plugin.data.triggers.labels import LabelledTimes, LabelSettings
from glitchflow_plugin.data.triggers.sets import SetSettings, Vocabulary, trigger_sets
from glitchflow_plugin.data.triggers.store import open_triggers, read_manifest
from glitchflow_plugin.data.triggers.stream import StreamSettings
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.inference.classify_triggers import LABELS, RANKS, TRUST
from glitchflow_plugin.models.triggers.bundle import TriggerModel
from glitchflow_plugin.signal.false_alarm import calibrate_false_alarm
from glitchflow_plugin.signal.rank_calibration import RankedGlitches
from glitchflow_plugin.tracking.trigger_models import load_trigger_model, register_trigger_model
from glitchflow_plugin.tracking.versions import Decision, ModelVersion, list_versions, settle
from glitchflow_plugin.training.mean_interval import mean_interval
from glitchflow_plugin.training.registration import RegistrySettings
from glitchflow_plugin.training.triggers.contest import ContestSettings, Parts, Result, Sizes, contest
from glitchflow_plugin.training.triggers.learn import Teach, answers
from glitchflow_plugin.training.triggers.learner import StoredSets
from glitchflow_plugin.training.triggers.trust import trust
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import TriggerLabels


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of a training.

    Attributes:
        result: Of the contest.
        model: Its champion.
        triggers: What it was taught on.
        validation: Times by which it is compared with another champion.
        scores: Its log-odds of a glitch there, as they were learnt.
    """

    result: Result
    model: TriggerModel
    triggers: ds.Dataset
    validation: LabelledTimes
    scores: Float[np.ndarray, " time"]

    def gain(self, other: TriggerModel, *, replicates: int, seed: int) -> tuple[float, float, float]:
        """By how much its loss of glitch or not is below another model's on validation, and the ends of that.

        Args:
            other: Of whatever vocabulary.
            replicates: Of the bootstrap by block of time.
            seed: Of the same.
        """
        others = glitch_losses(glitch_scores(other, self.triggers, self.validation), self.validation)
        own = glitch_losses(self.scores, self.validation)
        found = mean_interval(others - own, self.validation.group, replicates=replicates, seed=seed)
        mean, low, high = (float(one) for one in found)
        return mean, low, high


def train_triggers(
    store: Path,
    times: LabelledTimes,
    target: str,
    *,
    sets: SetSettings,
    stream: StreamSettings,
    settings: ContestSettings,
    teach: Teach,
    labels: LabelSettings,
    fingerprint: str = "",
    device: torch.device | str = "cpu",
) -> Trained | None:
    """Teach all entrants on times with labels, choose one and judge it.

    Args:
        store: Folder of the triggers.
        times: Each with its part.
        target: Channel whose triggers no model sees.
        sets: What a set holds.
        stream: How sets are read, each time that they are wanted.
        settings: Who is taught, and how it is judged.
        teach: Teaches a network.
        labels: How they were labelled.
        fingerprint: Of triggers, times and sets.
        device: Where networks are judged.

    Returns:
        What came of it; None in a process that another one goes on for.

    Raises:
        DataError: A part has no times with and without a glitch.
    """
    for part in ("training", "validation", "test"):
        glitch = times.of(part).glitch
        if not glitch.any() or glitch.all():
            raise DataError(f"expected times with and without a glitch in the part {part}, got {len(glitch)} times.")
    teaching, validation, test = (times.of(part) for part in ("training", "validation", "test"))
    kinds = tuple(sorted({str(one) for one in teaching.kind if one}))
    triggers = open_triggers(store)
    vocabulary = Vocabulary(tuple(sorted(set(read_manifest(store).channels) - {target})), kinds)

    def stored(own: LabelledTimes, seed: int) -> StoredSets:
        chances = torch.rand(len(own), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return StoredSets(
            store,
            own.time,
            labels_of(own, kinds),
            vocabulary,
            target,
            sets,
            stream,
            chances if settings.tasks.channel else None,
        )

    training, judging, testing = (
        stored(own, settings.seed + number) for number, own in enumerate((teaching, validation, test))
    )
    parts = Parts(training, judging, testing, test.group, fingerprint)
    sizes = Sizes(vocabulary.num_channels, len(vocabulary.channels), max(1, len(kinds)))
    result = contest(parts, sizes, settings, teach, device)
    if result is None:
        return None
    champion = result.entrants[result.champion]
    model = TriggerModel(
        champion.model,
        champion.settings,
        target,
        vocabulary.channels,
        kinds,
        vars(sets),
        champion.half_width,
        metrics={f"test_{name}": one.value for name, one in champion.figures.items()},
        notes={
            "dataset": fingerprint,
            "events": {"training": len(teaching), "validation": len(validation), "test": len(test)},
            "test": {"model": {name: one.to_dict() for name, one in champion.figures.items()}},
            LABELS: asdict(labels),
        },
    )
    scores = glitch_scores(model, triggers, validation)
    model = replace(model, log_prior=log_prior(scores, validation))
    trusted = trust(model, champion.told, test, replicates=settings.replicates, seed=settings.seed)
    notes = {**model.notes, RANKS: rank_notes(scores, validation, labels.separation), TRUST: trusted}
    return Trained(result, replace(model, notes=notes), triggers, validation, scores)


def register_champion(
    trained: Trained, settings: RegistrySettings, *, run_id: str | None = None, tags: Mapping[str, str] | None = None
) -> ModelVersion:
    """Register the model, and give it the alias where it tells better which times have a glitch than the present one.

    Better is what is better with confidence: the whole interval by block of validation lies above 0.

    Args:
        trained: What was trained.
        settings: Where models are kept.
        run_id: MLflow run that taught it; None: one of its own.
        tags: Kept with the version.

    Returns:
        The version.

    Raises:
        RegistryError: The registry refused it, or the name is that of other models.
        FormatError: The present champion is no model of triggers.
    """
    uri, name = settings.tracking_uri, settings.name
    version = register_trigger_model(
        trained.model,
        name,
        uri,
        experiment=settings.experiment,
        artifacts=settings.artifacts,
        alias=settings.alias,
        run_id=run_id,
        tags=tags,
    )
    held = next((one.version for one in list_versions(name, uri) if settings.alias in one.aliases), None)
    decision: Decision = {"promoted": True, "reason": "no champion before", "figures": {}, "against": None}
    if held is not None and held != version.version:
        gate = settings.gate
        rival = load_trigger_model(name, held, uri)[0]
        mean, low, high = trained.gain(rival, replicates=gate.replicates, seed=gate.seed)
        reason = f"against version {held}: loss of glitch or not lower by {mean:.4f} [{low:.4f}, {high:.4f}]"
        figures = {"gate_gain": mean, "gate_gain_low": low, "gate_gain_high": high}
        decision = {"promoted": low > 0, "reason": reason, "figures": figures, "against": held}
    return settle(version, decision, settings.alias)


def leaderboard(result: Result) -> dict[str, object]:
    """All figures of a contest, as JSON holds them."""
    entrants = {
        name: {
            "validation_loss": one.validation_loss,
            "settings": dict(one.settings),
            "figures": {key: value.to_dict() for key, value in one.figures.items()},
            "lead_over_trees": {key: value.to_dict() for key, value in one.lead.items()},
            "sets_per_second": {"training": one.training_rate, "inference": one.inference_rate},
        }
        for name, one in result.entrants.items()
    }
    rivals = {name: {key: value.to_dict() for key, value in one.items()} for name, one in result.rivals.items()}
    return {"champion": result.champion, "entrants": entrants, "rivals": rivals}


def glitch_scores(model: TriggerModel, triggers: ds.Dataset, times: LabelledTimes) -> Float[np.ndarray, " time"]:
    """Log-odds of a glitch at each time, as they were learnt: for drawn times."""
    vocabulary, given = Vocabulary(model.channels, model.kinds), SetSettings(**model.sets)
    asked = trigger_sets(triggers, times.time, vocabulary, model.target, given)
    nothing = labels_of(times, model.kinds)[:0]
    told = [host(one.glitch.double()) for one, _ in answers(model.model, ((each, nothing) for each in asked))]
    return np.concatenate(told)


def glitch_losses(scores: Float[np.ndarray, " time"], times: LabelledTimes) -> Float[np.ndarray, " time"]:
    """Cross-entropy of glitch or not at each time, by which models of any vocabulary can be compared.

    As many glitches are expected as there are among the times: how many quiet ones a model was shown for each decides
    nothing.

    Args:
        scores: Log-odds of a glitch at each time, as they were learnt.
        times: With and without a glitch.
    """
    shift = log_prior(scores, replace(times, weight=np.ones(len(times))))
    told, true = torch.from_numpy(scores + shift), torch.from_numpy(times.glitch.astype(np.float64))
    return host(functional.binary_cross_entropy_with_logits(told, true, reduction="none"))


def rank_notes(scores: NDArray[np.float64], times: LabelledTimes, separation: float) -> dict[str, Any]:
    """What is known of log-odds as ranks: false-alarm probability and efficiency, from times that taught no weight.

    Args:
        scores: Log-odds of a glitch at each time.
        times: Those of validation.
        separation: Length of the slots of time that they stand for, s, or that no two of them are nearer than.
    """
    quiet = ~times.glitch
    false_alarm = calibrate_false_alarm(scores[quiet, None], np.ones((int(quiet.sum()), 1), bool), times.group[quiet])
    own = times[times.glitch]
    seen = RankedGlitches.of(scores[times.glitch], own.snr, own.group, separation)
    live = times.weight.sum() * separation
    return {"false_alarm": false_alarm.to_dict(), "glitches": seen.to_dict(), "rate": len(own) / live}


def labels_of(times: LabelledTimes, kinds: tuple[str, ...]) -> TriggerLabels:
    """Labels as tensors, all of weight 1: what undoes the sampling goes into `log_prior`."""
    places = {kind: place for place, kind in enumerate(kinds)}
    return TriggerLabels(
        torch.from_numpy(times.glitch.astype(np.float32)),
        torch.tensor([places.get(str(one), -1) for one in times.kind], dtype=torch.long),
        torch.from_numpy(np.log1p(times.snr).astype(np.float32)),
        torch.full((len(times),), -1),
        torch.ones(len(times)),
    )


def log_prior(scores: NDArray[np.float64], times: LabelledTimes) -> float:
    """What is added to log-odds so that as many glitches are expected as there are.

    It undoes the balance of the drawing, and what a model claims too much or too little on the whole.

    Args:
        scores: Log-odds of a glitch at each time.
        times: Those of validation, which stand for all others by their weights.
    """
    there = times.weight[times.glitch].sum()

    def excess(offset: float) -> float:
        return float(times.weight @ expit(scores + offset) - there)

    most = float(np.abs(scores).max()) + 50.0  # where all are as good as certain
    return float(brentq(excess, -most, most))  # pyright: ignore[reportArgumentType]  # a pair only with full_output
