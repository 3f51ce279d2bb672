"""Models of triggers against each other: taught on one part, chosen on the second, judged on the third."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.intervals import Estimate
from glitchflow_plugin.models.triggers.build import build_network
from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.models.triggers.trees import TREES, TriggerTrees, fit_trees, table
from glitchflow_plugin.settings import Fraction, Replicates, section
from glitchflow_plugin.training.interruption import Interrupted
from glitchflow_plugin.training.triggers.judge import conformal_half_width, figures_of, lead
from glitchflow_plugin.training.triggers.learn import Batches, LearningSettings, answers, learn
from glitchflow_plugin.training.triggers.losses import TaskWeights, task_losses
from glitchflow_plugin.training.triggers.rivals import logistic, loudest
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels

logger = logging.getLogger(__name__)


@section
class ContestSettings:
    """Who is taught, and how it is judged.

    Attributes:
        entrants: By a name of its own, `model` (a network, boosting or forest) and its arguments. Of trees, a list of
            values is a search: the validation part chooses.
        learning: How networks are learnt.
        coverage: Share of the SNRs that their intervals shall hold.
        replicates: Of the bootstrap.
        seed: Of the trees, the networks' first weights and the bootstrap.
    """

    entrants: Mapping[str, Mapping[str, Any]]
    learning: LearningSettings = field(default_factory=LearningSettings)
    coverage: Fraction = 0.9
    replicates: Replicates = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an entrant without a model."""
        for name, entrant in self.entrants.items():
            if "model" not in entrant:
                raise ConfigurationError(f"entrants.{name}: expected a model, got the keys {sorted(entrant)}.")


@dataclass(frozen=True)
class Sizes:
    """What a vocabulary holds: arguments of every model.

    Attributes:
        num_channels: Channels, UNKNOWN included.
        num_globals: Globals.
        num_kinds: Classes of glitches.
    """

    num_channels: int
    num_globals: int
    num_kinds: int


@dataclass(frozen=True, eq=False)
class Parts:
    """Three parts of which no block of time and no group is in two.

    Attributes:
        training: Teaches.
        validation: Ends the teaching, chooses settings and champion, and gives the width of intervals.
        test: Chooses nothing.
        test_groups: What varies independently in the test part, in its order.
    """

    training: Batches
    validation: Batches
    test: Batches
    test_groups: Int[np.ndarray, " set"]


@dataclass(frozen=True, eq=False)
class Entrant:
    """A model that was taught.

    Attributes:
        model: The model.
        settings: What it was made of, as chosen.
        validation_loss: By which it was chosen.
        half_width: Half the interval of its ln(1 + SNR).
        told: Its answers on the test part.
        figures: On the test part.
        lead: The same, over the best of the trees on validation; empty for that one and without trees.
        training_rate: Sets a second while it was taught, passes over validation included.
        inference_rate: Sets a second on the test part.
    """

    model: TriggerNetwork | TriggerTrees
    settings: Mapping[str, Any]
    validation_loss: float
    half_width: float
    told: TriggerAnswers
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    lead: Mapping[str, Estimate] = field(default_factory=dict)
    training_rate: float = 0.0
    inference_rate: float = 0.0


@dataclass(frozen=True, eq=False)
class Result:
    """What came of a contest.

    Attributes:
        entrants: By name.
        champion: The one with the least validation loss.
        rivals: Area under the ROC and efficiencies of the loudest trigger alone and of logistic regression.
    """

    entrants: Mapping[str, Entrant]
    champion: str
    rivals: Mapping[str, Mapping[str, Estimate]]


def contest(parts: Parts, sizes: Sizes, settings: ContestSettings, device: torch.device | str = "cpu") -> Result:
    """Teach all entrants, choose on validation, judge on the test part.

    Args:
        parts: What to teach, choose and judge with.
        sizes: Of the vocabulary.
        settings: Who is taught, and how.
        device: Where networks are taught.

    Raises:
        Interrupted: A signal asked to end; nothing half-taught is judged.
    """
    true = TriggerLabels.joined([labels for _, labels in parts.test(0)])
    drawn = {"replicates": settings.replicates, "seed": settings.seed}
    found = {}
    for name, one in settings.entrants.items():
        found[name] = _taught(parts, sizes, one, settings, device)
        logger.info("%s: validation loss %.4f", name, found[name].validation_loss)
    trees = [name for name, one in found.items() if isinstance(one.model, TriggerTrees)]
    best_tree = min(trees, key=lambda name: found[name].validation_loss, default=None)
    judged = {}
    for name, one in found.items():
        own = figures_of(one.told, true, parts.test_groups, half_width=one.half_width, **drawn)
        over = {}
        if best_tree is not None and name != best_tree:
            rival = found[best_tree]
            widths = (one.half_width, rival.half_width)
            over = lead((one.told, rival.told), true, parts.test_groups, half_widths=widths, **drawn)
        judged[name] = replace(one, figures=own, lead=over)
    champion = min(judged, key=lambda name: judged[name].validation_loss)
    return Result(judged, champion, _rivals(parts, sizes, true, drawn))


