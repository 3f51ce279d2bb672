"""The energy that a model predicts along time, by which continuous data are ranked and vetoed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float

from glitchflow_plugin.inference.predict import expected_maps_and_peaks
from glitchflow_plugin.products.rank_channels import RANK_RATE
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.qtransform import axes
from glitchflow_plugin.streaming.windows import StreamModel, Window
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.tensors import host

MARGIN = 1.0
"""How far beyond a block the energy is told, s: vetoes that begin there reach into it."""

_BATCH = 16

ColumnsOf: TypeAlias = Callable[[Sequence[Window], StreamModel, float], Float[np.ndarray, "3 window column"]]
"""What gives the columns of windows in which the twin was asked, as `window_columns` does."""


def within_block(series: np.ndarray) -> np.ndarray:
    """The samples of the block itself, of what `predicted_energy` gives, (..., sample)."""
    beside = round(MARGIN * RANK_RATE)
    return series[..., beside:-beside]


def window_columns(
    windows: Sequence[Window], model: StreamModel, stride: float
) -> Float[np.ndarray, "3 window column"]:
    """Largest predicted energy (SNR²) of each column of the maps, and the lowest and highest frequency of half of it.

    Args:
        windows: In which the twin was asked.
        model: Twin and recipes.
        stride: Time from window to window, s: no column is read farther than half of it from a window's centre.

    Returns:
        Energy, SNR², and both frequencies, Hz, (3, window, column); NaN farther from the centre.
    """
    frequencies, times = axes(model.duration, model.qtransform)
    right = Columns(times).right
    first, last = np.searchsorted(right, model.duration / 2 + np.array([-0.5, 0.5]) * stride)
    # times are rounded where columns meet
    read = max(int(first) - 1, 0), min(int(last) + 2, len(times))
    found = np.full((3, len(windows), len(times)), np.nan)
    for start in range(0, len(windows), _BATCH):
        rows = slice(start, start + _BATCH)
        strain = torch.from_numpy(np.stack([np.asarray(one.strain) for one in windows[rows]]).astype(np.float32))
        maps, loudest = map(host, expected_maps_and_peaks(strain, model.rate, model.qtransform, read))
        loud = maps >= 0.5 * maps.max(axis=1, keepdims=True)
        lowest, highest = loud.argmax(axis=1), len(frequencies) - 1 - loud[:, ::-1].argmax(axis=1)
        found[:, rows, slice(*read)] = loudest, frequencies[lowest], frequencies[highest]
    return found


@dataclass(frozen=True, eq=False)
class RememberedColumns:
    """`window_columns` of each window, made once for as long as somebody holds the window."""

    _known: "WeakKeyDictionary[Window, Float[np.ndarray, '3 1 column']]" = field(default_factory=WeakKeyDictionary)

    def __call__(
        self, windows: Sequence[Window], model: StreamModel, stride: float
    ) -> Float[np.ndarray, "3 window column"]:
        """As `window_columns`; one model alone may be asked about, with one stride."""
        new = [one for one in windows if one not in self._known]
        if new:
            found = window_columns(new, model, stride)
            self._known.update((one, found[:, row : row + 1]) for row, one in enumerate(new))
        return np.concatenate([self._known[one] for one in windows], axis=1)


def predicted_energy(
    windows: Sequence[Window],
    model: StreamModel,
    block: tuple[float, float],
    stride: float,
    columns_of: ColumnsOf = window_columns,
) -> tuple[Series, Float[np.ndarray, "edge sample"]]:
    """Largest predicted energy of the column of the maps that each sample lies in, and its band, at `RANK_RATE`.

    Each sample is that of the window whose centre is the nearest: no energy depends on where blocks end.

    Args:
        windows: From `predict_windows`, one a stride without a gap.
        model: Twin and recipes.
        block: Start and end, whole GPS s; the samples begin `MARGIN` before it and end as much after it.
        stride: Time from window to window, s.
        columns_of: What gives their columns.

    Returns:
        Energy, SNR², (sample,), and the lowest and the highest frequency of which at least half as much is predicted,
        Hz, (2, sample); NaN where the twin was not asked.
    """
    _, times = axes(model.duration, model.qtransform)
    found = np.full((3, len(windows), len(times)), np.nan)
    rows = [row for row, window in enumerate(windows) if window.predicted]
    if rows:
        found[:, rows] = columns_of([windows[row] for row in rows], model, stride)
    energy, *band = (along_time(one, windows[0].centre, block, model.duration, stride) for one in found)
    return energy, np.stack(band)


def along_time(
    loudest: Float[np.ndarray, "window column"],
    first: float,
    block: tuple[float, float],
    duration: float,
    stride: float,
) -> Series:
    """What the columns of windows hold at each sample, of the window whose centre is the nearest, (sample,).

    Args:
        loudest: A number for each column.
        first: Centre of the first window, a multiple of the stride, GPS s.
        block: As for `predicted_energy`.
        duration: Length of a window, s.
        stride: Time from window to window, s.

    Returns:
        At `RANK_RATE`, from `MARGIN` before the block to as much after it; NaN where no window is.
    """
    columns = Columns(np.arange(loudest.shape[1]) * duration / loudest.shape[1])
    known = np.vstack([loudest, np.full(len(columns), np.nan)])
    size = round((block[1] - block[0] + 2 * MARGIN) * RANK_RATE)
    middle = block[0] - MARGIN + (np.arange(size) + 0.5) / RANK_RATE
    number = np.rint(middle / stride)
    row = (number - np.rint(first / stride)).astype(np.int64)
    # what no window covers is read from the last row, of no window
    row = np.where((row < 0) | (row >= len(loudest)), len(loudest), row)
    column = np.searchsorted(columns.right, middle - (number * stride - duration / 2), "right")
    return known[row, np.minimum(column, len(columns) - 1)]
