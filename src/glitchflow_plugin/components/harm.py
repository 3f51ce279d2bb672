"""Harm: what a registered model's cleaning does to signals in continuous strain."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from itwinai.components import monitor_exec

from glitchflow_plugin.components._continuous import ContinuousStep
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.harm.injections import HarmSettings
from glitchflow_plugin.harm.report import (
    PLACES,
    harm_metrics,
    harm_table,
    harm_warnings,
    injection_table,
    own_signals,
    safety_table,
)
from glitchflow_plugin.harm.run import HarmJob, run_harm
from glitchflow_plugin.inference.subject import load_model, model_inputs
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.plots.harm import plot_change, plot_recovered
from glitchflow_plugin.plots.style import Picture
from glitchflow_plugin.products.pictures import IMAGES, save_figures
from glitchflow_plugin.products.summary import RunSummary, now
from glitchflow_plugin.products.veto_table import write_table
from glitchflow_plugin.settings import built
from glitchflow_plugin.streaming.blocks import Block
from glitchflow_plugin.streaming.loop import warnings_of
from glitchflow_plugin.streaming.run import provenance_of, stream_model
from glitchflow_plugin.streaming.windows import StreamSettings


class Harm(ContinuousStep):
    """Inject signals into continuous strain, and look for them before and after a registered model cleans it.

    Args:
        model: Argument of `ContinuousStep`, likewise the next three.
        tracking_uri: Likewise.
        folder: Likewise.
        datasets: Likewise.
        target: Strain that is looked at; None: the one that the model was trained on.
        stream: How the model is used: the keys of `settings` in stream.yaml.
        settings: The keys of `settings` in harm.yaml.
        given: Other arguments of `ContinuousStep`.
    """

    section = "harm"

    @keeping_arguments
    def __init__(
        self,
        model: Mapping[str, object],
        tracking_uri: str,
        folder: str,
        datasets: Sequence[Mapping[str, object]],
        *,
        target: str | None = None,
        stream: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
        **given: Any,
    ) -> None:
        super().__init__(model, tracking_uri, folder, datasets, **given)
        self.target = target
        self.stream = built(StreamSettings, stream, "stream.settings")
        self.settings = built(HarmSettings, settings, "harm.settings")

    @monitor_exec
    @holding()
    def execute(self, _before: object = None) -> Path:
        """Judge the blocks that are not there yet; returns the folder of the result."""
        started = now()
        bundle = load_model(self.model, self.tracking_uri)
        strain = self.target or bundle.target
        blocks = self.blocks_of(strain, self.stream.block_length)
        provenance = {
            **provenance_of(bundle, self.stream, strain),
            # other blocks leave other places for signals
            "block_length": self.stream.block_length,
        }
        job = HarmJob(self.folder, stream_model(bundle, strain), self.stream, self.settings, provenance)
        self.find_place(job, blocks)
        self._make(job, blocks, bundle, started)
        return self.place

    @holding("place")
    def _make(self, job: HarmJob, blocks: Sequence[Block], bundle: ModelBundle, started: str) -> None:
        job, blocks = self.claimed(job, blocks, self.stream)
        records, watched = run_harm(job, blocks, self.engine)
        table = injection_table(records, self.settings)
        safety = safety_table(table, records, self.settings)
        tables = {"injections": table, "harm": harm_table(table, self.settings), "safety": safety}
        paths = {name: write_table(content, self.place, name)["csv"] for name, content in tables.items()}
        save_figures(_pictures(table, self.settings), self.place / IMAGES)
        report(
            RunSummary(
                pipeline="harm_pipeline/Harm",
                started=started,
                inputs={
                    **model_inputs(bundle),
                    "strain": job.model.target.name,
                    "seconds": sum(one.span[1] - one.span[0] for one in blocks),
                    "blocks": len(blocks),
                    "glitches": sum(len(one.found.glitches) for one in records),
                    "witnesses_stopped": 0 if watched is None else len(watched.stops),
                },
                metrics=harm_metrics(table, self.settings),
                outputs={**{name: str(path) for name, path in paths.items()}, "pictures": str(self.place / IMAGES)},
                warnings=(
                    *self.lacks,
                    *harm_warnings(table, safety, records, self.settings),
                    *([] if watched is None else warnings_of(watched)),
                ),
            ),
            self.place,
        )


def _pictures(table: pd.DataFrame, settings: HarmSettings) -> dict[str, Picture]:
    """SNR before and after, and its change by distance, of the signals that no witness holds."""
    table = own_signals(table)

    def _pairs(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        parts = {where: table[table["place"] == where] for where in PLACES}
        return {
            where: (part[f"{name}_before"].to_numpy(), part[f"{name}_after"].to_numpy())
            for where, part in parts.items()
            if len(part)
        }

    change = 100 * (table["snr_after"] / table["snr_before"] - 1)
    kinds = {kind: table["kind"] == kind for kind in settings.kinds if (table["kind"] == kind).any()}
    return {
        "recovered": plot_recovered(
            {"SNR": _pairs("snr"), "re-weighted SNR": _pairs("reweighted")}, threshold=settings.threshold
        ),
        "distance": plot_change(
            {kind: (table["distance"][rows].to_numpy(), change[rows].to_numpy()) for kind, rows in kinds.items()},
            near=settings.near,
            quiet=settings.quiet,
        ),
    }
