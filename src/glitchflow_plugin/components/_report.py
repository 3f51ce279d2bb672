"""How a step tells what it did: `summary.json` beside its results and the same as a table.

With it goes what its settings are where they are not those of the files of conf/, so that nobody is overruled unawares.
"""

from dataclasses import replace
from pathlib import Path

from glitchflow_plugin.products.overrides import Applied
from glitchflow_plugin.products.summary import RunSummary, format_summary, write_summary

_applied: Applied | None = None


def remember(applied: Applied) -> None:
    """Keep it for the reports of this process; without hydra there is nothing to keep."""
    global _applied  # noqa: PLW0603  # itwinai hands a step its own arguments alone
    _applied = applied


def report(summary: RunSummary, folder: Path | str) -> RunSummary:
    """Write the summary into a folder, show it as a table, and return it."""
    if _applied is not None:
        step = summary.pipeline.rpartition("/")[2]
        summary = replace(summary, profile=_applied.profile or "none", changed=_applied.of(step))
    write_summary(folder, summary)
    print(format_summary(summary), flush=True)  # noqa: T201  # the table is the step's answer to the user
    return summary
