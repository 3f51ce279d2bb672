"""What the commands share: they print, and return an exit status."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

Command: TypeAlias = Callable[[argparse.Namespace], int]
"""Runs with the options of the command line; returns the exit status."""


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """A table; the last column may be of any length."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]).rstrip())


def complain(*troubles: object) -> int:
    """Tell the user what went wrong, one line each; returns the exit status."""
    for trouble in troubles:
        print(f"glitchflow: {trouble}", file=sys.stderr)
    return 1 if troubles else 0
