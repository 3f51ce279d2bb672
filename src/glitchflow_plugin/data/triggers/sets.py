"""From a store of triggers to the sets about some times: the triggers of all channels but the strain's own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from jaxtyping import Int
from numpy.typing import NDArray

from glitchflow_plugin.data.triggers.table import NANOSECONDS, in_order
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Count, Positive, section
from glitchflow_plugin.types.triggers import POINT_FEATURES, UNKNOWN, TriggerSets

_SMALLEST_SNR = 1e-3
_LOGARITHMS = ("q", "duration", "bandwidth")


@section
class SetSettings:
    """What a set holds.

    Attributes:
        window: Triggers within this time of the anchor, s.
        rate_window: Rates are counted within this time of it, s.
        most: Largest number of triggers; of more, the loudest are kept.
        batch: Sets made at once: bounds the memory.
    """

    window: Positive = 0.5
    rate_window: Positive = 64.0
    most: Count = 2000
    batch: Count = 256


@dataclass(frozen=True)
class Vocabulary:
    """What a model knows by name; indices are places here.

    Attributes:
        channels: Channels but the strain's own; index `UNKNOWN`, 0, is none of them, so the first has index 1.
        kinds: Classes of glitches.
    """

    channels: tuple[str, ...]
    kinds: tuple[str, ...] = ()

    @property
    def num_channels(self) -> int:
        """Indices of channels, UNKNOWN included."""
        return len(self.channels) + 1

    def places(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Index of each channel.

        >>> Vocabulary(("L1:A", "L1:B")).places(["L1:B", "L1:C"])
        array([2, 0])
        """
        known = {name: place for place, name in enumerate(self.channels, start=1)}
        return np.array([known.get(name, UNKNOWN) for name in names], dtype=np.int64)


def trigger_sets(
    triggers: ds.Dataset,
    times: Int[np.ndarray, " set"],
    vocabulary: Vocabulary,
    target: str,
    settings: SetSettings,
) -> Iterator[TriggerSets]:
    """The sets about some times, some at once; only the rows about those are read.

    Globals of a set are ln(1 + number of triggers within the rate window) of each channel of the vocabulary.

    Args:
        triggers: As `open_triggers` gives them.
        times: Rising, GPS ns.
        vocabulary: Channels by index.
        target: Channel whose triggers are left out: they would tell the answer.
        settings: What a set holds.

    Raises:
        ConfigurationError: Times do not rise, or the vocabulary has the target.
    """
    if target in vocabulary.channels:
        raise ConfigurationError(f"expected a vocabulary without the target {target}, whose triggers are the answer.")
    if (np.diff(times) < 0).any():
        raise ConfigurationError("expected rising times of sets. Sort them.")
    reach = int(max(settings.window, settings.rate_window) * NANOSECONDS)
    for first in range(0, len(times), settings.batch):
        own = times[first : first + settings.batch]
        about = (pc.field("time") >= int(own[0]) - reach) & (pc.field("time") <= int(own[-1]) + reach)
        yield _sets(in_order(triggers.to_table(filter=about)), own, vocabulary, target, settings)


def _sets(
    table: pa.Table, times: NDArray[np.int64], vocabulary: Vocabulary, target: str, settings: SetSettings
) -> TriggerSets:
    held = table["channel"].combine_chunks()
    names = held.dictionary.to_pylist()
    codes = held.indices.to_numpy()
    others = np.array([name != target for name in names], dtype=bool)[codes] if names else np.zeros(0, dtype=bool)
    kept, channels = table.filter(pa.array(others)), vocabulary.places(names)[codes[others]]
    when = kept["time"].to_numpy()
    rows, mask = _near(when, kept["snr"].to_numpy(), times, settings)
    found = np.zeros((*rows.shape, len(POINT_FEATURES)), dtype=np.float32)
    indices = np.zeros(rows.shape, dtype=np.int64)
    if mask.any():
        points = np.stack(
            [
                np.log2(kept["frequency"].to_numpy()),
                np.log(np.maximum(kept["snr"].to_numpy(), _SMALLEST_SNR)),
                *(_logarithm(kept[name]) for name in _LOGARITHMS),
            ],
            axis=1,
        )
        # differences of whole ns: float32 holds no GPS time
        found[..., 0] = (when[rows] - times[:, None]) / NANOSECONDS
        found[..., 1:] = points[rows]
        found[~mask] = 0
        indices = np.where(mask, channels[rows], UNKNOWN)
    rates = _counts(when, channels, times, vocabulary.num_channels, int(settings.rate_window * NANOSECONDS))
    globals_ = torch.from_numpy(np.log1p(rates[:, 1:])).float()
    return TriggerSets(
        torch.from_numpy(found),
        torch.from_numpy(indices),
        torch.from_numpy(mask),
        globals_,
        torch.ones_like(globals_, dtype=torch.bool),
    )


def _near(
    when: NDArray[np.int64], snr: NDArray[np.float64], times: NDArray[np.int64], settings: SetSettings
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of the triggers of each set, and which of them there are."""
    reach = int(settings.window * NANOSECONDS)
    low = np.searchsorted(when, times - reach, "left")
    high = np.searchsorted(when, times + reach, "right")
    chosen = [_loudest(np.arange(*pair), snr, settings.most) for pair in zip(low, high, strict=True)]
    width = max(map(len, chosen), default=0)
    rows, mask = np.zeros((len(times), width), dtype=np.int64), np.zeros((len(times), width), dtype=bool)
    for place, one in enumerate(chosen):
        rows[place, : len(one)], mask[place, : len(one)] = one, True
    return rows, mask


def _loudest(rows: NDArray[np.int64], snr: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    return rows if len(rows) <= most else np.sort(rows[np.argsort(-snr[rows], kind="stable")[:most]])


def _logarithm(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """NaN where the number is not known, or 0."""
    values = column.to_numpy().astype(np.float64)
    return np.log(np.where(values > 0, values, np.nan))


def _counts(
    when: NDArray[np.int64], channels: NDArray[np.int64], times: NDArray[np.int64], number: int, reach: int
) -> NDArray[np.int64]:
    """Triggers of each channel within reach of each time, (set, channel)."""
    found = np.zeros((len(times), number), dtype=np.int64)
    for channel in np.unique(channels):
        own = when[channels == channel]
        found[:, channel] = np.searchsorted(own, times + reach, "right") - np.searchsorted(own, times - reach, "left")
    return found
