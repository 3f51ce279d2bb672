"""What cleaning leaves of the power of glitches, by time, band, class, and witness; and whether it grows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.inference.closed_loop import ClosedLoop
from glitchflow_plugin.signal.band_power import EDGES
from glitchflow_plugin.signal.residual_watch import (
    FEWEST_QUIET,
    Noise,
    ResidualReference,
    ResidualReport,
    ResidualSettings,
    by_kind,
    compare_residuals,
    residual_reference,
    shares_left,
)

NOTE = "residual"
"""Name of what was left of validation events among the notes of a model."""

NOBODY = "none"
"""Stands for the witness of a glitch of which nothing is predicted."""

#: Periods of equal length into which a run is divided, at most, and events that one holds on average, at least.
_PERIODS, _EVENTS = 8, 20
#: All bands together, then each.
_BANDS = (
    (EDGES[0], EDGES[-1], slice(None)),
    *((low, high, slice(row, row + 1)) for row, (low, high) in enumerate(pairwise(EDGES))),
)


def residual_table(
    events: pd.DataFrame,
    power: Float[np.ndarray, "event band 2"],
    loop: ClosedLoop | None,
    classes: Mapping[str, str],
) -> pd.DataFrame:
    """Mean power of glitches before and after cleaning, one row for each period, kind of glitch and band.

    A glitch belongs to the witness that predicts most of it, or to `none`. What is noise is known from quiet events.

    Args:
        events: Table by event.
        power: Power of each event by band, before and after cleaning, SNR².
        loop: Tells the witness; None where there is no loop.
        classes: Class of the glitch by event id, where known.

    Returns:
        Table in which `left` is the share of the power above the noise that is left: empty where fewer than five
        events are quiet, or there is no such power.
    """
    glitch = events["glitch"].fillna(value=False).to_numpy(dtype=bool)
    quiet = events["glitch"].notna().to_numpy(dtype=bool) & ~glitch
    silence = power[quiet, :, 0] if quiet.sum() >= FEWEST_QUIET else np.full((1, power.shape[1]), np.nan)
    edges, period = _periods(events["gps_event"].to_numpy(dtype=np.float64))
    rows = []
    for kind, names in _names(events, loop, classes).items():
        for name in sorted(set(names[glitch])):
            for number, (start, end) in enumerate(pairwise(edges)):
                here = glitch & (names == name) & (period == number)
                for low, high, band in _BANDS if here.any() else ():
                    before, after = power[here][:, band].sum(axis=1).mean(axis=0)
                    left = _left(before, after, silence[:, band].sum(axis=1), int(here.sum()))
                    rows.append((start, end, kind, name, low, high, int(here.sum()), before, after, *left))
    return pd.DataFrame(rows, columns=list(RESIDUAL_COLUMNS)).astype(dict(RESIDUAL_COLUMNS))


RESIDUAL_COLUMNS: Mapping[str, str] = {
    "gps_start": "float64",
    "gps_end": "float64",
    "kind": "string",
    "name": "string",
    "frequency_low": "float64",
    "frequency_high": "float64",
    "glitches": "int64",
    "power_before": "float64",
    "power_after": "float64",
    "noise": "float64",
    "left": "float64",
    "left_error": "float64",
}
"""Columns of the table of residual power with their pandas types."""


def _left(before: float, after: float, quiet: NDArray[np.float64], glitches: int) -> tuple[float, float, float]:
    """Mean power of quiet events, the share above it that is left, and its standard deviation by noise."""
    noise, varies = float(quiet.mean()), float(quiet.std()) * (1 / glitches + 1 / len(quiet)) ** 0.5
    excess = before - noise
    return (noise, (after - noise) / excess, varies / excess) if excess > 0 else (noise, np.nan, np.nan)


def _periods(gps: NDArray[np.float64]) -> tuple[NDArray[np.float64], Int[np.ndarray, " event"]]:
    """Edges of the periods, and the one of each event."""
    count = int(np.clip(len(gps) // _EVENTS, 1, _PERIODS))
    edges = np.linspace(gps.min(), gps.max(), count + 1)
    return edges, np.clip(np.searchsorted(edges, gps, side="right") - 1, 0, count - 1)


def _names(events: pd.DataFrame, loop: ClosedLoop | None, classes: Mapping[str, str]) -> dict[str, NDArray[np.object_]]:
    """For each kind, the name of each event."""
    names = {"all": np.full(len(events), "all", dtype=object)}
    if classes:
        names["class"] = np.array([classes.get(each, "unknown") for each in events["event_id"]], dtype=object)
    if loop is not None:
        names["witness"] = strongest_part(loop.reference.parts, np.where(loop.told, loop.gains.power, 0))
    return names


def strongest_part(parts: Sequence[str], power: Float[np.ndarray, "event part"]) -> NDArray[np.object_]:
    """The part of the prediction that tells most of each event; `none` where all power is 0.

    Args:
        parts: Their names.
        power: What each tells, SNR², 0 where that is too little.
    """
    return np.array([*parts, NOBODY], dtype=object)[np.where(power.any(axis=1), power.argmax(axis=1), len(parts))]


@dataclass(frozen=True, eq=False)
class EventsLeft:
    """What cleaning left of some events.

    Attributes:
        event_ids: One id an event.
        groups: Number of its group.
        power: Power by band before and after cleaning, SNR².
        glitch: Whether it holds a glitch; not without strain.
        witness: From `strongest_part`.
    """

    event_ids: tuple[str, ...]
    groups: Int[np.ndarray, " event"]
    power: Float[np.ndarray, "event band 2"]
    glitch: Bool[np.ndarray, " event"]
    witness: NDArray[np.object_]

    def reference(self, classes: Mapping[str, str]) -> ResidualReference:
        """What a model keeps of its validation events; `classes` are those of glitches by event id, where known."""
        power = _with_whole(self.power)[..., 0]
        noise = Noise.of(power[~self.glitch & (power[:, 0] > 0)])
        bands = [(low, high) for low, high, _ in _BANDS]
        return residual_reference(bands, {} if noise is None else self._shares(noise, classes), noise)

    def compare(
        self, classes: Mapping[str, str], reference: ResidualReference, settings: ResidualSettings
    ) -> ResidualReport:
        """Whether more is left than was of the validation events.

        Noise has the power of quiet validation events, for whitening gives it the same in all: what that mean is off by
        is then the same before and now.
        """
        noise = reference.quiet
        return compare_residuals({} if noise is None else self._shares(noise, classes), reference, settings)

    def _shares(
        self, noise: Noise, classes: Mapping[str, str]
    ) -> dict[tuple[str, str], Float[np.ndarray, "group band"]]:
        """By kind of glitch; those of which nothing is predicted are none, as nothing of them can be left undone."""
        shares = shares_left(_with_whole(self.power)[self.glitch], noise)
        ids = np.array(self.event_ids, dtype=object)[self.glitch]
        names = {"all": np.full(len(ids), "glitches", dtype=object), "witness": self.witness[self.glitch]}
        if classes:
            names["class"] = np.array([classes.get(each, "unknown") for each in ids], dtype=object)
        found = by_kind(shares, self.groups[self.glitch], names)
        found.pop(("witness", NOBODY), None)
        return found


def _with_whole(power: Float[np.ndarray, "event band 2"]) -> Float[np.ndarray, "event band+1 2"]:
    """Power of all bands together first, as in `_BANDS`."""
    return np.concatenate([power.sum(axis=1, keepdims=True), power], axis=1)
