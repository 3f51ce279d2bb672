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
from numpy.typing import NDArray

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.intervals import Estimate
from glitchflow_plugin.models.triggers.build import build_network
from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.models.triggers.trees import TREES, TriggerTrees, fit_trees, table
from glitchflow_plugin.settings import Fraction, Replicates, built, section
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.triggers.judge import conformal_half_width, figures_of, lead
from glitchflow_plugin.training.triggers.learn import Teach, answers
from glitchflow_plugin.training.triggers.learner import Examples, TriggerLearner
from glitchflow_plugin.training.triggers.losses import TaskWeights, task_losses
from glitchflow_plugin.training.triggers.rivals import logistic, loudest
from glitchflow_plugin.types.triggers import TriggerAnswers, TriggerLabels

logger = logging.getLogger(__name__)

_OWN_KEYS = ("model", "config")
"""Keys of an entrant that are no arguments of its model."""


@section
class ContestSettings:
    """Who is taught, and how it is judged.

    Attributes:
        entrants: By a name of its own, `model` (a network, boosting or forest) and its arguments; of networks also
            `config`, keys of the training's configuration that are its own. Of trees, a list of values is a search: the
            validation part chooses. Those that are None are left out.
        tasks: What each task counts for. With `channel` above 0, one trigger of each set is held out.
        coverage: Share of the SNRs that their intervals shall hold.
        replicates: Of the bootstrap.
        seed: Of the trees, the networks' first weights and the bootstrap.
    """

    entrants: Mapping[str, Mapping[str, Any] | None]
    tasks: TaskWeights = field(default_factory=TaskWeights)
    coverage: Fraction = 0.9
    replicates: Replicates = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an entrant without a model, and networks that cannot be built, before anything is read."""
        for name, entrant in self.asked.items():
            if "model" not in entrant:
                raise ConfigurationError(f"entrants.{name}: expected a model, got the keys {sorted(entrant)}.")
            built(TrainingConfiguration, entrant.get("config"), f"entrants.{name}.config")
            if entrant["model"] not in TREES:
                build_network(
                    entrant["model"], **{**_arguments(entrant), "num_channels": 2, "num_kinds": 1}, num_globals=1
                )
        if not self.asked:
            raise ConfigurationError("entrants: expected one at least, got none.")

    @property
    def asked(self) -> dict[str, Mapping[str, Any]]:
        """The entrants that are not left out: networks first, for which several processes work together."""
        there = {name: entrant for name, entrant in self.entrants.items() if entrant is not None}
        return dict(sorted(there.items(), key=lambda one: one[1].get("model") in TREES))


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
        times: Checksum of triggers, times and sets.
    """

    training: Examples
    validation: Examples
    test: Examples
    test_groups: Int[np.ndarray, " set"]
    times: str = ""


@dataclass(frozen=True, eq=False)
class Entrant:
    """A model that was taught.

    Attributes:
        model: The model.
        settings: What it was made of, as chosen.
        validation_loss: By which it was chosen.
        half_width: Half the interval of its ln(1 + SNR).
        told: Its answers on the test part.
        true: The truth there.
        figures: On the test part.
        lead: The same, over the best of the trees on validation; empty for that one and without trees.
        training_rate: Sets a second while it was taught, passes over validation included; None: it went on from a
            checkpoint.
        inference_rate: Sets a second on the test part.
    """

    model: TriggerNetwork | TriggerTrees
    settings: Mapping[str, Any]
    validation_loss: float
    half_width: float
    told: TriggerAnswers
    true: TriggerLabels
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    lead: Mapping[str, Estimate] = field(default_factory=dict)
    training_rate: float | None = None
    inference_rate: float = 0.0


@dataclass(frozen=True, eq=False)
class Result:
    """What came of a contest.

    Attributes:
        entrants: By name.
        champion: The one with the least validation loss.
        rivals: What they must beat: area under the ROC and efficiencies of the loudest trigger alone and of logistic
            regression, and how often the channel held out is the commonest one.
    """

    entrants: Mapping[str, Entrant]
    champion: str
    rivals: Mapping[str, Mapping[str, Estimate]]


def contest(
    parts: Parts, sizes: Sizes, settings: ContestSettings, teach: Teach, device: torch.device | str = "cpu"
) -> Result | None:
    """Teach all entrants, choose on validation, judge on the test part.

    Args:
        parts: What to teach, choose and judge with.
        sizes: Of the vocabulary.
        settings: Who is taught, and how it is judged.
        teach: Teaches a network.
        device: Where networks are judged.

    Returns:
        What came of it; None in a process that another one goes on for.

    Raises:
        Interrupted: A signal asked to end; nothing half-taught is judged.
    """
    drawn = {"replicates": settings.replicates, "seed": settings.seed}
    found: dict[str, Entrant] = {}
    elsewhere = False
    trees_in: tuple[NDArray[np.float64], dict[str, NDArray[Any]]] | None = None
    for name, one in settings.asked.items():
        if one["model"] in TREES:
            if elsewhere:  # trees are fitted by the process that goes on
                continue
            trees_in = trees_in or table(parts.training.in_order(), sizes.num_channels)
            entrant = _searched(parts, trees_in, sizes, one, settings)
        else:
            entrant = _taught(name, one, parts, sizes=sizes, settings=settings, teach=teach, device=device)
        if entrant is None:
            elsewhere = True
            continue
        found[name] = entrant
        logger.info("%s: validation loss %.4f", name, entrant.validation_loss)
    if elsewhere:
        return None
    trees = [name for name, one in found.items() if isinstance(one.model, TriggerTrees)]
    best_tree = min(trees, key=lambda name: found[name].validation_loss, default=None)
    judged = {}
    for name, one in found.items():
        own = figures_of(one.told, one.true, parts.test_groups, half_width=one.half_width, **drawn)
        over = {}
        if best_tree is not None and name != best_tree:
            rival = found[best_tree]
            widths = (one.half_width, rival.half_width)
            over = lead((one.told, rival.told), one.true, parts.test_groups, half_widths=widths, **drawn)
        judged[name] = replace(one, figures=own, lead=over)
    champion = min(judged, key=lambda name: judged[name].validation_loss)
    trees_in = trees_in or table(parts.training.in_order(), sizes.num_channels)
    return Result(judged, champion, _rivals(trees_in, parts, sizes, drawn))


