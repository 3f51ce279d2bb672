"""Continuous strain through a registered model, block by block: what is read, made and written."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.event_source import EventSource
from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.listing import coverage
from glitchflow_plugin.data.readers.continuous import GAP, OUTSIDE, UNREADABLE, slice_bounds
from glitchflow_plugin.data.readers.trigger_table import event_id_at
from glitchflow_plugin.data.readers.triggers import TriggerSettings
from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.data.sources import Catalogue, open_datasets
from glitchflow_plugin.data.units import same_unit
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.inference.stream import StreamModel, StreamSettings, reach, subtract
from glitchflow_plugin.inference.subject import registered, weights_fingerprint
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.preprocessing.channel_recipe import channel_recipe
from glitchflow_plugin.preprocessing.engine import EngineSettings, map_shards
from glitchflow_plugin.preprocessing.spectrograms import single_thread
from glitchflow_plugin.products.clean_strain import (
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
    is_finished,
    read_block_record,
    total,
    write_block_record,
    write_manifest,
)
from glitchflow_plugin.products.summary import Metric, RunSummary, versions
from glitchflow_plugin.settings import section
from glitchflow_plugin.signal import filters
from glitchflow_plugin.types.intervals import common, covered, union

logger = logging.getLogger(__name__)

_HOLES = (GAP, OUTSIDE, UNREADABLE)
"""What a reader says of a stretch that is not there; all else is wrong with the channel as a whole."""


@section
class ProductSettings:
    """What is written; conf/stream.yaml explains the keys."""

    formats: tuple[Literal["hdf5", "gwf"], ...] = ("hdf5",)
    suffix: str = "clean"
    target: str | None = None


@dataclass(frozen=True)
class Block(ShardPlan):
    """A stretch that is made at once.

    Attributes:
        span: Start and end, whole GPS s.
        segment: The science segment that it is a part of, whole GPS s.
        source: Where its data are; None before the data sets were opened.
    """

    span: tuple[float, float] = (0.0, 0.0)
    segment: tuple[float, float] = (0.0, 0.0)
    source: EventSource | None = None


def plan_blocks(segments: Iterable[tuple[float, float]], block_length: int) -> list[Block]:
    """Blocks that begin at multiples of a length, in whole seconds, within segments.

    Args:
        segments: Start and end, GPS s; what is not a whole second at their ends is left out.
        block_length: s.

    >>> [block.span for block in plan_blocks([(90.5, 210.0)], 100)]
    [(91.0, 100.0), (100.0, 200.0), (200.0, 210.0)]
    """
    blocks: list[Block] = []
    for start, stop in segments:
        segment = float(math.ceil(start)), float(math.floor(stop))
        begin = segment[0]
        while begin < segment[1]:
            end = min((begin // block_length + 1) * block_length, segment[1])
            blocks.append(Block(len(blocks), (event_id_at((begin + end) / 2),), (begin, end), segment))
            begin = end
    return blocks


@dataclass(frozen=True, eq=False)
class StreamJob:
    """All that a worker needs to make any block; sent to it once.

    Attributes:
        folder: Where the files go.
        model: What is used.
        settings: How.
        products: What is written.
        provenance: What each file says of where it comes from.
        vetoes: Start and end of times that were vetoed, GPS s.
        inputs: Fingerprint of the data.
    """

    folder: Path
    model: StreamModel
    settings: StreamSettings
    products: ProductSettings
    provenance: Mapping[str, object]
    vetoes: tuple[tuple[float, float], ...] = ()
    inputs: str = ""

    def at(self, folder: Path, inputs: str) -> "StreamJob":
        """The job, once it is known where the files go and what the data are."""
        return replace(self, folder=folder, inputs=inputs)

    def what(self, blocks: Sequence[Block]) -> dict[str, object]:
        """All that decides about the products of some blocks."""
        recipe = "glitchflow_recipe"
        told = {key.removeprefix("glitchflow_"): value for key, value in self.provenance.items() if key != recipe}
        return {
            **told,
            "products": {"formats": list(self.products.formats), "suffix": self.products.suffix},
            "blocks": content_hash([one.span for one in blocks]),
            "gps": [blocks[0].span[0], blocks[-1].span[1]],
            "vetoes": content_hash(self.vetoes),
        }

    def fingerprint(self, block: Block) -> str:
        """Of all that decides about a block."""
        return content_hash([self.provenance, self.vetoes, self.inputs, block.span, block.segment])

    def pending(self, blocks: Sequence[Block]) -> list[Block]:
        """Those that are not there as they would be made now."""
        return [one for one in blocks if not is_finished(self.folder, *one.span, self.fingerprint(one))]


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
            f"expected a model of whitened waveforms (coupling, wiener), got {bundle.model.get('name')}, whose "
            "prediction has no phase and cannot be taken from the strain. Choose another in stream.model."
        )
    target = channel_recipe(bundle.target, events)
    witnesses = tuple(channel_recipe(name, events) for name in bundle.witnesses)
    return StreamModel(bundle.twin.eval().cpu(), replace(target, name=strain or bundle.target), witnesses)


def find_segments(
    datasets: Sequence[DatasetSettings], strain: str, asked: Sequence[tuple[float, float]] | None
) -> list[tuple[float, float]]:
    """Times that are made: what is asked for, as far as the files of the strain say that they have it.

    Args:
        datasets: Where the data are.
        strain: The channel.
        asked: GPS intervals, s; None: all that there is.

    Raises:
        ConfigurationError: A service is asked for nothing in particular.
        NoEventsError: There is no strain in the times asked for.
    """
    services = [one for one in datasets if one.format in ("open_data", "nds2", "datafind")]
    if services and asked is not None:
        return [(float(start), float(stop)) for start, stop in asked]
    held = union(tuple(pair) for one in datasets for pair in coverage(one, strain))
    if not len(held):
        raise NoEventsError(
            f"none of the data sets holds the strain {strain}. Correct stream.datasets, or stream.settings.target."
        )
    wanted = held if asked is None else np.asarray(asked, dtype=np.float64)
    found = common(union(tuple(pair) for pair in wanted), held)
    if not len(found):
        raise NoEventsError(
            f"the strain {strain} is there from GPS {held[0, 0]:.0f} to {held[-1, 1]:.0f}, and nothing of it in the "
            f"{len(wanted)} segment(s) from {wanted[0][0]:.0f} to {wanted[-1][1]:.0f}. Correct stream.segments."
        )
    return [(float(start), float(stop)) for start, stop in found]


def open_blocks(
    datasets: Sequence[DatasetSettings], blocks: Sequence[Block], model: StreamModel, settings: StreamSettings
) -> tuple[list[Block], Catalogue]:
    """Give each block what reads its data, with as much around it as is needed.

    Raises:
        ConfigurationError: The data sets lack the strain, or their band is too narrow for the model.
        NoEventsError: They hold none of the witnesses.
    """
    names = (model.target.name, *(one.name for one in model.witnesses))
    around = reach(model, settings)
    length = max(stop - start for start, stop in (one.span for one in blocks)) + 2 * around
    times = tuple((one.span[0] + one.span[1]) / 2 for one in blocks)
    entries = [
        replace(one, triggers=TriggerSettings(times=times), segment=length, ch_list=names, allow_missing=True)
        for one in datasets
    ]
    catalogue = open_datasets(entries, target=model.target.name)
    there = [name for name in names[1:] if name in catalogue.channels and name not in catalogue.missing]
    if not there:
        raise NoEventsError(
            f"none of the {len(names) - 1} witnesses of the model is in the data sets, for instance {names[1]}. "
            "Correct stream.datasets, or choose another model."
        )
    check_band(model, catalogue.channels[model.target.name].sample_rate)
    source_of = {one.event_id: one for one in catalogue.events}
    return [replace(one, source=source_of[one.event_ids[0]]) for one in blocks], catalogue


def check_band(model: StreamModel, sample_rate: float | None) -> None:
    """Refuse strain that does not reach as high as what the model predicts.

    Args:
        model: What is used.
        sample_rate: Of the strain, Hz; None where it is not known yet.

    Raises:
        ConfigurationError: It does not.
    """
    whole = model.target.settings
    trained = min(whole.high, 0.98 * whole.sample_rate / 2)
    if sample_rate is None:
        return
    try:
        reached = filters.usable_band(whole.low, whole.high, sample_rate, whole.sample_rate)[1]
    except ValueError:
        reached = 0.0
    if reached < trained:
        raise ConfigurationError(
            f"the model predicts strain up to {trained:g} Hz, and {model.target.name} at {sample_rate:g} Hz reaches "
            f"{reached:g} Hz. Bring strain of at least {2 * trained / 0.9:.0f} Hz, or train a model with a lower "
            "processing.maxf."
        )


def make_block(job: StreamJob, plan: ShardPlan) -> BlockRecord:
    """Read, predict, subtract and write one block. Runs in a worker.

    Raises:
        FormatError: The strain is in another unit than in training, or files contradict each other.
        ConfigurationError: It does not reach as high as what the model predicts.
    """
    if not isinstance(plan, Block) or plan.source is None:
        raise TypeError(f"expected a block with its source, got {plan!r}")
    channels, problems = _read(job, plan)
    record = BlockRecord(*plan.span, job.fingerprint(plan), problems=problems)
    strain = channels.get(job.model.target.name)
    piece = None if strain is None else _between(strain, *plan.span)
    if strain is not None and piece is not None and np.isfinite(piece.series).any():
        check_band(job.model, strain.sample_rate)
        whole = {**channels, strain.name: _padded(strain, plan.span)}
        with single_thread():
            found = subtract(whole, job.model, plan.span, plan.segment, job.settings)
        piece = _between(whole[strain.name], *plan.span) or piece
        size = round((plan.span[1] - plan.span[0]) * STATE_RATE)
        flags = {
            "ANALYSED": found.analysed,
            "NOT_VETOED": _outside(job.vetoes, plan.span, size),
            "NOTHING_SUBTRACTED": found.glitch == 0,
            "WITNESSES_COMPLETE": found.complete,
            "IN_DISTRIBUTION": found.familiar,
        }
        state = state_vector(flags, size)
        clean = CleanStrain(piece, found.glitch, state, job.products.suffix)
        written = write_clean_strain(job.folder, clean, job.products.formats, job.provenance)
        seconds = {name: float(np.count_nonzero(state >> bit & 1)) / STATE_RATE for bit, name in enumerate(flags)}
        record = replace(record, files=tuple(map(ProductFile.of, written)), seconds=seconds, missing=found.missing)
    write_block_record(job.folder, record)
    return record


def run_stream(job: StreamJob, blocks: Sequence[Block], engine: EngineSettings, what: Mapping[str, object]) -> Manifest:
    """Make all blocks that are not there yet, and write down what the folder holds.

    Raises:
        ShareDone: In a task of an array: its share is made, and other blocks are not.
        ShardError: A block could not be made; those that were finished stay.
    """
    pending = job.pending(blocks)
    if len(pending) < len(blocks):
        logger.info("%s: %d of %d blocks are there already.", job.folder, len(blocks) - len(pending), len(blocks))
    map_shards(partial(make_block, job), pending, engine, "Stream", left=partial(job.pending, blocks))
    records = tuple(read_block_record(job.folder, *one.span) for one in blocks)
    manifest = Manifest(what, job.model.target.name, job.products.suffix, records)
    write_manifest(job.folder, manifest)
    return manifest


def stream_summary(manifest: Manifest, job: StreamJob, inputs: Mapping[str, object], started: str) -> RunSummary:
    """What a run made, in figures.

    Args:
        manifest: Of the folder.
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
    return RunSummary(
        pipeline="stream_pipeline/Stream",
        started=started,
        inputs={**inputs, "strain": manifest.strain, "seconds": asked, "blocks": len(manifest.blocks)},
        metrics={name: Metric(value) for name, value in shares.items()},
        outputs={"files": str(job.folder), "channels": ", ".join(channel_names(manifest.strain, manifest.suffix))},
        warnings=(
            *(f"{name} was missing for {time:.0f} s" for name, time in missing.items()),
            *(f"{name}: {why}" for name, why in problems.items()),
        ),
    )


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


