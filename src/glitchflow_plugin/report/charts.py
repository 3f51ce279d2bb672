"""Charts that can be zoomed and pointed at: Bokeh, with its library in the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from markupsafe import Markup

from glitchflow_plugin.plots.curves import COLOURS, Band
from glitchflow_plugin.plots.style import RED
from glitchflow_plugin.plots.timeline import OUTCOMES

_MARKERS = {"o": "circle", "s": "square", "v": "inverted_triangle", "^": "triangle", ".": "dot", "x": "x"}
_HEIGHT = 320


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart.

    Attributes:
        name: Of the element, of letters, digits and hyphens.
        caption: What it shows, and where the same is told in words or numbers.
        figure: Bokeh's.
    """

    name: str
    caption: str
    figure: Any


def chart_library() -> Markup:
    """What charts need to work without a network."""
    from bokeh.resources import Resources

    return Markup(Resources(mode="inline", components=["bokeh"]).render_js())  # noqa: S704  # the library itself


def chart_script(charts: Sequence[Chart]) -> tuple[Markup, Mapping[str, Markup]]:
    """The script that draws charts, and the place of each by its name."""
    if not charts:
        return Markup(), {}
    from bokeh.embed import components

    script, places = components({chart.name: chart.figure for chart in charts})
    return Markup(script), {name: Markup(place) for name, place in places.items()}  # noqa: S704  # Bokeh escapes data


def timeline(
    gps: Float[np.ndarray, " event"],
    loudness: Float[np.ndarray, " event"],
    outcomes: np.ndarray,
    vetoes: Float[np.ndarray, "segment 2"],
    links: Sequence[str],
    *,
    threshold: float,
) -> Chart:
    """Events along time by what came of them, and the vetoed segments; a click on an event leads to it.

    Args:
        gps: Trigger times, GPS s.
        loudness: Largest energy, SNR².
        outcomes: Words of `verdict.OUTCOMES`, (event,).
        vetoes: GPS start and end of each segment, s.
        links: Where a click leads, by event.
        threshold: Marked by a line, SNR².
    """
    from bokeh.models import OpenURL, Span, TapTool

    zero = float(np.floor(gps.min())) if len(gps) else 0.0
    figure = _figure(
        f"time from GPS {zero:.0f} [s]",
        "largest energy [SNR²]",
        y_axis_type="log",
        tools="pan,wheel_zoom,box_zoom,reset,tap,hover",
        tooltips=[("GPS", "@gps"), ("SNR²", "@loudness{0.0}"), ("", "@outcome")],
    )
    low = min(float(loudness.min(initial=threshold)), 1.0)
    figure.quad(
        left=vetoes[:, 0] - zero,
        right=vetoes[:, 1] - zero,
        bottom=low,
        top=low * 1.3,
        color=RED,
        line_color=RED,
        legend_label=f"vetoed ({len(vetoes)})",
    )
    for outcome, (colour, marker) in OUTCOMES.items():
        chosen = outcomes == outcome
        if chosen.any():
            source = {
                "since": gps[chosen] - zero,
                "loudness": np.maximum(loudness[chosen], low),
                "gps": [f"{one:.3f}" for one in gps[chosen]],
                "outcome": [outcome] * int(chosen.sum()),
                "link": [links[row] for row in np.flatnonzero(chosen)],
            }
            label = f"{outcome} ({int(chosen.sum())})"
            look = {"color": colour, "marker": _MARKERS[marker], "size": 12 if marker == "." else 8}
            figure.scatter("since", "loudness", source=source, legend_label=label, **look)
    figure.add_layout(Span(location=threshold, dimension="width", line_dash="dotted", line_color="black"))
    figure.select_one(TapTool).callback = OpenURL(url="@link", same_tab=True)
    _legend(figure)
    caption = (
        f"Events along time, by what came of each; dotted: threshold, SNR² {threshold:g}; along the bottom: vetoed "
        "segments. A click on an event shows it. The table of events tells the same."
    )
    return Chart("chart-timeline", caption, figure)


def curves(
    name: str,
    caption: str,
    content: Mapping[str, tuple[np.ndarray, Band]],
    labels: tuple[str, str],
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    marked: bool = False,
    **axes: Any,
) -> Chart:
    """Curves with the bands of their intervals.

    Args:
        name: Of the element.
        caption: What they show.
        content: By name of the curve, where it is known and its values.
        labels: Of both axes.
        points: A dot by name of the curve: the setting in use.
        marked: Whether each value has a dot.
        axes: What Bokeh's `figure` takes, such as `x_axis_type`.
    """
    figure = _figure(
        *labels, tools="pan,wheel_zoom,box_zoom,reset,hover", tooltips=[("", "$x{0.000}, $y{0.000}")], **axes
    )
    for (label, (x, band)), colour in zip(content.items(), COLOURS, strict=False):
        if np.isfinite(band.low).any():
            figure.varea(x, band.low, band.high, fill_color=colour, fill_alpha=0.15)
        figure.line(x, band.value, color=colour, line_width=2, legend_label=label)
        if marked:
            figure.scatter(x, band.value, color=colour, size=6, legend_label=label)
        if points and label in points:
            figure.scatter(*([value] for value in points[label]), color=colour, size=9)
    _legend(figure)
    return Chart(name, caption, figure)


def series(name: str, caption: str, frame: pd.DataFrame, labels: tuple[str, str], **axes: Any) -> Chart:
    """Series over one axis, the index of the frame, one line a column."""
    bare = np.full(len(frame), np.nan)
    lines = {str(label): (frame.index.to_numpy(), Band(frame[label].to_numpy(), bare, bare)) for label in frame}
    return curves(name, caption, lines, labels, **axes)


def _figure(x_label: str, y_label: str, **keywords: Any) -> Any:
    from bokeh.plotting import figure

    made = figure(
        height=_HEIGHT,
        sizing_mode="stretch_width",
        x_axis_label=x_label,
        y_axis_label=y_label,
        active_drag=None,  # a finger scrolls the page
        **keywords,
    )
    made.toolbar.logo = None
    return made


def _legend(figure: Any) -> None:
    legend = figure.legend[0]
    figure.add_layout(legend, "below")
    legend.orientation, legend.ncols, legend.click_policy = "horizontal", "auto", "hide"
    legend.border_line_color = None
