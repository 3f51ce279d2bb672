"""What a table of triggers holds, in numbers: how many, from when to when, at which rate, how loud."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from glitchflow_plugin.data.triggers.table import NANOSECONDS


@dataclass(frozen=True)
class ChannelOverview:
    """The triggers of one channel.

    Attributes:
        channel: Its name.
        triggers: How many.
        rate: Triggers a second of the span of all channels, Hz; NaN where that is no time.
        loudest_snr: Of the loudest.
        loudest_time: Of the loudest, GPS ns.
        frequencies: Lowest and highest, Hz.
    """

    channel: str
    triggers: int
    rate: float
    loudest_snr: float
    loudest_time: int
    frequencies: tuple[float, float]


def by_channel(table: pa.Table) -> list[ChannelOverview]:
    """Each channel of a table, the one with the most triggers first.

    Args:
        table: As `SCHEMA`, without bad rows.
    """
    if not len(table):
        return []
    times, snrs, frequencies = (table[name].to_numpy() for name in ("time", "snr", "frequency"))
    span = int(np.ptp(times)) / NANOSECONDS
    encoded = table["channel"].cast(pa.string()).combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    found = []
    for name, rows in zip(
        encoded.dictionary.to_pylist(), np.split(order, np.cumsum(np.bincount(codes))[:-1]), strict=True
    ):
        loudest = rows[np.argmax(snrs[rows])]
        band = (float(frequencies[rows].min()), float(frequencies[rows].max()))
        rate = len(rows) / span if span else float("nan")
        found.append(ChannelOverview(name, len(rows), rate, float(snrs[loudest]), int(times[loudest]), band))
    return sorted(found, key=lambda one: (-one.triggers, one.channel))
