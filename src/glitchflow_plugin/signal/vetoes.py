"""Vetoes of a rank along time: runs of columns above a threshold, and the glitches that they shall find."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.verdict import is_vetoed

#: Times below this apart touch, s: the rounding of GPS times in float64 is 2.4e-7 s.
TOUCHING = 1e-6


@dataclass(frozen=True, eq=False)
class Runs:
    """Stretches of time of several events, none of which overlap, in order of event and time; (run,) each.

    Attributes:
        event: Row of the event.
        start: s from its left edge.
        end: s from its left edge.
        first: First column.
        stop: Column after the last.
    """

    event: Int[np.ndarray, " run"]
    start: Float[np.ndarray, " run"]
    end: Float[np.ndarray, " run"]
    first: Int[np.ndarray, " run"]
    stop: Int[np.ndarray, " run"]

    def __len__(self) -> int:
        return len(self.event)

    def loudest(self, energies: Float[np.ndarray, "event time"]) -> Int[np.ndarray, " run"]:
        """The column of each run with the largest energy."""
        limits = zip(self.event, self.first, self.stop, strict=True)
        found = [first + int(energies[event, first:stop].argmax()) for event, first, stop in limits]
        return np.array(found, dtype=np.int64)


def runs_of(flags: Bool[np.ndarray, "event time"], columns: Columns, padding: float = 0.0) -> Runs:
    """Runs of columns that are raised, and `padding` (s) on both sides.

    Runs of one event that touch are one, and none reaches out of its event.
    """
    steps = np.diff(flags.astype(np.int8), axis=1, prepend=0, append=0)
    event, first = np.nonzero(steps == 1)
    stop = np.nonzero(steps == -1)[1]
    start = np.maximum(columns.left[first] - padding, 0.0)
    end = np.minimum(columns.right[stop - 1] + padding, columns.duration)
    new = np.ones(len(event), dtype=bool)
    new[1:] = (event[1:] != event[:-1]) | (start[1:] > end[:-1] + TOUCHING)
    opens = np.flatnonzero(new)
    closes = np.append(opens[1:], len(event)) - 1 if len(opens) else opens
    return Runs(event[opens], start[opens], end[closes], first[opens], stop[closes])


@dataclass(frozen=True, eq=False)
class Glitches:
    """Glitches of several events; (glitch,) each but the last.

    Attributes:
        event: Row of the event.
        time: Middle of the loudest column, s from the event's left edge.
        inside: Columns that belong to a glitch, (event, time).
        snr: Root of the largest energy.
    """

    event: Int[np.ndarray, " glitch"]
    time: Float[np.ndarray, " glitch"]
    inside: Bool[np.ndarray, "event time"]
    snr: Float[np.ndarray, " glitch"]

    def __len__(self) -> int:
        return len(self.event)


def find_glitches(
    measured: Float[np.ndarray, "event time"], threshold: float, columns: Columns, margin: int
) -> Glitches:
    """Glitches in the strain: loud columns no farther apart than `margin` columns on either side belong to one.

    Args:
        measured: Largest measured energy of each column, SNR²; 0 where it is not judged.
        threshold: A column above it is loud, SNR².
        columns: Columns of the maps.
        margin: Columns by which a glitch is widened on either side.
    """
    loud = is_vetoed(measured, threshold)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(loud, ((0, 0), (margin, margin))), 2 * margin + 1, axis=1)
    inside = near.any(axis=-1)
    runs = runs_of(inside, columns)
    loudest = runs.loudest(measured)
    return Glitches(runs.event, columns.centre[loudest], inside, np.sqrt(measured[runs.event, loudest]))
