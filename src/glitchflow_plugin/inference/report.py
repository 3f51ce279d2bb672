"""What a run tells: the figures and warnings of its summary, and what is written of its result."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.inference.closed_loop import gain_table, loop_details, loop_metrics, loop_warnings
from glitchflow_plugin.inference.drift import drift_metrics, drift_warnings
from glitchflow_plugin.inference.figures import (
    coupling_figure,
    event_figures,
    example_figures,
    score_figures,
    timeline_figure,
    veto_figures,
)
from glitchflow_plugin.inference.residual import residual_table
from glitchflow_plugin.inference.run import MODEL, InferenceResult, InferenceSettings
from glitchflow_plugin.inference.score import Scores
from glitchflow_plugin.inference.subject import model_inputs
from glitchflow_plugin.inference.tensorboard import track_result
from glitchflow_plugin.inference.veto_report import VetoReport
from glitchflow_plugin.inference.vetoes import write_vetoes
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.pictures import IMAGES, PictureSettings, save_figures
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
from glitchflow_plugin.products.veto_table import covered_seconds, write_table
from glitchflow_plugin.signal.drift import DriftReport
from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker, picture_name


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


def summary_details(result: InferenceResult) -> dict[str, object]:
    """Curves, ROC, confusion counts and missing witnesses for summary.json."""
    return {
        "scores": {name: each.to_dict() for name, each in result.scores.items()},
        "witnesses_missing": dict(result.witnesses_missing),
        "events_without_strain": result.num_unmeasured,
        "events_vetoed": int(result.events["veto"].to_numpy(dtype=bool).sum()),
        "segments": len(result.segments),
        **({} if result.loop is None else {"coupling": loop_details(result.loop, result.maps)}),
    }


def time_metrics(result: InferenceResult) -> dict[str, Metric]:
    """Time of the events, and how much of it is vetoed, h; what several events cover counts once."""
    return {
        "live_hours": Metric(covered_seconds(result.events) / 3600),
        "vetoed_hours": Metric(covered_seconds(result.segments) / 3600),
        **loop_metrics(result.loop),
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
    return said + loop_warnings(result.loop, result.maps) + undefined_figures(result.scores)


def write_result(
    result: InferenceResult,
    spectrograms: SpectrogramSet,
    target: str,
    settings: InferenceSettings,
    folder: Path,
    *,
    pictures: PictureSettings,
    board: Path | None = None,
    vetoes: VetoReport | None = None,
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
        vetoes: Their figures; None where there is no glitch to find.

    Returns:
        Where all of it is, by name, for the run summary.
    """
    contents = {"segments": result.segments, "events": result.events}
    if vetoes is not None:
        contents |= {"veto_figures": vetoes.table(), "veto_reliability": vetoes.reliability}
        contents |= {"rank_reliability": vetoes.of_ranks}
    tables = {name: write_table(content, folder, name) for name, content in contents.items()}
    if result.loop is not None:
        tables["coupling"] = write_table(gain_table(result.loop, result.maps), folder, "coupling")
    classes = pictures.classes()
    if result.power is not None:
        left = residual_table(result.events, result.power, result.loop, classes)
        tables["residual"] = write_table(left, folder, "residual")
    look = {"axis": pictures.frequency_axis, "classes": classes}
    overview = {"timeline": timeline_figure(result, settings), **score_figures(result.scores, settings.threshold)}
    overview |= {} if vetoes is None else veto_figures(vetoes)
    if result.loop is not None:
        overview["coupling"] = coupling_figure(result.loop, result)
    examples = example_figures(result, spectrograms, target, settings, **look)
    written = {path.stem: path for path in save_figures({**overview, **examples}, folder / IMAGES)}
    if board is not None:
        with TensorBoardTracker(board) as tracker:
            # the examples are there one by one, under the number of their row
            track_result(tracker, result, {name: written[name] for name in overview}, settings, classes)
            for row, figure in event_figures(result, spectrograms, target, settings, **look):
                tracker.figure(picture_name(row), figure, row, gps=float(result.events["gps_event"].iloc[row]))
    flags, losses = write_vetoes(result, target, settings, folder)
    return {
        "maps": str(result.maps.folder),
        **{name: f"{paths['csv']}, {paths['parquet']}" for name, paths in tables.items()},
        **({"vetoes": "; ".join([", ".join(map(str, flags)), *losses])} if flags else {}),
        "images": f"{folder / IMAGES} ({', '.join(written)})",
        **({"tensorboard": str(board)} if board is not None else {}),
    }


def inference_summary(
    bundle: ModelBundle,
    spectrograms: SpectrogramSet,
    result: InferenceResult,
    settings: InferenceSettings,
    *,
    vetoes: VetoReport | None,
    drift: DriftReport | None,
    how_to_reset: Sequence[str],
    outputs: Mapping[str, str],
    started: str,
) -> RunSummary:
    """What a run found.

    Args:
        bundle: The model.
        spectrograms: The maps that it was run on.
        result: From `run_inference`.
        settings: The keys of `inference.settings`.
        vetoes: Their figures; None where there is no glitch to find.
        drift: From the model's training data; None where that cannot be told.
        how_to_reset: How a state of the closed loop that stays between runs is begun anew.
        outputs: From `write_result`.
        started: When, ISO 8601, UTC.
    """
    return RunSummary(
        pipeline="inference_pipeline/Make-inference",
        started=started,
        inputs={
            **model_inputs(bundle),
            "spectrograms": str(spectrograms.folder),
            "target": bundle.target,
            "threshold_snr2": settings.threshold,
        },
        events=EventCounts.from_reasons(len(spectrograms), spectrograms.manifest.rejected.values()),
        metrics={
            **summary_metrics(result.scores),
            **({} if vetoes is None else vetoes.metrics(settings.threshold)),
            **time_metrics(result),
            **drift_metrics(drift),
        },
        outputs=outputs,
        warnings=(
            *run_warnings(result),
            *how_to_reset,
            *([] if vetoes is None else vetoes.warnings()),
            *drift_warnings(drift),
        ),
        details={**summary_details(result), **({} if drift is None else {"drift": drift.to_dict()})},
    )
