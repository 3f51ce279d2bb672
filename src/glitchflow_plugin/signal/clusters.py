"""Spikes: connected regions of a map above a threshold, each represented by its largest pixel."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage

from glitchflow_plugin.errors import DataError
from glitchflow_plugin.types.arrays import MapArray


@dataclass(frozen=True, eq=False)
class Spikes:
    """Spikes of several events and channels; all arrays have shape (spike,).

    Attributes:
        event: Row of the event.
        channel: Row of the channel.
        time: Time of the largest pixel, s from the left edge of its map, float64.
        frequency: Frequency of the largest pixel, Hz.
        energy: Largest pixel, SNR².
    """

    event: np.ndarray
    channel: np.ndarray
    time: np.ndarray
    frequency: np.ndarray
    energy: np.ndarray

    def __post_init__(self) -> None:
        """Refuse columns of different length."""
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise DataError(f"spikes need columns of one length, got {lengths}")

    def __len__(self) -> int:
        return len(self.event)

    @classmethod
    def empty(cls) -> "Spikes":
        """No spikes."""
        none = np.empty(0)
        return cls(none.astype(np.int64), none.astype(np.int64), none, none, none)

    @classmethod
    def concatenate(cls, parts: Iterable["Spikes"]) -> "Spikes":
        """Put spikes of several batches together; rows must already count over all batches."""
        parts = list(parts) or [cls.empty()]
        return cls(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        )

    def select(self, chosen: Bool[np.ndarray, " spike"] | Int[np.ndarray, " row"]) -> "Spikes":
        """The spikes where `chosen` is True, or those with these rows, in their order."""
        return type(self)(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def moved(self, *, events: int = 0, channels: int = 0) -> "Spikes":
        """The same spikes with rows counted from another start."""
        return type(self)(self.event + events, self.channel + channels, self.time, self.frequency, self.energy)


def find_spikes(
    maps: MapArray, threshold: float, frequencies: np.ndarray, times: np.ndarray, *, time_only: bool = False
) -> Spikes:
    """Find the spikes of each event and channel.

    Regions are connected through sides and corners within one map; they never join across events or channels.

    Args:
        maps: Energy in SNR², shape (event, channel, frequency, time).
        threshold: A pixel belongs to a region if its energy is above this.
        frequencies: Hz, shape (frequency,).
        times: s from the left edge of the map, shape (time,).
        time_only: Regions that overlap in time count as one, whatever their frequency.

    Returns:
        One spike a region, ordered by event, channel and the region's first pixel.

    Raises:
        DataError: The maps hold NaN or do not fit the axes.

    Example:
        >>> maps = np.zeros((1, 1, 4, 8), np.float32)
        >>> maps[0, 0, 2, 3:5] = 30.0, 50.0
        >>> find_spikes(maps, 20.0, np.arange(4.0), np.arange(8.0)).time
        array([4.])
    """
    if maps.ndim != 4 or maps.shape[2:] != (len(frequencies), len(times)):
        raise DataError(
            f"expected maps of shape (event, channel, {len(frequencies)}, {len(times)}), got {maps.shape}. "
            "Maps and axes must come from the same settings."
        )
    peaks = maps.max(axis=(2, 3))
    if np.isnan(peaks).any():
        raise DataError("the maps hold NaN. Mark the channel as invalid and set its map to zero.")
    # Most maps hold nothing above the threshold: only the others are looked at again.
    events, channels = np.nonzero(peaks > threshold)
    if not events.size:
        return Spikes.empty()
    loud = maps[events, channels]
    searched = loud.max(axis=1, keepdims=True) if time_only else loud
    above = searched > threshold
    # Neighbours along frequency and time only: the first axis is a seam between maps.
    neighbours = np.zeros((3, 3, 3), dtype=bool)
    neighbours[1] = True
    labels = np.empty(above.shape, dtype=np.int32)
    ndimage.label(above, structure=neighbours, output=labels)
    pixels = np.flatnonzero(above)
    region, energy = labels.ravel()[pixels], searched.ravel()[pixels]
    order = np.lexsort((-energy, region))
    _, first = np.unique(region[order], return_index=True)
    largest = order[first]
    place, row, column = np.unravel_index(pixels[largest], searched.shape)
    if time_only:
        row = loud[place, :, column].argmax(axis=-1)
    return Spikes(
        event=events[place].astype(np.int64),
        channel=channels[place].astype(np.int64),
        time=np.asarray(times, dtype=np.float64)[column],
        frequency=np.asarray(frequencies, dtype=np.float64)[row],
        energy=energy[largest].astype(np.float64),
    )
