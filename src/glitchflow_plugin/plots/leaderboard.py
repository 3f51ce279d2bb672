"""Entrants of the leaderboard beside each other: ranking, accuracy curves, groups of glitches, missing witnesses."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from glitchflow_plugin.plots.curves import Band
from glitchflow_plugin.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Picture, new_figure, picture
from glitchflow_plugin.verdict import GLITCH_THRESHOLD

_COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, "black", GREY)
_MARKERS = "os^Dvp*X"
#: Shares below this are off the picture: how much worse than adding the glitch once more does not matter.
_LOWEST = -1.05


@picture
def plot_ranking(entrants: Sequence[str], panels: Mapping[str, Band]) -> Picture:
    """One dot with its interval an entrant.

    Args:
        entrants: Best first.
        panels: Shares of the entrants by title; NaN where one has none.

    Returns:
        The figure.
    """
    figure = new_figure(4.2 * len(panels) + 1.5, 1.4 + 0.35 * len(entrants))
    places = np.arange(len(entrants))
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, band) in zip(all_axes, panels.items(), strict=True):
        for place in places:
            one = Band(*(100 * end[place : place + 1] for end in (band.value, band.low, band.high)))
            _dots(axes, places[place : place + 1], one, int(place), horizontal=True)
        axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
        axes.set_xlabel("share [%]")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    all_axes[0].set_yticks(places, list(entrants))
    all_axes[0].invert_yaxis()
    return figure


@picture
def plot_accuracies(
    thresholds: np.ndarray,
    cleaned: Mapping[str, np.ndarray],
    veto: Mapping[str, np.ndarray],
    *,
    glitch_threshold: float = GLITCH_THRESHOLD,
) -> Picture:
    """Share of glitches cleaned and balanced veto accuracy of all entrants against the SNR² threshold.

    Args:
        thresholds: SNR².
        cleaned: Curve by entrant, (threshold,); NaN leaves a gap.
        veto: Likewise.
        glitch_threshold: Marked by a line, SNR².

    Returns:
        The figure.
    """
    figure = new_figure(11.0, 4.2)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, curves in ((left, cleaned), (right, veto)):
        for index, (name, curve) in enumerate(curves.items()):
            axes.plot(thresholds, curve, color=_COLOURS[index % len(_COLOURS)], label=name, linestyle=_line(index))
        label = f"threshold of a glitch, SNR² {glitch_threshold:g}"
        axes.axvline(glitch_threshold, color="black", linewidth=0.8, linestyle=":", label=label)
        axes.set_xlabel("threshold [SNR²]")
        axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.3)
        axes.tick_params(labelleft=True)
    left.set_title("cleaned: nothing above the threshold is left, and no energy was added", fontsize=10)
    left.set_ylabel("share of the events with a glitch")
    right.set_title("veto: balanced accuracy, glitches within their time", fontsize=10)
    right.set_ylabel("mean share of glitches and of quiet events judged rightly")
    right.legend(fontsize=8, loc="lower right")
    return figure


@picture
def plot_groups(panels: Mapping[str, tuple[Sequence[str], Mapping[str, Band]]]) -> Picture:
    """Median share of net power removed by kind of glitch, dots with intervals.

    Args:
        panels: Names of the kinds, and one value a kind by entrant, by title.

    Returns:
        The figure.
    """
    widths = [max(1, len(kinds)) for kinds, _ in panels.values()]
    figure = new_figure(2.5 + 1.15 * sum(widths), 4.4)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, (title, (kinds, bands)) in zip(all_axes, panels.items(), strict=True):
        places, spread = np.arange(len(kinds)), np.linspace(-0.3, 0.3, max(2, len(bands)))
        for index, (name, band) in enumerate(bands.items()):
            _dots(axes, places + spread[index], band, index, label=name)
        axes.set_xticks(places, [name.replace("_", " ") for name in kinds], fontsize=8)
        for place in places[1:]:
            axes.axvline(place - 0.5, color=GREY, linewidth=0.5)
        axes.set_title(title, fontsize=10)
        _share_axis(axes)
    all_axes[0].set_ylabel("median share of net power removed")
    all_axes[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@picture
def plot_missing(numbers: Sequence[int], counts: Sequence[str], bands: Mapping[str, Band]) -> Picture:
    """Median share of net power removed against the number of witnesses taken away.

    Args:
        numbers: Witnesses taken away.
        counts: Numbers of glitches of which a witness is left, in words.
        bands: Values, one a number of witnesses, by entrant.

    Returns:
        The figure.
    """
    figure = new_figure(7.5, 4.4)
    axes = figure.subplots()
    spread = np.linspace(-0.12, 0.12, max(2, len(bands)))
    for index, (name, band) in enumerate(bands.items()):
        places = np.asarray(numbers) + spread[index]
        axes.plot(places, band.value, color=_COLOURS[index % len(_COLOURS)], linewidth=0.8, linestyle=_line(index))
        _dots(axes, places, band, index, label=name)
    axes.set_xticks(
        list(numbers), [f"{number}\n{count}" for number, count in zip(numbers, counts, strict=True)], fontsize=8
    )
    axes.set_xlabel("witnesses missing, drawn at random (glitches of which a witness is left)")
    axes.set_ylabel("median share of net power removed")
    _share_axis(axes)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@picture
def plot_learning(panels: Mapping[str, tuple[Sequence[int], Mapping[str, Band]]], label: str) -> Picture:
    """Curves of a share against how much was learnt from.

    Args:
        panels: Numbers along the axis, and one value a number by entrant, by what grows.
        label: What the share is of.

    Returns:
        The figure.
    """
    figure = new_figure(5.0 * len(panels) + 1.0, 4.2)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, (numbers, bands)) in zip(all_axes, panels.items(), strict=True):
        for index, (name, band) in enumerate(bands.items()):
            places = np.asarray(numbers) * 1.03**index  # beside each other on a logarithmic axis
            axes.plot(places, band.value, color=_COLOURS[index % len(_COLOURS)], linewidth=0.8, linestyle=_line(index))
            _dots(axes, places, band, index, label=name)
        axes.set_xscale("log")
        axes.set_xticks(list(numbers), [str(number) for number in numbers])
        axes.minorticks_off()
        axes.set_xlabel(title)
        _share_axis(axes)
    all_axes[0].set_ylabel(label)
    all_axes[-1].legend(fontsize=8, loc="lower right")
    return figure


@picture
def plot_trust(
    coverage: Mapping[str, tuple[Sequence[float], Sequence[float]]], strangeness: Mapping[str, np.ndarray]
) -> Picture:
    """What a twin says about itself: coverage of its uncertainty, and how it ranks what it has not seen.

    Args:
        coverage: Probabilities announced and shares found within, by kind of pixel.
        strangeness: P-values of being like the validation events, (event,), by kind of event.

    Returns:
        The figure.
    """
    figure = new_figure(10.0, 4.2)
    left, right = figure.subplots(1, 2)
    for index, (name, (announced, found)) in enumerate(coverage.items()):
        left.plot(announced, found, color=_COLOURS[index], marker=_MARKERS[index], markersize=4, label=name)
    left.set_xlabel("probability announced")
    left.set_ylabel("share of pixels within")
    left.set_title("power that is left within its announced range", fontsize=10)
    for index, (name, values) in enumerate(strangeness.items()):
        steps = np.arange(1, len(values) + 1) / len(values)
        right.step(np.sort(values), steps, where="post", color=_COLOURS[index], label=name)
    right.set_xlabel("p-value of being like the validation events")
    right.set_ylabel("share of events at or below it")
    right.set_title("out-of-distribution score", fontsize=10)
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _dots(
    axes: Axes, places: np.ndarray, band: Band, index: int, *, label: str | None = None, horizontal: bool = False
) -> None:
    value = np.asarray(band.value, dtype=np.float64)
    ends = np.stack([value - np.asarray(band.low), np.asarray(band.high) - value])
    # a percentile interval of a median may lie to one side of it; NaN is no interval
    ends = np.clip(np.nan_to_num(ends), 0, None)
    style = {"fmt": _MARKERS[index % len(_MARKERS)], "color": _COLOURS[index % len(_COLOURS)], "markersize": 4}
    x, y, error = (value, places, {"xerr": ends}) if horizontal else (places, value, {"yerr": ends})
    axes.errorbar(x, y, **error, **style, elinewidth=1.2, label=label)  # pyright: ignore[reportArgumentType]


def _share_axis(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, _LOWEST), min(max(high, 0.2), 1.05))
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.grid(alpha=0.3, axis="y")
    axes.tick_params(labelleft=True)


def _line(index: int) -> str:
    return "-" if index < len(_COLOURS) else "--"
