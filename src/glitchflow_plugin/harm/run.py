"""Signals in continuous strain, block by block: what is read, judged and written down."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Self

from glitchflow_plugin.data.files import content_hash, read_record, write_json
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.harm.injections import HarmSettings
from glitchflow_plugin.harm.measures import BlockFound, judge_block
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.spectrograms import single_thread
from glitchflow_plugin.products.folder import SeenGain, record_path
from glitchflow_plugin.streaming.blocks import Block, read_covered
from glitchflow_plugin.streaming.loop import Watched, left_out, make_watched
from glitchflow_plugin.streaming.run import what_is_used
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings

_STEP = "harm_pipeline"


@dataclass(frozen=True)
class HarmRecord:
    """What came of a block.

    Attributes:
        start: GPS s.
        stop: GPS s.
        fingerprint: Checksum of all that decides about it, what was stopped included.
        found: Signals, glitches, witnesses that follow the strain.
        problems: By channel what was wrong with it.
        seen: The fingerprint without any stop: that of the gains.
    """

    start: float
    stop: float
    fingerprint: str
    found: BlockFound
    problems: Mapping[str, str]
    seen: str = ""


@dataclass(frozen=True, eq=False)
class HarmJob:
    """All that a worker needs to judge any block; sent to it once.

    Attributes:
        folder: Where the records go.
        model: Twin and recipes.
        settings: How the model is used.
        harm: Which signals, how they are looked for.
        provenance: What decides about the model, as streaming says it.
        inputs: Fingerprint of the data.
    """

    folder: Path
    model: StreamModel
    settings: StreamSettings
    harm: HarmSettings
    provenance: Mapping[str, object]
    inputs: str = ""

    def __post_init__(self) -> None:
        """Refuse a band that the model's strain does not have.

        Raises:
            ConfigurationError: It does not lie within that of the model.
        """
        band, whole = self.harm.band, self.model.target.settings
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
        return {**what_is_used(self.provenance, blocks), "harm": asdict(self.harm)}

    def fingerprint(self, block: Block) -> str:
        """Of all that decides about the signals of a block and what is found of them."""
        harm = {key: value for key, value in asdict(self.harm).items() if key != "replicates"}
        stopped = [asdict(one) for one in block.stopped]
        return content_hash([self.provenance, harm, self.inputs, block.span, block.segment, stopped])

    def seen(self, block: Block) -> str:
        """Of all that decides about what a block says of its witnesses."""
        return self.fingerprint(replace(block, stopped=()))

    def unseen(self, blocks: Sequence[Block]) -> list[Block]:
        """Those that have not said yet what they say of their witnesses."""
        return [one for one in blocks if self._checksum_of(one, "seen") != self.seen(one)]

    def gains_in(self, block: Block) -> tuple[SeenGain, ...]:
        """What a block that was judged says of its witnesses."""
        return read_harm_record(self.folder, block).found.gains

    def pending(self, blocks: Sequence[Block]) -> list[Block]:
        """Those that are not there as they would be made now."""
        return [one for one in blocks if self._checksum_of(one, "fingerprint") != self.fingerprint(one)]

    def _checksum_of(self, block: Block, name: Literal["fingerprint", "seen"]) -> str | None:
        try:
            return str(getattr(read_harm_record(self.folder, block), name))
        except FormatError:
            return None


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
        stopped = left_out(block.stopped, [one.name for one in job.model.witnesses])
        with single_thread():
            found = judge_block(
                channels, job.model, (block.span, block.segment), job.settings, job.harm, stopped=stopped
            )
    if block.stopped:  # what was seen where nothing is stopped stays
        found = replace(found, gains=job.gains_in(block))
    record = HarmRecord(*block.span, job.fingerprint(block), found, problems, job.seen(block))
    write_json(record_path(job.folder, *block.span), asdict(record))
    return record


def run_harm(job: HarmJob, blocks: Sequence[Block], engine: EngineSettings) -> tuple[list[HarmRecord], Watched | None]:
    """Judge all blocks that are not there yet; the second value is what the closed loop says of the witnesses.

    Args:
        job: What is done.
        blocks: From `streaming.blocks.open_blocks`.
        engine: Where.

    Raises:
        ShareDone: In a task of an array: its share is made, and other blocks are not.
        ShardError: A block could not be judged; those that were finished stay.
        NoEventsError: No signal had room.
    """
    blocks, watched = make_watched(job, make_block, blocks, engine, "Harm")
    records = [read_harm_record(job.folder, one) for one in blocks]
    if not any(one.found.judged for one in records):
        longest = max(one.stop - one.start for one in records)
        raise NoEventsError(
            f"no signal could be tried in {len(records)} block(s) of at most {longest:g} s: "
            f"{records[0].found.problem}. A signal, {2 * job.harm.edge:g} s beside it, and three segments of "
            f"{job.harm.fft_length:g} s without a glitch must lie in one: give longer stream.segments, a longer "
            "stream.settings.block_length, or fewer harm.settings.kinds."
        )
    return records, watched
