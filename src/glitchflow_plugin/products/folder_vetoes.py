"""The vetoes in a folder of clean strain: its blocks' as one flag in files, and whether all of it agrees."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import sha256
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.products.clean_strain import STATE_BITS, STATE_RATE
from glitchflow_plugin.products.file_names import channel_word, file_name
from glitchflow_plugin.products.folder import VETOES, BlockRecord, Manifest
from glitchflow_plugin.products.rank_channels import RANK_RATE, raised_times
from glitchflow_plugin.products.veto_flag import VetoFlag, flag_name, veto_flag
from glitchflow_plugin.products.veto_formats import FORMATS, VetoFormat, is_readable, read_flag, write_flag
from glitchflow_plugin.products.veto_table import write_table
from glitchflow_plugin.signal.false_alarm import FalseAlarm
from glitchflow_plugin.types.intervals import common, covered, union
from glitchflow_plugin.verdict import SUBTRACT, VETO

TABLE_COLUMNS = {
    "gps_start": "float64",
    "gps_end": "float64",
    "frequency_low": "float64",
    "frequency_high": "float64",
    "peak_snr2_predicted": "float64",
    "false_alarm_probability": "float64",
    "decision": "string",
    "reasons": "string",
}
"""Columns of the table of vetoes with their pandas types."""

_NOT_VETOED = list(STATE_BITS).index("NOT_VETOED")
_NANOSECOND = 1e-9


def folder_flag(what: Mapping[str, Any], strain: str, blocks: Iterable[BlockRecord]) -> VetoFlag:
    """When the model has looked in a folder, and when it vetoes.

    Args:
        what: Model and settings, as in a manifest.
        strain: The strain channel.
        blocks: Their records.
    """
    products, model, version = what["products"], str(what["model"]), str(what["model_version"])
    blocks = list(blocks)
    return veto_flag(
        flag_name(strain, model, version),
        union([span for one in blocks for span in one.vetoed]),
        union([span for one in blocks for span in one.known]),
        padding=products["veto_padding"],
        description=f"{model} version {version} predicts an SNR^2 above {products['threshold']:g} in {strain}",
    )


def write_folder_flag(flag: VetoFlag, folder: Path, formats: Sequence[VetoFormat]) -> list[Path]:
    """Write the flag of a folder in some formats; nothing where the model has looked at nothing."""
    if not len(flag.known):
        return []
    return [path for kind in formats for path in write_flag(flag, folder / VETOES, _stem(flag), kind)]


def veto_table(flag: VetoFlag, blocks: Iterable[BlockRecord], false_alarm: FalseAlarm | None) -> pd.DataFrame:
    """The vetoes of a folder, a row each: a box in time and frequency, how loud it is, and what to do with it.

    Args:
        flag: From `folder_flag`.
        blocks: Records of the blocks.
        false_alarm: What the model knows of clean time; None: the probability is empty.
    """
    boxes = sorted((box for one in blocks for box in one.boxes), key=lambda box: box.start)
    starts = np.array([box.start for box in boxes])
    rows = []
    for start, stop in flag.active:
        inside = boxes[np.searchsorted(starts, start) : np.searchsorted(starts, stop)]
        if not inside:  # the padding of what lies outside of the analysed time
            continue
        doubts = dict.fromkeys(doubt for box in inside for doubt in box.doubts)
        subtracted = all(box.subtracted for box in inside)
        rows.append(
            {
                "gps_start": start,
                "gps_end": stop,
                "frequency_low": min(box.frequency_low for box in inside),
                "frequency_high": max(box.frequency_high for box in inside),
                "peak_snr2_predicted": max(box.peak for box in inside),
                "decision": SUBTRACT if subtracted and not doubts else VETO,
                "reasons": "; ".join(["subtracted" if subtracted else "not subtracted", *doubts]),
            }
        )
    table = pd.DataFrame(rows, columns=list(TABLE_COLUMNS)).astype(dict(TABLE_COLUMNS))
    peaks = table["peak_snr2_predicted"].to_numpy(dtype=np.float64)
    return table.assign(false_alarm_probability=np.nan if false_alarm is None else false_alarm(peaks))


def write_veto_table(
    flag: VetoFlag, blocks: Iterable[BlockRecord], false_alarm: FalseAlarm | None, folder: Path
) -> list[Path]:
    """Write `veto_table` as CSV and Parquet beside the flag."""
    return [*write_table(veto_table(flag, blocks, false_alarm), folder / VETOES, "segments").values()]


def flaws_of_flags(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What is wrong with the files of the vetoes, in words: checksums, and times that are not those of the blocks."""
    if not manifest.flags:
        return
    whole = set()
    for entry in manifest.flags:
        path = folder / VETOES / entry.name
        if path.is_file() and sha256(path) == entry.sha256:
            whole.add(entry.name)
        else:
            yield f"{VETOES}/{entry.name}: it is not there, or its checksum is another. Run stream_pipeline again."
    flag = folder_flag(manifest.what, manifest.strain, manifest.blocks)
    for kind in manifest.what["products"]["veto_formats"]:  # type: ignore[index]  # what a manifest says is any JSON
        path = folder / VETOES / f"{_stem(flag)}{FORMATS[kind].suffix}"
        if path.name not in whole or not is_readable(kind):
            continue
        try:
            found = read_flag(path, kind)
        except DataError as error:
            yield f"{path.name}: {error}"
            continue
        for name in ("active", "known"):
            expected, held = getattr(flag, name), getattr(found, name)
            if name in FORMATS[kind].lost and not FORMATS[kind].known_beside:
                continue
            if expected.shape != held.shape or not np.allclose(expected, held, rtol=0, atol=_NANOSECOND):
                yield f"{path.name}: its {name} times are not those of the blocks."


def flaws_of_vetoes(
    rank: Channel, ok: Channel, state: Channel, block: BlockRecord, products: Mapping[str, Any]
) -> Iterator[str]:
    """Where the vetoes of a block contradict its rank and its state, in words.

    Args:
        rank: The channel RANK.
        ok: The channel OK.
        state: The state.
        block: What its record says.
        products: The settings `products` of the folder.
    """
    padding = products["veto_padding"]
    known, vetoed = union(block.known), union(block.vetoed)
    if not np.array_equal(known, raised_times(ok.series == 1, block.start)):
        yield f"{ok.name} is not 1 exactly where the record says that the model has looked."
    raised = union(raised_times(rank.series > 0.5, block.start) + np.array([-padding, padding]))
    # beside the ends of a block, vetoes of its neighbours reach into it
    inner = common(known, np.array([[block.start + padding + 1 / RANK_RATE, block.stop - padding - 1 / RANK_RATE]]))
    if not _same(common(raised, inner), common(vetoed, inner)):
        yield f"the vetoes of the record are not {padding:g} s about where {rank.name} is above 1/2."
    edges = block.start + np.arange(len(state.series) + 1) / STATE_RATE
    touched = covered(vetoed, np.stack([edges[:-1], edges[1:]], axis=1)) > 0
    if products["own_vetoes"] and (touched & (state.series >> _NOT_VETOED & 1 == 1)).any():
        yield f"the bit NOT_VETOED of {state.name} is set within a veto of the model."


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=1e-6)


def _stem(flag: VetoFlag) -> str:
    return file_name(flag.ifo, f"{channel_word(flag.tag)}_{flag.version}", flag.known[0, 0], flag.known[-1, 1], "")
