"""Signals in continuous strain, block by block: what is read, judged and written down."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from glitchflow_plugin.data.files import content_hash, read_record, write_json
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.harm.injections import HarmSettings
from glitchflow_plugin.harm.measures import BlockFound, judge_block
from glitchflow_plugin.preprocessing.engine import EngineSettings, map_shards
from glitchflow_plugin.preprocessing.spectrograms import single_thread
from glitchflow_plugin.products.folder import record_path
from glitchflow_plugin.streaming.blocks import Block, read_covered
from glitchflow_plugin.streaming.run import what_is_used
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings

logger = logging.getLogger(__name__)

_STEP = "harm_pipeline"


@dataclass(frozen=True)
class HarmRecord:
    """What came of a block.

    Attributes:
        start: GPS s.
        stop: GPS s.
        fingerprint: Checksum of all that decides about it.
        found: Signals, glitches, witnesses that follow the strain.
        problems: By channel what was wrong with it.
    """

    start: float
    stop: float
    fingerprint: str
    found: BlockFound
    problems: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class HarmJob:
    """All that a worker needs to judge any block; sent to it once.

    Attributes:
        folder: Where the records go.
        model: Twin and recipes.
        stream: How the model is used.
        settings: Which signals, how they are looked for.
        provenance: What decides about the model, as streaming says it.
        inputs: Fingerprint of the data.
    """

    folder: Path
    model: StreamModel
    stream: StreamSettings
    settings: HarmSettings
    provenance: Mapping[str, object]
    inputs: str = ""

    def __post_init__(self) -> None:
        """Refuse a band that the model's strain does not have.

        Raises:
            ConfigurationError: It does not lie within that of the model.
        """
        band, whole = self.settings.band, self.model.target.settings
        if band is not None and not (whole.low <= band[0] < band[1] <= whole.high):
            raise ConfigurationError(
                f"harm.settings.band must lie within the band of the model, {whole.low:g} to {whole.high:g} Hz, got "
                f"{band[0]:g} to {band[1]:g} Hz."
            )

    def at(self, folder: Path, inputs: str) -> Self:
        """The job, once it is known where the records go and what the data are."""
        return replace(self, folder=folder, inputs=inputs)

    def what(self, blocks: Sequence[Block]) -> dict[str, object]:
        """All that decides about the result of some blocks."""
        return {**what_is_used(self.provenance, blocks), "harm": asdict(self.settings)}

    def fingerprint(self, block: Block) -> str:
        """Of all that decides about the signals of a block and what is found of them."""
        settings = {key: value for key, value in asdict(self.settings).items() if key != "replicates"}
        return content_hash([self.provenance, settings, self.inputs, block.span, block.segment])

    def pending(self, blocks: Sequence[Block]) -> list[Block]:
        """Those that are not there as they would be made now."""
        return [one for one in blocks if not self._is_finished(one)]

    def _is_finished(self, block: Block) -> bool:
        try:
            record = read_harm_record(self.folder, block)
        except FormatError:
            return False
        return record.fingerprint == self.fingerprint(block)


def read_harm_record(folder: Path, block: Block) -> HarmRecord:
    """The record of a block.

    Args:
        folder: Folder of the result.
        block: The block.

    Raises:
        FormatError: There is none, or it is damaged.
    """
    return read_record(record_path(folder, *block.span), HarmRecord, _STEP)


def make_block(job: HarmJob, plan: ShardPlan) -> HarmRecord:
    """Read a block, judge signals in it, and write down what was found. Runs in a worker.

    Raises:
        FormatError: The strain is in another unit than in training, or files contradict each other.
        ConfigurationError: It does not reach as high as what the model predicts, or signals have no power in the band.
    """
    block, channels, problems = read_covered(job.model, plan)
    found = BlockFound(problem="there is no strain")
    if job.model.target.name in channels:
        with single_thread():
            found = judge_block(channels, job.model, (block.span, block.segment), job.stream, job.settings)
    record = HarmRecord(*block.span, job.fingerprint(block), found, problems)
    write_json(record_path(job.folder, *block.span), asdict(record))
    return record


def run_harm(job: HarmJob, blocks: Sequence[Block], engine: EngineSettings) -> list[HarmRecord]:
    """Judge all blocks that are not there yet.

    Args:
        job: What is done.
        blocks: From `streaming.blocks.open_blocks`.
        engine: Where.

    Raises:
        ShareDone: In a task of an array: its share is made, and other blocks are not.
        ShardError: A block could not be judged; those that were finished stay.
        NoEventsError: No signal had room.
    """
    pending = job.pending(blocks)
    if len(pending) < len(blocks):
        logger.info("%s: %d of %d blocks are there already.", job.folder, len(blocks) - len(pending), len(blocks))
    map_shards(partial(make_block, job), pending, engine, "Harm", left=partial(job.pending, blocks), unit="block")
    records = [read_harm_record(job.folder, one) for one in blocks]
    if not any(one.found.judged for one in records):
        longest = max(one.stop - one.start for one in records)
        raise NoEventsError(
            f"no signal could be tried in {len(records)} block(s) of at most {longest:g} s: "
            f"{records[0].found.problem}. A signal, {2 * job.settings.edge:g} s beside it, and three segments of "
            f"{job.settings.fft_length:g} s without a glitch must lie in one: give longer stream.segments, a longer "
            "stream.settings.block_length, or fewer harm.settings.kinds."
        )
    return records
