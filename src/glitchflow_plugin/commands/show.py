"""`glitchflow show`: run summaries as tables."""

import argparse
from pathlib import Path

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.summary import SUMMARY_NAME, format_summary, read_summary


def run_show(options: argparse.Namespace) -> int:
    """Print the summaries of each path."""
    for path in options.paths:
        found = _summaries(path)
        for summary in found[-1:] if options.newest else found:
            print(format_summary(read_summary(summary), place=summary.parent))
    return 0


def _summaries(path: Path) -> list[Path]:
    """A summary file itself, or the summaries below a folder, oldest first."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob(SUMMARY_NAME), key=lambda file: (file.stat().st_mtime, file))
    if not found:
        raise ConfigurationError(f"There is no {SUMMARY_NAME} in {path} or below. Run a pipeline first.")
    return found
