"""The energy that a model predicts along time, by which continuous data are ranked and vetoed."""

from collections.abc import Sequence

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


def within_block(series: np.ndarray) -> np.ndarray:
    """The samples of the block itself, of what `predicted_energy` gives, (..., sample)."""
    beside = round(MARGIN * RANK_RATE)
    return series[..., beside:-beside]


def predicted_energy(
    windows: Sequence[Window], model: StreamModel, block: tuple[float, float], stride: float
) -> tuple[Series, Float[np.ndarray, "edge sample"]]:
    """Largest predicted energy of the column of the maps that each sample lies in, and its band, at `RANK_RATE`.

    Each sample is that of the window whose centre is the nearest: no energy depends on where blocks end.

    Args:
        windows: From `predict_windows`, one a stride without a gap.
        model: Twin and recipes.
        block: Start and end, whole GPS s; the samples begin `MARGIN` before it and end as much after it.
        stride: Time from window to window, s.

    Returns:
        Energy, SNR², (sample,), and the lowest and the highest frequency of which at least half as much is predicted,
        Hz, (2, sample); NaN where the twin was not asked.
    """
    frequencies, times = axes(model.duration, model.qtransform)
    found = np.full((3, len(windows), len(times)), np.nan)
    asked = {row: window.strain for row, window in enumerate(windows) if window.strain is not None}
    for first in range(0, len(asked), _BATCH):
        rows = list(asked)[first : first + _BATCH]
        strain = torch.from_numpy(np.stack([asked[row] for row in rows]).astype(np.float32))
        maps, loudest = map(host, expected_maps_and_peaks(strain, model.rate, model.qtransform))
        loud = maps >= 0.5 * maps.max(axis=1, keepdims=True)
        lowest, highest = loud.argmax(axis=1), len(frequencies) - 1 - loud[:, ::-1].argmax(axis=1)
        found[:, rows] = loudest, frequencies[lowest], frequencies[highest]
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