def _taught(
    parts: Parts, sizes: Sizes, entrant: Mapping[str, Any], settings: ContestSettings, device: torch.device | str
) -> Entrant:
    started = time.perf_counter()
    tasks = settings.learning.tasks
    if entrant["model"] in TREES:
        model, chosen, passes = _searched(parts, sizes, entrant, settings)
    else:
        torch.manual_seed(settings.seed)
        chosen = {**vars(sizes), **{key: value for key, value in entrant.items() if key != "model"}}
        learnt = learn(
            build_network(entrant["model"], **chosen), parts.training, parts.validation, settings.learning, device
        )
        if learnt.interrupted:
            raise Interrupted(f"{learnt.interrupted} ended the teaching of {entrant['model']}. Begin it again.", code=1)
        model, passes = learnt.network, len(learnt.training)
    taught = time.perf_counter() - started
    told, true = _told(model, parts.validation, device)
    started = time.perf_counter()
    tested, _ = _told(model, parts.test, device)
    asked = time.perf_counter() - started
    return Entrant(
        model,
        {**chosen, "model": entrant["model"]},
        _loss(told, true, tasks),
        conformal_half_width(told, true, settings.coverage),
        tested,
        training_rate=passes * sum(len(labels) for _, labels in parts.training(0)) / taught,
        inference_rate=len(tested) / asked,
    )


def _searched(
    parts: Parts, sizes: Sizes, entrant: Mapping[str, Any], settings: ContestSettings
) -> tuple[TriggerTrees, dict[str, Any], int]:
    """The trees of the least validation loss over all combinations of the values, and how many there were."""
    keys = [key for key in entrant if key != "model"]
    values = [entrant[key] if isinstance(entrant[key], Sequence) else [entrant[key]] for key in keys]
    known = {"num_channels": sizes.num_channels, "num_kinds": sizes.num_kinds}
    inputs, labels = table(parts.training(0), sizes.num_channels)
    tried = []
    for one in product(*values):
        chosen = dict(zip(keys, one, strict=True))
        trees = fit_trees(entrant["model"], inputs, labels, seed=settings.seed, **known, **chosen)
        loss = _loss(*_told(trees, parts.validation, "cpu"), settings.learning.tasks)
        tried.append((loss, trees, {**known, **chosen}))
    _, trees, chosen = min(tried, key=lambda one: one[0])
    return trees, chosen, len(tried)


def _told(
    model: TriggerNetwork | TriggerTrees, batches: Batches, device: torch.device | str
) -> tuple[TriggerAnswers, TriggerLabels]:
    told, true = zip(*answers(model, batches(0), device), strict=True)
    return TriggerAnswers.joined(told), TriggerLabels.joined(true)


def _loss(told: TriggerAnswers, true: TriggerLabels, tasks: TaskWeights) -> float:
    return float(task_losses(told, true, tasks).double().mean())


def _rivals(
    parts: Parts, sizes: Sizes, true: TriggerLabels, drawn: Mapping[str, int]
) -> dict[str, dict[str, Estimate]]:
    known = logistic(parts.training(0), num_channels=sizes.num_channels)
    found = {}
    for name, rival in (("loudest", loudest), ("logistic", known)):
        scores = torch.from_numpy(np.concatenate([rival(sets) for sets, _ in parts.test(0)]))
        nothing = torch.zeros(len(scores), 1)
        told = TriggerAnswers(scores, nothing, nothing[:, 0], nothing)
        every = figures_of(told, true, parts.test_groups, half_width=0.0, **drawn)
        found[name] = {key: value for key, value in every.items() if key == "auc" or key.startswith("efficiency")}
    return found
