"""Rounds of the scan as Hveto writes its own, for the tools that read them.

Layout, names and keys are those of hveto 2.1 (https://hveto.readthedocs.io): `summary-stats.json`, `summary-stats.txt`
and a folder `segments` with the analysed and the vetoed times of each round, as text and together in one HDF5 file.
"""

import getpass
import json
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.products.file_names import file_name, ifo_of
from glitchflow_plugin.products.veto_flag import VetoFlag, veto_flag
from glitchflow_plugin.products.veto_formats import write_hdf5, write_segwizard
from glitchflow_plugin.types.intervals import left_over

SEGMENTS = "segments"
"""Folder of the segments, below that of the summary."""

_COLUMNS = (
    "#N winner window SNR significance nveto use-percentage efficiency deadtime cumulative-efficiency "
    "cumulative-deadtime"
)


@dataclass(frozen=True, eq=False)
class HvetoRound:
    """A round and when it was.

    Attributes:
        channel: The winner.
        window: Length of the veto about one of its triggers, s.
        snr: Least SNR of its triggers.
        significance: -log10 of a Poisson probability.
        vetoed: Triggers of the target that it vetoes.
        remaining: Triggers of the target before.
        use_percentage: Share of the winner's triggers that veto one of the target, %.
        analysed: Times that were analysed, GPS s, disjoint and rising, (segment, 2).
        vetoes: Times that it vetoes, of these, likewise.
    """

    channel: str
    window: float
    snr: float
    significance: float
    vetoed: int
    remaining: int
    use_percentage: float
    analysed: Float[np.ndarray, "segment 2"]
    vetoes: Float[np.ndarray, "segment 2"]


def write_hveto(
    folder: Path, target: str, rounds: Sequence[HvetoRound], *, configuration: str, call: str
) -> list[Path]:
    """Write rounds in Hveto's layout.

    Edges of vetoes are moved outward, and those of analysed times inward, to multiples of 1/512 s.

    Args:
        folder: Where to; made if missing.
        target: The channel that is vetoed.
        rounds: In order, at least one.
        configuration: Where the settings are.
        call: What was run.

    Returns:
        The files, that of the summary first.
    """
    ifo = ifo_of(target)
    start, end = math.floor(rounds[0].analysed[0, 0]), math.ceil(rounds[0].analysed[-1, 1])
    flags = _flags(ifo, rounds)
    paths = []
    for number, flag in enumerate(flags, 1):
        for kind, times in (("ANALYSIS", flag.known), ("VETO", flag.active)):
            name = file_name(ifo, f"HVETO_{kind}_SEGS_ROUND_{number}", start, end, ".txt")
            paths.append(folder / SEGMENTS / name)
            write_segwizard(times, paths[-1])
    paths.append(folder / SEGMENTS / file_name(ifo, "HVETO_SEGMENTS", start, end, ".h5"))
    write_hdf5(flags, paths[-1])
    results = _results(rounds, flags)
    lines = [" ".join(str(value) for name, value in one.items() if name != "files") for one in results]
    for one, path in zip(results, paths[1::2], strict=False):
        one["files"] = {"VETO_SEGS": [f"{SEGMENTS}/{path.name}"]}
    content = {
        "user": getpass.getuser(),
        "host": socket.getfqdn(),
        "date": str(datetime.now(UTC)),
        "configuration": configuration,
        "ifo": ifo,
        "gpsstart": start,
        "gpsend": end,
        "call": call,
        "rounds": results,
    }
    texts = {
        "summary-stats.json": json.dumps(content, sort_keys=True),
        "summary-stats.txt": "\n".join([_COLUMNS, *lines]),
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return [*(folder / name for name in texts), *paths]


def _flags(ifo: str, rounds: Sequence[HvetoRound]) -> list[VetoFlag]:
    """Vetoes of each round among the times that it analysed: what former rounds have left."""
    flags = []
    known = veto_flag("X1:VETO:1", np.empty((0, 2)), rounds[0].analysed).known
    for number, one in enumerate(rounds, 1):
        told = f"winner={one.channel}, window={one.window:g}, snr={one.snr:g}"
        flags.append(veto_flag(f"{ifo}:HVT-ROUND_{number}:1", one.vetoes, known, description=told))
        known = left_over(known, flags[-1].active)
    return flags


def _results(rounds: Sequence[HvetoRound], flags: Sequence[VetoFlag]) -> list[dict[str, object]]:
    """Figures of each round by Hveto's names."""
    whole, vetoed, dead = float(np.diff(flags[0].known).sum()), 0, 0.0
    results: list[dict[str, object]] = []
    for number, (one, flag) in enumerate(zip(rounds, flags, strict=True), 1):
        lost, live = float(np.diff(flag.active).sum()), float(np.diff(flag.known).sum())
        vetoed, dead = vetoed + one.vetoed, dead + lost
        results.append(
            {
                "round": number,
                "name": one.channel,
                "window": one.window,
                "snr": one.snr,
                "significance": one.significance,
                "nveto": one.vetoed,
                "use-percentage": one.use_percentage,
                "efficiency": 100 * one.vetoed / one.remaining,
                "deadtime": 100 * lost / live,
                "cumulative-efficiency": 100 * vetoed / rounds[0].remaining,
                "cumulative-deadtime": 100 * dead / whole,
            }
        )
    return results
