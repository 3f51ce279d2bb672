"""Does the strain still follow each witness as it did when the twin was trained?

The gains of each witness (`signal.witness_gain`) are compared with those of the validation events, one event after the
other, by a CUSUM of e-values: what an event says against the hypothesis that nothing has changed is a factor whose mean
is at most 1 as long as that holds, and the product of the latest factors rises above A in N events with a probability
of at most N / A (Shin, Ramdas and Rinaldo 2024, arXiv:2203.03532). One event counts for no more than a share of what it
takes, however much it says.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import norm, t

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.settings import Fraction, Positive, section
from glitchflow_plugin.types.plain import JsonObject
from glitchflow_plugin.verdict import TOLD_SNR2

LOW, HIGH = "gain_low", "gain_high"
"""Why a witness is stopped: the strain holds less of what is predicted, or the reverse of it; or more."""

SIDES = (LOW, HIGH)

#: Change of the gain, in standard deviations of an ordinary event, that the factors are made for.
_SHIFT = 2.0
#: Groups of validation events below which nothing is said of what is ordinary.
_FEWEST_GROUPS = 3
#: How many events the spread of all witnesses together counts for in that of one.
_SHARED = 4
#: Events of which the present gain is told.
RECENT = 10


@section
class WatchSettings:
    """When subtraction by a witness stops; conf/inference.yaml explains the keys."""

    enabled: bool = True
    false_stops: Positive = 0.5
    least_events: Annotated[int, Field(ge=2)] = 4
    tolerance: Fraction = 0.2
    least_power: Positive = TOLD_SNR2
    longest_lag: Positive = 0.1

    def limit(self, num_parts: int) -> float:
        """Logarithm of the factor at which a witness is stopped."""
        return math.log(1000 * len(SIDES) * num_parts / self.false_stops)


class MeasuredGains(NamedTuple):
    """Gains of several events, as `signal.witness_gain` measures them.

    Attributes:
        gain: NaN of a part that predicts nothing, (event, part).
        variance: Variance of the gain, (event, part).
        power: What tells it, SNR², (event, part).
        lag: By how much the strain follows later than predicted, s, (event, part).
    """

    gain: Float[np.ndarray, "event part"]
    variance: Float[np.ndarray, "event part"]
    power: Float[np.ndarray, "event part"]
    lag: Float[np.ndarray, "event part"]

    @classmethod
    def joined(cls, parts: "Sequence[MeasuredGains]") -> "MeasuredGains":
        """Those of several batches, in order."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class GainReference:
    """Gains of the validation events.

    Attributes:
        parts: Names of the parts: witnesses, or one for a prediction that has none.
        gain: Mean, by part; None where too few events tell it.
        error: Standard deviation of that mean.
        spread: Standard deviation from event to event, without that by noise.
        groups: Independent groups of events that tell it.
        share: Share of the events in which the part predicted something.
    """

    parts: tuple[str, ...]
    gain: tuple[float | None, ...]
    error: tuple[float | None, ...]
    spread: tuple[float | None, ...]
    groups: tuple[int, ...]
    share: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: JsonObject) -> "GainReference":
        """Back from `to_dict`.

        Raises:
            FormatError: It is something else.
        """
        try:
            found = cls(
                parts=tuple(map(str, content["parts"])),
                groups=tuple(map(int, content["groups"])),
                share=tuple(map(float, content["share"])),
                **{
                    name: tuple(None if value is None else float(value) for value in content[name])
                    for name in ("gain", "error", "spread")
                },
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"these are no reference gains ({type(error).__name__}: {error}). Train the model again."
            ) from error
        columns = (found.gain, found.error, found.spread, found.groups, found.share)
        if {len(column) for column in columns} != {len(found.parts)}:
            raise FormatError("the reference gains are not one for each part of the prediction. Train again.")
        for rows in zip(*columns[:3], strict=True):
            known = [value for value in rows if value is not None]
            if len(known) not in (0, 3) or not all(map(math.isfinite, known)) or min(known[1:], default=0) < 0:
                raise FormatError(f"expected a gain, its error and its spread, got {rows}. Train again.")
        return found


