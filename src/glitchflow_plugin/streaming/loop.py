"""The closed loop of continuous data: what blocks say of the witnesses, and which are stopped from when on.

Blocks are made in any order, and the loop goes through time. So each block is made with all witnesses, and keeps what
the strain says of them; once all are there the watch goes over that in order of time, and the blocks that lie after a
stop are made again without the witness.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from glitchflow_plugin.inference.closed_loop import WHOLE, ClosedLoop
from glitchflow_plugin.products.folder import SeenGain, Stop
from glitchflow_plugin.signal.gain_watch import GainReference, MeasuredGains, WatchSettings, watch_gains
from glitchflow_plugin.streaming.belief import Stretch
from glitchflow_plugin.streaming.windows import Look, StreamModel, StreamSettings, measure_gains


def seen_gains(
    seen_at: Look, model: StreamModel, stretches: Sequence[Stretch], settings: StreamSettings
) -> tuple[SeenGain, ...]:
    """What the strain says of each witness about some stretches, in the window whose centre is nearest to each.

    Args:
        seen_at: `streaming.windows.look`, of what was prepared.
        model: Twin, recipes and the gains of validation.
        stretches: In which a prediction is believed.
        settings: Stride, and what power tells a gain.
    """
    watched = settings.closed_loop
    if not watched.enabled or model.reference is None or not stretches:
        return ()
    centres = sorted({settings.stride * round(one.peak / settings.stride) for one in stretches})
    found = measure_gains(seen_at, model, centres, watched)
    told = np.argwhere(found.power >= watched.least_power)
    return tuple(
        SeenGain(
            model.reference.parts[part],
            centres[event] - model.duration / 2,
            centres[event] + model.duration / 2,
            *(float(column[event, part]) for column in found),
        )
        for event, part in told
    )


@dataclass(frozen=True, eq=False)
class Watched:
    """What the watch says of a run.

    Attributes:
        stops: Parts that are stopped.
        loop: Gains and evidence, a row for each window that was asked, in order of time.
    """

    stops: tuple[Stop, ...]
    loop: ClosedLoop


def watch(seen: Iterable[SeenGain], reference: GainReference, settings: WatchSettings) -> Watched:
    """Go over what all blocks say of the witnesses, in order of time.

    Args:
        seen: From `seen_gains`, of all blocks.
        reference: Gains of the validation events.
        settings: When a witness is stopped.
    """
    seen = sorted(seen, key=lambda one: one.start)
    row_of = {span: row for row, span in enumerate(dict.fromkeys((one.start, one.stop) for one in seen))}
    shape = len(row_of), len(reference.parts)
    gains = MeasuredGains(np.full(shape, np.nan), np.ones(shape), np.zeros(shape), np.zeros(shape))
    for one in seen:
        for column, value in zip(gains, (one.gain, one.variance, one.power, one.lag), strict=True):
            column[row_of[one.start, one.stop], reference.parts.index(one.part)] = value
    spans = np.array(list(row_of), dtype=np.float64).reshape(-1, 2)
    found = watch_gains(gains, spans, reference, settings)
    stops = tuple(
        Stop(part, float(spans[since, 1]), reason)
        for part, since, reason in zip(reference.parts, found.since, found.reason, strict=True)
        if reason
    )
    return Watched(stops, ClosedLoop(reference, gains, found, reference.parts, settings.least_power))


def left_out(stops: Iterable[Stop], witnesses: Sequence[str]) -> dict[str, float]:
    """By witness the GPS time from which on it is taken as missing, s.

    Args:
        stops: From `watch`.
        witnesses: Witnesses of the model; a prediction that is no sum over them is stopped as a whole.
    """
    since: dict[str, float] = {}
    for one in stops:
        since |= dict.fromkeys(witnesses if one.part == WHOLE else [one.part], one.since)
    return since


def warnings_of(watched: Watched) -> list[str]:
    """For the run summary: what was stopped, and what nobody watches."""
    said = []
    order = np.arange(len(watched.loop.gains.gain))
    parts = watched.loop.reference.parts
    for one in watched.stops:
        found: Mapping[str, Mapping[str, float]] = watched.loop.now(parts.index(one.part), order)
        before, now = found["training"], found["now"]
        said.append(
            f"{one.part} was stopped from GPS {one.since:.3f} on ({one.reason}): the strain follows it with a gain of "
            f"{now['value']:.2f} [{now['low']:.2f}, {now['high']:.2f}] in its latest glitches, in training with "
            f"{before['value']:.2f}. Look at the sensor, or train again."
        )
    unknown = [name for name, mean in zip(parts, watched.loop.reference.gain, strict=True) if mean is None]
    if unknown:
        said.append(f"{', '.join(unknown)}: too few glitches in the model's validation events to watch the gain.")
    return said
