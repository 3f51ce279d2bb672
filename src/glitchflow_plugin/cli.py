"""The command `glitchflow`: small helpers around the pipelines; running them stays with `itwinai exec-pipeline`.

glitchflow init FOLDER      copy config.yaml, conf/ and slurm/ into a folder and make its run folders
glitchflow new FOLDER --data PATH...   look at your own data and make a run folder whose settings fit them
glitchflow check            is everything there that the pipelines need?
glitchflow show PATH...     print run summaries as tables
glitchflow omega GPS        the page for one time: all channels that datasets.yaml names, without scan or model
glitchflow report FOLDER    write the page of a run again, or with the scans of more events
glitchflow products FOLDER  what lies in a folder of clean strain, and whether it is whole
glitchflow vetoes ...       what such a folder, or a flag, says of triggers and of a candidate
glitchflow triggers ...     convert tables of triggers from and to the formats of others, and tell what is in them
glitchflow ui               a page on this machine: drop files of triggers, and see what a registered model says of them
glitchflow folders FOLDER   make the run folders that conf/saveconf.yaml names
glitchflow models ...       list, compare, promote, roll back, export, upload, relocate; rename or drop what waits
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from glitchflow_plugin import __version__
from glitchflow_plugin.commands.checks import check, run_check
from glitchflow_plugin.commands.configuration import compose
from glitchflow_plugin.commands.models import add_models
from glitchflow_plugin.commands.omega import add_omega, run_omega
from glitchflow_plugin.commands.printing import Command, complain
from glitchflow_plugin.commands.products import add_products, run_products
from glitchflow_plugin.commands.report import add_report, run_report
from glitchflow_plugin.commands.run_folder import (
    default_configuration,
    init,
    make_run_folders,
    run_folders,
    run_init,
    run_make_folders,
    run_new,
)
from glitchflow_plugin.commands.show import run_show
from glitchflow_plugin.commands.triggers import add_triggers
from glitchflow_plugin.commands.ui import add_ui, run_ui
from glitchflow_plugin.commands.vetoes import add_vetoes
from glitchflow_plugin.errors import GlitchflowError
from glitchflow_plugin.products.console import never_fail_on_output

__all__ = ["check", "compose", "default_configuration", "init", "main", "make_run_folders", "run_folders"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words of the command line without the program's name; default: those of this process.

    Returns:
        Exit status: 0 success, 1 a failure that the message explains, 2 a wrong command line, 130 Ctrl-C.
    """
    never_fail_on_output()
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        complain("ended by Ctrl-C.")
        return 130
    except BrokenPipeError:  # whoever reads has seen enough: glitchflow show ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except GlitchflowError as error:
        complain(error)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        complain(f"{place}{error.strerror or error}. Check the path and its permissions.")
    return 1


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    parser = argparse.ArgumentParser(
        prog="glitchflow", description="Helpers around the pipelines, which `itwinai exec-pipeline` runs."
    )
    parser.add_argument("--version", action="version", version=f"glitchflow_plugin {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        return command

    here = {"type": Path, "nargs": "?", "default": Path(), "help": "folder with config.yaml (default: here)"}
    init = add("init", run_init, "copy config.yaml, conf/ and slurm/ into a folder and make its run folders")
    init.add_argument("folder", type=Path)

    new = add("new", run_new, "look at your own data and make a run folder whose settings fit them")
    new.add_argument("folder", type=Path)
    new.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="PATH", help="files, folders, patterns or cache files"
    )
    new.add_argument("--triggers", type=Path, help="GPS times of events: a table, a folder or a pattern")
    new.add_argument("--target", help="the strain channel (default: told by its name)")
    for command in (init, new):
        command.add_argument("--force", action="store_true", help="replace configuration files that are there already")

    check = add("check", run_check, "is everything there that the pipelines need?")
    check.add_argument("folder", **here)
    check.add_argument("overrides", nargs="*", help="configuration overrides, as for exec-pipeline: run_name=test")

    show = add("show", run_show, "print run summaries as tables")
    show.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="a summary.json or a folder with summaries")
    show.add_argument("--newest", action="store_true", help="of each folder only the newest")

    add_omega(add("omega", run_omega, "the page for one time: all channels that datasets.yaml names"))
    add_report(add("report", run_report, "write the page of a run: one HTML file beside its summary"))
    add_products(add("products", run_products, "what lies in a folder of clean strain, and whether it is whole"))

    add_triggers(commands.add_parser("triggers", help="convert tables of triggers, and tell what is in them"))
    add_vetoes(commands.add_parser("vetoes", help="what such a folder, or a flag, says of triggers and of a candidate"))

    add_ui(add("ui", run_ui, "a page on this machine where a registered model is asked about files of triggers"))

    folders = add("folders", run_make_folders, "make the run folders that conf/saveconf.yaml names")
    folders.add_argument("folder", **here)

    add_models(
        commands.add_parser(
            "models", help="list, compare, promote, roll back, upload, relocate, rename and drop models"
        )
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
