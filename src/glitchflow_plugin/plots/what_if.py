"""What a twin answers to changed witnesses: beside the unchanged answer, along a sweep, by witness, by frequency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.scale import LogScale

from glitchflow_plugin.plots.maps import FrequencyAxis, draw_map, energy_bar, energy_scale, frequency_axis
from glitchflow_plugin.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Picture,
    new_figure,
    picture,
    short_name,
)
from glitchflow_plugin.signal.columns import Columns

_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
#: s to either side of the loudest sample of a series.
_AROUND = 0.25


@picture
def plot_cases(
    names: Sequence[str],
    maps: Float[np.ndarray, "case frequency time"],
    strain: Float[np.ndarray, "case sample"] | None,
    frequencies: Float[np.ndarray, " frequency"],
    times: Float[np.ndarray, " time"],
    *,
    gps_start: float,
    sample_rate: float = 0.0,
    title: str = "",
    axis: FrequencyAxis = "log",
) -> Picture:
    """Predictions of one event, one row a case, the unchanged one first: map, and series about its loudest sample.

    Args:
        names: Cases.
        maps: SNR².
        strain: Whitened; None of a twin of energies.
        frequencies: Hz.
        times: s from `gps_start`.
        gps_start: GPS s.
        sample_rate: Of the series, Hz.
        title: Above all.
        axis: Axis of frequency.
    """
    figure = new_figure(6.0 if strain is None else 11.0, 0.9 + 1.8 * len(names))
    panels = figure.subplots(len(names), 1 if strain is None else 2, squeeze=False)
    scale, columns = energy_scale(maps), Columns(times, start=0.0)
    for row, (name, panel) in enumerate(zip(names, panels[:, 0], strict=True)):
        draw_map(panel, maps[row], frequencies, columns, scale)
        frequency_axis(panel, frequencies, axis)
        panel.set_title(short_name(name, 60), fontsize=9, loc="left")
    if strain is not None:
        _series(panels[:, 1], strain, sample_rate)
    energy_bar(figure, scale, ax=panels[:, 0].tolist(), fraction=0.05, pad=0.02)
    figure.suptitle(title, fontsize=10)
    panels[-1, 0].set_xlabel(f"time from GPS {gps_start:.3f} [s]")
    return figure


def _series(panels: np.ndarray, strain: Float[np.ndarray, "case sample"], rate: float) -> None:
    centre = int(np.abs(strain[0]).argmax())
    first, last = max(0, centre - round(_AROUND * rate)), centre + round(_AROUND * rate)
    time = np.arange(first, min(last, strain.shape[1])) / rate
    largest = 1.1 * max(float(np.abs(strain[:, first:last]).max()), 1e-3)
    for panel, one in zip(panels, strain, strict=True):
        panel.plot(time, strain[0, first:last], color=GREY, linewidth=1.6, label="unchanged")
        panel.plot(time, one[first:last], color=BLUE, linewidth=0.9, label="this case")
        panel.set_ylim(-largest, largest)
        panel.set_ylabel("predicted strain,\nwhitened", fontsize=8)
        panel.grid(alpha=0.3)
    panels[0].legend(loc="upper right", fontsize=7, frameon=False)
    panels[-1].set_xlabel("time from the event's first sample [s]")


@dataclass(frozen=True, eq=False)
class SweepCurves:
    """Sweeps of one witness.

    Attributes:
        name: Of the witness.
        values: What was tried, by quantity (`gain`, `delay` in s).
        snr: Predicted SNR over that of the unchanged event, by quantity, (event, value).
        overlap: With the unchanged prediction, likewise.
    """

    name: str
    values: Mapping[str, Float[np.ndarray, " value"]]
    snr: Mapping[str, Float[np.ndarray, "event value"]]
    overlap: Mapping[str, Float[np.ndarray, "event value"]]


@picture
def plot_sweeps(curves: Sequence[SweepCurves]) -> Picture:
    """Predicted SNR and overlap along gain and delay, one row a witness, a thin line an event, medians thick.

    Args:
        curves: One row each.
    """
    figure = new_figure(10.0, 1.0 + 2.1 * max(1, len(curves)))
    panels = figure.subplots(max(1, len(curves)), 2, squeeze=False)
    for row, curve in zip(panels, curves, strict=False):
        for panel, (quantity, unit, label) in zip(
            row, (("gain", 1.0, "gain of the witness"), ("delay", 1e3, "delay of the witness [ms]")), strict=True
        ):
            _sweep(panel, unit * curve.values[quantity], curve.snr[quantity], curve.overlap[quantity])
            panel.set_xlabel(label, fontsize=8)
        row[0].set_title(f"{short_name(curve.name, 50)}, {len(curve.snr['gain'])} events", fontsize=9, loc="left")
        row[0].set_ylabel("over unchanged", fontsize=8)
    if curves:
        panels[0, 0].legend(loc="upper left", fontsize=7, frameon=False)
    return figure


def _sweep(panel: Axes, values: np.ndarray, snr: np.ndarray, overlap: np.ndarray) -> None:
    for thin, colour, label in ((snr, BLUE, "predicted SNR"), (overlap, ORANGE, "overlap")):
        panel.plot(values, thin.T, color=colour, linewidth=0.5, alpha=0.5)
        panel.plot(values, np.median(thin, axis=0), color=colour, linewidth=2, marker="o", markersize=3, label=label)
    panel.axhline(1.0, color="black", linewidth=0.6, linestyle=":")
    panel.grid(alpha=0.3)


@picture
def plot_attribution(
    events: Sequence[str], witnesses: Sequence[str], shares: Float[np.ndarray, "event witness"]
) -> Picture:
    """Shares of the witnesses in the predictions of some events, as stacked bars; negative ones to the left.

    Args:
        events: What to write beside each bar.
        witnesses: Names.
        shares: They add up to one, less what no witness brings.
    """
    shown = np.flatnonzero((np.abs(shares) > 0.005).any(axis=0)) if shares.size else np.arange(0)
    figure = new_figure(10.0, 1.4 + 0.28 * max(1, len(events)))
    axes = figure.subplots()
    right, left = np.zeros(len(events)), np.zeros(len(events))
    for number, place in enumerate(shown):
        share = shares[:, place]
        start = np.where(share >= 0, right, left)
        colour, hatch = _COLOURS[number % len(_COLOURS)], "//" if number >= len(_COLOURS) else None
        name = short_name(str(witnesses[place]), 40)
        axes.barh(np.arange(len(events)), share, left=start, color=colour, hatch=hatch, label=name, height=0.8)
        right, left = right + np.maximum(share, 0), left + np.minimum(share, 0)
    axes.axvline(1.0, color="black", linewidth=0.6, linestyle=":")
    axes.set_yticks(np.arange(len(events)), list(events), fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("share of the prediction's power (Shapley value)")
    if len(shown):
        figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


@dataclass(frozen=True, eq=False)
class ResponseCurve:
    """How one answers to a witness by frequency.

    Attributes:
        label: Whose response.
        frequency: Hz.
        gain: Strain by witness, whitened.
        delay: s.
        reference: Whether it is the truth that others are compared with.
    """

    label: str
    frequency: Float[np.ndarray, " frequency"]
    gain: Float[np.ndarray, " frequency"]
    delay: Float[np.ndarray, " frequency"]
    reference: bool = False


@picture
def plot_transfer(responses: Mapping[str, Sequence[ResponseCurve]]) -> Picture:
    """Gain and delay by frequency, one row a witness.

    Args:
        responses: Curves by witness. A delay is drawn where the gain is at least a third of the curve's largest.
    """
    figure = new_figure(11.0, 1.0 + 2.2 * max(1, len(responses)))
    panels = figure.subplots(max(1, len(responses)), 2, sharex=True, squeeze=False)
    for row, (name, curves) in zip(panels, responses.items(), strict=False):
        for number, curve in enumerate(curves):
            colour = "black" if curve.reference else _COLOURS[number % len(_COLOURS)]
            style = {"color": colour, "linestyle": "--" if curve.reference else "-", "linewidth": 1.2, "marker": "."}
            row[0].plot(curve.frequency, np.maximum(curve.gain, 1e-4), label=curve.label, **style)
            felt = curve.gain >= 0.33 * max(float(curve.gain.max()), 1e-4)
            row[1].plot(curve.frequency, np.where(felt, 1e3 * curve.delay, np.nan), **style)
        row[0].set_yscale(LogScale(row[0].yaxis))
        row[0].set_title(short_name(name, 60), fontsize=9, loc="left")
        row[0].set_ylabel("gain, whitened", fontsize=8)
        row[1].set_ylabel("delay [ms]", fontsize=8)
        for panel in row:
            panel.set_xscale(LogScale(panel.xaxis))
            panel.grid(alpha=0.3)
    for panel in panels[-1]:
        panel.set_xlabel("frequency of the probe [Hz]")
    if responses:
        figure.legend(*_legend(list(panels[:, 0])), loc="outside upper center", ncols=3, fontsize=8)
    return figure


def _legend(panels: Sequence[Axes]) -> tuple[list[Artist], list[str]]:
    """Each name once, whichever panel has it."""
    known: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    return list(known.values()), list(known)
