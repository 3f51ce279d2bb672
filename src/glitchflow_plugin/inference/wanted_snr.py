"""Predictions of a wanted SNR: by the drive of the witnesses, through the twin's law, or by the waveform alone."""

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from glitchflow_plugin.inference.asked import AskedTwin
from glitchflow_plugin.inference.attribution import term_shares
from glitchflow_plugin.models.twins import SPOKEN_POWER
from glitchflow_plugin.types.tensors import host

_LARGEST = 20.0
"""Factor by which a drive or a waveform is made louder, or quieter, at most."""
_LEAST_SHARE = 0.05
_ROUNDS = 14
_TOLERANCE = 0.05
"""Share by which an SNR may be missed."""
_HELD = 1e-3
"""Share of the prediction's power that lies outside the time in which witnesses are scaled."""
_REACH, _EDGE = 0.15, 0.1
"""s that this time goes on to either side, since laws and filters reach so far, and s of its soft edges."""


class Louder(NamedTuple):
    """Events of a wanted SNR.

    Attributes:
        seen: What the twin sees of them.
        answer: What it foretells.
        factor: By which drive or waveform was multiplied, (event,); NaN where too little is predicted, or the SNR is
            out of reach.
    """

    seen: Tensor
    answer: Tensor
    factor: NDArray[np.float64]


def drawn_snr(event_ids: Sequence[str], limits: tuple[float, float], seed: int) -> NDArray[np.float64]:
    """SNR of each event, log-uniform within limits; neither the order nor the other events decide."""
    low, high = np.log(limits)
    drawn = [np.random.default_rng([seed, zlib.crc32(name.encode())]).uniform(low, high) for name in event_ids]
    return np.exp(np.array(drawn))


def by_waveform(asked: AskedTwin, seen: Tensor, wanted: NDArray[np.float64]) -> Louder:
    """Scale the prediction: its shape is that of the measured witnesses, whatever the law would have made of them."""
    answer = asked.answer(seen)
    factor = wanted / np.maximum(host(asked.snr(answer).double()), 1e-12)
    factor[(factor < 1 / _LARGEST) | (factor > _LARGEST) | _silent(asked, answer)] = np.nan
    return Louder(seen, asked.scaled(answer, _beside(factor, answer)), factor)


def by_drive(asked: AskedTwin, seen: Tensor, wanted: NDArray[np.float64], steady: Sequence[str] = ()) -> Louder:
    """Scale the witnesses about the time of the glitch until the twin foretells the wanted SNR.

    What a law does to a louder cause is then in the prediction: other shapes, other frequencies, thresholds. Witnesses
    that bring at least a twentieth of the prediction are scaled, by one factor, while it lasts: the noise of others,
    and at other times, would pass the gates if it were louder.

    Args:
        asked: The twin.
        seen: What it sees, (event, witness, ..., time).
        wanted: SNR of each event.
        steady: Witnesses that are not scaled, such as those of motion below the band.
    """
    unchanged = asked.answer(seen)
    window = _window(asked.energy(unchanged), asked.step).to(seen)
    window = window.reshape(len(seen), *(1,) * (seen.dim() - 2), -1)
    free = np.array([name not in steady for name in asked.witnesses])
    driving = np.stack([free & (term_shares(asked, one) >= _LEAST_SHARE) for one in seen])
    window = window * torch.from_numpy(driving).to(seen).reshape(*driving.shape, *(1,) * (seen.dim() - 2))

    def _driven(logarithm: NDArray[np.float64]) -> Tensor:
        factor = torch.from_numpy(np.exp(logarithm)).to(seen).reshape(-1, *(1,) * (seen.dim() - 1))
        return asked.scaled(seen, 1 + (factor - 1) * window)

    low, high = (np.full(len(seen), sign * math.log(_LARGEST)) for sign in (-1, 1))
    for _ in range(_ROUNDS):
        middle = 0.5 * (low + high)
        loud = host(asked.snr(asked.answer(_driven(middle))).double()) >= wanted
        low, high = np.where(loud, low, middle), np.where(loud, middle, high)
    driven = _driven(high)
    answer = asked.answer(driven)
    missed = np.abs(host(asked.snr(answer).double()) / wanted - 1) > _TOLERANCE
    missed |= _silent(asked, unchanged)
    return Louder(driven, answer, np.where(missed, np.nan, np.exp(high)))


def _silent(asked: AskedTwin, answer: Tensor) -> Bool[np.ndarray, " event"]:
    """Events of which so little is predicted that it is noise, of which no glitch shall be made."""
    return host(asked.snr(answer).double()) ** 2 < SPOKEN_POWER


def _window(energy: Tensor, step: float) -> Tensor:
    """1 while a prediction lasts, 0 far from it, (event, time); 0 where nothing is predicted."""
    share = energy.double().cumsum(dim=-1)
    share = share / share[:, -1:].clamp(min=1e-12)
    time = torch.arange(energy.shape[-1], device=energy.device) * step
    first, last = ((share >= limit).double().argmax(dim=-1) * step for limit in (_HELD / 2, 1 - _HELD / 2))
    outside = torch.maximum(first[:, None] - _REACH - time, time - last[:, None] - _REACH).clamp(min=0)
    there = energy.sum(dim=-1, keepdim=True) > 0
    return 0.5 * (1 + torch.cos(math.pi * (outside / _EDGE).clamp(max=1))) * there


def _beside(factor: NDArray[np.float64], answer: Tensor) -> Tensor:
    known = np.nan_to_num(factor, nan=1.0)
    return torch.from_numpy(known).to(answer).reshape(-1, *(1,) * (answer.dim() - 1))
