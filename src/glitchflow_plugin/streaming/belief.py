"""What of a prediction that runs on is believed, and what of that the strain agrees with.

A prediction is believed where it stands out of the noise. Each stretch that is believed without a break is then asked
for as a whole, and by octave (`signal.agreement`): so the answer belongs to a glitch, and does not depend on windows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage

from glitchflow_plugin.products.folder import BelievedStretch
from glitchflow_plugin.signal.agreement import LEAST_POWER, agreed_shares, octaves
from glitchflow_plugin.signal.continuous import raised_runs
from glitchflow_plugin.signal.psd import hann
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.tensors import host

ENERGY_LENGTH = 0.5
"""Time over which the energy of a prediction is summed to tell its SNR, s."""

BELIEF_EDGE = 0.25
"""Time in which belief rises and falls, s."""

RINGING = 1.0
"""How far beyond what is believed the un-whitened glitch is kept, s: lines ring."""

LONGEST = 4.0
"""A stretch that is longer is divided at multiples of this in GPS time, s, at least half of it away from its ends."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """A stretch in which a prediction is believed without a break, or a part of a long one.

    Attributes:
        first: Number of its first sample at the common rate, from GPS 0.
        rate: Common rate, Hz.
        weight: How far the prediction is believed, 0 to 1, shape (time,).
        centre: Sample of the stretch about which the energy that is predicted is centred.
        snr: SNR of all that is believed.
        octaves: What share of it is taken away, by octave, shape (octave,).
        share: What share of its power is taken away.
    """

    first: int
    rate: float
    weight: Series
    centre: float
    snr: float
    octaves: Float[np.ndarray, " octave"]
    share: float

    @property
    def span(self) -> tuple[float, float]:
        """Start and end, GPS s."""
        return self.first / self.rate, (self.first + len(self.weight)) / self.rate

    @property
    def peak(self) -> float:
        """Middle of the energy that is predicted, GPS s."""
        return (self.first + self.centre) / self.rate

    @property
    def whole(self) -> bool:
        """Whether all of it is taken away."""
        return bool((self.octaves == 1).all())

    @property
    def record(self) -> BelievedStretch:
        """What is kept of it."""
        refused = "partly" if self.octaves.any() else "refused"
        reason = "" if self.whole else "weak" if self.snr < LEAST_POWER**0.5 else refused
        return BelievedStretch(*self.span, self.peak, self.snr, self.share, reason)


def snr_in_time(whitened: Series, rate: float) -> Series:
    """SNR of a prediction in the half second about each sample, (time,).

    Args:
        whitened: Predicted whitened strain, (time,).
        rate: Sample rate, Hz.
    """
    size = round(ENERGY_LENGTH * rate)
    energy = ndimage.uniform_filter1d(np.square(whitened), size, mode="constant")
    return np.sqrt(np.maximum(energy, 0.0) * size)


def belief(snr: Series, rate: float, believed_snr: tuple[float, float]) -> Series:
    """How far a prediction is believed, 0 to 1, (time,): by its SNR in half a second, and beside what is loud.

    Args:
        snr: From `snr_in_time`.
        rate: Sample rate, Hz.
        believed_snr: SNR up to which nothing is believed, and from which everything.
    """
    low, high = believed_snr
    return _softened(np.clip((snr - low) / (high - low), 0.0, 1.0), rate, BELIEF_EDGE)


def ask(predicted: Series, measured: Series, trusted: Series, first: int, rate: float) -> list[Stretch]:
    """Ask the strain about each stretch in which a prediction is believed.

    Args:
        predicted: Predicted whitened strain, (time,).
        measured: Measured whitened strain, (time,).
        trusted: How far the prediction is believed, (time,).
        first: Number of the first sample, from GPS 0.
        rate: Sample rate, Hz.
    """
    found = []
    beside = round(RINGING * rate)
    for start, weight in _stretches(trusted, first, rate):
        stop = start + len(weight)
        said = weight * predicted[start:stop]
        about = np.pad(measured, beside)[start : stop + 2 * beside]
        padded = np.pad(said, beside)
        shares = host(agreed_shares(torch.from_numpy(padded)[None], torch.from_numpy(about)[None])[0])
        power, taken = float(said @ said), of_octaves(padded, shares)
        share = float(taken @ taken) / power if power else 0.0
        centre = float(np.arange(len(said)) @ np.square(said)) / power if power else len(said) / 2
        found.append(Stretch(first + start, rate, weight, centre, power**0.5, shares, share))
    return found


def of_octaves(series: Series, shares: Float[np.ndarray, " octave"]) -> Series:
    """A series with some share of each of its octaves, (time,); itself where all are whole.

    Args:
        series: Real series of any length, (time,).
        shares: 0 to 1, from half its rate downwards.
    """
    if (shares == 1).all():
        return series
    return host((torch.from_numpy(shares)[:, None] * octaves(torch.from_numpy(series)[None])[0]).sum(dim=0))


def kept(stretches: Sequence[Stretch], first: int, size: int, rate: float) -> Series:
    """Where the un-whitened glitch is kept, (time,): all that is taken away, and for a while what rings beside it.

    Args:
        stretches: From `ask`.
        first: Number of the first sample, from GPS 0.
        size: Samples.
        rate: Sample rate, Hz.
    """
    taken = np.zeros(size)
    for one in stretches:
        if one.octaves.any():
            start = one.first - first
            taken[start : start + len(one.weight)] = 1.0
    return _softened(taken, rate, RINGING)


def kept_beside(rate: float) -> int:
    """Samples beside a stretch up to which `kept` keeps something, at some rate, Hz."""
    return round(RINGING * rate) + 2 * round(BELIEF_EDGE * rate) + 1


def _stretches(trusted: Series, first: int, rate: float) -> Iterator[tuple[int, Series]]:
    """First sample and belief of each stretch; those of a long one give way to each other, and add up to it."""
    longest, edge = round(LONGEST * rate), round(BELIEF_EDGE * rate)
    rise = np.square(np.sin(0.5 * np.pi * (np.arange(2 * edge) + 0.5) / (2 * edge)))
    for start, stop in raised_runs(trusted > 0):
        cuts: list[int] = []
        if stop - start > longest:
            grid = longest * np.arange((start + first) // longest, (stop + first) // longest + 1) - first
            cuts = [int(cut) for cut in grid if start + longest // 2 <= cut <= stop - longest // 2]
        for low, high in pairwise([start - edge, *cuts, stop + edge]):
            begin, end = max(low - edge, start), min(high + edge, stop)
            weight = trusted[begin:end].copy()
            if low in cuts:
                weight[: 2 * edge] *= rise
            if high in cuts:
                weight[-2 * edge :] *= rise[::-1]
            yield begin, weight


def _softened(shares: Series, rate: float, beside: float) -> Series:
    """Shares that hold for some time (s) beside where they are reached, and fall softly from there, exactly to zero."""
    edge = round(BELIEF_EDGE * rate)
    reached = ndimage.maximum_filter1d(shares, 2 * (round(beside * rate) + edge) + 1, mode="constant")
    if not reached.any():
        return reached
    window = hann(2 * edge + 1, symmetric=True)
    touched = ndimage.maximum_filter1d(reached, 2 * edge + 1, mode="constant") > 0
    soft = np.zeros(len(shares))
    # beside what is touched there is nothing: each run can be softened by itself
    for start, stop in raised_runs(touched):
        soft[start:stop] = np.convolve(reached[start:stop], window / window.sum())[edge : edge + stop - start]
    return np.minimum(soft, 1.0)
