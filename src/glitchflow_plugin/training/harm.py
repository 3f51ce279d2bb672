"""What cleaning adds to a series, over the whole band up to half the sample rate."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from glitchflow_plugin.types.tensors import host


def octave_edges(sample_rate: float, lowest: float = 1.0) -> tuple[float, ...]:
    """Edges (Hz) of octaves from 0 to half the sample rate; the first band lies below `lowest`, the last may be short.

    >>> octave_edges(100.0)
    (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 50.0)
    """
    edges = [0.0]
    while lowest < sample_rate / 2:
        edges.append(lowest)
        lowest *= 2
    return (*edges, sample_rate / 2)


def added_by_octave(
    measured: Float[Tensor, "event time"], predicted: Float[Tensor, "event time"], sample_rate: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Power that subtracting a prediction adds to each event in each octave, what there was, and that of white noise.

    What is added is the power after cleaning less the power before, so noise that a twin rightly explains counts below
    zero, and whatever has nothing to do with the strain counts with all its power.

    Args:
        measured: Whitened strain; its noise has variance 1 a sample.
        predicted: What is subtracted.
        sample_rate: Hz.

    Returns:
        Added and measured power (event, octave), summed over samples, and that of noise of variance 1 a sample at all
        frequencies (octave,), the octaves as in `octave_edges`.
    """
    num_samples = measured.shape[-1]
    before, taken = (torch.fft.rfft(each.double(), norm="ortho") for each in (measured, predicted))
    power = before.abs().square()
    added = (before - taken).abs().square() - power
    # of a real series' spectrum one half is stored: all but the ends stand for two bins
    twice = torch.full_like(added[0], 2.0)
    twice[0] = 1.0
    if num_samples % 2 == 0:
        twice[-1] = 1.0
    frequencies = torch.fft.rfftfreq(num_samples, 1 / sample_rate, dtype=torch.float64, device=added.device)
    inner = torch.tensor(octave_edges(sample_rate)[1:-1], dtype=torch.float64, device=added.device)
    octave = torch.bucketize(frequencies, inner, right=True)
    empty = added.new_zeros(len(inner) + 1)
    empty = empty.expand(len(added), -1)
    more, there = (host(empty.index_add(1, octave, each * twice)) for each in (added, power))
    return more, there, host(empty[0].index_add(0, octave, twice))
