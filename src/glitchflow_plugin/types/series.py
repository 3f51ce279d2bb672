"""Irregular series of several channels about a time, as networks see them: samples with a time and a channel each."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from glitchflow_plugin.types.triggers import Rows


@dataclass(frozen=True, eq=False)
class SeriesSets(Rows):
    """Samples of several channels about some times; each channel is sampled when it likes.

    Attributes:
        times: s to the anchor.
        channels: Index of the channel.
        values: As measured, in the unit of the channel.
        uncertainties: Standard error of the value, in the same unit; 0: exact.
        weights: What a sample counts for, at least 0: two samples of weight 1/2 are one of weight 1; 0: not there.
        mask: Where there is a sample; the rest is padding and may hold anything.
    """

    times: Float[Tensor, "set sample"]
    channels: Int[Tensor, "set sample"]
    values: Float[Tensor, "set sample"]
    uncertainties: Float[Tensor, "set sample"]
    weights: Float[Tensor, "set sample"]
    mask: Bool[Tensor, "set sample"]


@dataclass(frozen=True, eq=False)
class SeriesQueries(Rows):
    """When and of which channel a value is asked: no value can come in by this.

    Attributes:
        times: s to the anchor.
        channels: Index of the channel.
        mask: Where something is asked.
    """

    times: Float[Tensor, "set sample"]
    channels: Int[Tensor, "set sample"]
    mask: Bool[Tensor, "set sample"]
