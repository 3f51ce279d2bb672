"""A page: its sections, the charts and tables in them, and what these need to work without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.report.charts import Chart, chart_library, chart_script
from glitchflow_plugin.report.markup import rendered
from glitchflow_plugin.report.tables import Table, table_library

PAGE_NAME = "report.html"
"""Name of the page beside the summary of a run."""

Block = Markup | Chart | Table


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading.

    Attributes:
        name: What links to it, of letters, digits and hyphens.
        title: The heading.
        blocks: What is shown, in order.
        lead: What to know before looking.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """Everything that a page shows.

    Attributes:
        title: The heading, and the name of the browser's tab.
        subtitle: A line beneath it.
        sections: In order.
        hidden: Parts that are shown one at a time, when a link leads to them.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    hidden: Sequence[Markup] = ()


def write_page(path: Path, page: Page) -> Path:
    """Write a page, whole or not at all, and return its path.

    Args:
        path: The file.
        page: What it shows.
    """
    blocks = [block for section in page.sections for block in section.blocks]
    charts = [block for block in blocks if isinstance(block, Chart)]
    script, places = chart_script(charts)
    libraries = [chart_library()] if charts else []
    libraries += [table_library()] if any(isinstance(block, Table) for block in blocks) else []
    html = rendered("page.html", page=page, places=places, libraries=libraries, script=script, markup=Markup)
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path
