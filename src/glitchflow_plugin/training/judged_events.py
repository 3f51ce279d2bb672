"""What twins do to whole events of the gate's part, with the `Predictor` that inference uses, and what follows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from glitchflow_plugin.data.groups import group_numbers
from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.inference.predict import Prediction, make_predictor, predict_maps, predict_strain
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.preprocessing.channel_recipe import channel_recipe
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.qtransform import QTransformSettings, q_transform, q_transform_relative
from glitchflow_plugin.signal.relation import Relation, measure_relation
from glitchflow_plugin.training.evaluation import pixels_inside
from glitchflow_plugin.training.gate import GateSettings, Judgement, Signals, Verdict, decide
from glitchflow_plugin.training.harm import added_by_octave, octave_edges
from glitchflow_plugin.training.mean_interval import group_mean
from glitchflow_plugin.training.seen import SeenEvents, contents
from glitchflow_plugin.training.signals import (
    at_peaks,
    found_snr,
    lost_energy,
    lost_share,
    spread_over,
    whitened_mergers,
)
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.verdict import GLITCH_THRESHOLD, above, is_lifted, is_quiet

#: How far from its time a signal may be found, s, as searches ask of detectors.
_REACH = 0.05
#: Over which the power of a glitch is averaged to tell its time, s.
_GLITCH_LENGTH = 0.1
#: Quiet events by which the witnesses' relation to the strain is measured, at most.
_MOST_QUIET = 64
_NO_RIVAL = "If it shall be replaced all the same: glitchflow models promote."


EventLosses = Callable[[Prediction, Float[Tensor, "frequency time"]], tuple[Tensor, Tensor]]
"""`Learner.event_losses`."""


@dataclass(frozen=True, eq=False)
class Gate:
    """Judges a new version on the events that neither its training nor its choice has seen.

    Attributes:
        training_set: Says which events are the gate's.
        events: The event set that the maps were made of; None if it is not at hand.
        losses: Losses of whole events, `Learner.event_losses`.
        challenger: The new version.
        settings: Limits.
        device: Where to compute.
        threshold: SNR² above which an event holds a glitch.
        batch_events: Events in memory at a time.
    """

    training_set: TrainingSet
    events: EventSet | None
    losses: EventLosses
    challenger: ModelBundle
    settings: GateSettings
    device: torch.device
    threshold: float = GLITCH_THRESHOLD
    batch_events: int = 16

    def decide(self, champion: ModelBundle | None = None) -> Verdict:
        """Decide whether the new version becomes champion.

        Args:
            champion: The present one; None if there is none.
        """
        own, linear = self._own, self._linear
        if champion is None:
            return decide(own, self.challenger.witnesses, self.settings, linear=linear)
        seen = SeenEvents.from_notes(champion.notes)
        if seen is None:
            first = decide(own, self.challenger.witnesses, self.settings, linear=linear)
            why = f"the champion does not say which events it has seen, so no comparison is fair. {_NO_RIVAL}"
            return Verdict(False, f"{why}; {first.reason}", first.figures)
        fresh = ~self._seen(seen)
        rivals = own.select(fresh[self._unseen]), self._judged(champion, self._rows[self._unseen & fresh])
        verdict = decide(own, self.challenger.witnesses, self.settings, rivals, linear)
        if seen.told:
            return verdict
        warning = "the champion says when its data were but not what they hold: copies at other times are not found"
        return Verdict(verdict.promoted, f"{verdict.reason}; {warning}", verdict.figures)

    @cached_property
    def _maps(self) -> SpectrogramSet:
        return self.training_set.open_spectrograms()

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """Rows of the gate's events in the maps, where the strain is valid."""
        maps, wanted = self._maps, set(self.training_set.split.gate.event_ids)
        return np.array(
            [row for row, name in enumerate(maps.event_ids) if name in wanted and maps.valid[row, 0]], dtype=np.int64
        )

    @cached_property
    def _contents(self) -> list[str]:
        maps = self._maps
        return contents(maps, [maps.event_ids[row] for row in self._rows])

    def _seen(self, seen: SeenEvents) -> NDArray[np.bool_]:
        maps = self._maps
        starts = maps.gps_start[self._rows]
        return seen.among(starts, starts + Columns(maps.times).duration, self._contents)

    @cached_property
    def _unseen(self) -> NDArray[np.bool_]:
        """Which of the gate's events the challenger has not seen: a copy may stand in its training."""
        seen = SeenEvents.from_notes(self.challenger.notes)
        # a trained version says so itself; to find it out takes all of its maps
        if seen is None or not seen.told:
            seen = SeenEvents.of(self.training_set.split, self._maps)
        return ~self._seen(seen)

    @cached_property
    def _own(self) -> Judgement:
        judged = self._judged(self.challenger, self._rows[self._unseen])
        if not self.settings.injections or not judged.quiet.any():
            return judged
        return self._with_signals(judged)

    @cached_property
    def _linear(self) -> Judgement | None:
        """What the challenger's linear rival does to the same events; None if it brings none."""
        rival = self.challenger.baseline
        if rival is None:
            return None
        return self._judged(replace(self.challenger, twin=rival), self._rows[self._unseen])

    @cached_property
    def _inside(self) -> Bool[Tensor, "frequency time"]:
        """Pixels that tell of their own time."""
        return torch.from_numpy(pixels_inside(self._maps)).to(self.device)

    def _judged(self, bundle: ModelBundle, rows: NDArray[np.int64]) -> Judgement:
        """What a bundle does to some events of the set."""
        maps, split = self._maps, self.training_set.split
        twin = bundle.twin.to(self.device).eval()
        # the twin itself is judged: that the strain may refuse what it says excuses nothing
        predictor = make_predictor(bundle, twin, self.events, agree=False)
        parts: list[dict[str, NDArray[Any]]] = []
        for first in range(0, len(rows), self.batch_events):
            chosen = rows[first : first + self.batch_events]
            batch = maps.read(chosen, channels=[bundle.target, *bundle.witnesses])
            with torch.no_grad():
                parts.append(self._figures(predictor(batch)))
        if not parts:
            return Judgement.empty()
        found: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        trivial = found.pop("trivial")
        labels = dict(zip(split.gate.event_ids, split.gate.group, strict=True))
        ids = [maps.event_ids[row] for row in rows]
        groups = group_numbers([labels[name] for name in ids], maps.gps_event[rows], split.block_length)
        best = int(np.argmin(group_mean(trivial, groups)))
        rate = self.events.sample_rate if "series_added" in found and self.events else 0.0
        return Judgement(
            event=np.array(ids, dtype=object),
            gps_event=maps.gps_event[rows],
            group=groups,
            zero_loss=trivial[:, best],
            octave_noise=found.pop("octave_noise")[0] if rate else None,
            octave_edges=octave_edges(rate) if rate else (),
            **found,
        )

    def _figures(self, said: Prediction) -> dict[str, NDArray[Any]]:
        """What a prediction does to each event of a batch."""
        inside = self._inside
        measured, cleaned = ((each * inside).clamp(min=0) for each in (said.measured, said.cleaned))
        loss, trivial = self.losses(said, inside.to(said.measured))
        quiet = is_quiet(measured.amax(dim=(1, 2)), self.threshold)
        found = {
            "loss": loss.double(),
            "trivial": trivial.double(),
            "quiet": quiet,
            "harmed": is_lifted(quiet, above(cleaned.amax(dim=(1, 2)), self.threshold)),
            "added": (cleaned - measured).double().sum(dim=(1, 2)),
            "measured": measured.double().sum(dim=(1, 2)),
        }
        figures: dict[str, NDArray[Any]] = {name: host(values) for name, values in found.items()}
        if said.strain is not None and said.measured_strain is not None and self.events is not None:
            rate = self.events.sample_rate
            figures["series_added"], figures["series_measured"], noise = added_by_octave(
                said.measured_strain, said.strain, rate
            )
            figures["octave_noise"] = np.repeat(noise[None], len(loss), axis=0)
        return figures

    def _with_signals(self, judged: Judgement) -> Judgement:
        """The judgement with what injected mergers lose."""
        events = self.events
        if events is None or events.manifest.units != "whitened":
            why = (
                "the whitened event set that the maps were made of is not at hand. Give the Trainer `events`, or "
                "switch the test off with registry.gate.injections: 0"
            )
            return replace(judged, not_tested=why)
        quiet = judged.event[judged.quiet].tolist()
        strain, witnesses = self._repeated(quiet)
        known = self._telling([*quiet, *self._quiet_validation()], _MOST_QUIET)
        relation = measure_relation(*self._series(known), events.sample_rate)
        signals = torch.from_numpy(self._mergers(events)).to(strain)
        copies = self._copies(relation, signals, witnesses)
        judged = replace(judged, lost=self._lost(strain, witnesses, signals, copies))
        if self.challenger.representation != "waveform":
            return judged
        found = [self._found(strain, witnesses + copies, signals)]
        loud = judged.event[~judged.quiet].tolist()
        if loud:
            strain, witnesses = self._repeated(loud)
            across = at_peaks(signals, strain, round(_GLITCH_LENGTH * events.sample_rate))
            found.append(self._found(strain, witnesses + self._copies(relation, across, witnesses), across))
        near = np.repeat(np.arange(len(found)) > 0, self.settings.injections)
        return replace(judged, signals=Signals(*np.concatenate(found, axis=1), near_glitch=near))

    def _repeated(self, event_ids: list[str]) -> tuple[Tensor, Tensor]:
        """Strain and witnesses of one of the events for each injection; of few events each takes several."""
        chosen = self._telling(event_ids, self.settings.injections)
        places = torch.arange(self.settings.injections) % len(chosen)
        strain, witnesses = self._series(chosen)
        return strain[places], witnesses[places]

    def _copies(self, relation: Relation, signals: Tensor, witnesses: Tensor) -> Tensor:
        """What the witnesses hold of signals; nothing where they are missing, or known to be safe."""
        copies = relation.copies(signals) * (witnesses.abs().amax(dim=-1, keepdim=True) > 0)
        exempt = [row for row, name in enumerate(self.challenger.witnesses) if name in set(self.settings.safe_override)]
        copies[:, exempt] = 0
        return copies

    def _telling(self, event_ids: list[str], number: int) -> list[str]:
        """Some of the events, in each of which as many witnesses speak as can be that have said least so far."""
        events, maps, witnesses = self.events, self._maps, self.challenger.witnesses
        assert events is not None  # noqa: S101  # asked before
        rows = [events.row_of[name] for name in event_ids]
        there = events.valid[rows][:, events.channel_rows(witnesses)]
        there &= maps.valid[[maps.row_of[name] for name in event_ids]][:, maps.channel_rows(witnesses)]
        return [event_ids[row] for row in spread_over(there, number)]

    def _series(self, event_ids: list[str]) -> tuple[Tensor, Tensor]:
        """Whitened strain (event, time) and the challenger's witnesses (event, witness, time), zero where missing."""
        events, maps = self.events, self._maps
        assert events is not None  # noqa: S101  # asked before
        names = [self.challenger.target, *self.challenger.witnesses]
        read = events.read([events.row_of[name] for name in event_ids], names)
        known = maps.valid[[maps.row_of[name] for name in event_ids]][:, maps.channel_rows(names)]
        series = torch.from_numpy(np.asarray(read.series * (read.valid & known)[..., None], dtype=np.float32))
        return series[:, 0], series[:, 1:]

    def _quiet_validation(self) -> list[str]:
        """Validation events without a glitch."""
        glitch = self.training_set.part("validation").groupby("event_id", sort=False)["glitch"].any()
        return [str(name) for name in glitch.index[~glitch.to_numpy(dtype=bool)]]

    def _mergers(self, events: EventSet) -> Float[np.ndarray, "injection time"]:
        known: dict[str, Any] = {"detector": self.challenger.target.partition(":")[0]}
        if self.challenger.target in (events.recipe.get("channels") or {}):
            recipe = channel_recipe(self.challenger.target, events.recipe)
            conditioning = recipe.settings
            known |= {
                "psd": recipe.psd,
                "band": (conditioning.low, min(conditioning.high, 0.45 * events.sample_rate)),
                "filter_length": conditioning.whitening.filter_length,
            }
        return whitened_mergers(
            self.settings.injections, events.num_samples, events.sample_rate, seed=self.settings.seed, **known
        )

    def _lost(self, strain: Tensor, witnesses: Tensor, signals: Tensor, copies: Tensor) -> NDArray[np.float64]:
        """Share of each signal's SNR that cleaning changes, a few events at a time."""
        bundle, parts = self.challenger, []
        twin = bundle.twin.to(self.device).eval()
        for rows in torch.arange(len(strain)).split(self.batch_events):
            own, other, signal, copy = (each[rows].to(self.device) for each in (strain, witnesses, signals, copies))
            if bundle.representation == "waveform":
                taken = predict_strain(twin, other + copy)[0] - predict_strain(twin, other)[0]
                parts.append(lost_share(signal, taken))
                continue
            events = self.events
            assert events is not None  # noqa: S101  # asked before
            rate = events.sample_rate
            transform = QTransformSettings.from_recipe(Recipe.from_dict(bundle.recipe).part("qtransform"))
            before, injected = (q_transform_relative(each, own, rate, transform) for each in (own, own + signal))
            present = (other.abs().amax(dim=-1) > 0)[..., None, None]
            heard = (torch.where(present, q_transform(each, rate, transform), 0.0) for each in (other, other + copy))
            without, with_it = (predict_maps(twin, each, size=bundle.window_size) for each in heard)
            alone = q_transform_relative(signal, own, rate, transform)
            parts.append(lost_energy(alone * self._inside, injected - before, with_it - without))
        return np.concatenate(parts)

    def _found(self, strain: Tensor, witnesses: Tensor, signals: Tensor) -> Float[np.ndarray, "3 injection"]:
        """SNR of each signal alone, and what is found of it in the strain before and after cleaning."""
        events, twin = self.events, self.challenger.twin.to(self.device).eval()
        assert events is not None  # noqa: S101  # asked before
        reach, parts = round(_REACH * events.sample_rate), []
        for rows in torch.arange(len(strain)).split(self.batch_events):
            own, other, signal = (each[rows].to(self.device) for each in (strain, witnesses, signals))
            clean = own + signal - predict_strain(twin, other)[0]
            parts.append([found_snr(signal, each, reach) for each in (signal, own + signal, clean)])
        return np.concatenate(parts, axis=1)


def gate_notes(training_set: TrainingSet) -> Mapping[str, Any]:
    """What a bundle says of the events that it has seen."""
    return SeenEvents.of(training_set.split, training_set.open_spectrograms()).to_notes()
