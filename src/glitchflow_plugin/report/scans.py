"""Maps as omega scans: one channel in several windows about a time, log frequency, axes as text that scales."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup

from glitchflow_plugin.plots.maps import ENERGY_FLOOR, colour_image, energy_scale
from glitchflow_plugin.report.markup import map_uri, rendered

WINDOWS = (0.5, 2.0, 8.0)
"""Lengths of the windows, s: short glitches, most glitches, slow ones."""

_ROWS = 80
"""Rows of a picture on the logarithmic axis."""

_LEVELS = 64
"""Colours that are told apart."""


@dataclass(frozen=True, eq=False)
class TimeFrequencyMap:
    """A map of one channel.

    Attributes:
        energy: SNR², (frequency, time).
        frequencies: Centres of the rows, Hz, rising.
        start: Left edge, s from the time that the scan is about.
        length: s.
    """

    energy: Float[np.ndarray, "frequency time"]
    frequencies: Float[np.ndarray, " frequency"]
    start: float
    length: float

    @property
    def stop(self) -> float:
        """Right edge, s from the time that the scan is about."""
        return self.start + self.length


@dataclass(frozen=True)
class Panel:
    """What the template `scans.html` draws of one window; places are shares of its width and height.

    Attributes:
        image: Data URI; empty where a panel before has the image of this name.
    """

    title: str
    description: str
    start: float
    length: float
    image_name: str
    image: str
    image_start: float
    image_length: float
    frequencies: Sequence[tuple[float, str]]
    times: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Scan:
    """The windows of one channel.

    Attributes:
        title: What it is.
        panels: One a window.
        note: What to know of it.
    """

    title: str
    panels: Sequence[Panel]
    note: str = ""


def scan(name: str, title: str, maps: Sequence[TimeFrequencyMap], peak: float, *, note: str = "") -> Scan:
    """Windows of one channel about a time.

    Args:
        name: Beginning of the names of its images.
        title: What it is.
        maps: The map of each of `WINDOWS`, or one map that all of them show parts of.
        peak: Energy at which the scale of colours ends, SNR².
        note: What to know of it.
    """
    several = len(maps) == len(WINDOWS)
    panels = [
        _panel(
            f"{name}-{place if several else 0}", maps[place if several else 0], length, peak, first=several or not place
        )
        for place, length in enumerate(WINDOWS)
    ]
    return Scan(title, panels, note)


def drawn(name: str, scans: Sequence[Scan], gps: float) -> Markup:
    """Scans of the same windows and frequencies, one below the other.

    Args:
        name: Beginning of the names of their axes, which are drawn once.
        scans: The first one's axes are those of all.
        gps: What the axes count from, GPS s.
    """
    return rendered("scans.html", name=name, rows=scans, zero=f"{gps:.3f}")


def scale(name: str, peak: float) -> Markup:
    """The scale of the colours.

    Args:
        name: Of the element.
        peak: Energy at which the scale of colours ends, SNR².
    """
    stops = [
        (f"{place / (_LEVELS - 1):.3f}", "#{:02x}{:02x}{:02x}".format(*_colours()[place]))
        for place in range(0, _LEVELS, 9)
    ]
    ticks = [(np.log(one) / np.log(peak), f"{one:g}") for one in _round_numbers(1.0, peak, (1, 3))]
    return rendered("scale.html", name=name, peak=f"{peak:.0f}", stops=stops, ticks=ticks)


def top_of_scale(maps: Sequence[np.ndarray]) -> float:
    """Where one scale of colours for several maps ends: their loudest pixel, SNR², but never below 30."""
    return float(energy_scale(np.array([one.max() for one in maps if one.size])).vmax or 1.0)


def _panel(name: str, seen: TimeFrequencyMap, length: float, peak: float, *, first: bool) -> Panel:
    start, stop = max(-length / 2, seen.start), min(length / 2, seen.stop)
    if stop <= start:  # the time lies outside the map
        start, stop = seen.start, seen.stop
    low, high = float(seen.frequencies[0]), float(seen.frequencies[-1])
    whole = stop - start > length - 1e-3
    title = f"{length:g} s" if whole else f"{length:g} s, of which there are {stop - start:.2g} s"
    octaves = np.log(high / low)
    return Panel(
        title=title,
        description=f"{start:+.2f} to {stop:+.2f} s, {low:.0f} to {high:.0f} Hz",
        start=round(start, 6),
        length=round(stop - start, 6),
        image_name=name,
        image=map_uri(_levels(_on_log_axis(seen), peak), _colours()) if first else "",
        image_start=round(seen.start, 6),
        image_length=round(seen.length, 6),
        frequencies=[(1 - np.log(one / low) / octaves, f"{one:g}") for one in _round_numbers(low, high, (1, 2, 5))],
        times=[
            ((one - start) / (stop - start), f"{one:g}")
            for one in _quarters(length)
            if start - 1e-3 <= one <= stop + 1e-3
        ],
    )


def _levels(energy: Float[np.ndarray, "frequency time"], peak: float) -> UInt8[np.ndarray, "frequency time"]:
    """Which of the colours each energy has, the highest frequency first."""
    shares = np.log(np.clip(energy[::-1], ENERGY_FLOOR, peak)) / np.log(peak)
    return np.round(shares * (_LEVELS - 1)).astype(np.uint8)


@cache
def _colours() -> UInt8[np.ndarray, "level 3"]:
    """Colours from the floor of energies to the top of a scale, evenly spaced in the logarithm."""
    levels = np.geomspace(ENERGY_FLOOR, 100.0, _LEVELS)
    return colour_image(levels[None], energy_scale(levels))[0]


def _on_log_axis(seen: TimeFrequencyMap) -> Float[np.ndarray, "frequency time"]:
    """Rows evenly spaced in log frequency, each the nearest of the map."""
    low, high = np.log(seen.frequencies[[0, -1]])
    rows = np.exp(low + (high - low) * (np.arange(_ROWS) + 0.5) / _ROWS)
    between = np.sqrt(seen.frequencies[1:] * seen.frequencies[:-1])
    return seen.energy[np.searchsorted(between, rows)]


def _quarters(length: float) -> list[float]:
    return [length * part for part in (-0.5, -0.25, 0.0, 0.25, 0.5)]


def _round_numbers(low: float, high: float, firsts: Sequence[int]) -> list[float]:
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [first * 10.0**decade for decade in decades for first in firsts if low <= first * 10.0**decade <= high]
