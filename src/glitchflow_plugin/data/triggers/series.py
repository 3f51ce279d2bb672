"""Irregular series about some times: rates of triggers in steps that grow with distance, and what else is sampled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.data.triggers.sets import Vocabulary
from glitchflow_plugin.data.triggers.table import NANOSECONDS, in_order
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Count, Positive, section
from glitchflow_plugin.types.series import SeriesSets


@section
class SeriesSettings:
    """What a series holds.

    Attributes:
        reach: Samples within this time of the anchor, s.
        nearest: Length of the steps beside the anchor, s; each that follows is twice as long.
        batch: Series made at once: bounds the memory.
    """

    reach: Positive = 64.0
    nearest: Positive = 0.25
    batch: Count = 256

    def __post_init__(self) -> None:
        """Refuse steps beyond the reach."""
        if self.nearest > self.reach:
            raise ConfigurationError(f"expected nearest up to reach, got {self.nearest} and {self.reach} s.")

    @property
    def edges(self) -> NDArray[np.float64]:
        """Of the steps, s to the anchor.

        >>> SeriesSettings(reach=1.0).edges.tolist()
        [-1.0, -0.75, -0.25, 0.0, 0.25, 0.75, 1.0]
        """
        ends = [0.0]
        while ends[-1] < self.reach:
            ends.append(min(self.reach, 2 * ends[-1] + self.nearest))
        later = np.array(ends)
        return np.concatenate([-later[:0:-1], later])


@dataclass(frozen=True, eq=False)
class Sampled:
    """A channel that is sampled when it likes: band-limited RMS, a slow channel.

    Attributes:
        time: Rising, GPS ns.
        value: In the unit of the channel.
        uncertainty: Standard error, in the same unit.
        weight: What each sample counts for.
    """

    time: Int[np.ndarray, " sample"]
    value: Float[np.ndarray, " sample"]
    uncertainty: Float[np.ndarray, " sample"]
    weight: Float[np.ndarray, " sample"]


def rate_series(
    triggers: ds.Dataset,
    times: Int[np.ndarray, " set"],
    vocabulary: Vocabulary,
    settings: SeriesSettings,
) -> Iterator[SeriesSets]:
    """Rates of each channel of the vocabulary about some times.

    A value is ln(1 + n) of the n triggers of a step, at the step's middle. Its uncertainty is that of a Poisson count
    of n + 1 to first order, (n + 1)^(-1/2). Channel 0 is the first of the vocabulary.

    Args:
        triggers: As `open_triggers` gives them.
        times: Rising, GPS ns.
        vocabulary: Channels by index, without the strain, whose triggers would tell the answer.
        settings: What a series holds.
    """
    edges = settings.edges
    middles, reach = (edges[1:] + edges[:-1]) / 2, int(settings.reach * NANOSECONDS)
    for first in range(0, len(times), settings.batch):
        own = times[first : first + settings.batch]
        about = (pc.field("time") >= int(own[0]) - reach) & (pc.field("time") <= int(own[-1]) + reach)
        table = in_order(triggers.to_table(filter=about))
        names, when = np.array(table["channel"].to_pylist(), dtype=object), table["time"].to_numpy()
        counts = np.stack([_counts(when[names == name], own, edges) for name in vocabulary.channels], axis=1)
        num_series, num_channels, num_steps = counts.shape
        places = np.arange(num_channels, dtype=np.float64)[:, None]
        columns = (middles, places, np.log1p(counts), 1.0 / np.sqrt(1.0 + counts), 1.0)
        found = np.stack([np.broadcast_to(one, counts.shape) for one in columns])
        every = (num_series, num_channels * num_steps)
        yield _sets(found.reshape(5, *every), np.ones(every, dtype=bool))


def sampled_series(
    channels: Mapping[str, Sampled], times: Int[np.ndarray, " set"], settings: SeriesSettings
) -> SeriesSets:
    """What was sampled of each channel about some times, padded to the longest; channels by the order of the mapping.

    Args:
        channels: Samples by name; those that are not finite are left out.
        times: GPS ns.
        settings: Their reach.
    """
    reach = int(settings.reach * NANOSECONDS)
    rows = [_about(channels, int(time), reach) for time in times]
    width = max((row.shape[1] for row in rows), default=0)
    found = np.zeros((5, len(rows), width))
    mask = np.zeros((len(rows), width), dtype=bool)
    for place, row in enumerate(rows):
        found[:, place, : row.shape[1]], mask[place, : row.shape[1]] = row, True
    return _sets(found, mask)


def _about(channels: Mapping[str, Sampled], time: int, reach: int) -> NDArray[np.float64]:
    """Time, channel, value, uncertainty and weight of the samples of one series."""
    parts = [np.zeros((5, 0))]
    for place, one in enumerate(channels.values()):
        own = slice(np.searchsorted(one.time, time - reach, "left"), np.searchsorted(one.time, time + reach, "right"))
        # differences of whole ns: float64 holds no GPS time of today to the ns
        apart = (one.time[own] - time) / NANOSECONDS
        part = np.stack(
            [apart, np.full(len(apart), float(place)), one.value[own], one.uncertainty[own], one.weight[own]]
        )
        parts.append(part[:, np.isfinite(part).all(axis=0)])
    return np.concatenate(parts, axis=1)


def _counts(when: NDArray[np.int64], times: NDArray[np.int64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triggers within each step about each time, (set, step); the last edge is left out."""
    ends = times[:, None] + np.round(edges * NANOSECONDS).astype(np.int64)
    return np.diff(np.searchsorted(when, ends, "left"), axis=1)


def _sets(columns: NDArray[np.float64], mask: NDArray[np.bool_]) -> SeriesSets:
    """Of times, channels, values, uncertainties and weights, (column, set, sample)."""
    times, values, uncertainties, weights = (torch.from_numpy(one.astype(np.float32)) for one in columns[[0, 2, 3, 4]])
    channels = torch.from_numpy(columns[1].astype(np.int64))
    return SeriesSets(times, channels, values, uncertainties, weights, torch.from_numpy(mask))
