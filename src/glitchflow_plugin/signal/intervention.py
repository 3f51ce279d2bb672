"""What is done to a witness to ask a twin what if: the settings of a change, and its mathematics.

Witnesses are whitened series, or maps of energy that have no phase. Both have time as their last axis.
"""

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, nearest
from glitchflow_plugin.settings import Finite, Texts, section
from glitchflow_plugin.signal.psd import welch_psd

_KEYS = {"scale": "factor", "delay": "delay"}
#: Segments of the spectrum of a witness's own noise, s.
_SEGMENT = 0.5


@section
class Intervention:
    """One change of some witnesses.

    Attributes:
        channels: Names of the witnesses, or patterns such as `V1:ENV-*`.
        action: `scale` the series by `factor`; `silence` it, as if the sensor were missing; `delay` it; `swap` it for
            that of another event; or replace it by Gaussian `noise` of its own spectrum, as if nothing had happened
            there.
        factor: By how much the series is multiplied; a map's energies change by its square.
        delay: s; positive: later.
        event: Id of the event whose witness is taken; None: the next one of another group that has it.
        case: Changes of one name are made together; empty: this one alone.
    """

    channels: Texts
    action: Literal["scale", "silence", "delay", "swap", "noise"]
    factor: Finite | None = None
    delay: Finite | None = None
    event: str | None = None
    case: str = ""

    def __post_init__(self) -> None:
        """Refuse keys that the action has no use for, and the lack of one that it needs."""
        needed, given = _KEYS.get(self.action), {"factor": self.factor, "delay": self.delay}
        useless = [key for key, value in given.items() if value is not None and key != needed]
        if not self.channels or useless or (needed and given[needed] is None):
            raise ConfigurationError(
                f"expected channels and, of factor and delay, {needed or 'neither'} for the action {self.action}, got "
                f"channels {list(self.channels)}, factor {self.factor}, delay {self.delay}."
            )
        if self.event is not None and self.action != "swap":
            raise ConfigurationError(f"event is of use to the action swap alone, got it for {self.action}.")

    def __str__(self) -> str:
        """In words, for tables and titles."""
        how = {
            "scale": f"x {self.factor or 0.0:g}",
            "silence": "silent",
            "delay": f"{1e3 * (self.delay or 0.0):+g} ms",
            "swap": f"of {self.event or 'another event'}",
            "noise": "its noise alone",
        }
        return f"{', '.join(self.channels)} {how[self.action]}"


def cases(interventions: Sequence[Intervention]) -> dict[str, tuple[Intervention, ...]]:
    """Changes by the name of their case; those without one are named by what they do.

    >>> list(cases([Intervention("A", "silence"), Intervention("B", "scale", factor=2.0)]))
    ['A silent', 'B x 2']
    """
    found: dict[str, tuple[Intervention, ...]] = {}
    for each in interventions:
        name = each.case or str(each)
        found[name] = (*found.get(name, ()), each)
    return found


def matching(patterns: Sequence[str], witnesses: Sequence[str]) -> list[int]:
    """Places of the witnesses that are named, each once, in their order.

    Args:
        patterns: Names or patterns of a shell.
        witnesses: Names there are.

    Raises:
        ChannelMismatchError: A pattern fits none of them.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in witnesses):
            raise ChannelMismatchError(
                f"expected witnesses of the model, got {pattern!r}, which is none of {list(witnesses)}."
                f"{nearest(pattern, witnesses)} Correct `channels`."
            )
    return [row for row, name in enumerate(witnesses) if any(fnmatchcase(name, pattern) for pattern in patterns)]


def delayed_series(series: Float[Tensor, "*rows time"], samples: float) -> Float[Tensor, "*rows time"]:
    """Series some samples later (earlier, if negative); a part of a sample is a phase, and beyond the ends is nothing.

    Raises:
        ConfigurationError: Nothing of the series would be left.

    >>> delayed_series(torch.tensor([1.0, 2.0, 3.0]), 1).round(decimals=4)
    tensor([0., 1., 2.])
    """
    size = series.shape[-1]
    _check_delay(samples, size)
    padded = 1 << (2 * size).bit_length()
    turns = torch.arange(padded // 2 + 1, device=series.device, dtype=torch.float64) * (samples / padded)
    phase = torch.exp(-2j * math.pi * turns)
    return torch.fft.irfft(torch.fft.rfft(series.double(), n=padded) * phase, n=padded)[..., :size].to(series)


def delayed_maps(maps: Float[Tensor, "*rows time"], columns: float) -> Float[Tensor, "*rows time"]:
    """Maps some columns later, linear between columns; beyond the ends there is no energy.

    Raises:
        ConfigurationError: Nothing of the maps would be left.

    >>> delayed_maps(torch.tensor([0.0, 4.0, 0.0, 0.0]), 1.5)
    tensor([0., 0., 2., 2.])
    """
    _check_delay(columns, maps.shape[-1])
    whole = math.floor(columns)
    part = columns - whole
    return (1 - part) * _moved(maps, whole) + part * _moved(maps, whole + 1)


def own_noise(
    series: Float[np.ndarray, " time"], sample_rate: float, seed: Sequence[int]
) -> Float[np.ndarray, " time"]:
    """Gaussian noise of the spectrum that a series has beside its transients (Welch's median).

    Args:
        series: At least two segments of half a second long.
        sample_rate: Hz.
        seed: Decides the noise.
    """
    size = len(series)
    length = min(_SEGMENT, size / sample_rate / 2)
    density = welch_psd(series, sample_rate, length, length / 2)
    white = np.fft.rfft(np.random.default_rng(seed).standard_normal(size))
    gain = np.sqrt(density.at(np.fft.rfftfreq(size, 1 / sample_rate)) * sample_rate / 2)
    return np.fft.irfft(white * gain, size)


def _moved(values: Tensor, steps: int) -> Tensor:
    moved, kept = torch.zeros_like(values), values.shape[-1] - abs(steps)
    if kept > 0:
        moved.narrow(-1, max(steps, 0), kept).copy_(values.narrow(-1, max(-steps, 0), kept))
    return moved


def _check_delay(steps: float, size: int) -> None:
    if abs(steps) >= size:
        raise ConfigurationError(
            f"expected a delay shorter than the event of {size} samples or columns, got {steps:g}. Correct `delay`."
        )
