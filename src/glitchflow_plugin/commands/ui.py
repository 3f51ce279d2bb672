"""`glitchflow ui`: a page on this machine where files of triggers are dropped and a registered model is asked."""

import argparse
import os
import sys
from importlib import resources
from importlib.util import find_spec

from glitchflow_plugin.commands.models import registry_uri
from glitchflow_plugin.errors import ConfigurationError, MissingDependencyError
from glitchflow_plugin.ui.environment import REGISTRY_VARIABLE

_ADDRESS = "127.0.0.1"


def add_ui(parser: argparse.ArgumentParser) -> None:
    """Give the command its arguments."""
    parser.add_argument(
        "--port", type=int, default=8501, help="where it listens, on this machine alone (default: 8501)"
    )
    parser.add_argument("--largest", type=int, default=200, metavar="MB", help="largest file it takes (default: 200)")
    parser.add_argument("--tracking-uri", help="the registry (default: that of conf/registry.yaml here)")


def run_ui(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    if find_spec("streamlit") is None:
        raise MissingDependencyError(
            "glitchflow ui needs the extra ui, which is not installed: pip install 'glitchflow_plugin[ui]'"
        )
    for name in ("port", "largest"):
        if getattr(options, name) < 1:
            raise ConfigurationError(f"expected --{name} of at least 1, got {getattr(options, name)}.")
    page = resources.files("glitchflow_plugin.ui") / "page.py"
    settings = {
        "server.address": _ADDRESS,
        "server.port": options.port,
        "server.headless": "true",  # no browser is opened
        "server.allowedHosts": _ADDRESS,  # pages elsewhere must not reach it by a name of theirs
        "server.maxUploadSize": options.largest,
        "server.fileWatcherType": "none",
        "runner.magicEnabled": "false",  # only what is asked for is shown
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": _ADDRESS,
        "theme.base": "light",
        "theme.textColor": "#000000",  # captions are paler than their text: of the usual dark grey too pale to read
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
    }
    words = [f"--{name}={value}" for name, value in settings.items()]
    environment = {**os.environ, REGISTRY_VARIABLE: registry_uri(options.tracking_uri)}
    command = [sys.executable, "-m", "streamlit", "run", str(page), *words]
    print(f"http://{_ADDRESS}:{options.port} (Ctrl-C ends it)", flush=True)
    os.execve(command[0], command, environment)  # noqa: S606  # our own words; in our place, so that what ends us ends it
