"""The verdict on each event, and when to veto, as tables.

Undefined entries (no strain, so nothing measured) are empty in CSV and null in Parquet, never 0 or False.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.vetoes import runs_of
from glitchflow_plugin.types.intervals import union
from glitchflow_plugin.verdict import decide, holds_glitch, is_cleaned, is_vetoed, outcome

SEGMENT_COLUMNS: Mapping[str, str] = {
    "event_id": "string",
    "gps_start": "float64",
    "gps_end": "float64",
    "frequency_low": "float64",
    "frequency_high": "float64",
    "peak_snr2_predicted": "float64",
}
"""Columns of the table of veto segments with their pandas types."""

EVENT_COLUMNS: Mapping[str, str] = {
    "event_id": "string",
    "group": "Int64",
    "gps_start": "float64",
    "gps_end": "float64",
    "gps_event": "float64",
    "veto": "boolean",
    "glitch": "boolean",
    "veto_in_time": "boolean",
    "cleaned": "boolean",
    "peak_snr2_measured": "Float64",
    "peak_snr2_predicted": "Float64",
    "peak_snr2_cleaned": "Float64",
    "residual_area_pixels": "Int64",
    "segments": "Int64",
    "vetoed_seconds": "float64",
    "judged_seconds": "Float64",
    "witnesses_missing": "Int64",
}
"""Columns of the event table with their pandas types; the nullable ones may be empty."""


@dataclass(frozen=True, eq=False)
class EventVerdicts:
    """What inference found in several events. Measured and cleaned maps count where they are judged alone.

    Attributes:
        loudest_predicted: Largest predicted energy of each column, SNR², (event, time); 0 where it is not looked at.
        peak_measured: Largest measured energy, SNR², (event,); ignored where not `measured_valid`.
        peak_in_time: Largest predicted energy within the time of the glitch, SNR², (event,); ignored likewise.
        peak_cleaned: Largest energy after cleaning, SNR², (event,); ignored likewise.
        residual_area: Pixels above the threshold after cleaning, (event,); ignored likewise.
        measured_valid: Whether the event has usable strain, (event,).
        witnesses_missing: Witnesses of the model without usable data, (event,).
    """

    loudest_predicted: Float[np.ndarray, "event time"]
    peak_measured: Float[np.ndarray, " event"]
    peak_in_time: Float[np.ndarray, " event"]
    peak_cleaned: Float[np.ndarray, " event"]
    residual_area: Int[np.ndarray, " event"]
    measured_valid: Bool[np.ndarray, " event"]
    witnesses_missing: Int[np.ndarray, " event"]


def veto_segments(
    event_ids: Sequence[str],
    gps_start: Float[np.ndarray, " event"],
    columns: Columns,
    loudest: Float[np.ndarray, "event time"],
    *,
    threshold: float,
    padding: float = 0.0,
    bands: Float[np.ndarray, "event time 2"] | None = None,
) -> pd.DataFrame:
    """When to veto: runs of columns whose predicted energy is above the threshold.

    A segment reaches from the left edge of the first column of a run to the right edge of its last, and `padding`
    farther on both sides; segments of one event that touch are one, and none reaches out of its event.

    Args:
        event_ids: One id an event.
        gps_start: GPS time of the left edge of each event, s, float64.
        columns: Columns of the maps.
        loudest: Largest predicted energy of each column, SNR².
        threshold: SNR².
        padding: s.
        bands: Lowest and highest frequency that is predicted to be loud in each column, Hz; not known if None.

    Returns:
        Table with the columns of `SEGMENT_COLUMNS`, in order of time: a box in time and frequency each.

    Raises:
        FormatError: The arrays do not belong together, or a GPS time is not float64.
        ConfigurationError: The padding is negative.
    """
    _check(event_ids, columns, loudest, gps_start=gps_start)
    if not 0 <= padding < np.inf:
        msg = f"expected a padding of vetoes of at least 0 s, got {padding}. Correct veto_padding."
        raise ConfigurationError(msg)
    vetoed = is_vetoed(loudest, threshold)
    found = runs_of(vetoed, columns, padding)
    runs = list(zip(found.event, found.first, found.stop, strict=True))
    peak = [loudest[row, first:stop].max() for row, first, stop in runs]
    box = _boxes(bands, vetoed, runs)
    content = {
        "event_id": np.asarray(event_ids, dtype=object)[found.event],
        "gps_start": gps_start[found.event] + found.start,
        "gps_end": gps_start[found.event] + found.end,
        "frequency_low": box[:, 0],
        "frequency_high": box[:, 1],
        "peak_snr2_predicted": np.asarray(peak, dtype=np.float64),
    }
    table = pd.DataFrame(content).astype(dict(SEGMENT_COLUMNS))
    return table.sort_values(["gps_start", "gps_end"], kind="stable", ignore_index=True)


def event_table(
    event_ids: Sequence[str],
    gps_start: Float[np.ndarray, " event"],
    gps_event: Float[np.ndarray, " event"],
    columns: Columns,
    *,
    verdicts: EventVerdicts,
    segments: pd.DataFrame,
    threshold: float,
    judged: Bool[np.ndarray, "frequency time"],
    groups: Int[np.ndarray, " event"],
) -> pd.DataFrame:
    """One row an event, in the order given.

    An event is vetoed when it has a veto segment; a glitch is vetoed in time when the prediction is above the threshold
    within its time, as the scores count it. Judged pixels alone say whether an event holds a glitch and whether that is
    cleaned (also where there was silence before); see `glitchflow_plugin.verdict`.

    Args:
        event_ids: One id an event.
        gps_start: GPS time of the left edge of each event, s, float64.
        gps_event: Trigger times, GPS s, float64.
        columns: Columns of the maps.
        verdicts: What was found.
        segments: From `veto_segments`.
        threshold: SNR².
        judged: Pixels of measured maps that count; see `signal.columns.judged_pixels`.
        groups: Number of the group of each event.

    Returns:
        Table with the columns of `EVENT_COLUMNS`. `judged_seconds` is the time of columns with a judged pixel.

    Raises:
        FormatError: The arrays do not belong together, or a GPS time is not float64.
    """
    _check(event_ids, columns, verdicts.loudest_predicted, gps_start=gps_start, gps_event=gps_event)
    measured = verdicts.measured_valid
    glitch = holds_glitch(verdicts.peak_measured, threshold)
    of_event = segments.assign(length=segments["gps_end"] - segments["gps_start"]).groupby("event_id")["length"]
    ids = pd.Index(np.asarray(event_ids, dtype=object))
    seconds = of_event.sum().reindex(ids, fill_value=0.0).to_numpy(dtype=np.float64)
    number = of_event.size().reindex(ids, fill_value=0).to_numpy()
    judged_seconds = float((columns.right - columns.left)[judged.any(axis=0)].sum())
    content: dict[str, object] = {
        "event_id": ids,
        "group": groups,
        "gps_start": gps_start,
        "gps_end": gps_start + columns.duration,
        "gps_event": gps_event,
        "veto": number > 0,
        "glitch": _masked(glitch, measured, "boolean"),
        "veto_in_time": _masked(glitch & is_vetoed(verdicts.peak_in_time, threshold), measured, "boolean"),
        "cleaned": _masked(is_cleaned(glitch, verdicts.residual_area > 0), measured, "boolean"),
        "peak_snr2_measured": _masked(verdicts.peak_measured, measured, "Float64"),
        "peak_snr2_predicted": verdicts.loudest_predicted.max(axis=1),
        "peak_snr2_cleaned": _masked(verdicts.peak_cleaned, measured, "Float64"),
        "residual_area_pixels": _masked(verdicts.residual_area, measured, "Int64"),
        "segments": number,
        # differences of GPS times are good to a microsecond
        "vetoed_seconds": seconds.round(6),
        "judged_seconds": _masked(np.full(len(ids), round(judged_seconds, 6)), measured, "Float64"),
        "witnesses_missing": verdicts.witnesses_missing,
    }
    return pd.DataFrame(content).reindex(columns=list(EVENT_COLUMNS)).astype(dict(EVENT_COLUMNS))


def covered_seconds(intervals: pd.DataFrame) -> float:
    """Time within at least one interval, s; what several cover counts once.

    Args:
        intervals: Table with `gps_start` and `gps_end`: events, or veto segments.
    """
    return float(np.diff(union(intervals[["gps_start", "gps_end"]].to_numpy(dtype=np.float64))).sum())


def outcomes(events: pd.DataFrame) -> np.ndarray:
    """What came of each event of an `event_table`: one of `verdict.OUTCOMES`, (event,)."""
    names = ("glitch", "veto", "veto_in_time", "cleaned")
    said = {name: events[name].fillna(value=False).to_numpy(dtype=bool) for name in names}
    # a glitch asks for a veto within its time, a quiet event for none anywhere
    vetoed = np.where(said["glitch"], said["veto_in_time"], said["veto"])
    return outcome(said["glitch"], vetoed, said["cleaned"], events["glitch"].notna().to_numpy(dtype=bool))


def with_decisions(events: pd.DataFrame) -> pd.DataFrame:
    """An `event_table` with what a search shall do with each event (`decision`) and why (`reasons`); see `verdict`."""
    strangeness = events.get("novelty_p", pd.Series(np.nan, index=events.index)).to_numpy(dtype=np.float64)
    decisions, reasons = decide(
        outcomes(events),
        events["veto"].to_numpy(dtype=bool),
        events["witnesses_missing"].to_numpy(dtype=np.int64),
        strangeness,
        events.get("witnesses_stopped", pd.Series("", index=events.index)).to_numpy(dtype=object) != "",
    )
    return events.assign(decision=decisions, reasons=reasons)


def write_table(table: pd.DataFrame, folder: Path | str, name: str) -> dict[str, Path]:
    """Write a table as CSV and Parquet, each whole or not at all.

    Args:
        table: What to write; times keep their full float64 precision in both.
        folder: Where to; made if missing.
        name: File name without suffix.

    Returns:
        Paths under `csv` and `parquet`.
    """
    paths = {suffix: Path(folder) / f"{name}.{suffix}" for suffix in ("csv", "parquet")}
    with atomic_path(paths["csv"]) as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(paths["parquet"]) as temporary:
        table.to_parquet(temporary, index=False)
    return paths


def markdown_table(table: pd.DataFrame, rows: int = 200) -> str:
    """The first rows of a table as Markdown, for TensorBoard's text page; says how many rows are left out."""
    head = [f"| {' | '.join(table.columns)} |", f"|{' --- |' * len(table.columns)}"]
    body = [f"| {' | '.join(_cell(value) for value in row)} |" for row in table.head(rows).itertuples(index=False)]
    left = len(table) - len(body)
    return "\n".join([*head, *body, *([f"\n{left} more rows in the CSV file"] if left > 0 else [])])


