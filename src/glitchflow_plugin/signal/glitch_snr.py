"""How loud glitches are: the distribution of their SNR that an efficiency is stated for.

A share of glitches that are found says nothing unless one knows of which: events of training are cut about chosen
glitches, and in a stream are others. So glitches are weighted until their SNR is distributed as is stated. Each stands
for the SNRs that are nearer to its own than to any other's, on a logarithmic scale, and gets what the distribution has
there: no bins, no bandwidth, and nothing is fitted.
"""

from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field

from glitchflow_plugin.settings import Positive, section


@section
class GlitchSNR:
    """dN/dSNR ∝ SNR^-exponent from `lowest` on; conf/stream.yaml explains the keys."""

    lowest: Positive = 5.0
    exponent: Annotated[float, Field(gt=1)] | None = 3.0

    def __str__(self) -> str:
        """In words.

        >>> str(GlitchSNR()), str(GlitchSNR(8.0, None))
        ('dN/dSNR ~ SNR^-3 from 5 on', 'as in the validation events, from 8 on')
        """
        law = "as in the validation events," if self.exponent is None else f"dN/dSNR ~ SNR^-{self.exponent:g}"
        return f"{law} from {self.lowest:g} on"

    def beyond(self, snr: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Share of the glitches that are louder, where there is a law.

        >>> GlitchSNR(5.0, 3.0).beyond(np.array([1.0, 5.0, 10.0, np.inf])).tolist()
        [1.0, 1.0, 0.25, 0.0]
        """
        assert self.exponent is not None  # noqa: S101  # callers ask
        return np.maximum(np.asarray(snr) / self.lowest, 1.0) ** (1 - self.exponent)

    def weights(self, snr: Float[np.ndarray, " glitch"]) -> Float[np.ndarray, " glitch"]:
        """Share of the distribution that each of some glitches stands for; 0 below `lowest`, 1 in all if any is louder.

        Args:
            snr: Root of the largest energy of each in the strain.

        >>> GlitchSNR(5.0, 3.0).weights(np.array([4.0, 8.0, 12.5])).tolist()
        [0.0, 0.75, 0.25]
        """
        louder = snr >= self.lowest
        found = np.zeros(len(snr))
        values, place, count = np.unique(snr[louder], return_inverse=True, return_counts=True)
        if self.exponent is None or not len(values):
            found[louder] = 1 / max(louder.sum(), 1)
            return found
        edges = np.concatenate([[self.lowest], np.sqrt(values[1:] * values[:-1]), [np.inf]])
        found[louder] = (-np.diff(self.beyond(edges)) / count)[place]
        return found


def effective_number(weights: Float[np.ndarray, " glitch"]) -> float:
    """How many glitches of equal weight tell as much (L. Kish, Survey Sampling, 1965); 0 without any.

    >>> round(effective_number(np.array([0.5, 0.25, 0.25])), 2)
    2.67
    """
    return float(weights.sum() ** 2 / np.square(weights).sum()) if weights.any() else 0.0


def fitted_exponent(snr: Float[np.ndarray, " glitch"], lowest: float) -> float:
    """Exponent of the law that some glitches follow from an SNR on, by maximum likelihood (B. M. Hill, 1975).

    >>> rng = np.random.default_rng(0)
    >>> round(fitted_exponent(5 * rng.uniform(size=10_000) ** (-1 / 2), 5.0), 1)
    3.0
    """
    logs = np.log(snr[snr >= lowest] / lowest)
    return 1 + len(logs) / float(logs.sum()) if logs.any() else float("nan")
