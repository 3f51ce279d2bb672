"""The closed loop: what a twin predicts of each witness is compared with the strain that comes, and may be stopped.

Nothing is fitted to the strain: a stopped witness is left out of later predictions, as one that is missing, and that
is all that the strain can bring about. No event is judged by its own strain, and none stops a witness alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.inference.predict import evaluating, read_series
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.products.summary import Metric
from glitchflow_plugin.signal.agreement import agreed
from glitchflow_plugin.signal.band_power import power_left
from glitchflow_plugin.signal.gain_watch import (
    RECENT,
    SIDES,
    GainReference,
    GainWatch,
    MeasuredGains,
    WatchSettings,
    WatchState,
    recent_gain,
    reference_gains,
    watch_gains,
)
from glitchflow_plugin.signal.witness_gain import measured_gains
from glitchflow_plugin.types.tensors import host

NOTE = "coupling"
"""Name of the reference gains among the notes of a model."""

WHOLE = "all witnesses"
"""Name of the one part of a prediction that is no sum over its witnesses."""


@dataclass(frozen=True, eq=False)
class ClosedLoop:
    """What the loop has found in the events of a set, in their order.

    Attributes:
        reference: Gains of the validation events.
        gains: Those of these events.
        watch: What follows from them.
        witnesses: Witness channels of the model.
        least_power: SNR² that a part must predict for its gain to be told.
        power: Power of the strain by band, before and after cleaning by all witnesses, SNR²; None where only gains were
            measured.
    """

    reference: GainReference
    gains: MeasuredGains
    watch: GainWatch
    witnesses: tuple[str, ...]
    least_power: float
    power: Float[np.ndarray, "event band 2"] | None = None

    @property
    def told(self) -> Bool[np.ndarray, "event part"]:
        """Where a part predicts enough for its gain to be told."""
        return self.gains.power >= self.least_power

    @property
    def keep(self) -> Bool[np.ndarray, "event witness"]:
        """Witnesses that may be used for each event."""
        return np.broadcast_to(~self.watch.stopped, (len(self.watch.stopped), len(self.witnesses)))

    @property
    def stopped(self) -> list[str]:
        """Parts that were stopped, with the reason."""
        names = zip(self.reference.parts, self.watch.reason, strict=True)
        return [f"{name} ({reason})" for name, reason in names if reason]

    def stopped_after(self, part: int, gps_event: Float[np.ndarray, " event"]) -> float | None:
        """GPS time of the event with which a part was stopped, s: of an earlier run, that at which it began."""
        since = self.watch.since[part]
        return float(gps_event[since]) if since >= 0 else self.watch.state.since[part]

    def codes(self) -> list[str]:
        """For each event, the parts that were left out of it, as `name:reason`, with semicolons between them."""
        named = [f"{name}:{reason}" for name, reason in zip(self.reference.parts, self.watch.reason, strict=True)]
        return [";".join(code for code, off in zip(named, row, strict=True) if off) for row in self.watch.stopped]

    def now(self, part: int, order: Int[np.ndarray, " event"]) -> dict[str, Any]:
        """Gain of a part in training and in the latest glitches that count, each with an interval of 95 %."""
        rows = order[self.watch.counted[order, part]][-RECENT:]
        mean, error, spread = (
            column[part] for column in (self.reference.gain, self.reference.error, self.reference.spread)
        )
        found = recent_gain(self.gains.gain[rows, part], self.gains.variance[rows, part], spread or 0.0)
        return {
            "training": None if mean is None or error is None else _interval(mean, error),
            "now": None if found is None else _interval(*found),
            "lag_now": float(np.median(self.gains.lag[rows, part])) if len(rows) else None,
            "glitches": int(self.watch.counted[:, part].sum()),
            "stopped": self.watch.reason[part] or None,
        }


def measure_gains(
    twin: WaveformTwin,
    batches: Iterable[tuple[Tensor, Tensor]],
    sample_rate: float,
    settings: WatchSettings,
    also: Callable[[Tensor, Tensor], None] | None = None,
) -> MeasuredGains:
    """Gains of the parts of a twin's prediction, some events at a time, on its device.

    Args:
        twin: Runs in evaluation mode and is put back into the mode it was in.
        batches: Whitened witnesses (event, witness, time) and strain (event, 1, time), of zeros where there is none.
        sample_rate: Hz.
        settings: How far a part is moved.
        also: Is handed strain and prediction, (event, time).
    """
    device, found = twin.variance_noise.device, []
    for witnesses, strain in batches:
        measured = strain.to(device)[:, 0]
        with evaluating(twin), torch.no_grad():
            parts = twin.contributions(witnesses.to(device))
        found.append(measured_gains(measured, parts, sample_rate, settings.longest_lag))
        if also is not None:
            also(measured, parts.sum(dim=1))
    return MeasuredGains.joined(found)


def reference_of(
    witnesses: Sequence[str], gains: MeasuredGains, groups: Int[np.ndarray, " event"], settings: WatchSettings
) -> GainReference:
    """What is kept of the gains of validation events; `groups` are the numbers of their groups."""
    parts = tuple(witnesses) if gains.gain.shape[1] == len(witnesses) else (WHOLE,)
    return reference_gains(parts, gains, groups, settings)


class LoopInTime:
    """Watches gains as events come, in order of time, some at a time.

    Args:
        reference: Gains of the validation events.
        witnesses: Witness channels of the model.
        settings: When a witness is stopped.
        state: Where the watch stood before; None: nothing has been seen.
    """

    def __init__(
        self,
        reference: GainReference,
        witnesses: tuple[str, ...],
        settings: WatchSettings,
        state: WatchState | None = None,
    ) -> None:
        self.reference, self.witnesses, self.settings, self.state = reference, witnesses, settings, state
        self._gains: list[MeasuredGains] = []
        self._watches: list[GainWatch] = []

    def follow(self, gains: MeasuredGains, spans: Float[np.ndarray, "event 2"]) -> Bool[np.ndarray, "event witness"]:
        """Witnesses that may be used for each of the next events.

        Args:
            gains: Gains in a prediction by all witnesses.
            spans: GPS start and end of each event, s.
        """
        watch = watch_gains(gains, spans, self.reference, self.settings, self.state)
        self.state = watch.state
        self._gains.append(gains)
        self._watches.append(watch)
        return np.broadcast_to(~watch.stopped, (len(watch.stopped), len(self.witnesses)))

    def closed(self) -> ClosedLoop:
        """What was found in all of them."""
        gains, watch = MeasuredGains.joined(self._gains), GainWatch.joined(self._watches)
        return ClosedLoop(self.reference, gains, watch, self.witnesses, self.settings.least_power)


def begin_loop(
    bundle: ModelBundle,
    spectrograms: SpectrogramSet,
    events: EventSet | None,
    settings: WatchSettings,
    *,
    state: WatchState | None = None,
) -> LoopInTime | None:
    """The loop of a model before the events that come; arguments and None as for `close_loop`."""
    content = bundle.notes.get(NOTE)
    comparable = bundle.representation == "waveform" and events is not None and bundle.target in spectrograms.channels
    if not settings.enabled or not comparable or content is None:
        return None
    return LoopInTime(GainReference.from_dict(content), bundle.witnesses, settings, state)


def close_loop(
    bundle: ModelBundle,
    spectrograms: SpectrogramSet,
    events: EventSet | None,
    settings: WatchSettings,
    *,
    state: WatchState | None = None,
    device: torch.device | str = "cpu",
    batch_events: int = 16,
) -> ClosedLoop | None:
    """Watch the gains of a model's witnesses through a set of events, in order of time.

    The gains are those of the prediction by all witnesses, those that are stopped included, so that one sees whether
    they come back.

    Args:
        bundle: The model.
        spectrograms: Maps of the events, whose rows and valid witnesses count.
        events: The event set that they were made of.
        settings: When a witness is stopped.
        state: Where the watch stood before these events; None: nothing has been seen.
        device: Where to compute.
        batch_events: Events in memory at a time.

    Returns:
        None where it is turned off, and where there is nothing to compare: no strain, no series (models of energies),
        or no reference (models that earlier versions have registered).
    """
    loop = begin_loop(bundle, spectrograms, events, settings, state=state)
    if loop is None or events is None:
        return None
    twin, rate = cast("WaveformTwin", bundle.twin.to(device)), events.sample_rate
    power: list[Float[np.ndarray, "event band 2"]] = []

    def look(strain: Tensor, predicted: Tensor) -> None:
        power.append(host(power_left(strain, agreed(predicted, strain), rate)))

    gains = measure_gains(twin, _series(bundle, spectrograms, events, batch_events), rate, settings, look)
    loop.follow(gains, event_spans(spectrograms, events.duration))
    return replace(loop.closed(), power=np.concatenate(power))


def event_spans(spectrograms: SpectrogramSet, duration: float) -> Float[np.ndarray, "event 2"]:
    """GPS start and end of the events of a set, of so many seconds each, s."""
    return np.stack([spectrograms.gps_start, spectrograms.gps_start + duration], axis=1)


def _series(
    bundle: ModelBundle, spectrograms: SpectrogramSet, events: EventSet, batch_events: int
) -> Iterable[tuple[Tensor, Tensor]]:
    """Witnesses and strain of the events of a set, zero where not valid."""
    names = bundle.channels
    valid = spectrograms.valid[:, spectrograms.channel_rows(names)]
    for first in range(0, len(spectrograms), batch_events):
        rows = slice(first, first + batch_events)
        read = read_series(events, spectrograms.event_ids[rows], spectrograms.gps_start[rows], names)
        series = torch.from_numpy(read.series * (read.valid & valid[rows])[..., None]).float()
        yield series[:, 1:], series[:, :1]


def gain_table(loop: ClosedLoop, spectrograms: SpectrogramSet) -> pd.DataFrame:
    """One row for each event and part that says something of its gain, in order of time."""
    told = loop.watch.counted
    event, part = np.nonzero(told)
    evidence = loop.watch.evidence[event, part]
    table = pd.DataFrame(
        {
            "event_id": np.asarray(spectrograms.event_ids, dtype=object)[event],
            "gps_event": spectrograms.gps_event[event],
            "witness": np.asarray(loop.reference.parts, dtype=object)[part],
            "gain": loop.gains.gain[event, part],
            "gain_error": np.sqrt(loop.gains.variance[event, part]),
            "power_snr2": loop.gains.power[event, part],
            "lag": loop.gains.lag[event, part],
            **{f"evidence_{side}": evidence[:, number] for number, side in enumerate(SIDES)},
            "stopped": loop.watch.stopped[event, part],
        }
    )
    return table.sort_values(["gps_event", "witness"], kind="stable", ignore_index=True)


def loop_details(loop: ClosedLoop, spectrograms: SpectrogramSet) -> dict[str, Any]:
    """By part, its gain in training and now, and when it was stopped; for summary.json."""
    order = np.argsort(spectrograms.gps_start, kind="stable")
    details = {}
    for part, name in enumerate(loop.reference.parts):
        details[name] = {**loop.now(part, order), "stopped_after": loop.stopped_after(part, spectrograms.gps_event)}
    return details


def loop_metrics(loop: ClosedLoop | None) -> dict[str, Metric]:
    """For the run summary."""
    return {} if loop is None else {"witnesses_stopped": Metric(float(len(loop.stopped)))}


def loop_warnings(loop: ClosedLoop | None, spectrograms: SpectrogramSet) -> list[str]:
    """For the run summary: what was stopped, and what nobody watches."""
    if loop is None:
        return []
    said = []
    for name, found in loop_details(loop, spectrograms).items():
        if found["stopped"]:
            before, now = found["training"], found["now"]
            said.append(
                f"{name} was stopped after GPS {found['stopped_after']:.3f} ({found['stopped']}): the strain "
                f"follows it with a gain of {now['value']:.2f} [{now['low']:.2f}, {now['high']:.2f}] in its latest "
                f"glitches, in training with {before['value']:.2f}. Look at the sensor, or train again."
            )
    unknown = [name for name, mean in zip(loop.reference.parts, loop.reference.gain, strict=True) if mean is None]
    if unknown:
        said.append(f"{', '.join(unknown)}: too few glitches in the model's validation events to watch the gain.")
    return said


def _interval(value: float, error: float) -> dict[str, float]:
    return {"value": value, "low": value - 1.96 * error, "high": value + 1.96 * error}
