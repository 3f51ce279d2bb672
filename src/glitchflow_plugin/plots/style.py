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
from matplotlib.figure import Figure

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

#: What differs from matplotlib's defaults. Names of channels and events are shown as they are, a $ is no formula;
#: logarithmic axes therefore need a formatter without formulae, such as "{x:g}".
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
    """Make a function that returns a figure work under `look`."""

    @wraps(plot)
    def made(*arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> "Picture":
        with look():
            return plot(*arguments, **keywords)

    return made


class Picture(Figure):
    """A figure that is drawn under `look`, whoever draws it, with matplotlib's own axes."""

    def add_subplot(self, *arguments: Any, **keywords: Any) -> Any:
        """Add axes of matplotlib's own class, not of what is registered under its name."""
        return super().add_subplot(*arguments, **{"axes_class": Axes, **keywords})

    def add_axes(self, *arguments: Any, **keywords: Any) -> Any:
        """Likewise."""
        own = {} if arguments and isinstance(arguments[0], Axes) else {"axes_class": Axes}
        return super().add_axes(*arguments, **{**own, **keywords})

    def draw(self, renderer: Any) -> None:
        """Draw."""
        with look():
            super().draw(renderer)

    def savefig(self, *arguments: Any, **keywords: Any) -> None:
        """Write to a file."""
        with look():
            super().savefig(*arguments, **keywords)


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
