"""Tables that can be sorted, searched and filtered by column: DataTables, by way of itables."""

from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

_ROWS = 15
"""Rows of a leaf of a table that is leafed through."""

_LONGEST = 500
"""Rows of a table that is scrolled."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Of the element, of letters, digits and hyphens.
        caption: What it shows.
        html: The element and its data.
    """

    name: str
    caption: str
    html: Markup


def table(name: str, frame: pd.DataFrame, caption: str, *, links: Collection[str] = (), leaves: bool = False) -> Table:
    """A table of a page.

    Args:
        name: Of the element, of letters, digits and hyphens.
        frame: Content; its text is shown as it is, whatever it holds.
        caption: What it shows.
        links: Columns that hold `Markup`.
        leaves: Whether it is leafed through, however long it is; one table a page, so that assistive technology can
            tell what leafs. The others are scrolled, and end after some hundred rows.
    """
    from itables import to_html_datatable

    content = frame.copy() if leaves else frame.head(_LONGEST)
    content = content.apply(lambda column: column if column.name in links else _shown(column))
    content.columns = [str(escape(column)) for column in content.columns]
    if leaves:
        layout = {"topStart": "search", "topEnd": "pageLength", "bottomStart": "info", "bottomEnd": "paging"}
        place = {"pageLength": _ROWS, "lengthMenu": [_ROWS, 50, 200]}
    else:
        layout = {
            "topStart": "search" if len(frame) > 1 else None,
            "topEnd": None,
            "bottomStart": None,
            "bottomEnd": None,
        }
        place = {"paging": False, **({"scrollY": "26rem", "scrollCollapse": True} if len(frame) > _ROWS else {})}
    with pd.option_context("display.float_format", _number):
        html = to_html_datatable(
            content,
            table_id=name,
            connected=False,
            allow_html=True,  # the text is escaped above, and links are made here
            showIndex=False,
            maxBytes=0,
            maxColumns=0,
            column_filters="footer" if len(frame) > 1 else False,
            layout=layout,
            style="width:100%",
            classes="display compact nowrap",
            display_logo_when_loading=False,
            text_in_header_can_be_selected=False,  # a click on it sorts
            order=[],
            **place,
        )
    cut = f" The first {_LONGEST} of {len(frame)} rows; the file has all." if len(content) < len(frame) else ""
    return Table(name, caption + cut, Markup(html))  # noqa: S704  # escaped above


def table_library() -> Markup:
    """What tables need to work without a network."""
    from itables.javascript import generate_init_offline_itables_html

    bundle = resources.files("itables") / "html" / "dt_bundle.js"
    return Markup(generate_init_offline_itables_html(Path(str(bundle))))  # noqa: S704  # the library itself


def _shown(column: pd.Series) -> pd.Series:
    """Numbers as numbers, everything else as escaped text; what is not known is empty."""
    if pd.api.types.is_bool_dtype(column):
        return column.map({True: "yes", False: "no"}).fillna("").astype(object)
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isfinite(numbers).all():
            return column
        # text that reads as a number is sorted as one by the library
        return pd.Series(["" if np.isnan(value) else _number(value) for value in numbers], column.index, dtype=object)
    return column.map(lambda value: "" if _unknown(value) else str(escape(str(value)))).astype(object)


def _number(value: float) -> str:
    """GPS times need milliseconds, other numbers four digits."""
    return f"{value:.3f}" if abs(value) >= 1e6 else f"{value:.4g}"


def _unknown(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
