"""`glitchflow omega`: the page for one time, without a scan and without a model."""

import argparse
from contextlib import chdir
from pathlib import Path
from typing import Any

from glitchflow_plugin.commands.configuration import compose
from glitchflow_plugin.errors import ConfigurationError


def add_omega(parser: argparse.ArgumentParser) -> None:
    """Give the command its arguments."""
    parser.add_argument("gps", metavar="GPS", help="the time, GPS s")
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for exec-pipeline: run_name=test")
    parser.add_argument("--folder", type=Path, default=Path(), help="folder with config.yaml (default: here)")
    parser.add_argument("--output", type=Path, help="the page (default: omega-GPS.html)")
    parser.add_argument("--channels", type=int, default=20, metavar="N", help="channels with scans (default: 20)")


def run_omega(options: argparse.Namespace) -> int:
    """Write the page for a time."""
    from omegaconf import OmegaConf

    from glitchflow_plugin.preprocessing.omega import channels_at
    from glitchflow_plugin.report.omega import write_omega

    if options.channels < 1:
        raise ConfigurationError(f"expected at least one channel with scans, got --channels {options.channels}.")
    try:
        gps = float(options.gps)
    except ValueError as error:
        raise ConfigurationError(f"expected a GPS time in s, such as 1126259462.4, got {options.gps!r}.") from error
    output = (options.output or Path(f"omega-{gps:.3f}.html")).resolve()
    config = compose(options.folder, options.overrides)
    content: dict[str, Any] = {
        name: OmegaConf.to_container(config[name], resolve=True) for name in ("datasets", "whiten") if name in config
    }
    with chdir(options.folder):  # paths in the configuration count from there
        found = channels_at(content["datasets"], content.get("whiten"), gps)
    print(write_omega(output, found, shown=options.channels))
    return 0
