"""Turn the result of a run into figures, numbers for a tracker, and the run summary."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
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
from glitchflow_plugin.inference.trivial import TRIVIAL
from glitchflow_plugin.plots.cleaning import CleaningExample, plot_cleaning
from glitchflow_plugin.plots.curves import Band, plot_accuracy, plot_confusion, plot_roc
from glitchflow_plugin.plots.maps import FrequencyAxis
from glitchflow_plugin.plots.style import short_name
from glitchflow_plugin.plots.timeline import plot_timeline
from glitchflow_plugin.products.pictures import IMAGES, PictureSettings, save_figures
from glitchflow_plugin.products.summary import Metric
from glitchflow_plugin.products.veto_table import covered_seconds, outcomes, write_table
from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker, picture_name

LABELS: Mapping[str, str] = {
    MODEL: "model",
    LINEAR: "linear witness filter",
    ZERO: "zero prediction",
    **{name: name for name in TRIVIAL},
}
"""How the scored predictions are called in figures."""

_NO_CLASSES: Mapping[str, str] = {}


def example_figures(
    result: InferenceResult,
    spectrograms: SpectrogramSet,
    target: str,
    settings: InferenceSettings,
    *,
    axis: FrequencyAxis = "log",
    classes: Mapping[str, str] = _NO_CLASSES,
) -> dict[str, Any]:
    """Figures of real, generated and cleaned maps by kind of example.

    Args:
        result: Of `run_inference`.
        spectrograms: The maps it was run on.
        target: The strain channel.
        settings: Number of examples and threshold.
        axis: Of frequency.
        classes: Class of the glitch by event id, where known.

    Returns:
        Figure by kind; kinds without any event are left out, but for `uncleaned`, whose absence is worth saying.
    """
    figures = {}
    for kind in _kinds(result):
        rows = pick_examples(result.events, kind, settings.examples)
        if rows or kind == "uncleaned":
            figures[kind] = plot_cleaning(
                [read_example(result, spectrograms, target, row, classes) for row in rows],
                spectrograms.frequencies,
                spectrograms.times,
                threshold=settings.threshold,
                title=f"{kind.replace('_', ' ')}: {KINDS[kind]}",
                axis=axis,
                judged=result.judged,
            )
    return figures


def event_figures(
    result: InferenceResult,
    spectrograms: SpectrogramSet,
    target: str,
    settings: InferenceSettings,
    *,
    axis: FrequencyAxis = "log",
    classes: Mapping[str, str] = _NO_CLASSES,
) -> Iterator[tuple[int, Any]]:
    """A figure of each of the events that `pictured` chooses, with its row in the event table."""
    for row in pictured(result, settings):
        example = read_example(result, spectrograms, target, row, classes)
        maps = spectrograms.frequencies, spectrograms.times
        yield row, plot_cleaning([example], *maps, threshold=settings.threshold, axis=axis, judged=result.judged)


def pictured(result: InferenceResult, settings: InferenceSettings) -> list[int]:
    """Rows of the event table that get a picture: the examples, then glitches and vetoes, the loudest first."""
    rows = [row for kind in _kinds(result) for row in pick_examples(result.events, kind, settings.examples)]
    telling = np.flatnonzero(outcomes(result.events) != "quiet")
    rows += telling[np.argsort(-_loudness(result.events)[telling], kind="stable")].tolist()
    return sorted(list(dict.fromkeys(rows))[: settings.tensorboard_pictures])


def timeline_figure(result: InferenceResult, settings: InferenceSettings) -> Any:
    """Events and vetoed segments along time."""
    return plot_timeline(
        result.events["gps_event"].to_numpy(),
        _loudness(result.events),
        outcomes(result.events),
        result.segments[["gps_start", "gps_end"]].to_numpy(dtype=np.float64),
        gps_zero=_gps_zero(result),
        threshold=settings.threshold,
    )


def _kinds(result: InferenceResult) -> list[str]:
    return [kind for kind in KINDS if kind != "vetoed"] if result.scores else ["vetoed"]


def _loudness(events: pd.DataFrame) -> np.ndarray:
    """Largest energy of each event: measured, or predicted where nothing was."""
    return events["peak_snr2_measured"].fillna(events["peak_snr2_predicted"]).to_numpy(dtype=float)


def _gps_zero(result: InferenceResult) -> float:
    """The whole GPS second from which times are counted."""
    return float(math.floor(result.events["gps_start"].min()))


def read_example(
    result: InferenceResult,
    spectrograms: SpectrogramSet,
    target: str,
    row: int,
    classes: Mapping[str, str] = _NO_CLASSES,
) -> CleaningExample:
    """The maps of one row of the event table; refuses maps of another event.

    Args:
        result: Of `run_inference`.
        spectrograms: The maps it was run on.
        target: The strain channel.
        row: Row of the event table.
        classes: Class of the glitch by event id, where known.
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
    event_id = str(verdict["event_id"])
    said = [f"row {row}", classes.get(event_id, "")]
    said.append("vetoed" if verdict["veto"] else "not vetoed")
    if measured is not None:
        said.append("cleaned" if verdict["cleaned"] else "not cleaned" if verdict["glitch"] else "no glitch")
    if verdict["witnesses_missing"]:
        said.append(f"{verdict['witnesses_missing']} witnesses missing")
    return CleaningExample(
        event_id=event_id,
        gps_start=float(verdict["gps_start"]),
        gps_event=float(verdict["gps_event"]),
        predicted=predicted,
        measured=measured,
        cleaned=cleaned if measured is not None else None,
        note=", ".join(filter(None, said)),
    )