def _read(job: StreamJob, block: Block) -> tuple[dict[str, Channel], dict[str, str]]:
    """Channels of a block and its surroundings, nothing outside the segment, and what is wrong with them."""
    assert block.source is not None  # noqa: S101  # make_block has refused it
    recipes = (job.model.target, *job.model.witnesses)
    loaded = block.source.load([one.name for one in recipes])
    channels: dict[str, Channel] = {}
    problems: dict[str, str] = {}
    for recipe in recipes:
        found = loaded.event.channels.get(recipe.name)
        problem = loaded.problems.get(recipe.name, "")
        if found is not None and not problem.startswith(tuple(_HOLES)) and problem:
            problems[recipe.name] = problem
        elif found is not None and recipe.unit and found.unit and not same_unit(found.unit, recipe.unit):
            problems[recipe.name] = f"unit: expected {recipe.unit}, got {found.unit}"
        elif found is not None:
            cut = _between(found, *block.segment)
            if cut is not None:
                channels[recipe.name] = cut
    target = job.model.target.name
    if target in problems:
        raise FormatError(
            f"the strain {target} from GPS {block.span[0]:.0f} to {block.span[1]:.0f} cannot be used: "
            f"{problems[target]}. Bring it as in training and each time once, or choose another target."
        )
    return channels, problems


def _between(channel: Channel, start: float, stop: float) -> Channel | None:
    """The samples of a channel in [start, stop) GPS s; None if there are none."""
    first, last = slice_bounds(channel.t0, channel.sample_rate, len(channel.series), start, stop)
    if first >= last:
        return None
    return replace(channel, series=channel.series[first:last], t0=channel.t0 + first / channel.sample_rate)


def _padded(strain: Channel, span: tuple[float, float]) -> Channel:
    """The strain, with NaN where a block begins before it or ends after it."""
    before = max(0, math.floor((strain.t0 - span[0]) * strain.sample_rate + 1e-6))
    after = max(0, round((span[1] - strain.t0 - strain.duration) * strain.sample_rate))
    if not before and not after:
        return strain
    series = np.pad(strain.series.astype(np.float64), (before, after), constant_values=np.nan)
    return replace(strain, series=series, t0=strain.t0 - before / strain.sample_rate)


def _outside(
    vetoes: Sequence[tuple[float, float]], span: tuple[float, float], size: int
) -> Bool[np.ndarray, " sample"]:
    """Where samples of a stretch touch no veto."""
    edges = np.linspace(*span, size + 1)
    return covered(union(vetoes), np.stack([edges[:-1], edges[1:]], axis=1)) == 0
