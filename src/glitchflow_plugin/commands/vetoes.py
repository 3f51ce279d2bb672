"""`glitchflow vetoes`: what a folder of clean strain, or a flag, says of triggers and of a candidate."""

import argparse
from collections import Counter
from pathlib import Path

from glitchflow_plugin.data.readers.trigger_files import times_in_order
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.dqr import dqr_record, write_dqr
from glitchflow_plugin.products.folder_lookup import said_by_flag, said_by_folder
from glitchflow_plugin.products.trigger_vetoes import add_columns

_PRODUCTS = "a folder that stream_pipeline has written, or that of a run of online_pipeline"


def add_vetoes(parser: argparse.ArgumentParser) -> None:
    """Give the command its own commands and their arguments."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    apply = commands.add_parser("apply", help="write a table of triggers with columns that say what to do with each")
    apply.add_argument("triggers", type=Path, help="text, Omicron's HDF5 or LIGO_LW")
    apply.add_argument("source", type=Path, help=f"{_PRODUCTS}; or a file of vetoes")
    apply.add_argument("out", type=Path, help="the table with vetoes, in the same format")
    apply.add_argument("--table", help="name of the table within the file")
    apply.add_argument("--time-column", help="column of the GPS times (default: told by its name)")
    apply.add_argument("--replace", action="store_true", help="write the table even if there is such a file already")
    apply.set_defaults(run=run_apply)
    event = commands.add_parser("event", help="write data.json of a candidate for the data-quality report")
    event.add_argument("gps", type=float, help="when it is, GPS s")
    event.add_argument("folder", type=Path, help=_PRODUCTS)
    event.add_argument("out", type=Path, help="the file, by convention data.json")
    event.add_argument("--window", type=float, default=1.0, help="length of the time about it, s (default: 1)")
    event.add_argument("--replace", action="store_true", help="write the file even if it is there already")
    event.set_defaults(run=run_event)


def run_apply(options: argparse.Namespace) -> int:
    """Write the table, and print how many triggers are what."""
    _keep(options.out, options.replace)
    times = times_in_order(options.triggers, options.table, options.time_column)
    said = (said_by_folder if options.source.is_dir() else said_by_flag)(options.source, times)
    add_columns(options.triggers, options.out, said.columns, options.table)
    counts = Counter(said.decision.tolist())
    print(f"{options.out}: {len(times)} triggers; {', '.join(f'{number} {name}' for name, number in counts.items())}")
    return 0


def _keep(out: Path, replace: bool) -> None:
    """Refuse to write over a file.

    Raises:
        ConfigurationError: It is there, and was not given up.
    """
    if out.exists() and not replace:
        raise ConfigurationError(f"{out} is there already. Name another file, or give this one up with --replace.")


def run_event(options: argparse.Namespace) -> int:
    """Write the record, and print its summary."""
    _keep(options.out, options.replace)
    record = dqr_record(options.folder, options.gps, options.window)
    write_dqr(options.out, record)
    print(record["summary"])
    return 0
