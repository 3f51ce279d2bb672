"""Pictures of a channel scan."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from glitchflow_plugin.data.ranking_file import ChannelRanking
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


class CoincidenceView(Protocol):
    """What is drawn of a coincidence."""

    @property
    def channel(self) -> str: ...  # noqa: D102
    @property
    def gps_start(self) -> float: ...  # noqa: D102
    @property
    def maps(self) -> np.ndarray: ...  # noqa: D102
    @property
    def spikes(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]: ...  # noqa: D102
    @property
    def shared(self) -> float: ...  # noqa: D102


def scan_pictures(
    ranking: ChannelRanking,
    examples: Sequence[CoincidenceView],
    frequencies: np.ndarray,
    times: np.ndarray,
    *,
    axis: FrequencyAxis = "log",
) -> dict[str, Figure]:
    """All pictures of a scan: `correlation` and `IoU` of the channels, their `ranking`, and `coincidence`.

    Args:
        ranking: What the scan found.
        examples: Loud coincidences, one witness each.
        frequencies: Rows of the examples' maps, Hz, shape (frequency,).
        times: Columns of these maps, s from their left edge, shape (time,).
        axis: Frequency axis of the maps.
    """
    limits, target = ranking.parameters, ranking.target
    channels = partial(plot_ranking, ranking.channels, selected=ranking.selected, target=target, unsafe=ranking.unsafe)
    return {
        "correlation": channels(
            ranking.correlation,
            threshold=limits["threshold_corr"],
            quantity="correlation: share of the target's spikes that the channel shares",
            chance=ranking.chance,
        ),
        "IoU": channels(
            ranking.iou,
            threshold=limits["threshold_iou"],
            quantity="IoU: shared spikes over all spikes of the two",
        ),
        "ranking": plot_families(ranking),
        "coincidence": plot_coincidences(examples, frequencies, times, target=target, axis=axis),
    }


@picture
def plot_ranking(
    channels: Sequence[str],
    values: np.ndarray,
    *,
    threshold: float | None,
    selected: Collection[str],
    quantity: str,
    target: str,
    chance: np.ndarray | None = None,
    unsafe: Collection[str] = (),
    max_channels: int = 30,
) -> Picture:
    """Channels as horizontal bars, best first, with the threshold and the selected ones in colour.

    Args:
        channels: Channel names.
        values: One value a channel, between 0 and 1; NaN = no information, shown as such at the end.
        threshold: Drawn as a line; None: there is none.
        selected: Names of the selected channels.
        quantity: What the values are, for the axis.
        target: The reference channel, for the title.
        chance: Value expected by accident, one a channel, drawn as ticks.
        unsafe: Names of channels that see the strain itself, marked as such.
        max_channels: With more channels, only the best so many are shown and the others are counted.

    Returns:
        The figure.
    """
    values = np.asarray(values, dtype=np.float64)
    order = np.argsort(-np.nan_to_num(values, nan=-1.0), kind="stable")
    shown = order[:max_channels]
    figure = new_figure(9.0, 1.6 + 0.26 * max(len(shown), 4))
    axes = figure.add_subplot()
    rows = np.arange(len(shown))
    known = np.isfinite(values[shown])
    colours = [BLUE if channels[index] in selected else GREY for index in shown]
    axes.barh(rows, np.where(known, values[shown], 0.0), color=colours, height=0.72)
    handles: list[Patch | Line2D] = [
        Patch(color=BLUE, label=f"selected ({len(selected)})"),
        Patch(color=GREY, label=f"not selected ({len(channels) - len(selected)})"),
    ]
    if threshold is not None:
        line = axes.axvline(threshold, color=RED, linewidth=1.4, linestyle="--", label=f"threshold {threshold:g}")
        handles.append(line)
    if chance is not None and np.isfinite(chance).any():
        axes.scatter(chance[shown], rows, marker="|", s=70, linewidths=2.0, color=ORANGE, zorder=3)
        tick = {"marker": "|", "markersize": 9, "markeredgewidth": 2.0, "linestyle": "none"}
        handles.append(Line2D([], [], color=ORANGE, label="by chance", **tick))
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}  # the threshold may lie there
    for row, index in enumerate(shown):
        if known[row]:
            text = f"{values[index]:.2f}{'  unsafe' if channels[int(index)] in unsafe else ''}"
            place = max(values[index], chance[index] if chance is not None and np.isfinite(chance[index]) else 0.0)
        else:
            text, place = "no information", 0.0
        axes.text(place + 0.012, row, text, va="center", fontsize=8, color="0.25", bbox=behind)
    axes.set_yticks(rows, [short_name(channels[int(index)]) for index in shown], fontsize=8)
    axes.set_ylim(max(len(shown), 4) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel(quantity)
    hidden = len(channels) - len(shown)
    more = f"; best {len(shown)} of {len(channels)} channels" if hidden else ""
    axes.set_title(f"Coincidence with {target}{more}", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


#: Families in turn; a colour that comes again is a far smaller family.
_FAMILY_COLOURS = (BLUE, GREEN, ORANGE, PURPLE, SKY)
_TABLE = ("round", "correlation", "by chance", "p", "lag [ms]", "eff./dead", "use [%]")


@picture
def plot_families(ranking: ChannelRanking, *, max_channels: int = 30) -> Picture:
    """Channels by rounds and families: bars of Hveto's significance, and the figures of each channel beside them.

    Args:
        ranking: What the scan found.
        max_channels: Channels shown at most: those that passed and the unsafe first, then the best of the others.

    Returns:
        The figure.
    """
    rows = _rows(ranking)[:max_channels]
    figure = new_figure(13.0, 1.6 + 0.27 * max(len(rows), 5))
    axes, table = figure.subplots(1, 2, sharey=True, width_ratios=(1.0, 1.1))
    table.axis("off")
    known = np.nan_to_num(ranking.significance, nan=0.0)
    for place, row in enumerate(rows):
        name = ranking.channels[row]
        unsafe, family = name in ranking.unsafe, int(ranking.family[row])
        colour = RED if unsafe else _FAMILY_COLOURS[(family - 1) % len(_FAMILY_COLOURS)] if family else GREY
        axes.barh(
            place,
            known[row],
            height=0.72,
            color="white" if unsafe else colour,
            edgecolor=colour,
            hatch="////" if unsafe else None,
            alpha=1.0 if unsafe or ranking.representative[row] or not family else 0.55,
        )
        notes = [
            f"family {family}" if family else "",
            "copy" if family and not unsafe and not ranking.representative[row] else "",
            f"UNSAFE ({ranking.unsafe[name]})" if unsafe else "",
            "unsafe, overridden" if name in ranking.overridden else "",
        ]
        inside = unsafe and known[row] > 0
        axes.annotate(
            ", ".join(filter(None, notes)),
            (0.0 if inside else known[row], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=RED if unsafe else "0.25",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8} if inside else None,
        )
        for column, text in enumerate(_figures(ranking, row)):
            table.text(column, place, text, ha="right", va="center", fontsize=8)
    for column, text in enumerate(_TABLE):
        table.text(column, -0.75, text, ha="right", va="bottom", fontsize=8, weight="bold")
    table.set_xlim(-0.4, len(_TABLE) - 0.9)
    axes.set_xscale("symlog", linthresh=10.0)
    ticks = [0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    top = max(float(known.max(initial=0.0)), 10.0) * 1.7
    axes.set_xlim(0.0, top)
    axes.set_xticks([tick for tick in ticks if tick <= top], [f"{tick}" for tick in ticks if tick <= top])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [short_name(ranking.channels[row]) for row in rows], fontsize=8)
    axes.set_ylim(max(len(rows), 5) - 0.4, -0.6)
    axes.set_xlabel("significance of the coincidence: -log10 of its Poisson probability")
    hidden = len(ranking.channels) - len(rows)
    axes.set_title(
        f"Witnesses of {ranking.target}: {len(ranking.selected)} selected, {len(ranking.rounds)} rounds"
        + (f"; {len(rows)} of {len(ranking.channels)} channels" if hidden else ""),
        fontsize=11,
        loc="left",
        pad=14,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    return figure


def _rows(ranking: ChannelRanking) -> list[int]:
    """Channels in the order in which they are shown: by the round of their family, the unsafe, the others."""
    last = len(ranking.rounds) + 1
    round_of = {
        int(family): int(ranking.round[(ranking.family == family) & (ranking.round > 0)].min(initial=last))
        for family in np.unique(ranking.family)
    }

    def key(row: int) -> tuple[float, ...]:
        name, family = ranking.channels[row], int(ranking.family[row])
        group = 0 if name in ranking.selected else 1 if name in ranking.unsafe else 2
        strength = -float(np.nan_to_num(ranking.significance[row], nan=-1.0))
        if group:
            return group, 0, 0, strength
        return group, round_of[family] if family else last, family, strength

    return sorted(range(len(ranking.channels)), key=key)


def _figures(ranking: ChannelRanking, row: int) -> tuple[str, ...]:
    """What stands beside a bar, one text a column of the table."""
    if not ranking.strain_spikes[row]:
        return ("", "no information")

    def text(value: float, form: str) -> str:
        return format(value, form) if np.isfinite(value) else "-"

    lag = "-"
    if np.isfinite(ranking.lag[row]):
        lag = f"{1e3 * ranking.lag[row]:+.0f} ± {1e3 * ranking.lag_error[row]:.0f}"
    return (
        str(ranking.round[row]) if ranking.round[row] else "",
        text(ranking.correlation[row], ".3f"),
        text(ranking.chance[row], ".3f"),
        text(ranking.p_value[row], ".1g") if ranking.p_value[row] > 1e-300 else "< 1e-300",
        lag,
        text(ranking.efficiency_over_deadtime[row], ".1f"),
        text(ranking.use_percentage[row], ".0f"),
    )


@picture
def plot_coincidences(
    examples: Sequence[CoincidenceView],
    frequencies: np.ndarray,
    times: np.ndarray,
    *,
    target: str,
    half: float = 1.5,
    axis: FrequencyAxis = "log",
) -> Picture:
    """Events in which witnesses glitch with the target: the target's map above, the witness's below, spikes marked.

    Args:
        examples: One witness each.
        frequencies: Hz, shape (frequency,).
        times: s from the left edge of the maps, shape (time,).
        target: The reference channel.
        half: What is shown about the shared spike, s.
        axis: Frequency axis of the maps.

    Returns:
        The figure.
    """
    number = max(len(examples), 1)
    figure = new_figure(max(1.6 + 3.4 * number, 8.0), 5.4)  # the title needs so much
    panels = figure.subplots(2, number, sharey=True, squeeze=False)
    if not examples:
        for panel in panels[:, 0]:
            panel.axis("off")
        figure.suptitle(f"No channel coincides with {short_name(target)}", fontsize=11)
        return figure
    scale = energy_scale(np.concatenate([one.maps for one in examples]))
    for column, one in enumerate(examples):
        columns = Columns(times, start=-one.shared)
        for row, (panel, energy, (time, frequency)) in enumerate(
            zip(panels[:, column], one.maps, one.spikes, strict=True)
        ):
            draw_map(panel, energy, frequencies, columns, scale)
            panel.axvline(0.0, color="white", linewidth=0.8, linestyle=":")
            panel.scatter(time - one.shared, frequency, s=90, facecolors="none", edgecolors="white", linewidths=1.4)
            panel.set_xlim(max(-half, columns.left[0]), min(half, columns.right[-1]))
            panel.set_title(short_name(one.channel if row else target, 30), fontsize=9, color="black" if row else RED)
            frequency_axis(panel, frequencies, axis)
            panel.tick_params(labelsize=8, labelbottom=bool(row))
            if column:
                panel.set_ylabel("")
        panels[1, column].set_xlabel(f"time from GPS {one.gps_start + one.shared:.3f} [s]", fontsize=9)
    energy_bar(figure, scale, ax=list(panels.ravel()), fraction=0.03, pad=0.01)
    figure.suptitle(
        f"Loudest coincidences with {short_name(target)}, one witness a column "
        "(circles: spikes; dotted: the shared spike)",
        fontsize=11,
    )
    return figure
