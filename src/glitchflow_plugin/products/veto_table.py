"""The verdict on each window and event as a table: veto, cleaned or not, what is left, when.

Undefined entries (no strain, so nothing measured) are empty in CSV and null in Parquet, never 0 or False.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.errors import FormatError

WINDOW_COLUMNS: Mapping[str, str] = {
    "event_id": "string",
    "window": "Int64",
    "gps_start": "float64",
    "gps_end": "float64",
    "gps_event": "float64",
    "veto": "boolean",
    "glitch": "boolean",
    "cleaned": "boolean",
    "peak_snr2_measured": "Float64",
    "peak_snr2_predicted": "Float64",
    "peak_snr2_cleaned": "Float64",
    "residual_area_pixels": "Int64",
    "witnesses_missing": "Int64",
}
"""Columns of the window table with their pandas types; the nullable ones may be empty."""

EVENT_COLUMNS: Mapping[str, str] = {
    "event_id": "string",
    "gps_start": "float64",
    "gps_end": "float64",
    "gps_event": "float64",
    "veto": "boolean",
    "glitch": "boolean",
    "cleaned": "boolean",
    "peak_snr2_measured": "Float64",
    "peak_snr2_predicted": "Float64",
    "peak_snr2_cleaned": "Float64",
    "residual_area_pixels": "Int64",
    "windows": "Int64",
    "windows_vetoed": "Int64",
    "witnesses_missing": "Int64",
}
"""Columns of the event table with their pandas types."""


@dataclass(frozen=True, eq=False)
class WindowVerdicts:
    """What inference found in the windows of several events.

    Attributes:
        peak_predicted: Largest predicted energy, SNR², (event, window).
        peak_measured: Largest measured energy, SNR², (event, window); ignored where not `measured_valid`.
        peak_cleaned: Largest energy of |measured - predicted|, SNR², (event, window); ignored likewise.
        residual_area: Pixels above the threshold after cleaning, (event, window); ignored likewise.
        measured_valid: Whether the event has usable strain, (event,).
        witnesses_missing: Witnesses of the model without usable data, (event,).
    """

    peak_predicted: Float[np.ndarray, "event window"]
    peak_measured: Float[np.ndarray, "event window"]
    peak_cleaned: Float[np.ndarray, "event window"]
    residual_area: Int[np.ndarray, "event window"]
    measured_valid: Bool[np.ndarray, " event"]
    witnesses_missing: Int[np.ndarray, " event"]


def window_table(
    event_ids: Sequence[str],
    gps_start: Float[np.ndarray, " event"],
    gps_event: Float[np.ndarray, " event"],
    edges: Float[np.ndarray, " edge"],
    *,
    verdicts: WindowVerdicts,
    threshold: float,
) -> pd.DataFrame:
    """One row a window, events in the order given, windows in time order.

    Args:
        event_ids: One id an event.
        gps_start: GPS time of the left edge of each map, s, float64.
        gps_event: Trigger times, GPS s, float64.
        edges: Edges of the windows, s from the left edge of the map, one more than there are windows.
        verdicts: What was found.
        threshold: SNR²; glitch: measured peak above it, veto: predicted peak above it, cleaned: a glitch whose
            residual peak is below it.

    Returns:
        Table with the columns of `WINDOW_COLUMNS`.

    Raises:
        FormatError: The arrays do not belong together, or a GPS time is not float64.
    """
    num_events, num_windows = verdicts.peak_predicted.shape
    if len(edges) != num_windows + 1 or {len(event_ids), len(gps_start), len(gps_event)} != {num_events}:
        msg = (
            f"{num_events} events of {num_windows} windows expected, got {len(event_ids)} ids, {len(gps_start)} start "
            f"times, {len(gps_event)} event times and {len(edges)} edges."
        )
        raise FormatError(msg)
    for name, values in (("gps_start", gps_start), ("gps_event", gps_event)):
        if np.asarray(values).dtype != np.float64:
            msg = f"{name} must be float64 (float32 rounds GPS times to 128 s), got {np.asarray(values).dtype}."
            raise FormatError(msg)
    measured = np.repeat(verdicts.measured_valid, num_windows)
    glitch = (verdicts.peak_measured > threshold).ravel()
    cleaned = glitch & (verdicts.peak_cleaned < threshold).ravel()
    # A window carries its own event: every column is laid out (event, window) before it is flattened.
    content: dict[str, Any] = {
        "event_id": np.repeat(np.asarray(event_ids, dtype=object), num_windows),
        "window": np.tile(np.arange(num_windows), num_events),
        "gps_start": (gps_start[:, None] + edges[None, :-1]).ravel(),
        "gps_end": (gps_start[:, None] + edges[None, 1:]).ravel(),
        "gps_event": np.repeat(gps_event, num_windows),
        "veto": (verdicts.peak_predicted > threshold).ravel(),
        "glitch": _masked(glitch, measured, "boolean"),
        "cleaned": _masked(cleaned, measured, "boolean"),
        "peak_snr2_measured": _masked(verdicts.peak_measured.ravel(), measured, "Float64"),
        "peak_snr2_predicted": verdicts.peak_predicted.ravel(),
        "peak_snr2_cleaned": _masked(verdicts.peak_cleaned.ravel(), measured, "Float64"),
        "residual_area_pixels": _masked(verdicts.residual_area.ravel(), measured, "Int64"),
        "witnesses_missing": np.repeat(verdicts.witnesses_missing, num_windows),
    }
    return pd.DataFrame(content).reindex(columns=list(WINDOW_COLUMNS)).astype(dict(WINDOW_COLUMNS))


def event_table(windows: pd.DataFrame) -> pd.DataFrame:
    """Sum the windows of each event up, events in the order of the window table.

    An event is vetoed when one of its windows is, holds a glitch when one does, and is cleaned when it held a glitch
    and no pixel of any of its windows is above the threshold any more (also not where there was silence before).

    Args:
        windows: From `window_table`.

    Returns:
        Table with the columns of `EVENT_COLUMNS`.
    """
    rows = windows.groupby("event_id", sort=False)
    grouped = rows.agg(
        gps_start=("gps_start", "min"),
        gps_end=("gps_end", "max"),
        gps_event=("gps_event", "first"),
        veto=("veto", "any"),
        glitch=("glitch", "any"),
        known=("glitch", "count"),
        peak_snr2_measured=("peak_snr2_measured", "max"),
        peak_snr2_predicted=("peak_snr2_predicted", "max"),
        peak_snr2_cleaned=("peak_snr2_cleaned", "max"),
        windows=("window", "size"),
        windows_vetoed=("veto", "sum"),
        witnesses_missing=("witnesses_missing", "first"),
    )
    table = pd.DataFrame(grouped)
    # pandas calls the sum and the "any" of nothing 0 and False; here nothing was measured
    table["residual_area_pixels"] = rows["residual_area_pixels"].sum(min_count=1)
    table["glitch"] = table["glitch"].astype("boolean").where(table["known"] > 0)
    table["cleaned"] = table["glitch"] & (table["residual_area_pixels"] == 0)
    return table.reset_index().reindex(columns=list(EVENT_COLUMNS)).astype(dict(EVENT_COLUMNS))


def veto_segments(windows: pd.DataFrame) -> pd.DataFrame:
    """The vetoed windows of each event, neighbours joined, in order of time.

    Args:
        windows: From `window_table`.

    Returns:
        Table with `event_id`, `gps_start`, `gps_end` and `peak_snr2_predicted`.
    """
    vetoed = windows[windows["veto"]].sort_values(["gps_start", "gps_end"], kind="stable")
    names, starts = vetoed["event_id"].to_numpy(dtype=object), vetoed["gps_start"].to_numpy()
    begins = np.ones(len(vetoed), dtype=bool)
    begins[1:] = (names[1:] != names[:-1]) | (starts[1:] > vetoed["gps_end"].to_numpy()[:-1] + 1e-6)
    segments = vetoed.groupby(begins.cumsum(), sort=False).agg(
        event_id=("event_id", "first"),
        gps_start=("gps_start", "min"),
        gps_end=("gps_end", "max"),
        peak_snr2_predicted=("peak_snr2_predicted", "max"),
    )
    return pd.DataFrame(segments).reset_index(drop=True)


def outcomes(events: pd.DataFrame) -> np.ndarray:
    """What came of each event, in a word or two.

    Args:
        events: From `event_table`.

    Returns:
        `cleaned` or `not cleaned` for a vetoed glitch, `missed` for a glitch without veto, `false alarm` for a veto
        without glitch, `quiet` for neither, `no strain` where nothing was measured. Shape (event,).
    """
    veto = events["veto"].to_numpy(dtype=bool)
    known = events["glitch"].notna().to_numpy(dtype=bool)
    glitch = events["glitch"].fillna(value=False).to_numpy(dtype=bool)
    cleaned = events["cleaned"].fillna(value=False).to_numpy(dtype=bool)
    cases = [~known, glitch & veto & cleaned, glitch & veto, glitch, veto]
    return np.select(cases, ["no strain", "cleaned", "not cleaned", "missed", "false alarm"], "quiet")


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


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    # GPS times need nine digits before the point
    return f"{value:.3f}" if isinstance(value, float | np.floating) else str(value)


def _masked(values: np.ndarray, keep: np.ndarray, dtype: str) -> pd.Series:
    """Nullable column that is empty where not `keep`."""
    return pd.Series(values).astype(dtype).where(pd.Series(keep))
