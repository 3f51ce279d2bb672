"""Stream: clean strain from continuous data and a registered model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from itwinai.components import monitor_exec

from glitchflow_plugin.components._continuous import ContinuousStep
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.readers.segments import as_given, read_segments
from glitchflow_plugin.inference.subject import load_model, model_inputs
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.streaming.blocks import Block
from glitchflow_plugin.streaming.run import (
    ProductSettings,
    StreamJob,
    provenance_of,
    run_stream,
    stream_model,
    stream_ranks,
    stream_summary,
)
from glitchflow_plugin.streaming.windows import StreamSettings


class Stream(ContinuousStep):
    """Subtract what a registered model predicts from continuous strain, and write it as files.

    Args:
        model: Argument of `ContinuousStep`, likewise the next three.
        tracking_uri: Likewise.
        folder: Likewise.
        datasets: Likewise.
        vetoes: Times that were vetoed: a file that gwpy reads, several, or pairs of GPS s; None: none.
        vetoes_flag: Name of the flag in files of `vetoes` that hold several.
        settings: The keys of `settings` in stream.yaml.
        products: The keys of `products` there.
        given: Other arguments of `ContinuousStep`.
    """

    section = "stream"

    @keeping_arguments
    def __init__(
        self,
        model: Mapping[str, object],
        tracking_uri: str,
        folder: str,
        datasets: Sequence[Mapping[str, object]],
        *,
        vetoes: object = None,
        vetoes_flag: str | None = None,
        settings: Mapping[str, object] | None = None,
        products: Mapping[str, object] | None = None,
        **given: Any,
    ) -> None:
        super().__init__(model, tracking_uri, folder, datasets, **given)
        self.vetoes, self.vetoes_flag = None if vetoes is None else as_given(vetoes, vetoes=True), vetoes_flag
        self.settings = built(StreamSettings, settings, "stream.settings")
        self.products = built(ProductSettings, products, "stream.products")

    @monitor_exec
    @holding()
    def execute(self, _before: object = None) -> Path:
        """Make the blocks that are not there yet; returns the folder of the files."""
        started = now()
        bundle = load_model(self.model, self.tracking_uri)
        strain = self.products.target or bundle.target
        vetoes = () if self.vetoes is None else read_segments(self.vetoes, self.vetoes_flag, vetoes=True).tolist()
        blocks = self.blocks_of(strain, self.settings.block_length)
        job = StreamJob(
            self.folder,
            stream_model(bundle, strain),
            self.settings,
            self.products,
            provenance_of(bundle, self.settings, strain),
            tuple((float(start), float(stop)) for start, stop in vetoes),
            ranks=stream_ranks(bundle, self.products),
        )
        self.find_place(job, blocks)
        self._make(job, blocks, bundle, started)
        return self.place

    @holding("place")
    def _make(self, job: StreamJob, blocks: Sequence[Block], bundle: ModelBundle, started: str) -> None:
        job, blocks = self.claimed(job, blocks, self.settings)
        manifest = run_stream(job, blocks, self.engine, self._what)
        summary = stream_summary(manifest, job, model_inputs(bundle), started)
        report(replace(summary, warnings=(*self.lacks, *summary.warnings)), self.place)
