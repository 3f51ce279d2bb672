"""The look that all figures share: readable in print, on screen and by colour-blind readers.

Figures are made through matplotlib's object interface: no pyplot, no state that outlives a call. What matplotlib was
told elsewhere, by a user's matplotlibrc or by a library that sets its own look when it is imported (gwpy replaces
settings, axes and scales), does not reach them: each is made and drawn under `look`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import RLock
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter

#: Colours that stay apart for colour-blind readers (Okabe and Ito, https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#9A9A9A",
)

#: What differs from matplotlib's defaults. Names of channels and events are shown as they are, a $ is no formula.
_OWN = {"text.parse_math": False}
#: matplotlib's settings belong to the process: threads that draw take turns.
_LOCK = RLock()

_Arguments = ParamSpec("_Arguments")


@contextmanager
def look() -> Iterator[None]:
    """The settings of matplotlib under which figures are made and drawn; afterwards all is as it was."""
    with _LOCK, mpl.rc_context(), style.context(["default", _OWN]):
        yield


def picture(plot: Callable[_Arguments, "Picture"]) -> Callable[_Arguments, "Picture"]:
    """Make a function that returns a figure work under `look`, with plain numbers on logarithmic axes."""

    @wraps(plot)
    def made(*arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> "Picture":
        with look():
            figure = plot(*arguments, **keywords)
            for axes in figure.axes:
                for axis in (axes.xaxis, axes.yaxis):
                    _plain_numbers(axis)
            return figure

    return made


def _plain_numbers(axis: Axis) -> None:
    """Labels of a logarithmic axis without formulae, which would be shown as they are written, and enough of them."""
    if axis.get_scale() != "log":
        return
    if isinstance(axis.get_major_formatter(), LogFormatter):
        axis.set_major_formatter("{x:g}")
    if isinstance(axis.get_minor_formatter(), LogFormatter):
        axis.set_minor_formatter(NullFormatter())
    low, high = sorted(axis.get_view_interval())
    if isinstance(axis.get_major_locator(), LogLocator) and high < 20 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))


class Picture(Figure):
    """A figure that is drawn under `look`, whoever draws it, with matplotlib's own axes."""

    _writing = False

    def add_subplot(self, *arguments: Any, **keywords: Any) -> Any:
        """Add axes of matplotlib's own class, not of what is registered under its name."""
        return super().add_subplot(*arguments, **{"axes_class": Axes, **keywords})

    def add_axes(self, *arguments: Any, **keywords: Any) -> Any:
        """Likewise."""
        own = {} if arguments and isinstance(arguments[0], Axes) else {"axes_class": Axes}
        return super().add_axes(*arguments, **{**own, **keywords})

    def draw(self, renderer: Any) -> None:
        """Draw; what is being written, and whose parts have yet to find their places, is only laid out."""
        engine = self.get_layout_engine()
        with look():
            if self._writing and self.axes and isinstance(engine, ConstrainedLayoutEngine):
                engine.execute(self)
            else:
                super().draw(renderer)

    def savefig(self, *arguments: Any, **keywords: Any) -> None:
        """Write to a file.

        Matplotlib draws a figure with a layout twice for that, the first time for the layout alone.
        """
        with look():
            self._writing = True
            try:
                super().savefig(*arguments, **keywords)
            finally:
                self._writing = False


def new_figure(width: float = 8.0, height: float = 4.5, layout: Any = "constrained") -> Picture:
    """An empty figure, sizes in inches, whose parts find their own places unless `layout` is None."""
    return Picture(figsize=(width, height), layout=layout)


def short_name(name: str, length: int = 34) -> str:
    """A name on one line that fits beside a plot: the middle gives way, since both ends tell channels apart."""
    name = " ".join(name.split())
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[-(length - 1 - head) :]}"
