"""Predict the strain's map from the maps of its witnesses."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal.windows import cut_windows, join_windows, tile_starts
from glitchflow_plugin.types.arrays import ValidityMask


def predict_maps(
    twin: nn.Module,
    witnesses: Float[Tensor, "event witness frequency time"],
    batch_size: int = 64,
    *,
    size: int = 64,
    stride: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Float[Tensor, "event frequency time"]:
    """Predict whole maps: cut them into windows, run the twin, and join what it says.

    A network sees one window at a time and knows least at its edges. With a stride below the window size the windows
    overlap, and each column is taken from the window in which it lies farthest from an edge.

    Args:
        twin: Witness energies (window, witness, frequency, column) to strain energies (window, 1, frequency, column),
            SNR². Runs in evaluation mode and is put back into the mode it was in.
        witnesses: Energies of the witnesses in the model's order, SNR².
        batch_size: Windows in one call of the twin; bounds the memory.
        size: Columns of a window.
        stride: Columns from one window to the next; `size` (tiles side by side) if None.
        progress: Called with the number of events done after each batch.

    Returns:
        Predicted energies on the device and in the order of `witnesses`, SNR². The twin's own device is used for
        computing.

    Raises:
        ConfigurationError: A setting is out of range, or a map shorter than a window.
        DataError: The twin returns another shape.
    """
    if batch_size < 1:
        msg = f"batch_size must be at least 1 window, got {batch_size}."
        raise ConfigurationError(msg)
    num_events, _, num_frequencies, num_times = witnesses.shape
    starts = _covering_starts(num_times, size, stride)
    device = _device_of(twin, witnesses)
    maps = witnesses.new_empty((num_events, num_frequencies, num_times))
    step = max(1, batch_size // len(starts))
    was_training = _set_training(twin, mode=False)
    try:
        with torch.inference_mode():
            for first in range(0, num_events, step):
                events = witnesses[first : first + step]
                windows = cut_windows(events, starts, size).flatten(0, 1)
                predicted = torch.cat([_call(twin, part.to(device)) for part in windows.split(batch_size)])
                predicted = predicted.to(maps).unflatten(0, (len(events), len(starts)))
                maps[first : first + step] = join_windows(predicted, starts, num_times)
                if progress is not None:
                    progress(len(events))
    finally:
        if was_training:
            _set_training(twin, mode=True)
    # a plain tensor, so that callers may use it in autograd code
    return maps.clone() if maps.is_inference() else maps


def blank_invalid(
    maps: Float[Tensor, "event witness frequency time"], valid: ValidityMask
) -> Float[Tensor, "event witness frequency time"]:
    """Set the maps of invalid channels to zero energy: a dead witness says nothing, and explains nothing.

    Zero is below the noise floor (the median energy of a row is 1), so it cannot be taken for a transient; a glitch
    that only this witness sees is missed, which is why such events are counted and flagged in the tables.

    Args:
        maps: Energies, SNR².
        valid: False where a channel is missing or was rejected.

    Returns:
        A copy where something had to be blanked, else the maps themselves.
    """
    if valid.all():
        return maps
    keep = torch.from_numpy(np.ascontiguousarray(valid)).to(maps.device)
    return torch.where(keep[:, :, None, None], maps, 0.0)


def _call(twin: nn.Module, windows: Tensor) -> Tensor:
    predicted = twin(windows)
    expected = (len(windows), 1, *windows.shape[2:])
    if tuple(predicted.shape) != expected:
        msg = (
            f"the twin must return strain maps of shape {expected} for witnesses of shape {tuple(windows.shape)}, "
            f"got {tuple(predicted.shape)}. Use a model that was registered by the training pipeline."
        )
        raise DataError(msg)
    return predicted[:, 0]


def _covering_starts(num_times: int, size: int, stride: int | None) -> tuple[int, ...]:
    tiles = tile_starts(num_times, size)
    if stride is None or stride == size:
        return tiles
    if not 1 <= stride <= size:
        msg = f"stride must be within 1..{size} columns so that windows cover the map, got {stride}."
        raise ConfigurationError(msg)
    return tuple(sorted({*range(0, num_times - size + 1, stride), num_times - size}))


def _device_of(twin: nn.Module, tensor: Tensor) -> torch.device:
    held = next(twin.parameters(), None)
    if held is None:
        held = next(twin.buffers(), tensor)
    return held.device


def _set_training(twin: nn.Module, *, mode: bool) -> bool:
    """Switch the mode and return the old one. Exported programs have one fixed mode and refuse to switch."""
    before = twin.training
    if before != mode:
        try:
            twin.train(mode)
        except NotImplementedError:
            return False
    return before
