"""The configuration as it comes with the package."""

from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from glitchflow_plugin import cli

ROOT = Path(__file__).parents[1]


@cache
def composed(*overrides):
    return cli.compose(ROOT, overrides)


def section(name, *overrides):
    """What steps are given of a section, or of a key: references are resolved."""
    found = OmegaConf.select(composed(*overrides), name)
    return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
