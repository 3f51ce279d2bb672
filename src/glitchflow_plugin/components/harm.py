"""Harm: what a registered model's cleaning does to signals in continuous strain."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from itwinai.components import monitor_exec

from glitchflow_plugin.components._continuous import ContinuousStep
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.harm.injections import HarmSettings
from glitchflow_plugin.harm.report import (
    harm_pictures,
    harm_summary,
    harm_table,
    injection_table,
    safety_table,
)
from glitchflow_plugin.harm.run import HarmJob, run_harm
from glitchflow_plugin.inference.subject import load_model, model_inputs
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.pictures import IMAGES, save_figures
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.products.veto_table import write_table
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.streaming.blocks import Block
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
        save_figures(harm_pictures(table, self.settings), self.place / IMAGES)
        inputs = {**model_inputs(bundle), "strain": job.model.target.name}
        summary = harm_summary(tables, blocks, records, watched, self.settings, inputs=inputs, started=started)
        outputs = {**{name: str(path) for name, path in paths.items()}, "pictures": str(self.place / IMAGES)}
        report(replace(summary, outputs=outputs, warnings=(*self.lacks, *summary.warnings)), self.place)
