"""Tables, pictures and figures of a what-if."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.inference.asked import AskedTwin
from glitchflow_plugin.inference.attribution import Attributed
from glitchflow_plugin.inference.named_witnesses import TWIN, NamesJudged
from glitchflow_plugin.inference.subject import Subject, model_inputs
from glitchflow_plugin.inference.transfer_map import TRUE, gain_errors
from glitchflow_plugin.inference.what_if import DELAY, GAIN, SERIES, UNCHANGED, Answers
from glitchflow_plugin.plots.style import Picture
from glitchflow_plugin.plots.what_if import (
    ResponseCurve,
    SweepCurves,
    plot_attribution,
    plot_cases,
    plot_sweeps,
    plot_transfer,
)
from glitchflow_plugin.products.pictures import IMAGES, PictureSettings, save_figures
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
from glitchflow_plugin.products.veto_table import write_table

_BARS = 40
"""Events in the picture of attributions."""


@dataclass(frozen=True, eq=False)
class WhatIfResult:
    """What came of the questions.

    Attributes:
        answers: To the changes.
        attributed: The unchanged predictions.
        attributions: `attribution_table` of them.
        sweeps: From `sweep`.
        transfer: From `transfer_map`; empty of a twin of energies.
        judged: Whether the witnesses that are named are true ones; empty where nothing is known.
    """

    answers: Answers
    attributed: Attributed
    attributions: pd.DataFrame
    sweeps: pd.DataFrame
    transfer: pd.DataFrame = field(default_factory=pd.DataFrame)
    judged: NamesJudged = field(default_factory=NamesJudged)


def write_what_if(
    result: WhatIfResult, asked: AskedTwin, folder: Path, *, examples: int, pictures: PictureSettings
) -> dict[str, str]:
    """Write tables and pictures.

    Args:
        result: What came of the questions.
        asked: The twin.
        folder: Where to.
        examples: Events with a picture of their own.
        pictures: How they look.

    Returns:
        Paths, by what they hold.
    """
    tables = {
        "cases": result.answers.table,
        "attribution": result.attributions,
        "sweep": result.sweeps,
        "transfer": result.transfer,
        "true_witness": result.judged.table,
    }
    outputs = {"maps": str(result.answers.maps.folder)}
    for name, table in tables.items():
        if len(table):
            paths = write_table(table, folder, name)
            outputs[name] = f"{paths['csv']}, {paths['parquet']}"
    figures = what_if_figures(result, asked, folder, examples=examples, pictures=pictures)
    images = save_figures(figures, folder / IMAGES)
    return {**outputs, "images": ", ".join(map(str, images)) or "none"}


def what_if_metrics(result: WhatIfResult) -> dict[str, Metric]:
    """Figures for the run summary."""
    found = [one for one in result.attributed.found if one is not None]
    metrics = {"events_attributed": Metric(float(len(found)))}
    several = [one.interaction for one in found if len(one.active) > 1]
    metrics["interaction_median"] = Metric(float(np.median(several)) if several else None)
    mismatches = [one.mismatch for one in found if np.isfinite(one.mismatch)]
    metrics["mismatch_largest"] = Metric(max(mismatches, default=None))
    shares = result.judged.shares
    if TWIN in shares:
        own, rivals = shares[TWIN], {who: share.value for who, share in shares.items() if who != TWIN}
        metrics["true_witness_share"] = Metric(own.value, own.low, own.high, rivals)
        for who, lead in result.judged.leads.items():
            metrics[f"lead_over_{who}"] = Metric(lead.value, lead.low, lead.high)
    return metrics


def what_if_details(result: WhatIfResult) -> dict[str, Any]:
    """Figures that are too long for the table."""
    cases = result.answers.table.groupby("case", sort=False)
    loud = result.answers.table[result.answers.table["snr_unchanged"] >= 1]
    ratio = (loud["snr"] / loud["snr_unchanged"]).groupby(loud["case"], sort=False).median()
    judged, shares = result.judged.table, result.judged.shares
    by_label = {
        str(label): {"glitches": len(part), **{who: float(part[f"{who}_right"].mean()) for who in shares}}
        for label, part in (judged.groupby("label") if len(judged) else ())
    }
    return {
        "cases": {name: {"events": len(part), "median_snr_ratio": ratio.get(name)} for name, part in cases},
        "true_witness": {who: share.to_dict() for who, share in shares.items()},
        "true_witness_by_label": by_label,
        "transfer_gain_factor": gain_errors(result.transfer) if len(result.transfer) else {},
    }


def what_if_figures(
    result: WhatIfResult, asked: AskedTwin, folder: Path, *, examples: int, pictures: PictureSettings
) -> dict[str, Picture]:
    """Pictures by name."""
    figures = case_figures(result.answers, folder, count=examples, pictures=pictures)
    if len(result.attributions):
        figures["attribution"] = _attribution_figure(result, asked)
    if len(result.sweeps):
        figures["sweep"] = plot_sweeps(_sweeps(result.sweeps))
    if len(result.transfer):
        figures["transfer"] = plot_transfer(_responses(result.transfer))
    return figures


def case_figures(answers: Answers, folder: Path, *, count: int, pictures: PictureSettings) -> dict[str, Picture]:
    """The events whose unchanged prediction is loudest, all their cases below each other."""
    if len(answers.cases) < 2:
        return {}
    unchanged = answers.table[answers.table["case"] == UNCHANGED].sort_values("snr", ascending=False, kind="stable")
    series = EventSet.open(folder / SERIES) if (folder / SERIES).is_dir() else None
    figures, maps = {}, answers.maps
    for number, event_id in enumerate(unchanged["event_id"][:count], 1):
        batch = maps.read([maps.row_of[event_id]])
        strain = None if series is None else series.read([series.row_of[event_id]]).series[0]
        figures[f"case-{number:02d}"] = plot_cases(
            answers.cases,
            batch.maps[0],
            strain,
            maps.frequencies,
            maps.times,
            gps_start=float(batch.gps_start[0]),
            sample_rate=0.0 if series is None else series.sample_rate,
            title=f"predicted of event {event_id}, GPS {batch.gps_event[0]:.3f}",
            axis=pictures.frequency_axis,
        )
    return figures


def _attribution_figure(result: WhatIfResult, asked: AskedTwin) -> Picture:
    attributed = result.attributed
    loud = [place for place in np.argsort(-attributed.snr, kind="stable") if attributed.found[place] is not None]
    shown = loud[:_BARS]
    judged = result.judged.table
    labels = dict(zip(judged["event_id"], judged["label"], strict=True)) if len(judged) else {}
    names = []
    for place in shown:
        event_id = asked.spectrograms.event_ids[attributed.rows[place]]
        gps = asked.spectrograms.gps_event[attributed.rows[place]]
        names.append(f"{labels.get(event_id, '')}  GPS {gps:.2f}, SNR {attributed.snr[place]:.0f}".strip())
    shares = np.stack([one.shapley for place in shown if (one := attributed.found[place]) is not None])
    return plot_attribution(names, asked.witnesses, shares)


def _sweeps(table: pd.DataFrame) -> list[SweepCurves]:
    curves = []
    for witness, part in table.groupby("witness", sort=False):
        found: dict[str, dict[str, NDArray[np.float64]]] = {"values": {}, "snr": {}, "overlap": {}}
        for quantity in (GAIN, DELAY):
            one = part[part["quantity"] == quantity]
            found["values"][quantity] = one["value"].unique()
            shape = (part["event_id"].nunique(), len(found["values"][quantity]))
            found["snr"][quantity] = (one["snr"] / one["snr_unchanged"]).to_numpy(float).reshape(shape)
            found["overlap"][quantity] = one["overlap"].to_numpy(float).reshape(shape)
        curves.append(SweepCurves(str(witness), **found))
    return curves


def _responses(table: pd.DataFrame) -> dict[str, Sequence[ResponseCurve]]:
    found: dict[str, Sequence[ResponseCurve]] = {}
    for witness, part in table.groupby("witness", sort=False):
        curves = []
        for (model, amplitude), one in part.groupby(["model", "amplitude"], sort=False, dropna=False):
            label = str(model) if pd.isna(amplitude) else f"{model}, probe of SNR {amplitude:g}"
            columns = (one[name].to_numpy(float) for name in ("frequency", "gain", "delay"))
            curves.append(ResponseCurve(label, *columns, reference=model == TRUE))
        found[str(witness)] = curves
    return found


def what_if_summary(result: WhatIfResult, subject: Subject, truth: str, started: str) -> RunSummary:
    """What was answered, without where it lies.

    Args:
        result: From `run_what_if`.
        subject: What was asked.
        truth: Where it is known what is true, in words.
        started: When, ISO 8601, UTC.
    """
    return RunSummary(
        pipeline="what_if_pipeline/What-if",
        started=started,
        inputs={
            **model_inputs(subject.bundle),
            "spectrograms": str(subject.spectrograms.folder),
            "target": subject.bundle.target,
            "cases": len(result.answers.cases) - 1,
            "truth": truth,
        },
        events=EventCounts(len(subject.spectrograms), len(result.attributed.rows)),
        metrics=what_if_metrics(result),
        details=what_if_details(result),
    )
