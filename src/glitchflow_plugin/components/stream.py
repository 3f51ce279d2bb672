"""Stream: clean strain from continuous data and a registered model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.readers.segments import as_given, read_segments
from glitchflow_plugin.data.results import claim, place
from glitchflow_plugin.inference.stream_data import Block, find_segments, open_blocks, plan_blocks
from glitchflow_plugin.inference.stream_run import (
    ProductSettings,
    StreamJob,
    provenance_of,
    run_stream,
    stream_model,
    stream_ranks,
    stream_summary,
)
from glitchflow_plugin.inference.stream_windows import StreamSettings
from glitchflow_plugin.inference.subject import check_model, load_model, model_inputs
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.settings import built


class Stream(BaseComponent):
    """Subtract what a registered model predicts from continuous strain, and write it as files.

    Args:
        model: `name` and `version` (a number or an alias) of the registered model.
        tracking_uri: Address of the registry.
        folder: Below it everything goes, in a folder named after GPS times and version.
        datasets: Where the data are, as in datasets.yaml; `processing`, `triggers` and `segment` are not used.
        segments: Times that are made: a file that gwpy reads, several, or pairs of GPS s; None: all that there is.
        segments_flag: Name of the flag in such files where they hold several.
        vetoes: Times that were vetoed, likewise.
        vetoes_flag: Name of the flag in files of `vetoes` that hold several.
        settings: The keys of `settings` in stream.yaml.
        products: The keys of `products` there.
        engine: Where the blocks are made: the keys of engine.yaml, or an engine's name.
        result: Name of the result's folder; None: named after what it is of.
        replace: Whether another result of the name `result` may go.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        model: Mapping[str, object],
        tracking_uri: str,
        folder: str,
        datasets: Sequence[Mapping[str, object]],
        *,
        segments: object = None,
        segments_flag: str | None = None,
        vetoes: object = None,
        vetoes_flag: str | None = None,
        settings: Mapping[str, object] | None = None,
        products: Mapping[str, object] | None = None,
        engine: Mapping[str, object] | str | None = None,
        result: str | None = None,
        replace: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.model, self.tracking_uri = check_model(model), tracking_uri
        self.folder = Path(folder)
        self.datasets = DatasetSettings.listed(datasets)
        self.segments, self.segments_flag = None if segments is None else as_given(segments), segments_flag
        self.vetoes, self.vetoes_flag = None if vetoes is None else as_given(vetoes, vetoes=True), vetoes_flag
        self.settings = built(StreamSettings, settings, "stream.settings")
        self.products = built(ProductSettings, products, "stream.products")
        self.engine = EngineSettings.of(engine)
        self.result = None if result is None else check_name(str(result), "stream.yaml: result")
        self.replace = replace

    @monitor_exec
    @holding()
    def execute(self, _before: object = None) -> Path:
        """Make the blocks that are not there yet; returns the folder of the files."""
        started = now()
        bundle = load_model(self.model, self.tracking_uri)
        strain = self.products.target or bundle.target
        asked = None if self.segments is None else read_segments(self.segments, self.segments_flag).tolist()
        vetoes = () if self.vetoes is None else read_segments(self.vetoes, self.vetoes_flag, vetoes=True).tolist()
        blocks = plan_blocks(find_segments(self.datasets, strain, asked), self.settings.block_length)
        job = StreamJob(
            self.folder,
            stream_model(bundle, strain),
            self.settings,
            self.products,
            provenance_of(bundle, self.settings, strain),
            tuple((float(start), float(stop)) for start, stop in vetoes),
            ranks=stream_ranks(bundle, self.products),
        )
        self._what = job.what(blocks)
        version = job.provenance["glitchflow_model_version"]
        span = f"{blocks[0].span[0]:.0f}-{blocks[-1].span[1]:.0f}-v{version}"
        self.place = place(self.folder, span, self._what, chosen=self.result)
        self._make(job, blocks, bundle, started)
        return self.place

    @holding("place")
    def _make(self, job: StreamJob, blocks: Sequence[Block], bundle: ModelBundle, started: str) -> None:
        claim(self.place, self._what, replace=self.replace, section="stream")
        blocks, catalogue = open_blocks(self.datasets, blocks, job.model, self.settings)
        job = job.at(self.place, catalogue.fingerprint)
        manifest = run_stream(job, blocks, self.engine, self._what)
        report(stream_summary(manifest, job, model_inputs(bundle), started), self.place)
