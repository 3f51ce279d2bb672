"""Figures of the result of a run: examples, single events, the time-line, and the scores beside their baselines."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.inference.closed_loop import ClosedLoop
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
from glitchflow_plugin.inference.veto_report import RANDOM, VetoReport
from glitchflow_plugin.inference.veto_rivals import CHANNEL, ROUNDS
from glitchflow_plugin.plots.cleaning import CleaningExample, plot_cleaning
from glitchflow_plugin.plots.coupling import WitnessHistory, plot_coupling
from glitchflow_plugin.plots.curves import Band, plot_accuracy, plot_confusion, plot_roc
from glitchflow_plugin.plots.maps import FrequencyAxis
from glitchflow_plugin.plots.style import Picture
from glitchflow_plugin.plots.timeline import plot_timeline
from glitchflow_plugin.plots.vetoes import VetoCurve, plot_reliability, plot_veto_efficiency
from glitchflow_plugin.products.veto_table import outcomes

LABELS: Mapping[str, str] = {
    MODEL: "model",
    LINEAR: "linear witness filter",
    ZERO: "zero prediction",
    **{name: name for name in TRIVIAL},
}
"""How the scored predictions are called in figures."""

VETO_LABELS: Mapping[str, str] = {
    MODEL: "model",
    LINEAR: "linear witness filter",
    RANDOM: "the model's vetoes at random times",
    CHANNEL: "best channel",
    ROUNDS: "channels in rounds",
}
"""How vetoes are called in figures."""

NO_CLASSES: Mapping[str, str] = {}


def example_figures(
    result: InferenceResult,
    spectrograms: SpectrogramSet,
    target: str,
    settings: InferenceSettings,
    *,
    axis: FrequencyAxis = "log",
    classes: Mapping[str, str] = NO_CLASSES,
) -> dict[str, Picture]:
    """Figures of real, generated and cleaned maps by kind of example.

    Args:
        result: From `run_inference`.
        spectrograms: The maps it was run on.
        target: The strain channel.
        settings: Number of examples and threshold.
        axis: Axis of frequency.
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
    classes: Mapping[str, str] = NO_CLASSES,
) -> Iterator[tuple[int, Picture]]:
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


def timeline_figure(result: InferenceResult, settings: InferenceSettings) -> Picture:
    """Events and vetoed segments along time."""
    return plot_timeline(
        result.events["gps_event"].to_numpy(),
        _loudness(result.events),
        outcomes(result.events),
        result.segments[["gps_start", "gps_end"]].to_numpy(dtype=np.float64),
        gps_zero=gps_zero(result),
        threshold=settings.threshold,
    )


def coupling_figure(loop: ClosedLoop, result: InferenceResult) -> Picture:
    """Gains of the witnesses that had something to say, along time."""
    gps, reference, histories = result.events["gps_event"].to_numpy(dtype=np.float64), loop.reference, []
    for part, name in enumerate(reference.parts):
        rows = loop.watch.counted[:, part]
        mean, spread = reference.gain[part], reference.spread[part]
        if rows.any():
            histories.append(
                WitnessHistory(
                    name=name,
                    gps=gps[rows],
                    gain=loop.gains.gain[rows, part],
                    error=np.sqrt(loop.gains.variance[rows, part]),
                    ordinary=None if mean is None or spread is None else (mean - 2 * spread, mean + 2 * spread),
                    stopped_after=loop.stopped_after(part, gps),
                )
            )
    return plot_coupling(histories, gps_zero=gps_zero(result))


def _kinds(result: InferenceResult) -> list[str]:
    return [kind for kind in KINDS if kind != "vetoed"] if result.scores else ["vetoed"]


def _loudness(events: pd.DataFrame) -> np.ndarray:
    """Largest energy of each event: measured, or predicted where nothing was."""
    return events["peak_snr2_measured"].fillna(events["peak_snr2_predicted"]).to_numpy(dtype=float)


def gps_zero(result: InferenceResult) -> float:
    """The whole GPS second from which times are counted."""
    return float(math.floor(result.events["gps_start"].min()))


def read_example(
    result: InferenceResult,
    spectrograms: SpectrogramSet,
    target: str,
    row: int,
    classes: Mapping[str, str] = NO_CLASSES,
) -> CleaningExample:
    """The maps of one row of the event table; refuses maps of another event.

    Args:
        result: From `run_inference`.
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


def score_figures(scores: Mapping[str, Scores], threshold: float) -> dict[str, Picture]:
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


def veto_figures(report: VetoReport) -> dict[str, Picture]:
    """Efficiency against deadtime of the vetoes and their rivals, and the reliability of false-alarm probabilities."""
    curves = {
        VETO_LABELS[name]: VetoCurve(
            worth.values["deadtime"],
            Band(worth.values["efficiency"], worth.low["efficiency"], worth.high["efficiency"]),
        )
        for name, worth in report.worths.items()
    }
    deadtime, efficiency = (report.as_written[name].value for name in ("deadtime", "efficiency"))
    written = None if deadtime is None or efficiency is None else (deadtime, efficiency)
    found = {"veto_efficiency": plot_veto_efficiency(curves, written=written)}
    if not report.reliability.empty:
        claimed, *band = (
            report.reliability[name].to_numpy(dtype=float) for name in ("claimed", "observed", "low", "high")
        )
        found["veto_reliability"] = plot_reliability(claimed, Band(*band))
    return found


def _band(curve: Curve) -> Band:
    return Band(curve.value, curve.low, curve.high)