def score_figures(scores: Mapping[str, Scores], threshold: float) -> dict[str, Any]:
    """Accuracy curves, ROC and confusion counts of the model beside its baselines; none without scores."""
    if not scores:
        return {}
    named = {label: scores[name] for name, label in LABELS.items() if name in scores}
    own = scores[MODEL]
    points = {}
    for name, each in named.items():
        counts = each.confusion
        glitches, quiet = counts.hits + counts.misses, counts.false_alarms + counts.correct_rejections
        if glitches and quiet:
            points[name] = (counts.false_alarms / quiet, counts.hits / glitches)
    return {
        "accuracy": plot_accuracy(
            own.cleaned_share.thresholds,
            {name: _band(each.cleaned_share) for name, each in named.items()},
            {name: _band(each.veto_balance) for name, each in named.items()},
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
    """Why figures of the model are null, or have no interval, one sentence each."""
    if not scores:
        return []
    figures = scores[MODEL].metrics()
    said = [f"{name} is undefined: {one.reason}." for name, one in figures.items() if one.value is None]
    bare: dict[str, list[str]] = {}
    for name, one in figures.items():
        if one.value is not None and one.reason:
            bare.setdefault(one.reason, []).append(name)
    return said + [f"{', '.join(names)}: {reason}." for reason, names in bare.items()]


def summary_details(result: InferenceResult) -> dict[str, Any]:
    """Curves, ROC, confusion counts and missing witnesses for summary.json."""
    return {
        "scores": {name: each.to_dict() for name, each in result.scores.items()},
        "witnesses_missing": dict(result.witnesses_missing),
        "events_without_strain": result.num_unmeasured,
        "events_vetoed": int(result.events["veto"].to_numpy(dtype=bool).sum()),
        "segments": len(result.segments),
    }


def time_metrics(result: InferenceResult) -> dict[str, Metric]:
    """Time of the events, and how much of it is vetoed, h; what several events cover counts once."""
    return {
        "live_hours": Metric(covered_seconds(result.events) / 3600),
        "vetoed_hours": Metric(covered_seconds(result.segments) / 3600),
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
            f"novelty_p is empty for {unknown} of {num_events} events: fewer than 19 groups of the model's "
            "validation events have all the witnesses that these have, or an earlier version registered it."
        )
    return said + undefined_figures(result.scores)


def write_result(
    result: InferenceResult,
    spectrograms: SpectrogramSet,
    target: str,
    settings: InferenceSettings,
    folder: Path,
    *,
    pictures: PictureSettings,
    board: Path | None = None,
) -> dict[str, str]:
    """Write tables and pictures, and send them to TensorBoard.

    Args:
        result: From `run_inference`.
        spectrograms: The maps that it was run on.
        target: The strain channel.
        settings: Threshold and number of pictures.
        folder: Folder of the result.
        pictures: How they look.
        board: Folder for TensorBoard; none if None.

    Returns:
        Where all of it is, by name, for the run summary.
    """
    tables = {name: write_table(getattr(result, name), folder, name) for name in ("segments", "events")}
    classes = pictures.classes()
    look = {"axis": pictures.frequency_axis, "classes": classes}
    overview = {"timeline": timeline_figure(result, settings), **score_figures(result.scores, settings.threshold)}
    examples = example_figures(result, spectrograms, target, settings, **look)
    written = save_figures({**overview, **examples}, folder / IMAGES)
    if board is not None:
        with TensorBoardTracker(board) as tracker:
            # the examples are there one by one, under the number of their row
            track_result(tracker, result, overview, settings, classes)
            for row, figure in event_figures(result, spectrograms, target, settings, **look):
                tracker.figure(picture_name(row), figure, row, gps=float(result.events["gps_event"].iloc[row]))
    return {
        "maps": str(result.maps.folder),
        **{name: f"{paths['csv']}, {paths['parquet']}" for name, paths in tables.items()},
        "images": f"{folder / IMAGES} ({', '.join(path.stem for path in written)})",
        **({"tensorboard": str(board)} if board is not None else {}),
    }


def track_result(
    tracker: TensorBoardTracker,
    result: InferenceResult,
    figures: Mapping[str, Any],
    settings: InferenceSettings,
    classes: Mapping[str, str] = _NO_CLASSES,
) -> None:
    """Send tables, curves and figures to TensorBoard.

    Steps of an event's energies are seconds, or milliseconds where triggers lie between seconds, from the GPS second
    that their name states; the clock is the detector's. Verdicts are in the tables and on the time-line: as curves,
    TensorBoard would smooth them. Steps of the accuracy curves are SNR² thresholds. TensorBoard opens the first two
    names of a page, capitals before small letters.

    Args:
        tracker: TensorBoard.
        result: Of `run_inference`.
        figures: By name.
        settings: Most rows and points.
        classes: Class of the glitch by event id, where known.
    """
    zero = _gps_zero(result)
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


def _energy(value: Any) -> str:
    return "-" if pd.isna(value) else f"{value:.0f}"


def _track_curve(tracker: TensorBoardTracker, name: str, curve: Curve) -> None:
    for threshold, value in zip(curve.thresholds, curve.value, strict=True):
        # TensorBoard's steps are whole numbers
        if np.isfinite(value) and float(threshold).is_integer():
            tracker.metric(name, float(value), int(threshold))


def _band(curve: Curve) -> Band:
    return Band(curve.value, curve.low, curve.high)
