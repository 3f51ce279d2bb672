"""What the steps that use a registered model on continuous data have in common: arguments, and where results lie."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

from itwinai.components import BaseComponent

from glitchflow_plugin.components._step import keeping_arguments
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.readers.segments import as_given, read_segments
from glitchflow_plugin.data.results import claim, place
from glitchflow_plugin.inference.subject import check_model
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.streaming.blocks import Block, find_segments, not_held, open_blocks, plan_blocks
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings


class BlockJob(Protocol):
    """What is done with each block."""

    @property
    def model(self) -> StreamModel: ...
    @property
    def provenance(self) -> Mapping[str, object]: ...
    def what(self, blocks: Sequence[Block]) -> Mapping[str, object]: ...
    def at(self, folder: Path, inputs: str) -> Self: ...


Job = TypeVar("Job", bound=BlockJob)


class ContinuousStep(BaseComponent):
    """A step that looks at continuous data with a registered model, block by block.

    Args:
        model: `name` and `version` (a number or an alias) of the registered model.
        tracking_uri: Address of the registry.
        folder: Below it everything goes, in a folder named after GPS times and version.
        datasets: Where the data are, as in datasets.yaml; `processing`, `triggers` and `segment` are not used.
        segments: Times that are looked at: a file that gwpy reads, several, or pairs of GPS s; None: all that there is.
        segments_flag: Name of the flag in such files where they hold several.
        engine: Where the blocks are made: the keys of engine.yaml, or an engine's name.
        result: Name of the result's folder; None: named after what it is of.
        replace: Whether another result of the name `result` may go.
        name: Name of the step.
    """

    section: str

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
        self.engine = EngineSettings.of(engine)
        self.result = None if result is None else check_name(str(result), f"{self.section}.yaml: result")
        self.replace = replace

    def blocks_of(self, strain: str, block_length: int) -> list[Block]:
        """The times that are looked at, in blocks of a length, s."""
        self._asked = None if self.segments is None else read_segments(self.segments, self.segments_flag).tolist()
        self._found = find_segments(self.datasets, strain, self._asked)
        return plan_blocks(self._found, block_length)

    def find_place(self, job: BlockJob, blocks: Sequence[Block]) -> None:
        """From then on `place` is the folder of what comes of a job, to be held and claimed."""
        self._what = job.what(blocks)
        version = job.provenance["glitchflow_model_version"]
        span = f"{blocks[0].span[0]:.0f}-{blocks[-1].span[1]:.0f}-v{version}"
        self.place = place(self.folder, span, self._what, chosen=self.result)

    def claimed(self, job: Job, blocks: Sequence[Block], settings: StreamSettings) -> tuple[Job, list[Block]]:
        """Write down what the results in `place` are of, and open the data: the job and its blocks, ready to be run.

        From then on `lacks` is what to tell of data that are not there.
        """
        claim(self.place, self._what, replace=self.replace, section=self.section)
        blocks, catalogue = open_blocks(self.datasets, blocks, job.model, settings)
        self.lacks = not_held(self._asked, self._found, catalogue.unreadable)
        return job.at(self.place, catalogue.fingerprint), blocks
