"""The gate that a new version passes before it becomes champion: better by more than the noise, and harmless."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.scan import is_unsafe
from glitchflow_plugin.training.evaluation import WindowResults


@dataclass(frozen=True)
class GateSettings:
    """What a champion must fulfil.

    Attributes:
        max_harmed: Largest share of the glitch-free windows that are above the glitch threshold after cleaning.
        max_added: Largest energy that cleaning adds to glitch-free windows, relative to the energy measured in them.
        confidence: Probability inside the interval of the difference in loss, which must lie below 0 as a whole.
        min_events: Fewer events cannot tell an interval from noise: then nothing is promoted over a champion.
        replicates: Bootstrap replicates.
        seed: Of the bootstrap.
        unsafe: Channels that see the strain itself, names or glob patterns. A twin that uses one is never promoted.
        safe_override: Exceptions, by their whole names.
    """

    max_harmed: float = 0.05
    max_added: float = 0.01
    confidence: float = 0.95
    min_events: int = 8
    replicates: int = 2000
    seed: int = 0
    unsafe: Sequence[str] = ()
    safe_override: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot decide."""
        if self.max_harmed < 0 or self.max_added < 0 or not 0 < self.confidence < 1:
            message = (
                "registry.gate: expected max_harmed and max_added of at least 0 and 0 < confidence < 1, got "
                f"{self.max_harmed}, {self.max_added}, {self.confidence}."
            )
            raise ConfigurationError(message)
        if self.min_events < 2 or self.replicates < 100:
            message = (
                "registry.gate: expected min_events of at least 2 and replicates of at least 100, got "
                f"{self.min_events}, {self.replicates}."
            )
            raise ConfigurationError(message)
        for key in ("unsafe", "safe_override"):
            if isinstance(getattr(self, key), str):
                raise ConfigurationError(f"registry.gate.{key}: expected a list of channels, got one text.")


@dataclass(frozen=True, eq=False)
class Judgement:
    """What one twin did on each window of a fixed set.

    Attributes:
        event: Id of each window's event, (window,).
        loss: (window,).
        quiet: Whether the window holds no glitch, (window,).
        harmed: Whether a quiet window is above the glitch threshold after cleaning, (window,).
        added: Energy that cleaning adds on the whole, SNR² summed over pixels, (window,); 0 where it takes some away.
        measured: Energy measured, SNR² summed over pixels, (window,).
    """

    event: NDArray[Any]
    loss: NDArray[np.float64]
    quiet: NDArray[np.bool_]
    harmed: NDArray[np.bool_]
    added: NDArray[np.float64]
    measured: NDArray[np.float64]

    @classmethod
    def of(cls, results: WindowResults | None, event_ids: Sequence[str] | NDArray[Any]) -> "Judgement":
        """Take what `judge_windows` found.

        Args:
            results: Of all windows in order; None if there is no window.
            event_ids: Event of each window.

        Raises:
            ConfigurationError: The results hold sums only, or of another number of windows.
        """
        if results is None:
            none = np.zeros(0)
            return cls(np.zeros(0, dtype=str), none, none.astype(bool), none.astype(bool), none, none)
        known = (results.losses, results.added, results.measured)
        if any(values is None or len(values) != len(event_ids) for values in known):
            raise ConfigurationError("the gate needs a loss, an added and a measured energy for each window.")
        statistics = results.statistics
        quiet = statistics.peak_measured <= statistics.glitch_threshold
        harmed = quiet & (statistics.peak_cleaned > statistics.glitch_threshold)
        losses, added, measured = (np.asarray(values, dtype=np.float64) for values in known)
        return cls(np.asarray(event_ids), losses, quiet, harmed, added, measured)

    def __len__(self) -> int:
        return len(self.loss)

    def figures(self) -> dict[str, float]:
        """Mean loss, and the harm on windows without a glitch where there are any."""
        if not len(self):
            return {}
        found = {"validation_loss": float(self.loss.mean())}
        if self.quiet.any():
            found["harmed_share"] = float(self.harmed[self.quiet].mean())
            found["added_power"] = float(self.added[self.quiet].sum() / self.measured[self.quiet].sum())
        return found


@dataclass(frozen=True)
class Verdict:
    """What the gate decided.

    Attributes:
        promoted: Whether the challenger becomes champion.
        reason: Why, or why not, in words.
        figures: What the decision rests on, by name.
    """

    promoted: bool
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


