"""The order in which examples of a store are visited: a function of seed and epoch, in which few stretches are in use.

Stretches of time come in a random order, and a few of them, `mixed`, are held at a time. The examples of each are
permuted and dealt into `mixed` shares. A step takes one share of each stretch that is held, permutes all of them, and
the longest held stretch gives way to the next; the order of stretches is a circle, so that the first steps mix as many
as the others. Every example comes once, and all that is held has been read once, but for `mixed` - 1 stretches of the
circle's seam.

How well this is mixed: two examples of one batch come from the same stretch with a probability of about 1 / mixed,
where a perfect shuffle of n stretches has 1 / n. Where the losses within a stretch have the correlation rho, the
variance of a gradient over B examples is about 1 + (B - 1) rho / mixed times that of independent ones (the design
effect of clusters, Kish 1965), against 1 + (B - 1) rho / n.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from glitchflow_plugin.data.window_order import draw


@dataclass(frozen=True, eq=False)
class Step:
    """What is visited while the same stretches are held.

    Attributes:
        examples: Numbers of the examples, in the order of the visit.
        held: The stretches that they lie in.
        first: Place of the first of the examples in the epoch.
    """

    examples: Int[np.ndarray, " example"]
    held: frozenset[int]
    first: int


@dataclass(frozen=True, eq=False)
class StretchOrder:
    """Orders of examples, one for each epoch.

    Attributes:
        stretch: Number of the stretch of each example, rising.
        mixed: Stretches that are held at a time.
        seed: Decides the orders; None: all in order of time, a stretch at a time.
        often: How often each example shall come, relative to the others; None: each once.
    """

    stretch: Int[np.ndarray, " example"]
    mixed: int
    seed: int | None = 0
    often: Float[np.ndarray, " example"] | None = None

    def __len__(self) -> int:
        """Examples of an epoch."""
        return len(self.stretch)

    def steps(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """The steps of an epoch.

        Args:
            epoch: Number of the epoch.
            start: Places of the epoch to go without: the first step is that with this place.
        """
        if self.seed is None:
            yield from self._in_order(start)
            return
        generator = np.random.default_rng([self.seed, epoch])
        chosen = np.arange(len(self.stretch))
        if self.often is not None:
            chosen = draw(self.often, generator)
        chosen = generator.permutation(chosen)
        chosen = chosen[np.argsort(self.stretch[chosen], kind="stable")]
        names, begin = np.unique(self.stretch[chosen], return_index=True)
        pieces = np.split(chosen, begin[1:])
        circle = generator.permutation(len(names))
        mixed = min(self.mixed, len(names))
        # which share of a stretch comes first is drawn: else a short one would have its only example at one age always
        turned = generator.integers(mixed, size=len(names))
        first = 0
        for number in range(len(names)):
            ages = [(age, int(circle[(number - age) % len(names)])) for age in range(mixed)]
            own = np.concatenate([pieces[one][(age + turned[one]) % mixed :: mixed] for age, one in ages])
            if first + len(own) > start and len(own):
                order = np.random.default_rng([self.seed, epoch, number]).permutation(len(own))
                yield Step(own[order], frozenset(int(names[one]) for _, one in ages), first)
            first += len(own)

    def _in_order(self, start: int) -> Iterator[Step]:
        names, begin = np.unique(self.stretch, return_index=True)
        for name, first, own in zip(names, begin, np.split(np.arange(len(self.stretch)), begin[1:]), strict=True):
            if first + len(own) > start:
                yield Step(own, frozenset({int(name)}), int(first))


def balanced(label: Int[np.ndarray, " example"], balance: float) -> Float[np.ndarray, " example"] | None:
    """How often each example shall come, on average over labels once.

    Args:
        label: Of each.
        balance: 0: all as often; 1: all labels as often; between, a label of n examples as often as n^(1 - balance).

    >>> balanced(np.array([0, 0, 0, 1]), 1.0).round(3).tolist()
    [0.667, 0.667, 0.667, 2.0]
    """
    if not balance:
        return None
    _, inverse, counts = np.unique(label, return_inverse=True, return_counts=True)
    often = (1.0 / counts[inverse]) ** balance
    return often * (len(label) / often.sum())


def reading(steps: Iterator[Step]) -> tuple[list[Step], list[int]]:
    """The steps, and the stretches in the order in which they are first needed and not held any more."""
    held: frozenset[int] = frozenset()
    kept, wanted = [], []
    for step in steps:
        wanted += sorted(step.held - held)
        held = step.held
        kept.append(step)
    return kept, wanted
