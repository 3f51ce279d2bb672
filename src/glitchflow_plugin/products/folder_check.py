"""Whether a folder of products is whole: files as they were written, samples that add up, bits that agree with them."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import sha256
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.data.readers.continuous import span_in_name
from glitchflow_plugin.data.readers.frame_history import read_history
from glitchflow_plugin.errors import DataError, FormatError
from glitchflow_plugin.products.clean_strain import FORMATS, STATE_BITS, STATE_RATE, channel_names
from glitchflow_plugin.products.folder import (
    BlockRecord,
    Manifest,
    ProductFile,
    read_block_record,
    read_manifest,
)
from glitchflow_plugin.products.folder_vetoes import flaws_of_flags, flaws_of_vetoes
from glitchflow_plugin.products.rank_channels import QUANTITIES, RANK_RATE, rank_flaws

_ANALYSED, _NOTHING_SUBTRACTED = (list(STATE_BITS).index(name) for name in ("ANALYSED", "NOTHING_SUBTRACTED"))
_ROUNDED = 1e-6
"""GPS times in float64 are good to 2.4e-7 s."""


def flaws(folder: Path) -> Iterator[str]:
    """What is wrong with a folder of clean strain, in words; nothing if it is whole.

    Every file is read: its checksum, its samples (clean is strain minus glitch, bit by bit), its state (by its own
    samples and by the record of its block), its ranks and the vetoes that follow from them, its model. Files that no
    record lists are told, and times that two files have. A run that goes on has files that are newer than its manifest.

    Raises:
        FormatError: The folder does not say what it holds.
    """
    manifest = read_manifest(folder)
    listed = {one.name for block in manifest.blocks for one in block.files}
    newer: dict[float, BlockRecord] = {}
    for path in sorted(folder.iterdir()):
        # what a killed run has left half-written goes when the next one begins
        if path.suffix in FORMATS.values() and path.name not in listed and not path.name.startswith("."):
            record = _record_of(path)
            if record is None:
                yield f"{path.name}: no record lists it. It is of another model or run: move it away."
            else:
                newer[record.start] = record
    blocks = sorted([*manifest.blocks, *newer.values()], key=lambda one: one.start)
    for before, after in pairwise(blocks):
        if after.start < before.stop:
            yield f"GPS {after.start:.0f} to {before.stop:.0f} is in two blocks."
    for block in blocks:
        for one in block.files:
            yield from _flaws_of_file(folder / one.name, one, block, manifest)
    yield from flaws_of_flags(folder, manifest)


def _record_of(path: Path) -> BlockRecord | None:
    """The record that lists a file; None where there is none."""
    span = span_in_name(path)
    if span is None:
        return None
    try:
        record = read_block_record(path.parent, *span)
    except FormatError:
        return None
    return record if path.name in {one.name for one in record.files} else None


def _flaws_of_file(path: Path, entry: ProductFile, block: BlockRecord, manifest: Manifest) -> Iterator[str]:
    if not path.is_file():
        yield f"{path.name}: it is not there. Run stream_pipeline again, which makes what is missing."
        return
    if sha256(path) != entry.sha256:
        yield f"{path.name}: its checksum is another. Remove it and run stream_pipeline again."
        return
    if span_in_name(path) != (block.start, block.stop):
        yield f"{path.name}: its name does not say GPS {block.start:.0f} to {block.stop:.0f}."
    names = (*channel_names(manifest.strain, manifest.suffix), *manifest.ranks)
    try:
        channels, told = _read(path, names, block)
    except DataError as error:
        yield f"{path.name}: {error}"
        return
    lacking = [name for name in names if name not in channels]
    if lacking:
        yield f"{path.name}: it lacks {lacking}."
        return
    for key in ("model", "model_version", "model_sha256"):
        if told.get(f"glitchflow_{key}") != manifest.what.get(key):
            yield f"{path.name}: {key} is {told.get(f'glitchflow_{key}')}, expected {manifest.what.get(key)}."
    strain, glitch, clean, state = (channels[name] for name in names[:4])
    found = list(_flaws_of_samples(strain, glitch, clean, state, block))
    if manifest.ranks:
        ranks = dict(zip(QUANTITIES, (channels[name] for name in manifest.ranks), strict=True))
        found += _flaws_of_ranks(ranks, state, block, manifest)
    yield from (f"{path.name}: {flaw}" for flaw in found)


def _flaws_of_samples(
    strain: Channel, glitch: Channel, clean: Channel, state: Channel, block: BlockRecord
) -> Iterator[str]:
    for one in (strain, glitch, clean, state):
        # the first sample may lie a fraction of a sample after the whole second
        if not -_ROUNDED <= one.t0 - block.start < 1 / one.sample_rate + _ROUNDED:
            yield f"{one.name} begins at GPS {one.t0}, expected {block.start}."
        if abs(one.duration - (block.stop - block.start)) * one.sample_rate > 1.5:
            yield f"{one.name} lasts {one.duration} s, expected {block.stop - block.start} s."
    if not np.array_equal(clean.series, strain.series - glitch.series, equal_nan=True):
        yield f"{clean.name} is not {strain.name} minus {glitch.name}."
    starts = np.arange(len(state.series)) * len(glitch.series) // len(state.series)
    untouched = np.logical_and.reduceat(glitch.series == 0, starts)
    if not np.array_equal(state.series >> _NOTHING_SUBTRACTED & 1 == 1, untouched):
        yield f"the bit NOTHING_SUBTRACTED of {state.name} is not where {glitch.name} is zero."
    for bit, name in enumerate(STATE_BITS):
        seconds = np.count_nonzero(state.series >> bit & 1) / STATE_RATE
        if abs(seconds - block.seconds.get(name, 0.0)) > _ROUNDED:
            yield f"the bit {name} is set for {seconds:g} s, expected {block.seconds.get(name, 0.0):g} s."


def _flaws_of_ranks(
    ranks: Mapping[str, Channel], state: Channel, block: BlockRecord, manifest: Manifest
) -> Iterator[str]:
    ok = ranks["OK"]
    if ok.t0 != block.start or len(ok.series) != round((block.stop - block.start) * RANK_RATE):
        yield f"{ok.name} holds {len(ok.series)} samples from GPS {ok.t0}, expected all of the block."
        return
    found = list(rank_flaws(ranks))
    yield from found
    if found:
        return
    looked = (ok.series == 1).reshape(len(state.series), -1).all(axis=1)
    if ((state.series >> _ANALYSED & 1 == 1) & ~looked).any():
        yield f"the bit ANALYSED of {state.name} is set where {ok.name} is 0."
    products = manifest.what["products"]
    assert isinstance(products, Mapping)  # noqa: S101  # a folder with ranks says how they were made
    yield from flaws_of_vetoes(ranks["RANK"], ok, state, block, products)


def _read(path: Path, names: tuple[str, ...], block: BlockRecord) -> tuple[dict[str, Channel], Mapping[str, str]]:
    """Channels of a file, and what it says of where it comes from.

    Raises:
        FormatError: It cannot be read, or a channel lies in pieces.
    """
    if path.suffix != FORMATS["gwf"]:
        return hdf5.read(path, names, block.start, block.stop), hdf5.read_attributes(path)
    pieces = frames.read(path, names, block.start, block.stop)
    if any(len(parts) != 1 for parts in pieces.values()):
        raise FormatError("its channels lie in several frames, expected one.")
    return {name: parts[0] for name, parts in pieces.items()}, read_history(path)
