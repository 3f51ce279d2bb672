"""Sets of triggers about a time, as networks see them: tensors alone, without file or source."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

POINT_FEATURES = ("dt", "log2_frequency", "log_snr", "log_q", "log_duration", "log_bandwidth")
"""What a point holds: s to the anchor, log2 of Hz, natural logarithms of SNR, Q, s and Hz."""

UNKNOWN = 0
"""Channel that the vocabulary does not have."""


class Rows:
    """A frozen dataclass of tensors with one row a set: as many rows, parts and devices as a tensor has."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def __getitem__(self, rows: slice | Tensor) -> Self:
        """Some of the sets."""
        return type(self)(*(getattr(self, one.name)[rows] for one in fields(self)))  # type: ignore[arg-type]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The sets of all parts as one."""
        return cls(*(torch.cat([getattr(part, one.name) for part in parts]) for one in fields(cls)))  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return getattr(self, fields(self)[0].name).device  # type: ignore[arg-type]

    def float(self) -> Self:
        """The same with its real numbers as float32."""
        held = (getattr(self, one.name) for one in fields(self))  # type: ignore[arg-type]
        return type(self)(*(one.float() if one.is_floating_point() else one for one in held))

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return type(self)(*(getattr(self, one.name).to(device) for one in fields(self)))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class TriggerSets(Rows):
    """Triggers of all channels but the strain about some times.

    Attributes:
        points: `POINT_FEATURES` as measured, since scaling is the model's; NaN where a format does not know one of the
            last three.
        channels: Index into the vocabulary; `UNKNOWN` for others.
        mask: Where there is a trigger; the rest is padding.
        globals_: Rates, band-limited RMS, slow channels, as measured.
        globals_valid: Where they are known.
    """

    points: Float[Tensor, "set trigger feature"]
    channels: Int[Tensor, "set trigger"]
    mask: Bool[Tensor, "set trigger"]
    globals_: Float[Tensor, "set global"]
    globals_valid: Bool[Tensor, "set global"]


@dataclass(frozen=True, eq=False)
class TriggerLabels(Rows):
    """What is true of some times.

    Attributes:
        glitch: 1 where the strain has a glitch, else 0.
        kind: Index of its class; -1 unknown.
        log1p_snr: ln(1 + SNR) of the glitch; NaN unknown.
        channel: Index of the channel of a point that was held out; -1 where none was.
        weights: What a set counts for; undoes a balanced sampling.
    """

    glitch: Float[Tensor, " set"]
    kind: Int[Tensor, " set"]
    log1p_snr: Float[Tensor, " set"]
    channel: Int[Tensor, " set"]
    weights: Float[Tensor, " set"]


@dataclass(frozen=True, eq=False)
class TriggerAnswers(Rows):
    """What a model says of some times.

    Attributes:
        glitch: Log-odds of a glitch.
        kind: Log-probabilities of its class, up to a constant.
        log1p_snr: ln(1 + SNR) expected of it.
        channel: Log-probabilities of the channel held out, up to a constant.
    """

    glitch: Float[Tensor, " set"]
    kind: Float[Tensor, "set kind"]
    log1p_snr: Float[Tensor, " set"]
    channel: Float[Tensor, "set channel"]
