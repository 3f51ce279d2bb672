"""The gate that a new version passes to become champion: better than it and nothing, no worse than linear, harmless."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.scan import is_unsafe
from glitchflow_plugin.settings import Count, CountOrNone, Fraction, NotNegative, Replicates, section
from glitchflow_plugin.training.mean_interval import group_mean, mean_interval


@section
class GateSettings:
    """What a champion must fulfil; conf/registry.yaml explains the keys."""

    max_harmed: NotNegative = 0.05
    max_added: NotNegative = 0.01
    max_octave: NotNegative = 0.05
    max_event: NotNegative = 0.1
    max_signal_lost: NotNegative = 0.05
    max_snr_change: NotNegative = 0.01
    max_behind_linear: NotNegative = 0.02
    injections: CountOrNone = 12
    confidence: Fraction = 0.95
    min_quiet: Count = 5
    min_groups: Annotated[int, Field(ge=5)] = 50
    replicates: Replicates = 2000
    seed: int = 0
    unsafe: tuple[str, ...] = ()
    safe_override: tuple[str, ...] = ()


HEARD = 8.0
"""SNR from which a search counts a signal as found."""

_ON_EDGE = 0.01
"""Change of the SNR up to which a signal that falls below the threshold was on its edge."""


@dataclass(frozen=True, eq=False)
class Signals:
    """What the matched filter finds of injected signals, before and after cleaning.

    Attributes:
        injected: SNR of each signal alone, (injection,).
        before: SNR found in the strain, (injection,).
        after: SNR found in what is left of it, (injection,).
        near_glitch: Whether it lies across a glitch; the others lie in quiet events, (injection,).
    """

    injected: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    near_glitch: NDArray[np.bool_]

    def figures(self) -> dict[str, float]:
        """Median change in quiet events, median error near glitches before and after, and how many are missed."""
        change, near = np.abs(self.after / self.before - 1), self.near_glitch
        # a glitch lifts a faint signal above the threshold, and once it is gone noise alone decides
        sure = ~near | (self.injected >= HEARD + 3)
        missed = sure & (self.before >= HEARD) & (self.after < HEARD) & (change > _ON_EDGE)
        found = {"signals_missed": float(missed.sum())}
        if not near.all():
            found["signal_snr_change"] = float(np.median(change[~near]))
        if near.any():
            for name, snr in (("before", self.before), ("after", self.after)):
                error = np.abs(snr[near] / self.injected[near] - 1)
                found[f"signal_error_{name}"] = float(np.median(error))
        return found


@dataclass(frozen=True, eq=False)
class Judgement:
    """What one twin did to each event of the gate's part.

    Attributes:
        event: Ids, (event,).
        gps_event: Trigger times, GPS s, (event,).
        group: Number of each event's group; events of one group are no independent cases, (event,).
        loss: (event,).
        zero_loss: Loss of predicting nothing, (event,).
        quiet: Whether the event holds no glitch, (event,).
        harmed: Whether cleaning lifts a quiet event above the glitch threshold, (event,); growth has its own limits.
        added: Energy that cleaning adds to the map, SNR² summed over pixels, (event,).
        measured: Energy measured in it, (event,).
        series_added: Power that cleaning adds to the whitened series, (event, octave); None for a twin of energies.
        series_measured: Power measured in the series, (event, octave); None likewise.
        octave_noise: Power of white noise in each octave, (octave,); None likewise.
        octave_edges: Edges of the octaves, Hz.
        lost: Share of its SNR that each injected signal loses or gains because witnesses hold copies of it,
            (injection,); None if none was injected.
        signals: What is found of injected signals before and after; None likewise, and for a twin of energies.
        not_tested: Why none was injected.
    """

    event: NDArray[Any]
    gps_event: NDArray[np.float64]
    group: NDArray[np.int64]
    loss: NDArray[np.float64]
    zero_loss: NDArray[np.float64]
    quiet: NDArray[np.bool_]
    harmed: NDArray[np.bool_]
    added: NDArray[np.float64]
    measured: NDArray[np.float64]
    series_added: NDArray[np.float64] | None = None
    series_measured: NDArray[np.float64] | None = None
    octave_noise: NDArray[np.float64] | None = None
    octave_edges: tuple[float, ...] = ()
    lost: NDArray[np.float64] | None = None
    signals: Signals | None = None
    not_tested: str = ""

    @classmethod
    def empty(cls) -> "Judgement":
        """The judgement of no event."""
        none = np.zeros(0)
        masks, text = none.astype(bool), none.astype(object)
        return cls(text, none, none.astype(np.int64), none, none, masks, masks, none, none)

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def num_groups(self) -> int:
        """Independent groups of events."""
        return len(np.unique(self.group))

    def select(self, events: NDArray[Any]) -> "Judgement":
        """Some of the events, by a mask or row numbers."""
        by_event = ("event", "gps_event", "group", "loss", "zero_loss", "quiet", "harmed", "added", "measured")
        chosen = {name: getattr(self, name)[events] for name in by_event}
        for name in ("series_added", "series_measured"):
            values = getattr(self, name)
            chosen[name] = None if values is None else values[events]
        return replace(self, **chosen)

    def growth(self) -> NDArray[np.float64]:
        """Share by which the power of each event rises, in series where there are any, else in maps, (event,).

        Of series, as a whole or in any octave, whichever is more: what is taken away in one octave does not pay for
        what is added in another. A rise in an octave is told against the power there, or against that of the noise of
        the whole event if this is more.
        """
        if self.series_added is None or self.series_measured is None or self.octave_noise is None:
            return self.added / self.measured
        whole = self.series_added.sum(axis=1) / self.series_measured.sum(axis=1)
        octaves = self.series_added / np.maximum(self.series_measured, self.octave_noise.sum())
        return np.maximum(whole, octaves.max(axis=1))

    def figures(self) -> dict[str, float]:
        """Mean losses (every group counts as one), and all harm that is defined, by the names of the tags."""
        if not len(self):
            return {}
        found = {
            "gate_loss": float(group_mean(self.loss, self.group)),
            "zero_loss": float(group_mean(self.zero_loss, self.group)),
            "gate_events": float(len(self)),
            "gate_groups": float(self.num_groups),
            "quiet_events": float(self.quiet.sum()),
            "worst_growth": float(self.growth().max()),
        }
        if self.quiet.any():
            found["harmed_share"] = float(self.harmed[self.quiet].mean())
            found["added_power"] = float(self.added[self.quiet].sum() / self.measured[self.quiet].sum())
            if self.series_added is not None and self.series_measured is not None and self.octave_noise is not None:
                added = self.series_added[self.quiet]
                found["added_series"] = float(added.sum() / self.series_measured[self.quiet].sum())
                by_octave = added.mean(axis=0) / self.octave_noise
                worst = int(np.argmax(by_octave))
                found["added_octave"] = float(by_octave[worst])
                found["added_octave_hz"] = self.octave_edges[worst]
        if self.lost is not None and len(self.lost):
            found["signal_lost"] = float(np.median(self.lost))
            found["signal_lost_worst"] = float(self.lost.max())
        return found | (self.signals.figures() if self.signals is not None else {})


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
    linear: Judgement | None = None,
) -> Verdict:
    """Decide whether a challenger becomes champion.

    Args:
        challenger: Judgement of all events of the gate's part, none of which it has seen.
        witnesses: Channels that it uses.
        settings: Limits.
        rivals: Challenger and champion on the events that neither has seen; None if there is no champion yet.
        linear: Judgement of the linear filter that was fitted to the challenger's training events, on the same events
            as the challenger's; None if there is none.

    Returns:
        The verdict: better than no prediction, better than the champion where there is one, no worse than the linear
        filter, and harmless.
    """
    figures = challenger.figures()
    nothing = replace(challenger, loss=challenger.zero_loss)
    found = [_better(challenger, nothing, "zero", settings, figures)]
    if rivals is not None:
        found.append(_better(*rivals, "champion", settings, figures))
    if linear is not None:
        found.append(_better(challenger, linear, "linear", settings, figures))
    harm = _harm(challenger, figures, witnesses, settings)
    reasons = [why for _, why in found] + (harm or ["harmless"])
    if linear is None:
        reasons.append("it brings no linear filter, so whether one does as well was not tested")
    if not settings.injections:
        reasons.append("whether signals stay was not tested (registry.gate.injections: 0)")
    return Verdict(all(good for good, _ in found) and not harm, "; ".join(reasons), figures)


def paired_difference(first: Judgement, second: Judgement, settings: GateSettings) -> tuple[float, float, float]:
    """Mean loss of the first less that of the second on the same events, with its interval; every group counts as one.

    What is hard for both cancels in the difference, and whole groups are drawn; see `mean_interval`.

    Args:
        first: Judgement of one twin.
        second: Judgement of the other, on the same events in the same order.
        settings: Confidence, replicates and seed.

    Returns:
        The difference, and the lower and upper end of its interval.

    Raises:
        ConfigurationError: The events are not the same.
    """
    if not np.array_equal(first.event, second.event):
        raise ConfigurationError("a paired comparison needs the same events in the same order for both twins.")
    drawing = {"confidence": settings.confidence, "replicates": settings.replicates, "seed": settings.seed}
    mean, low, high = mean_interval(first.loss - second.loss, first.group, **drawing)
    return float(mean), float(low), float(high)


#: How each rival is called, what is said of a win and of anything else, and which events count.
_RIVALS = {
    "zero": ("a trivial prediction (nothing, or a constant map)", "less", "less by more than the noise"),
    "champion": ("the champion", "less", "less by more than the noise"),
    "linear": ("its linear filter", "no more", "shown to be no more"),
}


def _better(
    one: Judgement, other: Judgement, name: str, settings: GateSettings, figures: dict[str, float]
) -> tuple[bool, str]:
    """Whether one loses less than the other by more than the noise, and how that is said; figures are added.

    A linear filter may do as well, where the truth is linear: against it, the interval may reach up to a margin.
    """
    prefix = "" if name == "champion" else f"{name}_"
    rival, won, lost = _RIVALS[name]
    figures[f"{prefix}compared_events"] = float(len(one))
    figures[f"{prefix}compared_groups"] = float(one.num_groups)
    if one.num_groups < settings.min_groups:
        lacking = "none" if not len(one) else f"only {one.num_groups} independent groups ({len(one)} events)"
        unseen = "which neither has seen" if name == "champion" else "which it has not seen"
        return False, (
            f"too few events to compare with {rival}: {lacking} in the gate's part {unseen}, at least "
            f"{settings.min_groups} groups are needed. Bring events of more groups, or raise split.gate"
        )
    difference, low, high = paired_difference(one, other, settings)
    figures |= {
        f"{name}_gate_loss": float(group_mean(other.loss, other.group)),
        f"{prefix}loss_difference": difference,
        f"{prefix}loss_difference_low": low,
        f"{prefix}loss_difference_high": high,
    }
    better, margin = high < 0, ""
    if name == "linear":
        allowed = settings.max_behind_linear * float(group_mean(one.zero_loss, one.group))
        better, margin = high <= allowed, f", up to {allowed:.2g} allowed (max_behind_linear)"
    return better, (
        f"loss {group_mean(one.loss, one.group):.6g} is {won if better else f'not {lost}'} than that of {rival} "
        f"({group_mean(other.loss, other.group):.6g}; difference "
        f"{difference:.2g}, {settings.confidence:.0%} interval {low:.2g} to {high:.2g}{margin}, {one.num_groups} "
        f"groups of {len(one)} events)"
    )


def _harm(
    judged: Judgement, figures: Mapping[str, float], witnesses: Sequence[str], settings: GateSettings
) -> list[str]:
    """Why the twin may do harm."""
    unsafe = [
        name for name in witnesses if is_unsafe(name, settings.unsafe) and name not in set(settings.safe_override)
    ]
    found = []
    if unsafe:
        found.append(f"it uses channels that see the strain itself ({', '.join(unsafe)})")
    if not len(judged):
        return found
    growth = judged.growth()
    worst = int(np.argmax(growth))
    if not growth[worst] <= settings.max_event:
        found.append(
            f"it raises the power of event {judged.event[worst]} (GPS {judged.gps_event[worst]:.3f}) by "
            f"{growth[worst]:.2%}, and of {int((growth > settings.max_event).sum())} events by more than "
            f"{settings.max_event:.2%} (max_event)"
        )
    if not judged.quiet.any():
        found.append(
            "the gate's part has no event without a glitch, so harm cannot be told: bring events from quiet times"
        )
        return found
    if judged.quiet.sum() < settings.min_quiet:
        found.append(
            f"the gate's part has only {judged.quiet.sum()} events without a glitch, at least {settings.min_quiet} are "
            "needed to tell harm: bring events from quiet times"
        )
    said = {
        "harmed_share": ("lifts {:.2%} of the quiet events above the glitch threshold", "max_harmed"),
        "added_power": ("adds {:.2%} to the energy of the maps of quiet events", "max_added"),
        "added_series": ("adds {:.2%} to the power of quiet series, 0 Hz to half the sample rate", "max_added"),
        "added_octave": ("adds {:.2%} of white noise's power to quiet series", "max_octave"),
        "signal_lost_worst": ("changes the SNR of an injected merger by {:.2%}", "max_signal_lost"),
        "signal_snr_change": ("changes the SNR of mergers in quiet events by {:.2%} (median)", "max_snr_change"),
    }
    for name, (text, key) in said.items():
        if name not in figures or figures[name] <= getattr(settings, key):
            continue
        where = ""
        if name == "added_octave":
            low = figures["added_octave_hz"]
            high = judged.octave_edges[judged.octave_edges.index(low) + 1]
            where = f" between {low:g} and {high:g} Hz"
        if name == "signal_lost_worst":
            where = f" (median {figures['signal_lost']:.2%}): a witness carries the strain; leave it out"
        found.append(f"it {text.format(figures[name])}{where} (at most {getattr(settings, key):.2%}, {key})")
    found += _harm_to_signals(figures, settings)
    if settings.injections and judged.lost is None:
        found.append(f"whether signals stay could not be tested: {judged.not_tested}")
    return found


def _harm_to_signals(figures: Mapping[str, float], settings: GateSettings) -> list[str]:
    """Whether signals are missed, or found less well across glitches than if nothing were taken away."""
    found = []
    if figures.get("signals_missed", 0.0) > 0:
        found.append(
            f"{figures['signals_missed']:.0f} injected merger(s) that were found with SNR {HEARD:g} are missed after "
            "cleaning (none is allowed)"
        )
    before, after = (figures.get(f"signal_error_{name}", 0.0) for name in ("before", "after"))
    if after > before + settings.max_snr_change:
        found.append(
            f"the SNR of mergers across glitches is wrong by {after:.2%} after cleaning, and by {before:.2%} before "
            f"(at most {settings.max_snr_change:.2%} more, max_snr_change)"
        )
    return found
