"""How much data it takes: entrants trained on ever more events, or on events of ever more groups, and judged alike."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError, nearest
from glitchflow_plugin.inference.leaderboard import standings
from glitchflow_plugin.inference.learning_curve import CurvePoint
from glitchflow_plugin.settings import Count, section
from glitchflow_plugin.training.contest import Contest, Entrant, Train, judged

logger = logging.getLogger(__name__)


@section
class CurveSettings:
    """Which entrants learn from how much; conf/benchmark.yaml explains the keys."""

    entrants: Sequence[str] = ("wiener", "coupling")
    events: Sequence[Count] = ()
    groups: Sequence[Count] = ()
    seed: int = 0

    def chosen(self, entrants: Mapping[str, Entrant]) -> dict[str, Entrant]:
        """Those of the entrants that are trained; none where no curve is asked for.

        Raises:
            ConfigurationError: There is no such entrant; the message names the nearest.
        """
        wanted = self.entrants if self.events or self.groups else ()
        for name in wanted:
            if name not in entrants:
                raise ConfigurationError(
                    f"benchmark.learning_curve.entrants: expected some of {sorted(entrants)}, got {name!r}."
                    f"{nearest(name, entrants)}"
                )
        return {name: entrants[name] for name in wanted}


@dataclass(frozen=True, eq=False)
class Candidates:
    """Training events from which some are drawn.

    Attributes:
        event_ids: One id an event.
        groups: Number of its group.
        glitch: Whether it holds a glitch, or is quiet.
    """

    event_ids: tuple[str, ...]
    groups: Int[np.ndarray, " event"]
    glitch: Bool[np.ndarray, " event"]

    @classmethod
    def of(cls, training_set: TrainingSet) -> "Candidates":
        """The training events that have windows; those with a window that holds a glitch hold one."""
        split = training_set.split
        number = split.train.group_of(split.block_length)
        glitch = training_set.part("train").groupby("event_id", sort=False)["glitch"].any()
        names = tuple(str(name) for name in glitch.index)
        return cls(names, np.array([number[name] for name in names]), glitch.to_numpy(dtype=bool))

    def drawn(self, num_events: int, num_groups: int | None, seed: int) -> list[str]:
        """Events of some groups of glitches, as many of each as there are, and of quiet ones their share of all.

        Args:
            num_events: How many at most.
            num_groups: Groups of glitches; None: all.
            seed: Seed of the order, in which those of a smaller number come first.
        """
        num_quiet = round(num_events * float((~self.glitch).mean()))
        order = in_turn(self.groups, np.flatnonzero(self.glitch), num_groups, seed)[: num_events - num_quiet]
        quiet = in_turn(self.groups, np.flatnonzero(~self.glitch), None, seed)[:num_quiet]
        return [self.event_ids[row] for row in (*order, *quiet)]

    def equal_number(self, num_groups: Sequence[int], seed: int) -> int:
        """Events that the smallest of these numbers of groups has, with the share of quiet ones.

        Raises:
            ConfigurationError: There are not so many groups, or the fewest have too few events for the most.
        """
        glitches = np.flatnonzero(self.glitch)
        found = len(np.unique(self.groups[glitches]))
        fewest = len(in_turn(self.groups, glitches, min(num_groups), seed))
        if max(num_groups) > min(found, fewest):
            raise ConfigurationError(
                f"benchmark.learning_curve: the {len(glitches)} training events with a glitch are of {found} groups, "
                f"the first {min(num_groups)} of which have {fewest} events: they cannot be compared with "
                f"{max(num_groups)} groups of as many events. Choose other numbers in `groups`, or ask for `events` "
                "alone."
            )
        return round(fewest / float(self.glitch.mean()))


def in_turn(
    groups: Int[np.ndarray, " event"], rows: NDArray[np.int64], num_groups: int | None, seed: int
) -> NDArray[np.int64]:
    """Some events in an order in which each group gives one before any gives the next.

    Args:
        groups: Number of the group of each event.
        rows: Events that are put in order.
        num_groups: Groups that are drawn; None: all.
        seed: Seed of both orders; fewer groups are among the first of more.
    """
    draw = np.random.default_rng(seed)
    rows = draw.permutation(rows)
    names, number = np.unique(groups[rows], return_inverse=True)
    place = draw.permutation(len(names))[number]
    turn = np.zeros(len(rows), dtype=np.int64)
    for one in range(len(names)):
        turn[place == one] = np.arange(np.count_nonzero(place == one))
    kept = place < (len(names) if num_groups is None else num_groups)
    return rows[kept][np.lexsort((place[kept], turn[kept]))]


Samples: TypeAlias = Mapping[str, Sequence[Sequence[str]]]
"""Training events of each point, by what grows along the curve."""


def draw_samples(training_set: TrainingSet, settings: CurveSettings) -> Samples:
    """Draw the training events of each point, before anything is trained.

    Args:
        training_set: Has the events.
        settings: The keys of `benchmark.learning_curve`.

    Raises:
        ConfigurationError: Numbers of groups cannot be compared.
    """
    known = Candidates.of(training_set)
    total = len(known.event_ids)
    sizes = sorted({min(number, total) for number in settings.events})
    samples = {"events": [known.drawn(size, None, settings.seed) for size in sizes]}
    if settings.groups:
        same = known.equal_number(settings.groups, settings.seed)
        samples["groups"] = [known.drawn(same, number, settings.seed) for number in sorted(set(settings.groups))]
    return samples


def learning_curve(
    contest: Contest, entrants: Mapping[str, Entrant], samples: Samples, train: Train, folder: Path
) -> list[CurvePoint]:
    """Train and judge entrants on some of the training events, more from point to point.

    What is not the events is the same for all points: channels, scaling, validation and held-out events, and the number
    of steps, so that fewer events are seen more often.

    Args:
        contest: What is the same for all.
        entrants: Entrants by name.
        samples: As from `draw_samples`.
        train: Trains one of them.
        folder: Has a file for each entrant and point, which is kept as those of the leaderboard are.

    Returns:
        Points of all curves; none where none is asked for.
    """
    return [
        _point(contest, entrants, events, axis=axis, train=train, folder=folder)
        for axis, points in samples.items()
        for events in points
    ]


def _point(
    contest: Contest,
    entrants: Mapping[str, Entrant],
    events: Sequence[str],
    *,
    axis: str,
    train: Train,
    folder: Path,
) -> CurvePoint:
    known = Candidates.of(contest.training_set)
    rows = np.isin(known.event_ids, events) & known.glitch
    groups = len(np.unique(known.groups[rows]))
    whole = len(events) == len(known.event_ids)
    some = contest if whole else _with_events(contest, events, len(known.event_ids))
    judgements = {}
    for name, entrant in entrants.items():
        # with all events it is the entrant of the leaderboard
        own = name if whole else f"{name}-{len(events)}-events-{groups}-groups"
        logger.info("Learning curve: %s from %d events of %d groups", name, len(events), groups)
        judgements[name] = judged(some, own, entrant, train, folder / f"{own}.json")
    linear = [name for name, entrant in entrants.items() if entrant.closed_form]
    result = standings(judgements, contest.held_out, contest.settings, linear)
    return CurvePoint(axis, len(events), groups, result.figures, result.waveform_reference or result.reference)


def _with_events(contest: Contest, events: Sequence[str], total: int) -> Contest:
    """The contest with some of its training events: as many steps as with all, and no witness is taken away."""
    epochs = math.ceil(contest.budget.epochs * total / len(events))
    return replace(
        contest,
        training_set=contest.training_set.with_training_events(events),
        settings=replace(contest.settings, missing=()),
        budget=replace(contest.budget, epochs=epochs),
    )
