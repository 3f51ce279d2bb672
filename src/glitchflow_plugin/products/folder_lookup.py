"""What a folder of clean strain, or a flag in a file, says of single times."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.data.readers.segments import read_segments
from glitchflow_plugin.products.clean_strain import FORMATS, STATE_BITS, STATE_RATE, channel_names
from glitchflow_plugin.products.folder import MANIFEST_NAME, BlockRecord, Manifest, parts_of, read_manifest
from glitchflow_plugin.products.rank_channels import QUANTITIES, RANK_RATE
from glitchflow_plugin.products.veto_formats import FORMATS as VETO_FORMATS
from glitchflow_plugin.products.veto_formats import read_flag
from glitchflow_plugin.types.intervals import holds, union
from glitchflow_plugin.verdict import PASS, SUBTRACT, VETO

_UNDOUBTED = ("WITNESSES_COMPLETE", "IN_DISTRIBUTION", "STRAIN_AGREES")
"""Bits without which a subtraction is no reason to keep a time."""


@dataclass(frozen=True, eq=False)
class Said:
    """What is said of some times; (time,) each.

    Attributes:
        known: Whether the model has looked.
        vetoed: Whether it vetoes.
        rank: Largest rank within the padding of the vetoes; NaN where nothing is known.
        false_alarm: Smallest false-alarm probability there, likewise.
        subtracted: Whether the glitch is taken away there, without a doubt.
    """

    known: Bool[np.ndarray, " time"]
    vetoed: Bool[np.ndarray, " time"]
    rank: Float[np.ndarray, " time"]
    false_alarm: Float[np.ndarray, " time"]
    subtracted: Bool[np.ndarray, " time"]

    def of(self, rows: slice) -> "Said":
        """What is said of some of the times."""
        return Said(self.known[rows], self.vetoed[rows], self.rank[rows], self.false_alarm[rows], self.subtracted[rows])

    @classmethod
    def joined(cls, parts: Sequence["Said"]) -> "Said":
        """What parts of a run, of which no two know the same time, say together."""
        return cls(
            np.any([one.known for one in parts], axis=0),
            np.any([one.vetoed for one in parts], axis=0),
            np.fmax.reduce([one.rank for one in parts]),
            np.fmin.reduce([one.false_alarm for one in parts]),
            np.any([one.subtracted for one in parts], axis=0),
        )

    @property
    def decision(self) -> np.ndarray:
        """What a search shall do: `pass`, `subtract` (search the clean strain) or `veto`; `unknown` elsewhere."""
        chosen = np.where(self.vetoed, np.where(self.subtracted, SUBTRACT, VETO), PASS)
        return np.where(self.known, chosen, "unknown")

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Columns for a table of triggers."""
        return {
            "vetoed": self.vetoed.astype(np.int32),
            "veto_rank": self.rank,
            "veto_fap": self.false_alarm,
            "decision": self.decision,
        }


def said_by_flag(path: Path | str, times: Float[np.ndarray, " time"]) -> Said:
    """What a flag says: known and vetoed, no ranks.

    Args:
        path: A file in one of the formats of vetoes that hold segments; others are asked as any list of vetoed times.
        times: GPS s.
    """
    path = Path(path)
    endings = sorted(VETO_FORMATS, key=lambda kind: -len(VETO_FORMATS[kind].suffix))
    kind = next(kind for kind in (*endings, "") if not kind or path.name.endswith(VETO_FORMATS[kind].suffix))
    if kind and VETO_FORMATS[kind].read is not None:
        flag = read_flag(path, kind)
        active, known = flag.active, flag.known if "known" not in VETO_FORMATS[kind].lost else None
    else:
        active, known = union(read_segments((str(path),), None, vetoes=True)), None
    vetoed = holds(active, times)
    unknown = np.full(len(times), np.nan)
    return Said(
        np.ones(len(times), dtype=bool) if known is None else holds(known, times),
        vetoed,
        unknown,
        unknown,
        np.zeros(len(times), dtype=bool),
    )


def said_by_folder(folder: Path | str, times: Float[np.ndarray, " time"]) -> Said:
    """What a folder of clean strain says, from its vetoes, ranks and state.

    Args:
        folder: From stream_pipeline, or that of a run of online_pipeline; of the latter, what its manifests list.
        times: GPS s, in any order.

    Raises:
        FormatError: The folder does not say what it holds, or a file of it cannot be read.
    """
    folder = Path(folder)
    parts = [one for one in parts_of(folder) if (one / MANIFEST_NAME).exists()]
    return Said.joined([_said_by_part(one, times) for one in parts or [folder]])


def _said_by_part(folder: Path, times: Float[np.ndarray, " time"]) -> Said:
    manifest = read_manifest(folder)
    known, vetoed = (
        holds(union([span for one in manifest.blocks for span in getattr(one, name)]), times)
        for name in ("known", "vetoed")
    )
    rank, false_alarm = np.full((2, len(times)), np.nan)
    subtracted = np.zeros(len(times), dtype=bool)
    for block in manifest.blocks:
        inside = np.flatnonzero((times >= block.start) & (times < block.stop))
        if not len(inside) or not block.files:
            continue
        channels = _channels(folder, manifest, block)
        subtracted[inside] = _subtracted(channels["state"], times[inside])
        if manifest.ranks:
            padding = float(manifest.what["products"]["veto_padding"])  # type: ignore[index]  # any JSON
            for found, name, worst in ((rank, "RANK", np.fmax), (false_alarm, "FAP", np.fmin)):
                found[inside] = _worst_near(channels[name], times[inside], padding, worst)
    rank[~known], false_alarm[~known] = np.nan, np.nan
    return Said(known, vetoed & known, rank, false_alarm, subtracted)


def _channels(folder: Path, manifest: Manifest, block: BlockRecord) -> dict[str, Channel]:
    """State, RANK and FAP of a block, from its first file."""
    path = folder / block.files[0].name
    names = {"state": channel_names(manifest.strain, manifest.suffix)[3]}
    ranks = dict(zip(QUANTITIES, manifest.ranks, strict=False))
    names |= {name: ranks[name] for name in ("RANK", "FAP") if name in ranks}
    if path.suffix == FORMATS["gwf"]:
        read = {
            name: parts[0] for name, parts in frames.read(path, list(names.values()), block.start, block.stop).items()
        }
    else:
        read = hdf5.read(path, list(names.values()), block.start, block.stop)
    return {what: read[name] for what, name in names.items()}


def _subtracted(state: Channel, times: Float[np.ndarray, " time"]) -> Bool[np.ndarray, " time"]:
    bits = {name: bit for bit, name in enumerate(STATE_BITS)}
    held = state.series[_places(times, state, STATE_RATE)]
    sure = np.all([held >> bits[name] & 1 for name in _UNDOUBTED if name in bits], axis=0)
    return sure & (held >> bits["NOTHING_SUBTRACTED"] & 1 == 0)


def _worst_near(
    channel: Channel, times: Float[np.ndarray, " time"], padding: float, worst: np.ufunc
) -> Float[np.ndarray, " time"]:
    reach = int(np.ceil(padding * RANK_RATE))
    padded = np.pad(channel.series, reach, constant_values=np.nan)
    beside = _places(times, channel, RANK_RATE)[:, None] + np.arange(2 * reach + 1)
    return worst.reduce(padded[beside], axis=1)


def _places(times: Float[np.ndarray, " time"], channel: Channel, rate: float) -> Int[np.ndarray, " time"]:
    return np.clip(np.floor((times - channel.t0) * rate), 0, len(channel.series) - 1).astype(np.int64)
