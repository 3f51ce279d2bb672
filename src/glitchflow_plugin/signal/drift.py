"""Have incoming data drifted away from those that a twin was trained on?

For each channel, the share of its values above a fixed ladder of energies is counted event by event. The reference
keeps the means of these shares over the training events. Two figures compare new events with it: the Kolmogorov
distance of the two distributions (their largest difference on the ladder), and the ratio of the rates of loud values,
which the distance does not see because few values are loud. Whether a difference is more than chance is told by a
bootstrap over events, since the values of one event share its noise and its glitch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import binom, norm

from glitchflow_plugin.errors import ChannelMismatchError, FormatError, NoEventsError
from glitchflow_plugin.settings import Fraction, Replicates, section
from glitchflow_plugin.signal.bootstrap import group_draws
from glitchflow_plugin.types.arrays import ValidityMask
from glitchflow_plugin.types.plain import JsonObject

LADDER: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 25.0, 50.0, 100.0)
"""Energies, SNR². Noise has median 1 by the norm of the Q-transform."""

LOUD = 16.0
"""SNR² above which a value is loud; one of the ladder."""


@section
class DriftSettings:
    """When data count as drifted; conf/retrain.yaml explains the keys."""

    max_distance: Fraction = 0.05
    max_ratio: Annotated[float, Field(gt=1)] = 2.0
    significance: Fraction = 0.01
    min_events: Annotated[int, Field(ge=2)] = 16
    replicates: Replicates = 2000
    seed: int = 0


@dataclass
class ExceedanceCount:
    """Gathers, batch by batch, which share of each channel's values in each event is above each step of the ladder.

    Attributes:
        channels: Names of the channel axis.
    """

    channels: tuple[str, ...]
    _shares: list[NDArray[np.float64]] = field(default_factory=list, repr=False)
    _valid: list[ValidityMask] = field(default_factory=list, repr=False)

    def add(self, energies: Float[np.ndarray, "event channel ..."], valid: ValidityMask) -> None:
        """Take in one batch.

        Args:
            energies: SNR², (event, channel, ...).
            valid: (event, channel).
        """
        values = energies.reshape(*energies.shape[:2], -1)
        steps = [np.count_nonzero(values > energies.dtype.type(step), axis=-1) for step in LADDER]
        self._shares.append(np.stack(steps, axis=-1) / values.shape[-1])
        self._valid.append(np.asarray(valid, dtype=bool))

    @property
    def shares(self) -> NDArray[np.float64]:
        """(event, channel, step)."""
        return np.concatenate(self._shares) if self._shares else np.zeros((0, len(self.channels), len(LADDER)))

    @property
    def valid(self) -> ValidityMask:
        """(event, channel)."""
        return np.concatenate(self._valid) if self._valid else np.zeros((0, len(self.channels)), dtype=bool)

    def reference(self) -> "Reference":
        """What is kept of training events.

        Raises:
            NoEventsError: There is none.
        """
        if not self.valid.any():
            raise NoEventsError("no valid training map to take reference statistics from.")
        shares, valid = self.shares, self.valid
        usable = {name: shares[valid[:, row], row] for row, name in enumerate(self.channels) if valid[:, row].any()}
        return Reference(
            shares={name: tuple(found.mean(axis=0).tolist()) for name, found in usable.items()},
            spreads={name: tuple(found.std(axis=0).tolist()) for name, found in usable.items()},
            counts={name: int(valid[:, row].sum()) for row, name in enumerate(self.channels)},
            num_events=len(valid),
        )


@dataclass(frozen=True)
class Reference:
    """Statistics of the training events.

    Attributes:
        shares: Mean share of values above each step of the ladder, by channel.
        spreads: Standard deviation of these shares from event to event.
        counts: Events in which the channel was valid, by channel.
        num_events: All events.
        ladder: The steps, SNR².
    """

    shares: Mapping[str, tuple[float, ...]]
    spreads: Mapping[str, tuple[float, ...]]
    counts: Mapping[str, int]
    num_events: int
    ladder: tuple[float, ...] = LADDER

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: JsonObject) -> "Reference":
        """Back from `to_dict`.

        Raises:
            FormatError: It is something else, or was made with another ladder.
        """
        try:
            shares, spreads = (
                {name: tuple(float(value) for value in values) for name, values in content[key].items()}
                for key in ("shares", "spreads")
            )
            ladder = tuple(float(value) for value in content["ladder"])
            found = cls(shares, spreads, dict(content["counts"]), int(content["num_events"]), ladder)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"these are not reference statistics ({type(error).__name__}: {error}). Train the model again."
            ) from error
        complete = shares.keys() == spreads.keys()
        lengths = {len(values) for values in (*shares.values(), *spreads.values())}
        if not complete or ladder != LADDER or lengths - {len(LADDER)}:
            raise FormatError("the reference statistics were made with another ladder of energies. Train again.")
        shares_fit = all(0 <= value <= 1 + 1e-9 for values in (*shares.values(), *spreads.values()) for value in values)
        counted = [found.num_events, *found.counts.values()]
        counts_fit = all(isinstance(number, int) and 0 <= number <= found.num_events for number in counted)
        if not shares_fit or not counts_fit or not shares.keys() <= found.counts.keys():
            raise FormatError("the reference statistics hold shares outside 0..1 or counts of no events. Train again.")
        return found


@dataclass(frozen=True)
class ChannelDrift:
    """How one channel differs from the reference.

    Attributes:
        channel: Its name.
        distance: Kolmogorov distance, 0..1; None where it is never valid.
        loud_ratio: Rate of loud values over that of the reference; None where the latter is 0.
        p_value: Probability of so large a difference by chance.
        valid_share: Share of the events in which it is valid.
        alarm: Why it has drifted; empty if it has not.
    """

    channel: str
    distance: float | None
    loud_ratio: float | None
    p_value: float
    valid_share: float
    alarm: str = ""


@dataclass(frozen=True)
class DriftReport:
    """All channels.

    Attributes:
        channels: One by one.
        num_events: Events compared.
    """

    channels: tuple[ChannelDrift, ...]
    num_events: int

    @property
    def drifted(self) -> tuple[ChannelDrift, ...]:
        """Those with an alarm."""
        return tuple(channel for channel in self.channels if channel.alarm)

    @property
    def largest_distance(self) -> float:
        """Of all channels."""
        return max((channel.distance or 0.0 for channel in self.channels), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        return asdict(self)


def compare(
    found: ExceedanceCount, reference: Reference, settings: DriftSettings, channels: Sequence[str] | None = None
) -> DriftReport:
    """Compare new events with the reference.

    Args:
        found: Counted in the new events.
        reference: What was counted in the training events.
        settings: When a channel has drifted.
        channels: Those to compare; all that were counted if None.

    Returns:
        One entry a channel.

    Raises:
        ChannelMismatchError: The reference lacks a channel.
    """
    wanted = tuple(channels) if channels is not None else found.channels
    missing = [name for name in wanted if name not in reference.counts]
    if missing:
        raise ChannelMismatchError(
            f"the reference statistics lack {missing}; they know {sorted(reference.counts)}. Train again."
        )
    level = settings.significance / max(1, len(wanted))
    entries = []
    for name in wanted:
        row = found.channels.index(name)
        valid = found.valid[:, row]
        entries.append(_channel(name, found.shares[valid, row], valid, reference, settings=settings, level=level))
    return DriftReport(tuple(entries), len(found.valid))


def _channel(
    name: str,
    shares: NDArray[np.float64],
    valid: NDArray[np.bool_],
    reference: Reference,
    *,
    settings: DriftSettings,
    level: float,
) -> ChannelDrift:
    share_valid = float(valid.mean()) if len(valid) else 0.0
    before = reference.counts[name]
    if before == 0 or name not in reference.shares:
        return ChannelDrift(name, None, None, 1.0, share_valid)
    # at the rate of the reference, whose own noise one pseudo-event bounds
    usual = before / (reference.num_events + 1)
    chance = float(binom.cdf(len(shares), len(valid), usual))
    if len(valid) >= settings.min_events and chance < level and share_valid <= usual / 2:
        alarm = f"it is missing in {len(valid) - len(shares)} of {len(valid)} events"
        return ChannelDrift(name, None, None, chance, share_valid, alarm)
    if len(shares) == 0:
        return ChannelDrift(name, None, None, chance, share_valid)
    expected = np.asarray(reference.shares[name])
    mean = shares.mean(axis=0)
    distance = float(np.abs(mean - expected).max())
    loud = LADDER.index(LOUD)
    ratio = float(mean[loud] / expected[loud]) if expected[loud] > 0 else None
    p_value = _p_value(shares, expected, np.asarray(reference.spreads[name]), before, settings)
    alarm = ""
    if len(shares) >= settings.min_events and p_value < level:
        if distance > settings.max_distance:
            alarm = f"its energies are distributed otherwise (distance {distance:.3f} > {settings.max_distance:g})"
        elif ratio is not None and not 1 / settings.max_ratio <= ratio <= settings.max_ratio:
            alarm = f"{ratio:.2g} times the loud values of the training data (factor {settings.max_ratio:g} is allowed)"
    return ChannelDrift(name, distance, ratio, p_value, share_valid, alarm)


def _p_value(
    shares: NDArray[np.float64],
    expected: NDArray[np.float64],
    spread_before: NDArray[np.float64],
    before: int,
    settings: DriftSettings,
) -> float:
    """Probability of the largest standardised difference on the ladder when nothing has changed.

    The bootstrap gives the noise of the mean of the new events. That of the reference is the same but for the number
    of events, so a second draw, scaled, stands for it.
    """
    events = len(shares)
    if events < 2:
        return 1.0
    mean = shares.mean(axis=0)
    draws = group_draws(events, 2 * settings.replicates, settings.seed)
    noise = np.concatenate([weights / events @ shares - mean for weights in draws])
    drawn = noise[: settings.replicates] + np.sqrt(events / before) * noise[settings.replicates :]
    # a channel that has fallen silent has no noise of its own any more: that of the training events stands in
    spread = np.maximum(shares.std(axis=0), spread_before) * np.sqrt(1 / events + 1 / before)
    known = spread > 1e-12
    if not known.any():
        return 1.0 if np.allclose(mean, expected) else 0.0
    observed = (np.abs(mean - expected)[known] / spread[known]).max()
    null = (np.abs(drawn[:, known]) / spread[known]).max(axis=1)
    # beyond what the replicates reach, the tail of a normal distribution over the steps (Bonferroni)
    counted = (1 + int((null >= observed).sum())) / (1 + settings.replicates)
    if counted > 10 / settings.replicates:
        return float(counted)
    return float(min(counted, known.sum() * 2 * norm.sf(observed)))
