"""The page for one time: what every channel does then."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from markupsafe import Markup

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.preprocessing.omega import ChannelsAtTime, WindowScan, loudest, scan_windows, similarities
from glitchflow_plugin.report.charts import Chart, series
from glitchflow_plugin.report.markup import rendered
from glitchflow_plugin.report.page import Page, Section, write_page
from glitchflow_plugin.report.scans import WINDOWS, Scan, TimeFrequencyMap, drawn, scale, scan, top_of_scale
from glitchflow_plugin.report.tables import table

_POINTS = 2000
"""Of a line: a longer series is drawn as the least and the largest of each so many-th."""

_LINES = 2
"""Witnesses whose series are drawn beside the target's."""


def write_omega(path: Path, found: ChannelsAtTime, *, shown: int = 20) -> Path:
    """Write the page for one time, and return its path.

    Args:
        path: The file.
        found: The channels.
        shown: Channels whose scans the page holds, at most: the target and the loudest; the table has all.
    """
    windows = scan_windows(found, WINDOWS)
    ranking = _ranking(found, windows)
    order = [0, *(int(row) for row in ranking.index if row)]
    facts = {
        "target": found.channels[0],
        "channels": f"{len(found.channels)} whitened, {len(found.rejected)} not usable",
        "data": f"{found.series.shape[1] / found.sample_rate:g} s from GPS {found.start:.3f}, "
        f"{found.band[0]:g} to {found.band[1]:g} Hz, {found.sample_rate:g} Hz sampling",
    }
    notes = [f"{name} is left out: {why}" for name, why in found.rejected.items()]
    sections = [
        Section(
            "time", "What is looked at", [rendered("facts.html", facts=facts), rendered("notes.html", notes=notes)]
        ),
        Section("channels", "Channels", [table("table-channels", ranking, _CAPTION, leaves=True)]),
        Section("scans", "Scans", [channel_scans("channel", found, windows, order[:shown])], _SCANS),
        Section("series", "Series", _series(found, order[: 1 + _LINES])),
    ]
    return write_page(
        path, Page(f"GPS {found.gps:.3f}", f"Omega scan of {found.channels[0]} and its witnesses", sections)
    )


_CAPTION = (
    "Channels by their largest energy within a second of the time. Correlation: largest normalised cross-correlation "
    "with the target, whitened, within a second and lags of up to 0.1 s; a lag is positive where the channel follows; "
    "by chance: the median over other lags. Coherence: the largest of the band over all data; by chance: what 19 of 20 "
    "independent channels do not reach."
)
_SCANS = (
    "Whitened; each window at the Q, of 8, 16, 32 and 64, at which it has its loudest pixel; energies in units of the "
    "median of their row. All on one scale of colours."
)


def _ranking(found: ChannelsAtTime, windows: Sequence[WindowScan]) -> pd.DataFrame:
    """All channels, the loudest first, by the row that they have in `found`."""
    peaks = loudest(found, windows[1])
    correlation, alike = similarities(found)
    content = pd.DataFrame(
        {
            "channel": found.channels,
            "loudest [SNR²]": peaks[:, 0],
            "at [s]": peaks[:, 1],
            "frequency [Hz]": peaks[:, 2],
            "Q": windows[1].q,
            "correlation": correlation.value,
            "lag [ms]": 1000 * correlation.place,
            "correlation by chance": correlation.by_chance,
            "coherence": alike.value,
            "coherent at [Hz]": alike.place,
            "coherence by chance": alike.by_chance,
        }
    )
    return content.sort_values("loudest [SNR²]", ascending=False, kind="stable")


def channel_scans(name: str, found: ChannelsAtTime, windows: Sequence[WindowScan], rows: Sequence[int]) -> Markup:
    """Scans of some channels one below the other, and the scale of their colours.

    Args:
        name: Beginning of the names of elements.
        found: The channels.
        windows: Q-scans of each of `WINDOWS`.
        rows: The channels that are shown, by their place in `found`.
    """
    peak = top_of_scale([window.maps[list(rows)] for window in windows])
    scans: list[Scan] = []
    for row in rows:
        maps = [TimeFrequencyMap(one.maps[row], one.frequencies, one.start, one.length) for one in windows]
        q = ", ".join(f"{one.q[row]:g}" for one in windows)
        title = found.channels[row] + (" (target)" if row == 0 else "")
        scans.append(scan(f"{name}-{row}", title, maps, peak, note=f"Q {q}"))
    return drawn(f"{name}s", scans, found.gps) + scale(f"scale-{name}s", peak)


def _series(found: ChannelsAtTime, rows: Sequence[int]) -> list[Chart]:
    rate = found.sample_rate
    since = found.start - found.gps + np.arange(found.series.shape[1]) / rate
    near = np.abs(since) <= 1
    whitened = pd.DataFrame({found.channels[row]: found.series[row, near] for row in rows}, index=since[near])
    labels = (f"time from GPS {found.gps:.3f} [s]", "whitened")
    charts = [series("chart-whitened", "Whitened: the target, and the loudest witnesses.", whitened, labels)]
    for row in rows:
        channel = found.recorded[found.channels[row]]
        text = f"As recorded: {channel.name}, {channel.sample_rate:g} Hz."
        lines = _thinned(channel, found.gps)
        charts.append(series(f"chart-raw-{row}", text, lines, (labels[0], channel.unit or "recorded unit")))
    return charts


def _thinned(channel: Channel, gps: float) -> pd.DataFrame:
    """A series as recorded, without its mean, which would hide all else; extremes stay where it is thinned."""
    values = np.asarray(channel.series, dtype=np.float64)
    since = channel.t0 - gps + np.arange(len(values)) / channel.sample_rate
    values = values - np.nanmean(values) if np.isfinite(values).any() else values
    step = max(1, 2 * len(values) // _POINTS)
    if step > 1:
        parts = len(values) // step
        blocks: Float[np.ndarray, "part step"] = values[: parts * step].reshape(parts, step)
        values = np.stack([blocks.min(axis=1), blocks.max(axis=1)], axis=1).ravel()
        since = np.repeat(since[: parts * step : step], 2)
    return pd.DataFrame({channel.name: values}, index=since)
