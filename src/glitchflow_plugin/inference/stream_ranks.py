"""The energy that a model predicts along time, by which continuous data are ranked and vetoed."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from glitchflow_plugin.inference.predict import expected_maps_and_peaks
from glitchflow_plugin.inference.stream_windows import StreamModel, Window
from glitchflow_plugin.products.rank_channels import RANK_RATE
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.qtransform import axes
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.tensors import host

MARGIN = 1.0
"""How far beyond a block the energy is told, s: vetoes that begin there reach into it."""

_BATCH = 16


def within_block(energy: Series) -> Series:
    """The samples of the block itself, of what `predicted_energy` gives."""
    beside = round(MARGIN * RANK_RATE)
    return energy[beside:-beside]


def predicted_energy(
    windows: Sequence[Window], model: StreamModel, block: tuple[float, float], stride: float
) -> Series:
    """Largest predicted energy of the column of the maps that each sample lies in, SNR², (sample,) at `RANK_RATE`.

    Each sample is that of the window whose centre is the nearest: no energy depends on where blocks end.

    Args:
        windows: From `predict_windows`, one a stride without a gap.
        model: Twin and recipes.
        block: Start and end, whole GPS s; the samples begin `MARGIN` before it and end as much after it.
        stride: Time from window to window, s.

    Returns:
        NaN where the twin was not asked.
    """
    loudest = np.full((len(windows), len(axes(model.duration, model.qtransform)[1])), np.nan)
    asked = {row: window.strain for row, window in enumerate(windows) if window.strain is not None}
    for first in range(0, len(asked), _BATCH):
        rows = list(asked)[first : first + _BATCH]
        strain = torch.from_numpy(np.stack([asked[row] for row in rows]).astype(np.float32))
        loudest[rows] = host(expected_maps_and_peaks(strain, model.rate, model.qtransform)[1])
    return along_time(loudest, windows[0].centre, block, model.duration, stride)


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