def reference_gains(
    parts: Sequence[str],
    found: MeasuredGains,
    groups: Int[np.ndarray, " event"],
    settings: WatchSettings,
) -> GainReference:
    """What is kept of the validation events.

    Gains of ordinary events differ by more than noise; mean and spread of each witness are those of a random-effects
    model (Paule and Mandel 1982, doi:10.6028/jres.087.022), the spread drawn towards that of all witnesses together.

    Args:
        parts: Names of the parts.
        found: Gains of the parts in validation events.
        groups: Number of the group of each event.
        settings: Which events count.
    """
    told = found.power >= settings.least_power
    count = [len(np.unique(groups[rows])) for rows in told.T]
    gains, variances = ([column[rows] for column, rows in zip(each.T, told.T, strict=True)] for each in found[:2])
    known = [part for part, number in enumerate(count) if number >= _FEWEST_GROUPS]
    fits = {part: _random_effects(gains[part], variances[part]) for part in known}
    freedom = {part: count[part] - 1 for part in known}
    common = sum(freedom[part] * fits[part][1] for part in known) / max(1, sum(freedom.values()))
    rows: list[tuple[float | None, float | None, float | None]] = [(None, None, None)] * len(parts)
    for part in known:
        between = (freedom[part] * fits[part][1] + _SHARED * common) / (freedom[part] + _SHARED)
        weight = 1 / (between + variances[part])
        # events of one group are no independent cases
        error = math.sqrt(len(weight) / count[part] / weight.sum())
        rows[part] = (fits[part][0], error, math.sqrt(between))
    means, errors, spreads = zip(*rows, strict=True)
    return GainReference(tuple(parts), means, errors, spreads, tuple(count), tuple(told.mean(axis=0).tolist()))


@dataclass(frozen=True)
class WatchState:
    """Where the watch stands after some events, and from where it goes on with later ones.

    Attributes:
        evidence: Logarithm of the factor, of `SIDES`, as a share of what stops, by part.
        until: GPS end of the last event that counted, by part, s; None of none.
        reason: Which of `SIDES` has stopped a part, by part; empty of one that goes on.
        since: GPS start of the event with which the part was stopped, s, by part; None of one that goes on.
    """

    evidence: tuple[tuple[float, float], ...]
    until: tuple[float | None, ...]
    reason: tuple[str, ...]
    since: tuple[float | None, ...]

    @classmethod
    def fresh(cls, num_parts: int) -> "WatchState":
        """That of parts of which nothing has been seen."""
        return cls(((0.0, 0.0),) * num_parts, (None,) * num_parts, ("",) * num_parts, (None,) * num_parts)


@dataclass(frozen=True, eq=False)
class GainWatch:
    """What the watch says of each event, in the order in which they were given.

    Attributes:
        counted: Where the gain of a part was told, and counts, (event, part).
        evidence: Logarithm of the factor after the event, of `SIDES`, as a share of what stops, (event, part, side).
        stopped: Whether the part was stopped when the event came, (event, part).
        since: Event with which the part was stopped, by part; -1 of one that goes on, or was stopped before.
        state: Where the watch stands after them.
    """

    counted: Bool[np.ndarray, "event part"]
    evidence: Float[np.ndarray, "event part side"]
    stopped: Bool[np.ndarray, "event part"]
    since: tuple[int, ...]
    state: WatchState

    @property
    def reason(self) -> tuple[str, ...]:
        """Which of `SIDES` has stopped a part, by part; empty of one that goes on."""
        return self.state.reason

    @classmethod
    def joined(cls, parts: "Sequence[GainWatch]") -> "GainWatch":
        """Those of several batches, each of which went on where the one before it stood."""
        firsts = np.cumsum([0, *(len(part.counted) for part in parts[:-1])]).tolist()
        since = [
            max(-1 if each < 0 else first + each for first, each in zip(firsts, one, strict=True))
            for one in zip(*(part.since for part in parts), strict=True)
        ]
        counted, evidence, stopped = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("counted", "evidence", "stopped")
        )
        return cls(counted, evidence, stopped, tuple(since), parts[-1].state)


