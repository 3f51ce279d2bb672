"""From a store of triggers and labelled times to a judged model: the one that validation chooses."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.dataset as ds
import torch
from torch.nn import functional

from glitchflow_plugin.data.triggers.labels import LabelledTimes
from glitchflow_plugin.data.triggers.sets import SetSettings, Vocabulary, trigger_sets
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.models.triggers.bundle import TriggerModel
from glitchflow_plugin.tracking.trigger_models import load_trigger_model, register_trigger_model
from glitchflow_plugin.tracking.versions import Decision, ModelVersion, list_versions, settle
from glitchflow_plugin.training.registration import RegistrySettings
from glitchflow_plugin.training.triggers.contest import ContestSettings, Parts, Result, Sizes, contest
from glitchflow_plugin.training.triggers.learn import Batches, answers
from glitchflow_plugin.types.triggers import TriggerLabels, TriggerSets

#: Sets that are told or judged at once.
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of a training.

    Attributes:
        result: Of the contest.
        model: Its champion.
        worse_than: Asks whether another model says better which validation times hold a glitch.
    """

    result: Result
    model: TriggerModel
    worse_than: Callable[[TriggerModel], bool]


def train_triggers(
    triggers: ds.Dataset,
    channels: Iterable[str],
    times: LabelledTimes,
    target: str,
    *,
    sets: SetSettings,
    settings: ContestSettings,
    device: torch.device | str = "cpu",
) -> Trained:
    """Teach all entrants on times with labels, choose one and judge it. The sets of all times lie in memory.

    Args:
        triggers: As `open_triggers` gives them.
        channels: Names in it.
        times: Each with its part.
        target: Channel whose triggers no model sees.
        sets: What a set holds.
        settings: Who is taught, and how.
        device: Where networks are taught.

    Raises:
        DataError: A part has no times with and without a glitch.
    """
    for part in ("training", "validation", "test"):
        glitch = times.of(part).glitch
        if not glitch.any() or glitch.all():
            raise DataError(f"expected times with and without a glitch in the part {part}, got {len(glitch)} times.")
    teaching, test = times.of("training"), times.of("test")
    kinds = tuple(sorted({str(one) for one in teaching.kind if one}))
    vocabulary = Vocabulary(tuple(sorted(set(channels) - {target})), kinds)
    held = {
        part: (_joined(trigger_sets(triggers, own.time, vocabulary, target, sets)), labels_of(own, kinds))
        for part in ("training", "validation", "test")
        for own in [times.of(part)]
    }
    size, seed = settings.learning.batch_size, settings.seed
    parts = Parts(
        _batches(*held["training"], size, seed),
        _batches(*held["validation"], _AT_ONCE),
        _batches(*held["test"], _AT_ONCE),
        test.group,
    )
    sizes = Sizes(vocabulary.num_channels, len(vocabulary.channels), max(1, len(kinds)))
    result = contest(parts, sizes, settings, device)
    champion = result.entrants[result.champion]
    model = TriggerModel(
        champion.model,
        champion.settings,
        target,
        vocabulary.channels,
        kinds,
        vars(sets),
        champion.half_width,
        log_prior=log_prior(teaching),
        metrics={f"test_{name}": one.value for name, one in champion.figures.items()},
        notes={
            "events": {part: len(own) for part, (own, _) in held.items()},
            "test": {"model": {name: one.to_dict() for name, one in champion.figures.items()}},
        },
    )
    validation = times.of("validation")
    own_loss = glitch_loss(model, triggers, validation)
    return Trained(result, model, lambda other: glitch_loss(other, triggers, validation) < own_loss)


def register_champion(trained: Trained, settings: RegistrySettings) -> tuple[ModelVersion, bool]:
    """Register the model, and give it the alias unless the present champion tells better which times have a glitch.

    Args:
        trained: What was trained.
        settings: Where models are kept.

    Returns:
        The version, and whether it got the alias.

    Raises:
        RegistryError: The registry refused it, or the name is that of other models.
        FormatError: The present champion is no model of triggers.
    """
    uri, name = settings.tracking_uri, settings.name
    settings.reachable()
    version = register_trigger_model(
        trained.model, name, uri, experiment=settings.experiment, artifacts=settings.artifacts, alias=settings.alias
    )
    held = next((one.version for one in list_versions(name, uri) if settings.alias in one.aliases), None)
    better = held is not None and trained.worse_than(load_trigger_model(name, held, uri)[0])
    reason = "no champion before" if held is None else f"glitches of validation against version {held}"
    decision: Decision = {"promoted": not better, "reason": reason, "figures": {}, "against": held}
    return settle(version, decision, settings.alias), not better


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


def glitch_loss(model: TriggerModel, triggers: ds.Dataset, times: LabelledTimes) -> float:
    """Mean cross-entropy of glitch or not, by which models of any vocabulary can be compared."""
    vocabulary, given = Vocabulary(model.channels, model.kinds), SetSettings(**model.sets)
    asked = trigger_sets(triggers, times.time, vocabulary, model.target, given)
    labels = labels_of(times, model.kinds)
    told = torch.cat([one.glitch for one, _ in answers(model.model, ((each, labels[:0]) for each in asked))])
    return float(functional.binary_cross_entropy_with_logits(told, labels.glitch))


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


def log_prior(times: LabelledTimes) -> float:
    """What is added to log-odds that were learnt of drawn times, to hold for all live time."""
    drawn = times.glitch.sum() / (~times.glitch).sum()
    live = times.weight[times.glitch].sum() / times.weight[~times.glitch].sum()
    return float(np.log(live / drawn))


def _batches(sets: TriggerSets, labels: TriggerLabels, size: int, seed: int | None = None) -> Batches:
    """In order; with a seed, in another order each epoch."""

    def of(epoch: int) -> list[tuple[TriggerSets, TriggerLabels]]:
        rows = torch.arange(len(sets))
        if seed is not None:
            rows = torch.randperm(len(sets), generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))
        return [(sets[own], labels[own]) for own in rows.split(size)]

    return of


def _joined(batches: Iterable[TriggerSets]) -> TriggerSets:
    """All sets as one, padded to the largest."""
    held = list(batches)
    width = max(one.mask.shape[1] for one in held)

    def padded(values: torch.Tensor) -> torch.Tensor:
        return functional.pad(values, (*(0, 0) * (values.dim() - 2), 0, width - values.shape[1]))

    wide = [
        replace(one, **{name: padded(getattr(one, name)) for name in ("points", "channels", "mask")}) for one in held
    ]
    return TriggerSets.joined(wide)
