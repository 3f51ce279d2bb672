"""Bring energies, which span many decades, to a common range: a clamp, a transform and one scale a channel.

The transform is the square root by default: an energy is |signal + noise|², so the root is an amplitude, to which noise
adds about the same spread whether the signal is weak or strong (a variance-stabilising transform). With a logarithm
an error of the network would grow exponentially on the way back to energies.

The scales are fitted on training events only, one batch at a time. The networks carry them as tensors and scale by them
(`models.twins.scale_energy`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import numpy as np
from jaxtyping import Float
from pydantic import Field

from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, NoEventsError
from glitchflow_plugin.settings import Positive, section
from glitchflow_plugin.types.arrays import MapArray, ValidityMask

Transform = Literal["sqrt", "log1p"]

#: Bins of the histogram of transformed energies; a scale is exact to the transform of the clamp over this.
_BINS = 8192


@section
class ScalingSettings:
    """How energies are scaled; conf/windows.yaml explains the keys, of which `scale_quantile` is `quantile`."""

    clamp: Positive = 1e4
    quantile: Annotated[float, Field(gt=0, le=1)] = 0.9999
    transform: Transform = "sqrt"


@dataclass(frozen=True)
class Scaling:
    """Transformed energy over a scale, channel by channel.

    Attributes:
        clamp: Largest energy that is told apart, SNR².
        scale: Divisor by channel name, all positive.
        transform: `sqrt` or `log1p`.
    """

    clamp: float
    scale: Mapping[str, float]
    transform: str = "sqrt"

    def __post_init__(self) -> None:
        """Refuse what cannot be inverted."""
        bad = {name: value for name, value in self.scale.items() if not (np.isfinite(value) and value > 0)}
        if bad or not self.clamp > 0:
            raise ConfigurationError(
                f"expected a positive clamp and positive scales, got clamp {self.clamp} and {bad}."
            )
        _check_transform(self.transform)

    def scales(self, channels: tuple[str, ...]) -> Float[np.ndarray, " channel"]:
        """Scales in the order of the channels given.

        Raises:
            ChannelMismatchError: A channel was not fitted.
        """
        missing = [name for name in channels if name not in self.scale]
        if missing:
            raise ChannelMismatchError(
                f"no scale was fitted for {missing}; fitted were {sorted(self.scale)}. Run the Processor again."
            )
        return np.array([self.scale[name] for name in channels])

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        return {
            "transform": self.transform,
            "clamp": float(self.clamp),
            "scale": {name: float(value) for name, value in self.scale.items()},
        }


@dataclass
class ScaleFit:
    """Gathers histograms of transformed energies by channel, batch by batch, and gives the scaling.

    Attributes:
        channels: Names of the channel axis.
        settings: Clamp and quantile.
    """

    channels: tuple[str, ...]
    settings: ScalingSettings = field(default_factory=ScalingSettings)
    _counts: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Start with empty histograms."""
        self._counts = np.zeros((len(self.channels), _BINS), dtype=np.int64)

    def add(self, maps: MapArray, valid: ValidityMask) -> None:
        """Take in one batch of training events.

        Args:
            maps: SNR², (event, channel, frequency, time).
            valid: (event, channel); invalid channels hold zeros and are left out.
        """
        width = self._largest / _BINS
        for channel in range(len(self.channels)):
            energies = maps[valid[:, channel], channel]
            bins = (_transformed(energies, self.settings.clamp, self.settings.transform) / width).astype(np.int64)
            self._counts[channel] += np.bincount(np.minimum(bins, _BINS - 1).ravel(), minlength=_BINS)

    def result(self) -> Scaling:
        """The scaling.

        A channel that was never valid, or that holds nothing but zeros, gets scale 1: it is then zero at every use,
        and dividing by it would be dividing by zero.

        Raises:
            NoEventsError: No channel was ever valid.
        """
        if not self._counts.any():
            raise NoEventsError(
                "no valid training map to fit the scaling on. Check the validity in the quality report."
            )
        edges = np.linspace(0, self._largest, _BINS + 1)[1:]
        scale = {}
        for name, counts in zip(self.channels, self._counts, strict=True):
            total = counts.sum()
            silent = counts[1:].sum() == 0
            if silent:
                scale[name] = 1.0
                continue
            first = int(np.searchsorted(np.cumsum(counts), self.settings.quantile * total))
            scale[name] = float(edges[first])
        return Scaling(clamp=float(self.settings.clamp), scale=scale, transform=self.settings.transform)

    @property
    def _largest(self) -> float:
        clamp = self.settings.clamp
        return float(_transformed(np.array(clamp), clamp, self.settings.transform))


def _transformed(energy: np.ndarray, clamp: float, transform: str) -> np.ndarray:
    limited = np.clip(energy, 0, clamp)
    return np.sqrt(limited) if transform == "sqrt" else np.log1p(limited)


def _check_transform(transform: str) -> None:
    if transform not in get_args(Transform):
        raise ConfigurationError(
            f"expected a transform out of {get_args(Transform)}, got {transform!r}. Correct windows.yaml."
        )
