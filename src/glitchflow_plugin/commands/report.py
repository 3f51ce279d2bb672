"""`glitchflow report`: the page of a run, one HTML file that needs neither server nor network."""

import argparse
from pathlib import Path

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.summary import SUMMARY_NAME


def add_report(parser: argparse.ArgumentParser) -> None:
    """Give the command its arguments."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help=f"a folder with a {SUMMARY_NAME}")
    parser.add_argument(
        "--scans",
        type=int,
        default=100,
        metavar="N",
        help="events whose scans the page holds, 60 kB each (default: 100)",
    )


def run_report(options: argparse.Namespace) -> int:
    """Write the page of each folder."""
    from glitchflow_plugin.report.run import write_report

    if options.scans < 0:
        raise ConfigurationError(f"expected a number of events of at least 0, got --scans {options.scans}.")
    for folder in options.folders:
        print(write_report(folder, scans=options.scans))
    return 0
