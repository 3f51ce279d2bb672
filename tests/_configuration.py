"""The configuration as it comes with the package, and its files parsed once for all compositions of a process."""

import os
from copy import deepcopy
from functools import cache
from pathlib import Path
from unittest.mock import patch

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


def parsed_once():
    """A patch under which a file is parsed again only when it has changed: that takes half of a composition."""
    parsed = {}
    load = OmegaConf.load

    def load_once(file):
        if not hasattr(file, "fileno"):
            return load(file)
        found = os.fstat(file.fileno())
        version = file.name, found.st_ino, found.st_mtime_ns, found.st_size
        if version not in parsed:
            parsed[version] = load(file)
        # Hydra takes the defaults out of what it is given
        return deepcopy(parsed[version])

    return patch.object(OmegaConf, "load", load_once)
