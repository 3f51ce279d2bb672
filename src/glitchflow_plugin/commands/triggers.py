"""`glitchflow triggers`: convert tables of triggers, and tell what is in them."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from glitchflow_plugin.commands.printing import print_columns
from glitchflow_plugin.data.triggers.formats import (
    FORMATS,
    good_parts,
    lost,
    read_triggers,
    store_triggers,
    write_triggers,
)
from glitchflow_plugin.data.triggers.overview import by_channel
from glitchflow_plugin.data.triggers.store import read_manifest
from glitchflow_plugin.data.triggers.table import SCHEMA, exact_seconds, without_bad_rows

_SHOWN = 20
"""Channels that are printed unless more are asked for."""


def add_triggers(parser: argparse.ArgumentParser) -> None:
    """Give the command its own commands and their arguments."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    convert = commands.add_parser("convert", help="write triggers in another format")
    describe = commands.add_parser("describe", help="print counts, spans, rates and the loudest, by channel")
    for command in (convert, describe):
        command.add_argument("source", help="a store, a file in any format that is read, a folder or a glob pattern")
        command.add_argument("--table", help="name of the table within the files")
        command.add_argument("--channel", help="the channel, where the files do not tell it")
    convert.add_argument("out", type=Path, help="a file; a folder for parquet, omicron and omicron_text")
    convert.add_argument("--to", required=True, choices=["parquet", *FORMATS], help="the format")
    convert.set_defaults(run=run_convert)
    describe.add_argument("--most", type=int, default=_SHOWN, help=f"channels that are printed (default: {_SHOWN})")
    describe.set_defaults(run=run_describe)


def run_convert(options: argparse.Namespace) -> int:
    """Write the triggers, and tell what is left out."""
    bad, losses, named = Counter[str](), (), {"table": options.table, "channel": options.channel}
    if options.to == "parquet":
        bad.update(store_triggers(options.source, options.out, **named))
        told = read_manifest(options.out)
        rows, files = told.rows, len(told.files)
    else:
        parts = good_parts(options.source, bad, **named)
        table = pa.concat_tables([SCHEMA.empty_table(), *parts]).unify_dictionaries()
        rows, files = len(table), len(write_triggers(table, options.out, options.to))
        losses = lost(table, options.to)
    print(f"{options.out}: {rows} triggers in {files} file(s)")
    _tell_bad(bad)
    if losses:
        print(f"{options.to} does not keep: {', '.join(losses)}", file=sys.stderr)
    return 0


def run_describe(options: argparse.Namespace) -> int:
    """Print a line a channel."""
    table, bad = without_bad_rows(read_triggers(options.source, table=options.table, channel=options.channel))
    channels = by_channel(table)
    if channels:
        times = table["time"].to_numpy()
        low, high = (exact_seconds(one) for one in (int(times.min()), int(times.max())))
        print(f"{len(table)} triggers of {len(channels)} channels, GPS {low} to {high}")
        rows = [("channel", "triggers", "rate (Hz)", "frequency (Hz)", "loudest SNR", "at GPS")]
        for one in channels[: options.most]:
            band = f"{one.frequencies[0]:.4g} to {one.frequencies[1]:.4g}"
            loudest = (f"{one.loudest_snr:.4g}", exact_seconds(one.loudest_time))
            rows.append((one.channel, str(one.triggers), f"{one.rate:.3g}", band, *loudest))
        print_columns(rows)
        if len(channels) > options.most:
            print(f"and {len(channels) - options.most} more channels (--most)")
    else:
        print("no triggers")
    _tell_bad(bad)
    return 0


def _tell_bad(bad: Mapping[str, int]) -> None:
    for reason, number in bad.items():
        print(f"{number} row(s) left out: {reason}", file=sys.stderr)
