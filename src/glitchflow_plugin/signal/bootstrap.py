"""How often each group of events is drawn in a replicate of a bootstrap: the one drawing for all figures.

A group is what varies independently of the others: events of the same waveform or stretch of strain, or one event where
nothing ties it to another (B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993,
doi:10.1201/9780429246593). What a figure becomes in a replicate is the caller's.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.errors import ConfigurationError

WEIGHTS_IN_MEMORY = 4_000_000
"""Weights held in memory at once; keeps the bootstrap of a large set bounded."""


def group_draws(num_groups: int, replicates: int, seed: int = 0) -> Iterator[Float[np.ndarray, "replicate group"]]:
    """How often each group is drawn in each replicate, some replicates at a time.

    Equal arguments give equal draws, so that what is compared is compared on the same events.

    Args:
        num_groups: Groups to draw from; as many are drawn.
        replicates: Replicates on the whole; 0 for none.
        seed: Decides the drawing.

    Yields:
        Counts that add up to `num_groups` in each row.

    Raises:
        ConfigurationError: The number of replicates is negative.
    """
    if replicates < 0:
        msg = f"replicates >= 0 expected, got {replicates}."
        raise ConfigurationError(msg)
    if num_groups < 1:
        return
    generator = np.random.default_rng(seed)
    step = max(1, WEIGHTS_IN_MEMORY // num_groups)
    probabilities = np.full(num_groups, 1 / num_groups)
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        yield generator.multinomial(num_groups, probabilities, size=size).astype(np.float64)


def in_memory(
    weights: Float[np.ndarray, "replicate group"], num_cases: int
) -> Iterator[Float[np.ndarray, "replicate group"]]:
    """Some replicates at a time, so that weights of their cases stay within memory."""
    step = max(1, WEIGHTS_IN_MEMORY // max(1, num_cases))
    yield from (weights[first : first + step] for first in range(0, len(weights), step))
