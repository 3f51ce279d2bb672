"""Where the triggers of a channel lie in time and frequency, how many and how loud, in bins: whatever their number."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
from jaxtyping import Float, Int
from numpy.typing import NDArray

from glitchflow_plugin.data.triggers.table import NANOSECONDS

_SNR_LEVELS = 401


@dataclass(frozen=True, eq=False)
class Glitchgram:
    """The triggers of a channel in bins.

    Attributes:
        times: Edges of the bins, GPS s, shape (time + 1,).
        frequencies: Edges of the bins, Hz, (frequency + 1,).
        loudest: SNR of the loudest trigger in each bin, 0 where there is none, (frequency, time).
        counts: Triggers in each bin of time, (time,).
        snrs: Rising, (snr,).
        louder: Triggers of at least so high an SNR, (snr,).
    """

    times: Float[np.ndarray, " time_edge"]
    frequencies: Float[np.ndarray, " frequency_edge"]
    loudest: Float[np.ndarray, "frequency time"]
    counts: Int[np.ndarray, " time"]
    snrs: Float[np.ndarray, " snr"]
    louder: Int[np.ndarray, " snr"]


def glitchgram(
    triggers: ds.Dataset,
    channel: str,
    span: tuple[float, float],
    band: tuple[float, float],
    *,
    bins: tuple[int, int] = (400, 80),
) -> Glitchgram:
    """The triggers of a channel in bins; no more than some row groups are in memory.

    Args:
        triggers: As `open_triggers` gives them.
        channel: Its name.
        span: From which GPS time to which, s; what lies beyond is left out.
        band: From which frequency to which, Hz; what lies beyond goes into the outermost bins.
        bins: Of time, evenly spaced, and of frequency, evenly in the logarithm.
    """
    edges = np.linspace(*span, bins[0] + 1), np.geomspace(*band, bins[1] + 1)
    loudest, counts = np.zeros((bins[1], bins[0])), np.zeros(bins[0], dtype=np.int64)
    levels = np.geomspace(1.0, 1e6, _SNR_LEVELS)
    below = np.zeros(len(levels) + 1, dtype=np.int64)
    within = [round(edge * NANOSECONDS) for edge in span]
    asked = (pc.field("channel") == channel) & (pc.field("time") >= within[0]) & (pc.field("time") < within[1])
    for batch in triggers.scanner(columns=["time", "frequency", "snr"], filter=asked, use_threads=False).to_batches():
        time, frequency, snr = (batch.column(name).to_numpy() for name in ("time", "frequency", "snr"))
        column = _place((time - within[0]) / NANOSECONDS + span[0], edges[0])
        np.maximum.at(loudest, (_place(frequency, edges[1]), column), snr)
        counts += np.bincount(column, minlength=bins[0])
        below += np.bincount(np.searchsorted(levels, snr, "right"), minlength=len(levels) + 1)
    # a trigger counts for each level that it reaches
    return Glitchgram(*edges, loudest, counts, levels, np.cumsum(below[::-1])[::-1][1:])


def _place(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each value; the first or last for what lies beyond."""
    return np.clip(np.searchsorted(edges, values, "right") - 1, 0, len(edges) - 2)
