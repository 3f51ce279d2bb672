"""Continuous strain through a registered model, block by block: what is read, made and written."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import Field

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.closed_loop import NOTE
from glitchflow_plugin.inference.rank_report import known_ranks
from glitchflow_plugin.inference.subject import registered, weights_fingerprint
from glitchflow_plugin.inference.veto_report import VETOES
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.preprocessing.channel_recipe import channel_recipe
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.spectrograms import single_thread
from glitchflow_plugin.products.clean_strain import (
    GLITCH,
    STATE_RATE,
    CleanStrain,
    channel_names,
    state_vector,
    write_clean_strain,
)
from glitchflow_plugin.products.folder import (
    BlockRecord,
    Manifest,
    ProductFile,
    SeenGain,
    Stop,
    is_finished,
    is_seen,
    read_block_record,
    total,
    write_block_record,
    write_manifest,
)
from glitchflow_plugin.products.folder_vetoes import folder_flag, write_folder_flag, write_veto_table
from glitchflow_plugin.products.rank_channels import RankNames, rank_channel_names, rank_channels
from glitchflow_plugin.products.summary import Metric, RunSummary, versions
from glitchflow_plugin.products.veto_formats import VetoFormat
from glitchflow_plugin.settings import Positive, section
from glitchflow_plugin.signal.gain_watch import GainReference
from glitchflow_plugin.signal.glitch_snr import GlitchSNR
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.signal.rank_calibration import RankCalibration
from glitchflow_plugin.streaming.blocks import Block, between, read_covered
from glitchflow_plugin.streaming.loop import left_out, make_watched, warnings_of, watched_in
from glitchflow_plugin.streaming.noise import keep_noise, tell_noise
from glitchflow_plugin.streaming.ranks import MARGIN, within_block
from glitchflow_plugin.streaming.subtraction import Subtraction, subtract
from glitchflow_plugin.streaming.vetoes import block_vetoes, veto_boxes
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.intervals import covered, union

logger = logging.getLogger(__name__)

NO_RANKS = (
    "The model carries no calibration of its ranks (an earlier version registered it, or its validation events hold no "
    "glitch as loud as stream.products.glitch_snr.lowest): the rank channels are left out. Train it again for these."
)
"""What is told where rank channels were asked for and cannot be made."""


@section
class ProductSettings:
    """What is written; conf/stream.yaml explains the keys."""

    formats: Annotated[tuple[Literal["hdf5", "gwf"], ...], Field(min_length=1)] = ("hdf5",)
    suffix: Annotated[str, Field(pattern="^[A-Za-z0-9_]+$", description="letters, digits and underscores")] = "clean"
    target: str | None = None
    ranks: RankNames | None = "glf"
    glitch_snr: GlitchSNR = GlitchSNR()
    glitch_rate: Positive | None = None
    threshold: Positive = 16.0
    veto_padding: Annotated[float, Field(ge=0, le=MARGIN)] = 0.05
    veto_formats: tuple[VetoFormat, ...] = ("hdf5", "segwizard")
    own_vetoes: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that another channel of the file has."""
        if self.suffix == GLITCH:
            raise ConfigurationError(
                f"stream.products.suffix must not be {GLITCH!r}, which names the prediction: choose another."
            )

    def decisive(self) -> dict[str, object]:
        """The settings that change what the files hold or which there are, JSON-like."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class StreamJob:
    """All that a worker needs to make any block; sent to it once.

    Attributes:
        folder: Where the files go.
        model: Twin and recipes.
        settings: How the model is used.
        products: What is written.
        provenance: What each file says of where it comes from.
        vetoes: Start and end of times that were vetoed, GPS s.
        inputs: Fingerprint of the data.
        ranks: What the model knows of its ranks; None: there are no rank channels.
    """

    folder: Path
    model: StreamModel
    settings: StreamSettings
    products: ProductSettings
    provenance: Mapping[str, object]
    vetoes: tuple[tuple[float, float], ...] = ()
    inputs: str = ""
    ranks: RankCalibration | None = None

    def at(self, folder: Path, inputs: str) -> Self:
        """The job, once it is known where the files go and what the data are."""
        return replace(self, folder=folder, inputs=inputs)

    def what(self, blocks: Sequence[Block]) -> dict[str, object]:
        """All that decides about the products of some blocks."""
        return {
            **what_is_used(self.provenance, blocks),
            "products": self.products.decisive(),
            "vetoes": content_hash(self.vetoes),
        }

    def fingerprint(self, block: Block) -> str:
        """Of all that decides about a block."""
        stopped = [asdict(one) for one in block.stopped]
        return content_hash([self.provenance, self.vetoes, self.inputs, block.span, block.segment, stopped])

    def seen(self, block: Block) -> str:
        """Of all that decides about what a block says of its witnesses."""
        return self.fingerprint(replace(block, stopped=()))

    def unseen(self, blocks: Sequence[Block]) -> list[Block]:
        """Those that have not said yet what they say of their witnesses."""
        return [one for one in blocks if not is_seen(self.folder, *one.span, self.seen(one))]

    def gains_in(self, block: Block) -> tuple[SeenGain, ...]:
        """What a block that was made says of its witnesses."""
        return read_block_record(self.folder, *block.span).gains

    @property
    def told(self) -> dict[str, object]:
        """What each file says of where it comes from, and of its ranks."""
        ranks = {"glitchflow_ranks": self.ranks.told()} if self.ranks is not None and self.rank_names else {}
        return {**self.provenance, **ranks}

    @property
    def rank_names(self) -> dict[str, str]:
        """Names of the rank channels by what they tell; empty where there are none."""
        if self.ranks is None or self.products.ranks is None:
            return {}
        maps = self.model.qtransform
        band = maps.frequency_low, maps.frequency_high
        return rank_channel_names(
            self.model.target.name, str(self.provenance["glitchflow_model"]), band, self.products.ranks
        )

    def rank_channels(self, energy: Series, start: float) -> tuple[Channel, ...]:
        """The rank channels of a block that begins at a GPS time (s); none where the model has no calibration."""
        names = self.rank_names
        if self.ranks is None or not names:
            return ()
        return rank_channels(within_block(energy), start, names, self.products.threshold, self.ranks)

    def pending(self, blocks: Sequence[Block]) -> list[Block]:
        """Those that are not there as they would be made now."""
        return [one for one in blocks if not is_finished(self.folder, *one.span, self.fingerprint(one))]


def stream_ranks(bundle: ModelBundle, products: ProductSettings) -> RankCalibration | None:
    """What a model knows of its ranks, for the glitches that are expected; None where it writes no channels.

    Args:
        bundle: The model.
        products: Which channels are asked for, of which glitches and how many.

    Raises:
        ConfigurationError: There cannot be so many glitches.
    """
    if products.ranks is None:
        return None
    ranks = known_ranks(bundle.notes.get(VETOES), products.glitch_snr)
    if ranks is None:
        logger.warning("%s", NO_RANKS)
    return None if ranks is None else ranks.at_rate(products.glitch_rate)


def stream_model(bundle: ModelBundle, strain: str | None = None) -> StreamModel:
    """What streaming needs of a registered model.

    Args:
        bundle: The model.
        strain: Channel that is read in place of the one that it was trained on, such as one that was cleaned before.

    Raises:
        ConfigurationError: The model does not predict waveforms, or looks at series that are not whitened.
    """
    events = Recipe.from_dict(bundle.recipe).part("events")
    if bundle.representation != "waveform" or not events.get("whiten", True):
        raise ConfigurationError(
            f"expected a model of whitened waveforms (such as coupling), got {bundle.model.get('name')}, whose "
            "prediction has no phase and cannot be taken from the strain. Choose another in stream.model."
        )
    target = channel_recipe(bundle.target, events)
    witnesses = tuple(channel_recipe(name, events) for name in bundle.witnesses)
    maps = QTransformSettings.from_recipe(Recipe.from_dict(bundle.recipe).part("qtransform"))
    content = bundle.notes.get(NOTE)
    reference = None if content is None else GainReference.from_dict(content)
    # the layout of memory in which a processor convolves fastest; the numbers are the same
    twin = bundle.twin.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return StreamModel(twin, replace(target, name=strain or bundle.target), witnesses, maps, reference)


def make_block(job: StreamJob, plan: ShardPlan) -> BlockRecord:
    """Read, predict, subtract and write one block. Runs in a worker.

    Raises:
        FormatError: The strain is in another unit than in training, or files contradict each other.
        ConfigurationError: It does not reach as high as what the model predicts.
    """
    block, channels, problems = read_covered(job.model, plan)
    # what was seen where nothing is stopped stays
    gains = job.gains_in(block) if block.stopped else ()
    record = BlockRecord(*block.span, job.fingerprint(block), job.seen(block), problems=problems, gains=gains)
    strain = channels.get(job.model.target.name)
    if strain is not None:
        stopped = left_out(block.stopped, [one.name for one in job.model.witnesses])
        with single_thread():
            found = subtract(channels, job.model, block.span, block.segment, job.settings, stopped=stopped)
        piece = between(strain, *block.span) or strain
        told = {"glitchflow_stopped": [asdict(one) for one in block.stopped]} if block.stopped else {}
        content, record = write_found(job, record, piece, found, told)
        keep_noise(job.folder, block.span, content, found.quiet)
    write_block_record(job.folder, record)
    return record


def write_found(
    job: StreamJob, record: BlockRecord, piece: Channel, found: Subtraction, told: Mapping[str, object]
) -> tuple[CleanStrain, BlockRecord]:
    """Write what the model says of a stretch.

    Args:
        job: Where, in which formats, under which names.
        record: Of the stretch, as far as it is known.
        piece: The recorded strain in it.
        found: What the model says.
        told: What the files say beside where they come from.

    Returns:
        What the files hold, and the record, which is not written yet.
    """
    span = record.start, record.stop
    size = round((span[1] - span[0]) * STATE_RATE)
    vetoes = block_vetoes(found.energy, span, job.products.threshold, job.products.veto_padding)
    own = vetoes.active if job.products.own_vetoes else ()
    flags = {
        "ANALYSED": found.analysed,
        "NOT_VETOED": _outside((*job.vetoes, *own), span, size),
        "NOTHING_SUBTRACTED": found.glitch == 0,
        "WITNESSES_COMPLETE": found.complete,
        "IN_DISTRIBUTION": found.familiar,
        "NO_SIGNAL_SUSPECTED": found.accounted,
        "STRAIN_AGREES": found.agreed,
    }
    state = state_vector(flags, size)
    content = CleanStrain(piece, found.glitch, state, job.products.suffix, job.rank_channels(found.energy, span[0]))
    written = write_clean_strain(job.folder, content, job.products.formats, {**job.told, **told})
    return content, replace(
        record,
        files=tuple(map(ProductFile.of, written)),
        seconds={name: float(np.count_nonzero(state >> bit & 1)) / STATE_RATE for bit, name in enumerate(flags)},
        missing=found.missing,
        believed=tuple(one.record for one in found.stretches),
        gains=record.gains or found.gains,
        known=vetoes.known,
        vetoed=vetoes.active,
        boxes=veto_boxes(found, span, job.products.threshold),
    )


def run_stream(job: StreamJob, blocks: Sequence[Block], engine: EngineSettings, what: Mapping[str, object]) -> Manifest:
    """Make all blocks that are not there yet, and write down what the folder holds.

    Args:
        job: What is done.
        blocks: From `streaming.blocks.open_blocks`.
        engine: Where.
        what: All that decides about the folder, from `StreamJob.what`.

    Raises:
        ShareDone: In a task of an array: its share is made, and other blocks are not.
        ShardError: A block could not be made; those that were finished stay.
    """
    blocks, watched = make_watched(job, make_block, blocks, engine, "Stream")
    records = tuple(read_block_record(job.folder, *one.span) for one in blocks)
    return write_whole(job, what, records, () if watched is None else watched.stops)


def write_whole(
    job: StreamJob, what: Mapping[str, object], records: tuple[BlockRecord, ...], stops: tuple[Stop, ...] = ()
) -> Manifest:
    """Write down what a folder holds, and the vetoes of all its blocks.

    Args:
        job: What was done.
        what: Model, settings and times that decide about it.
        records: Of all blocks, in order of time.
        stops: What the closed loop has stopped.
    """
    flag = folder_flag(what, job.model.target.name, records)
    written = write_folder_flag(flag, job.folder, job.products.veto_formats)
    written += write_veto_table(flag, records, None if job.ranks is None else job.ranks.false_alarm, job.folder)
    flags = tuple(map(ProductFile.of, written))
    ranks = tuple(job.rank_names.values())
    manifest = Manifest(
        what,
        job.model.target.name,
        job.products.suffix,
        records,
        stops,
        ranks,
        flags,
    )
    write_manifest(job.folder, manifest)
    return manifest


def stream_summary(manifest: Manifest, job: StreamJob, inputs: Mapping[str, object], started: str) -> RunSummary:
    """What a run made, in figures.

    Args:
        manifest: What the folder says of itself.
        job: What was done.
        inputs: Model and version.
        started: ISO 8601, UTC.
    """
    asked = sum(one.stop - one.start for one in manifest.blocks)
    seconds = total(one.seconds for one in manifest.blocks)
    made = sum(one.stop - one.start for one in manifest.blocks if one.files)
    missing = total(one.missing for one in manifest.blocks)
    problems = {name: why for one in manifest.blocks for name, why in one.problems.items()}
    shares = {
        "analysed_share": seconds.get("ANALYSED", 0.0) / asked,
        "subtracted_share": (made - seconds.get("NOTHING_SUBTRACTED", 0.0)) / asked,
        "witnesses_complete_share": seconds.get("WITNESSES_COMPLETE", 0.0) / asked,
        "in_distribution_share": seconds.get("IN_DISTRIBUTION", 0.0) / asked,
    }
    counts = Counter(f"{stretch.reason or 'taken'}_stretches" for one in manifest.blocks for stretch in one.believed)
    counts["witnesses_stopped"] = len(manifest.stopped)
    noise = tell_noise(job.folder, manifest)
    watched = watched_in(job, (gain for one in manifest.blocks for gain in one.gains))
    return RunSummary(
        pipeline="stream_pipeline/Stream",
        started=started,
        inputs={
            **inputs,
            "strain": manifest.strain,
            "seconds": asked,
            "blocks": len(manifest.blocks),
            **({} if job.ranks is None else {"efficiency_of": str(job.ranks.glitch_snr)}),
        },
        metrics={
            **{name: Metric(float(value)) for name, value in {**shares, **dict(sorted(counts.items()))}.items()},
            **noise.metrics,
        },
        outputs={
            "files": str(job.folder),
            "channels": ", ".join(channel_names(manifest.strain, manifest.suffix)),
            **noise.outputs,
        },
        details=noise.details,
        warnings=(
            *_unused(asked, made, seconds.get("ANALYSED", 0.0)),
            *(f"{name} was missing for {time:.0f} s" for name, time in missing.items()),
            *(f"{name}: {why}" for name, why in problems.items()),
            *([] if watched is None else warnings_of(watched)),
            *([NO_RANKS] if job.products.ranks and job.ranks is None else []),
        ),
    )


def _unused(asked: float, made: float, analysed: float) -> list[str]:
    """What to tell of time, s, of which nothing could be made."""
    said = []
    if made < asked:
        said.append(f"{asked - made:.0f} of {asked:.0f} s are in blocks without any strain, which have no file")
    if not analysed:
        said.append(
            "nothing was analysed: the strain is missing, constant or too short, or no witness is alive. Look at the "
            "data, or correct stream.segments"
        )
    return said


def provenance_of(bundle: ModelBundle, settings: StreamSettings, strain: str) -> dict[str, object]:
    """What each file says of where it comes from.

    Args:
        bundle: The model.
        settings: How it is used.
        strain: The channel that it is taken from.
    """
    named = registered(bundle)
    return {
        "glitchflow_model": str(named.get("name", "")),
        "glitchflow_model_version": str(named.get("version", "")),
        "glitchflow_model_sha256": weights_fingerprint(bundle.twin),
        "glitchflow_recipe_sha256": content_hash(bundle.recipe),
        "glitchflow_recipe": dict(bundle.recipe),
        "glitchflow_settings": settings.decisive(),
        "glitchflow_strain": strain,
        "glitchflow_version": versions()["glitchflow_plugin"],
    }


def what_is_used(provenance: Mapping[str, object], blocks: Sequence[Block]) -> dict[str, object]:
    """Model, settings and times, as a folder of results keeps them: of the recipe its checksum.

    Args:
        provenance: From `provenance_of`.
        blocks: All of the run.
    """
    times = {"blocks": content_hash([one.span for one in blocks]), "gps": [blocks[0].span[0], blocks[-1].span[1]]}
    return {**told_of(provenance), **times}


def told_of(provenance: Mapping[str, object]) -> dict[str, object]:
    """Provenance as a folder of results keeps it: of the recipe its checksum."""
    return {key.removeprefix("glitchflow_"): value for key, value in provenance.items() if key != "glitchflow_recipe"}


def _outside(
    vetoes: Sequence[tuple[float, float]], span: tuple[float, float], size: int
) -> Bool[np.ndarray, " sample"]:
    """Where samples of a stretch touch no veto."""
    edges = np.linspace(*span, size + 1)
    return covered(union(vetoes), np.stack([edges[:-1], edges[1:]], axis=1)) == 0