def _arguments(entrant: Mapping[str, Any]) -> dict[str, Any]:
    """What an entrant's model is made of."""
    return {key: value for key, value in entrant.items() if key not in _OWN_KEYS}


def _taught(
    name: str,
    entrant: Mapping[str, Any],
    parts: Parts,
    *,
    sizes: Sizes,
    settings: ContestSettings,
    teach: Teach,
    device: torch.device | str,
) -> Entrant | None:
    chosen = {**vars(sizes), **_arguments(entrant)}
    learner = TriggerLearner(entrant["model"], chosen, settings.tasks, parts.training, parts.times)
    lesson = teach(name, learner, entrant.get("config") or {}, parts.validation)
    if lesson is None:
        return None
    rate = lesson.epochs * len(parts.training) / lesson.seconds if lesson.seconds else None
    return _asked(lesson.network, {**chosen, "model": entrant["model"]}, parts, settings, rate=rate, device=device)


def _searched(
    parts: Parts,
    learnt_from: tuple[NDArray[np.float64], dict[str, NDArray[Any]]],
    sizes: Sizes,
    entrant: Mapping[str, Any],
    settings: ContestSettings,
) -> Entrant:
    """The trees of the least validation loss over all combinations of the values."""
    started = time.perf_counter()
    given = _arguments(entrant)
    values = [
        value if isinstance(value, Sequence) and not isinstance(value, str) else [value] for value in given.values()
    ]
    known = {"num_channels": sizes.num_channels, "num_kinds": sizes.num_kinds}
    tried = []
    for one in product(*values):
        chosen: dict[str, Any] = dict(zip(given, one, strict=True))
        trees = fit_trees(entrant["model"], *learnt_from, seed=settings.seed, **known, **chosen)
        loss = _loss(*_told(trees, parts.validation, "cpu"), settings.tasks)
        tried.append((loss, trees, {**known, **chosen}))
    _, trees, chosen = min(tried, key=lambda one: one[0])
    rate = len(tried) * len(parts.training) / (time.perf_counter() - started)
    return _asked(trees, {**chosen, "model": entrant["model"]}, parts, settings, rate=rate, device="cpu")


def _asked(
    model: TriggerNetwork | TriggerTrees,
    chosen: Mapping[str, Any],
    parts: Parts,
    settings: ContestSettings,
    *,
    rate: float | None,
    device: torch.device | str,
) -> Entrant:
    """What a model that was taught says of the other parts."""
    told, true = _told(model, parts.validation, device)
    started = time.perf_counter()
    tested, held_out = _told(model, parts.test, device)
    asked = time.perf_counter() - started
    return Entrant(
        model,
        chosen,
        _loss(told, true, settings.tasks),
        conformal_half_width(told, true, settings.coverage),
        tested,
        held_out,
        training_rate=rate,
        inference_rate=len(tested) / asked,
    )


def _told(
    model: TriggerNetwork | TriggerTrees, examples: Examples, device: torch.device | str
) -> tuple[TriggerAnswers, TriggerLabels]:
    told, true = zip(*answers(model, examples.in_order(), device), strict=True)
    return TriggerAnswers.joined(told), TriggerLabels.joined(true)


def _loss(told: TriggerAnswers, true: TriggerLabels, tasks: TaskWeights) -> float:
    return float(task_losses(told, true, tasks).double().mean())


def _rivals(
    learnt_from: tuple[NDArray[np.float64], dict[str, NDArray[Any]]],
    parts: Parts,
    sizes: Sizes,
    drawn: Mapping[str, int],
) -> dict[str, dict[str, Estimate]]:
    rivals = {"loudest": loudest, "logistic": logistic(*learnt_from, num_channels=sizes.num_channels)}
    passed = [({name: one(sets) for name, one in rivals.items()}, labels) for sets, labels in parts.test.in_order()]
    true = TriggerLabels.joined([labels for _, labels in passed])
    found = {}
    for name in rivals:
        scores = torch.from_numpy(np.concatenate([told[name] for told, _ in passed]))
        nothing = torch.zeros(len(scores), 1)
        told = TriggerAnswers(scores, nothing, nothing[:, 0], nothing)
        every = figures_of(told, true, parts.test_groups, half_width=0.0, **drawn)
        found[name] = {key: value for key, value in every.items() if key == "auc" or key.startswith("efficiency")}
    channels = learnt_from[1]["channel"]
    if (channels >= 0).any():
        commonest = np.zeros((len(parts.test), sizes.num_channels), dtype=np.float32)
        commonest[:, np.bincount(channels[channels >= 0]).argmax()] = 1.0
        nothing = torch.zeros(len(parts.test), 1)
        told = TriggerAnswers(nothing[:, 0], nothing, nothing[:, 0], torch.from_numpy(commonest))
        every = figures_of(told, true, parts.test_groups, half_width=0.0, **drawn)
        found["commonest"] = {"channel_accuracy": every["channel_accuracy"]}
    return found
