"""How a step tells what it did: `summary.json` beside its results and the same as a table."""

from pathlib import Path

from glitchflow_plugin.products.summary import RunSummary, format_summary, write_summary


def report(summary: RunSummary, folder: Path | str) -> RunSummary:
    """Write the summary into a folder, show it as a table, and return it."""
    write_summary(folder, summary)
    print(format_summary(summary), flush=True)  # noqa: T201  # the table is the step's answer to the user
    return summary
