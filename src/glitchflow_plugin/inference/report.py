"""Turn the result of a run into figures, numbers for a tracker, and the run summary."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.inference.examples import KINDS, pick_examples
from glitchflow_plugin.inference.run import (
    LINEAR,
    MODEL,
    ZERO,
    InferenceResult,
    InferenceSettings,
    cleaned_name,
    predicted_name,
)
from glitchflow_plugin.inference.score import Curve, Scores
from glitchflow_plugin.plots.cleaning import CleaningExample, plot_cleaning
from glitchflow_plugin.plots.curves import Band, plot_accuracy, plot_confusion, plot_roc
from glitchflow_plugin.products.summary import Metric
from glitchflow_plugin.products.veto_table import markdown_table
from glitchflow_plugin.tracking.tracker import Tracker

LABELS: Mapping[str, str] = {MODEL: "model", LINEAR: "linear witness filter", ZERO: "zero prediction"}
"""How the scored predictions are called in figures."""

_TRACKED_COLUMNS = ("peak_snr2_measured", "peak_snr2_predicted", "peak_snr2_cleaned", "residual_area_pixels", "veto")


def example_figures(
    result: InferenceResult, spectrograms: SpectrogramSet, target: str, settings: InferenceSettings
) -> dict[str, Any]:
    """Figures of real, generated and cleaned maps by kind of example.

    Args:
        result: Of `run_inference`.
        spectrograms: The maps it was run on.
        target: The strain channel.
        settings: Number of examples and threshold.

    Returns:
        Figure by kind; kinds without any event are left out, but for `uncleaned`, whose absence is worth saying.
    """
    kinds = [kind for kind in KINDS if kind != "vetoed"] if result.scores else ["vetoed"]
    figures = {}
    for kind in kinds:
        rows = pick_examples(result.events, kind, settings.examples)
        if rows or kind == "uncleaned":
            examples = [read_example(result, spectrograms, target, row) for row in rows]
            title = f"{kind.replace('_', ' ')}: {KINDS[kind]} (threshold SNR² {settings.threshold:g})"
            figures[kind] = plot_cleaning(
                examples, spectrograms.frequencies, spectrograms.times, threshold=settings.threshold, title=title
            )
    return figures


def read_example(result: InferenceResult, spectrograms: SpectrogramSet, target: str, row: int) -> CleaningExample:
    """The maps of one row of the event table; refuses maps of another event.

    Args:
        result: Of `run_inference`.
        spectrograms: The maps it was run on.
        target: The strain channel.
        row: Row of the event table.
    """
    verdict = result.events.iloc[row]
    made = result.maps.read([row], [cleaned_name(target), predicted_name(target)])
    found = {made.event_ids[0], spectrograms.event_ids[row]}
    if found != {verdict["event_id"]}:
        msg = (
            f"row {row} is event {verdict['event_id']} in the table, but {sorted(found)} in the maps. "
            "Run Make-inference again into an empty folder."
        )
        raise FormatError(msg)
    cleaned, predicted = made.maps[0]
    measured = None
    if made.valid[0, 0]:
        measured = spectrograms.read([row], [target]).maps[0, 0]
    said = ["vetoed" if verdict["veto"] else "not vetoed"]
    if measured is not None:
        said.append("cleaned" if verdict["cleaned"] else "not cleaned" if verdict["glitch"] else "no glitch")
    if verdict["witnesses_missing"]:
        said.append(f"{verdict['witnesses_missing']} witnesses missing")
    return CleaningExample(
        event_id=str(verdict["event_id"]),
        gps_start=float(verdict["gps_start"]),
        predicted=predicted,
        measured=measured,
        cleaned=cleaned if measured is not None else None,
        note=", ".join(said),
    )


def score_figures(scores: Mapping[str, Scores], threshold: float) -> dict[str, Any]:
    """Accuracy curves, ROC and confusion counts of the model beside its baselines; none without scores."""
    if not scores:
        return {}
    named = {LABELS[name]: scores[name] for name in (MODEL, LINEAR, ZERO) if name in scores}
    own = scores[MODEL]
    points = {}
    for name, each in named.items():
        counts = each.confusion
        glitches, quiet = counts.hits + counts.misses, counts.false_alarms + counts.correct_rejections
        if glitches and quiet:
            points[name] = (counts.false_alarms / quiet, counts.hits / glitches)
    return {
        "accuracy": plot_accuracy(
            own.denoising_accuracy.thresholds,
            {name: _band(each.denoising_accuracy) for name, each in named.items()},
            {name: _band(each.veto_accuracy) for name, each in named.items()},
            glitch_threshold=threshold,
        ),
        "roc": plot_roc(
            {name: (each.roc.false_alarm_rate, each.roc.hit_rate) for name, each in named.items() if each.roc},
            {name: each.roc_auc.value for name, each in named.items()},
            points=points,
            glitch_threshold=threshold,
        ),
        "confusion": plot_confusion(**own.confusion.to_dict(), glitch_threshold=threshold),
    }


def summary_metrics(scores: Mapping[str, Scores]) -> dict[str, Metric]:
    """The single figures of the model with those of its baselines, by stable name; empty without scores."""
    if not scores:
        return {}
    own = scores[MODEL]
    baselines = {name: each.metrics() for name, each in scores.items() if name != MODEL}
    metrics = {
        name: Metric(
            value=figure.value,
            low=figure.low,
            high=figure.high,
            baseline={other: figures[name].value for other, figures in baselines.items()},
        )
        for name, figure in own.metrics().items()
    }
    for name, count in own.confusion.to_dict().items():
        others = {other: float(scores[other].confusion.to_dict()[name]) for other in baselines}
        metrics[f"veto_{name}_snr2_{own.glitch_threshold:g}"] = Metric(value=float(count), baseline=others)
    return metrics


def undefined_figures(scores: Mapping[str, Scores]) -> list[str]:
    """Why figures of the model are null, one sentence each."""
    if not scores:
        return []
    figures = scores[MODEL].metrics().items()
    return [f"{name} is undefined: {figure.reason}." for name, figure in figures if figure.value is None]


def summary_details(result: InferenceResult) -> dict[str, Any]:
    """Curves, ROC, confusion counts and missing witnesses for summary.json."""
    return {
        "scores": {name: each.to_dict() for name, each in result.scores.items()},
        "witnesses_missing": dict(result.witnesses_missing),
        "events_without_strain": result.num_unmeasured,
        "events_vetoed": int(result.events["veto"].to_numpy(dtype=bool).sum()),
        "windows_vetoed": int(result.windows["veto"].to_numpy(dtype=bool).sum()),
    }


def run_warnings(result: InferenceResult) -> list[str]:
    """What a user should know about the data that the run met."""
    said = []
    num_events = len(result.events)
    if result.num_unmeasured:
        said.append(
            f"{result.num_unmeasured} of {num_events} events have no usable strain: predicted and vetoed, not cleaned."
        )
    if not result.scores:
        said.append("No event has usable strain: accuracy, ROC and confusion counts are left out.")
    said += [
        f"{name} has no usable data in {count} of {num_events} events; it entered as zero energy there "
        "(column witnesses_missing)."
        for name, count in result.witnesses_missing.items()
        if count
    ]
    if "novelty_p" in result.events and (unknown := int(result.events["novelty_p"].isna().sum())):
        said.append(
            f"novelty_p is empty for {unknown} of {num_events} events: fewer than 19 validation events of the model "
            "have all the witnesses that these have, or an earlier version registered it."
        )
    return said + undefined_figures(result.scores)


def track_result(
    tracker: Tracker, result: InferenceResult, figures: Mapping[str, Any], settings: InferenceSettings
) -> None:
    """Send tables, curves and figures to a tracker.

    Tables go as Markdown text. The windows' figures go as scalars whose step is the GPS second at which the window
    begins; the accuracy curves as scalars whose step is the SNR² threshold.

    Args:
        tracker: For instance TensorBoard.
        result: Of `run_inference`.
        figures: By name.
        settings: Most rows and points.
    """
    limit = settings.tensorboard_rows
    tracker.text("inference/events", markdown_table(result.events, limit))
    tracker.text("inference/windows", markdown_table(result.windows, limit))
    windows = result.windows.sort_values("gps_start", kind="stable").head(limit)
    for column in _TRACKED_COLUMNS:
        for gps, value in zip(windows["gps_start"], windows[column], strict=True):
            if not pd.isna(value):
                tracker.metric(f"windows_by_gps/{column}", float(value), math.floor(gps))
    for name, scores in result.scores.items():
        for figure, curve in (
            ("denoising_accuracy", scores.denoising_accuracy),
            ("veto_accuracy", scores.veto_accuracy),
        ):
            _track_curve(tracker, f"{figure}_by_snr2/{name}", curve)
    for name, figure in figures.items():
        tracker.figure(f"inference/{name}", figure, 0)


def _track_curve(tracker: Tracker, name: str, curve: Curve) -> None:
    for threshold, value in zip(curve.thresholds, curve.value, strict=True):
        # TensorBoard's steps are whole numbers
        if np.isfinite(value) and float(threshold).is_integer():
            tracker.metric(name, float(value), int(threshold))


def _band(curve: Curve) -> Band:
    return Band(curve.value, curve.low, curve.high)