def _cell(value: object) -> str:
    if pd.isna(value):
        return ""
    # GPS times need nine digits before the point
    return f"{value:.3f}" if isinstance(value, float | np.floating) else str(value)


def _boxes(
    bands: Float[np.ndarray, "event time 2"] | None,
    vetoed: Bool[np.ndarray, "event time"],
    runs: Sequence[tuple[int, int, int]],
) -> Float[np.ndarray, "segment 2"]:
    """Lowest and highest frequency of the vetoed columns of each run (event, first, stop); NaN where not known."""
    if bands is None:
        return np.full((len(runs), 2), np.nan)
    low, high = np.where(vetoed, bands[..., 0], np.inf), np.where(vetoed, bands[..., 1], -np.inf)
    ends = [(low[row, first:stop].min(), high[row, first:stop].max()) for row, first, stop in runs]
    return np.array(ends, dtype=np.float64).reshape(-1, 2)


def _masked(values: np.ndarray, keep: np.ndarray, dtype: str) -> pd.Series:
    """Nullable column that is empty where not `keep`."""
    return pd.Series(values).astype(dtype).where(pd.Series(keep))


def _check(event_ids: Sequence[str], columns: Columns, loudest: np.ndarray, **gps: np.ndarray) -> None:
    expected = (len(event_ids), len(columns))
    if loudest.shape != expected or any(np.shape(times) != expected[:1] for times in gps.values()):
        msg = (
            f"expected {expected[0]} events of {expected[1]} columns, got energies of shape {loudest.shape} and times "
            f"of shapes { {name: np.shape(times) for name, times in gps.items()} }."
        )
        raise FormatError(msg)
    for name, times in gps.items():
        if np.asarray(times).dtype != np.float64:
            msg = f"{name} must be float64 (float32 rounds GPS times to 128 s), got {np.asarray(times).dtype}."
            raise FormatError(msg)