def decide(
    challenger: Judgement,
    witnesses: Sequence[str],
    settings: GateSettings,
    rivals: tuple[Judgement, Judgement] | None = None,
) -> Verdict:
    """Decide whether a challenger becomes champion.

    Args:
        challenger: On the whole validation set, none of which it was trained on.
        witnesses: Channels that it uses.
        settings: Limits.
        rivals: Challenger and champion on the windows that neither was trained on; None if there is no champion yet.

    Returns:
        The verdict. Harm is asked first; then, with a champion, the difference in loss.
    """
    figures = challenger.figures()
    harm = _harm(figures, witnesses, settings)
    if rivals is None:
        reason = f"the first one, but {harm}" if harm else "the first one, and harmless"
        return Verdict(harm is None, reason, figures)
    one, other = rivals
    events = len(set(one.event.tolist()))
    figures["compared_events"] = float(events)
    better, reason = False, ""
    if not events:
        reason = "it was trained on all of these validation events, so nothing is left to compare on"
    elif events < settings.min_events:
        reason = (
            f"only {events} validation events that neither was trained on: at least {settings.min_events} are needed"
        )
    else:
        difference, low, high = paired_difference(one, other, settings)
        figures |= {
            "validation_loss": float(one.loss.mean()),
            "champion_validation_loss": float(other.loss.mean()),
            "loss_difference": difference,
            "loss_difference_low": low,
            "loss_difference_high": high,
        }
        better = high < 0
        said = "is less" if better else "is not less by more than the noise"
        reason = (
            f"validation loss {one.loss.mean():.6g} {said} (champion {other.loss.mean():.6g}, difference "
            f"{difference:.2g}, {settings.confidence:.0%} interval {low:.2g} to {high:.2g}, {events} events that "
            "neither was trained on)"
        )
    if harm:
        reason = f"{reason}; {harm}"
    return Verdict(better and harm is None, reason, figures)


def paired_difference(first: Judgement, second: Judgement, settings: GateSettings) -> tuple[float, float, float]:
    """Mean loss of the first less that of the second on the same windows, with its interval.

    The bootstrap draws whole events, since windows of one event share its noise and its glitch, and takes the loss of
    both twins from the same draw, so that what is hard for both cancels (B. Efron, R. Tibshirani, An Introduction to
    the Bootstrap, 1993, doi:10.1201/9780429246593).

    Args:
        first: Of one twin.
        second: Of the other, on the same windows in the same order.
        settings: Confidence, replicates and seed.

    Returns:
        The difference, and the lower and upper end of its interval.

    Raises:
        ConfigurationError: The windows are not the same.
    """
    if not np.array_equal(first.event, second.event):
        raise ConfigurationError("a paired comparison needs the same windows in the same order for both twins.")
    difference = first.loss - second.loss
    _, place = np.unique(first.event, return_inverse=True)
    sums, counts = np.bincount(place, weights=difference), np.bincount(place)
    generator = np.random.default_rng(settings.seed)
    drawn = np.empty(settings.replicates)
    for start in range(0, settings.replicates, 100):
        rows = min(100, settings.replicates - start)
        weights = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=rows)
        drawn[start : start + rows] = (weights @ sums) / (weights @ counts)
    outside = (1 - settings.confidence) / 2
    low, high = np.quantile(drawn, [outside, 1 - outside])
    return float(difference.mean()), float(low), float(high)


def _harm(figures: Mapping[str, float], witnesses: Sequence[str], settings: GateSettings) -> str | None:
    """Why the twin may do harm; None if it may not."""
    unsafe = [
        name for name in witnesses if is_unsafe(name, settings.unsafe) and name not in set(settings.safe_override)
    ]
    found = []
    if unsafe:
        found.append(f"it uses channels that see the strain itself ({', '.join(unsafe)})")
    if "harmed_share" not in figures:
        found.append("validation has no glitch-free window, so harm cannot be told")
        return "; ".join(found)
    if figures["harmed_share"] > settings.max_harmed:
        found.append(
            f"it harms {figures['harmed_share']:.2%} of the glitch-free windows (at most {settings.max_harmed:.2%})"
        )
    if figures["added_power"] > settings.max_added:
        found.append(
            f"it adds {figures['added_power']:.2%} to the energy of glitch-free windows (at most "
            f"{settings.max_added:.2%})"
        )
    return "; ".join(found) or None
