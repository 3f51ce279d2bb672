"""How a step tells what it did: `summary.json` beside its results, the same as a table, and a page to read.

With it goes what its settings are where they are not those of the files of conf/, so that nobody is overruled unawares.
"""

import logging
from dataclasses import replace
from pathlib import Path

from glitchflow_plugin.products.overrides import Applied
from glitchflow_plugin.products.summary import RunSummary, format_summary, write_summary

logger = logging.getLogger(__name__)

_PREPARING = (
    "Simulator",
    "Data-processor",
    "Splitter",
    "Processor",
    "Load-infdata",
    "Simulate",
    "Label",
    "Split",
)
"""Steps that only prepare: of what they did the table says enough."""

_applied: Applied | None = None


def remember(applied: Applied | None) -> None:
    """Keep it for the reports of this process; None: forget it. Without hydra there is nothing to keep."""
    global _applied  # noqa: PLW0603  # a step is handed its own arguments alone
    _applied = applied


def report(summary: RunSummary, folder: Path | str) -> RunSummary:
    """Write the summary into a folder, show it as a table, and return it; a pipeline's results get a page as well."""
    step = summary.pipeline.rpartition("/")[2]
    if _applied is not None:
        summary = replace(summary, profile=_applied.profile or "none", changed=_applied.of(step))
    write_summary(folder, summary)
    print(format_summary(summary), flush=True)  # noqa: T201  # the table is the step's answer to the user
    if _applied is not None and step not in _PREPARING:
        _write_page(Path(folder))
    return summary


def _write_page(folder: Path) -> None:
    """Write the page of a result. It shows what is in files already: whatever prevents it is told, and ends no run."""
    from glitchflow_plugin.report.page import PAGE_NAME

    try:
        from glitchflow_plugin.report.run import write_report

        logger.info("A page to read: %s", write_report(folder))
    except Exception as error:
        (folder / PAGE_NAME).unlink(missing_ok=True)  # that of a run before
        logger.warning("No page of %s: %s. Make it: glitchflow report %s", folder, error, folder)