def watch_gains(
    found: MeasuredGains,
    spans: Float[np.ndarray, "event 2"],
    reference: GainReference,
    settings: WatchSettings,
    state: WatchState | None = None,
) -> GainWatch:
    """Go through the events in order of time, and stop each part that no longer does what it did.

    An event is judged by those before it alone. Events that overlap with the last one that counted for a part do not
    count: they may hold the same glitch.

    Args:
        found: Gains of the events.
        spans: GPS start and end of each event, s, float64.
        reference: Gains of the validation events.
        settings: When a part is stopped.
        state: Where the watch stood before these events; None: nothing has been seen.
    """
    known = np.array([value is not None for value in reference.gain], dtype=bool)
    gain, counted = found.gain, (found.power >= settings.least_power) & known
    factors = np.zeros((*gain.shape, len(SIDES)))
    for part in np.flatnonzero(known):
        rows = counted[:, part]
        factors[rows, part] = _factors(gain[rows, part], found.variance[rows, part], reference, part, settings)
    evidence, stopped, counts = np.zeros_like(factors), np.zeros_like(counted), np.zeros_like(counted)
    before = WatchState.fresh(gain.shape[1]) if state is None else state
    level, ends = np.array(before.evidence), np.array([-np.inf if end is None else end for end in before.until])
    reason, times, since = list(before.reason), list(before.since), [-1] * gain.shape[1]
    for event in np.lexsort((spans[:, 1], spans[:, 0])):
        stopped[event] = [bool(why) for why in reason]
        counts[event] = counted[event] & (spans[event, 0] >= ends)
        level = np.where(counts[event][:, None], np.maximum(level + factors[event], 0), level)
        ends = np.where(counts[event], spans[event, 1], ends)
        evidence[event] = level
        for part in np.flatnonzero((level.max(axis=1) >= 1) & ~stopped[event]):
            reason[part], since[part] = SIDES[int(level[part].argmax())], int(event)
            times[part] = float(spans[event, 0])
    until = tuple(float(end) if np.isfinite(end) else None for end in ends)
    sides = tuple((float(low), float(high)) for low, high in level)
    after = WatchState(sides, until, tuple(reason), tuple(times))
    return GainWatch(counts, evidence, stopped, tuple(since), after)


def _factors(
    gain: NDArray[np.float64],
    variance: NDArray[np.float64],
    reference: GainReference,
    part: int,
    settings: WatchSettings,
) -> Float[np.ndarray, "event side"]:
    """Logarithms of the factors of events, as shares of what stops a part, none above 1 / `least_events`.

    A gain within the tolerance is ordinary. What lies beyond, in standard deviations of an ordinary event, is brought
    from Student's distribution, for the spread is known from few events, to the normal one.
    """
    mean, error, spread = (float(column[part] or 0.0) for column in (reference.gain, reference.error, reference.spread))
    deviation = np.sqrt(spread**2 + error**2 + variance)
    allowed = settings.tolerance * abs(mean)
    freedom = reference.groups[part] - 1 + _SHARED
    beyond = np.stack([mean - allowed - gain, gain - mean - allowed], axis=-1) / deviation[:, None]
    score = norm.isf(np.clip(t.sf(beyond, freedom), 1e-300, 1 - 1e-16))
    shares = (_SHIFT * score - _SHIFT**2 / 2) / settings.limit(len(reference.parts))
    return np.minimum(shares, 1 / settings.least_events)


def recent_gain(gain: NDArray[np.float64], variance: NDArray[np.float64], spread: float) -> tuple[float, float] | None:
    """Mean of gains with their spread and noise, and its standard deviation; None of no event."""
    if not len(gain):
        return None
    weight = 1 / (spread**2 + variance)
    return float((weight * gain).sum() / weight.sum()), float(1 / math.sqrt(weight.sum()))


def _random_effects(gain: NDArray[np.float64], variance: NDArray[np.float64]) -> tuple[float, float]:
    """Mean, and variance from event to event beyond that by noise, of one part's gains."""

    def _fit(between: float) -> tuple[float, float]:
        weight = 1 / (between + variance)
        mean = float((weight * gain).sum() / weight.sum())
        return mean, float((weight * np.square(gain - mean)).sum()) - (len(gain) - 1)

    low, high = 0.0, float(np.var(gain, ddof=1)) + 1e-12
    if _fit(low)[1] <= 0:
        return _fit(low)[0], low
    while _fit(high)[1] > 0:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _fit(middle)[1] > 0 else (low, middle)
    return _fit(high)[0], high
