"""The result of a run in TensorBoard."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from glitchflow_plugin.inference.figures import LABELS, NO_CLASSES, gps_zero, pictured
from glitchflow_plugin.inference.run import InferenceResult, InferenceSettings
from glitchflow_plugin.inference.score import Curve
from glitchflow_plugin.plots.style import Picture, short_name
from glitchflow_plugin.products.veto_table import covered_seconds, outcomes
from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker, picture_name


def track_result(
    tracker: TensorBoardTracker,
    result: InferenceResult,
    figures: Mapping[str, Picture | Path],
    settings: InferenceSettings,
    classes: Mapping[str, str] = NO_CLASSES,
) -> None:
    """Send tables, curves and figures to TensorBoard.

    Steps of an event's energies are seconds, or milliseconds where triggers lie between seconds, from the GPS second
    that their name states; the clock is the detector's. Verdicts are in the tables and on the time-line: as curves,
    TensorBoard would smooth them. Steps of the accuracy curves are SNR² thresholds. TensorBoard opens the first two
    names of a page, capitals before small letters.

    Args:
        tracker: TensorBoard.
        result: From `run_inference`.
        figures: By name, or the files that they were drawn to.
        settings: Most rows and points.
        classes: Class of the glitch by event id, where known.
    """
    zero = gps_zero(result)
    _track_events(tracker, result, settings, classes, zero)
    _track_segments(tracker, result, settings, zero)
    for name, scores in result.scores.items():
        for figure, curve in (
            ("cleaned share", scores.cleaned_share),
            ("balanced veto accuracy", scores.veto_balance),
        ):
            _track_curve(tracker, f"{figure} by SNR² threshold/{LABELS[name]}", curve)
    for name, figure in figures.items():
        tracker.figure(f"Inference/{name}", figure, 0)


def _track_events(
    tracker: TensorBoardTracker,
    result: InferenceResult,
    settings: InferenceSettings,
    classes: Mapping[str, str],
    zero: float,
) -> None:
    events, said = result.events, outcomes(result.events)
    limit = settings.tensorboard_rows
    # with more events than rows the vetoed ones come first; what is shown stands in order of time
    kept = np.argsort(~events["veto"].to_numpy(dtype=bool), kind="stable")[:limit]
    kept = kept[np.argsort(events["gps_event"].to_numpy()[kept], kind="stable")]
    shown, pictures = events.iloc[kept], set(pictured(result, settings))
    known = any(name in classes for name in shown["event_id"])
    # events named by their time need no second column for it
    named = any(
        str(math.floor(gps)) not in name for gps, name in zip(shown["gps_event"], shown["event_id"], strict=True)
    )
    since = events["gps_event"].to_numpy() - zero
    whole = bool((np.abs(since - np.round(since)) < 5e-4).all())
    curves = f"SNR² of events, {'s' if whole else 'ms'} from GPS {zero:.0f}"
    # TensorBoard breaks times and numbers in two where a table is wider than its page
    columns = ["veto", "row", "GPS of trigger", "event" if named else f"s from {zero:.0f}", "outcome"]
    columns += [*(["class"] if known else []), "SNR²"]
    rows = []
    for row, event in zip(kept.tolist(), shown.to_dict("records"), strict=True):
        gps, name = event["gps_event"], event["event_id"]
        energies = [event[f"peak_snr2_{key}"] for key in ("measured", "predicted", "cleaned")]
        place = picture_name(row) if row in pictures else row
        cells = [
            "VETO" if event["veto"] else "",
            place,
            f"{gps:.3f}",
            short_name(name, 20) if named else f"{since[row]:.3f}",
            said[row],
        ]
        cells += [*([short_name(classes.get(name, ""), 20)] if known else []), " → ".join(map(_energy, energies))]
        rows.append(cells)
        for key, value in zip(("real", "predicted", "left"), energies, strict=True):
            if not pd.isna(value):
                tracker.metric(f"{curves}/{key}", float(value), round(since[row] * (1 if whole else 1000)), gps=gps)
    notes = [
        "SNR²: largest energy in the strain → predicted from the witnesses → left after cleaning;",
        f"threshold {settings.threshold:g}. Row: line of events.csv, from 0, and the name of its picture under Images;",
        "a bare number has none.",
    ]
    if len(kept) < len(events):
        notes.append(f"{len(events) - len(kept)} more events in events.csv; those without veto were left out first.")
    tracker.table("Veto/events", columns, rows, " ".join(notes))


def _track_segments(
    tracker: TensorBoardTracker, result: InferenceResult, settings: InferenceSettings, zero: float
) -> None:
    segments = result.segments
    row_of = {name: row for row, name in enumerate(result.events["event_id"])}
    columns = ["GPS start", "GPS end", "length [s]", f"s from {zero:.0f}", "row", "SNR² predicted"]
    rows = [
        [
            f"{one['gps_start']:.3f}",
            f"{one['gps_end']:.3f}",
            f"{one['gps_end'] - one['gps_start']:.3f}",
            f"{one['gps_start'] - zero:.3f}",
            row_of[one["event_id"]],
            _energy(one["peak_snr2_predicted"]),
        ]
        for one in segments.head(settings.tensorboard_rows).to_dict("records")
    ]
    vetoed, live = covered_seconds(result.segments), covered_seconds(result.events)
    share = f"{vetoed:.3f} s of {live:.3f} s are vetoed."
    left = len(segments) - len(rows)
    more = f" {left} more segments; all are in segments.csv." if left else ""
    tracker.table("Veto/segments", columns, rows, share + more)


def _energy(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.0f}"


def _track_curve(tracker: TensorBoardTracker, name: str, curve: Curve) -> None:
    for threshold, value in zip(curve.thresholds, curve.value, strict=True):
        # TensorBoard's steps are whole numbers
        if np.isfinite(value) and float(threshold).is_integer():
            tracker.metric(name, float(value), int(threshold))
