"""Hydra calls its plugins before it composes: what does not compose is told in the words of `glitchflow check`.

Nothing happens unless `itwinai exec-pipeline` is started on a config.yaml of glitchflow_plugin.
"""

import sys
from pathlib import Path
from typing import ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class GlitchflowCheck(SearchPathPlugin):
    """Composes the configuration once, ahead of hydra; the search path stays as it is."""

    _composing: ClassVar[bool] = False

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """End the run with one message if the configuration does not compose."""
        overrides = _overrides(sys.argv)
        main = [one.path for one in search_path.get_path() if one.provider == "main" and one.path]
        if overrides is None or not main or self._composing:
            return
        folder = Path(main[0].removeprefix("file://"))
        if not _is_ours(folder):
            return
        GlitchflowCheck._composing = True
        try:
            _check(folder, overrides)
        finally:
            GlitchflowCheck._composing = False


def _overrides(words: list[str]) -> list[str] | None:
    """What was said to `itwinai exec-pipeline`; None of another program, and where options ask for something else."""
    if words[:1] != ["exec-pipeline"]:
        return None
    found, skip = [], False
    for word in words[1:]:
        if skip or word.startswith(("-cp=", "--config-path=")):
            skip = False
        elif word in ("-cp", "--config-path"):
            skip = True
        elif word.startswith("-"):
            return None
        else:
            found.append(word)
    return found


def _is_ours(folder: Path) -> bool:
    try:
        return "glitchflow_plugin" in (folder / "config.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _check(folder: Path, overrides: list[str]) -> None:
    from glitchflow_plugin.commands.configuration import compose, parse_once
    from glitchflow_plugin.components.callback import end, full_errors
    from glitchflow_plugin.errors import ConfigurationError

    parse_once()
    if full_errors():  # hydra tells it at length
        return
    try:
        compose(folder, overrides)
    except ConfigurationError as error:
        end(str(error), everywhere=True)
