"""What a composed configuration runs: pipelines and steps by name, and what is told of names and of errors."""

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from glitchflow_plugin.errors import ConfigurationError, GlitchflowError, causes, nearest
from glitchflow_plugin.products.overrides import unresolved

#: Keys that itwinai reads beside those of config.yaml.
_ITWINAI = ("pipe_key", "pipe_steps", "strategy", "run_name")
#: Sections in whose place a name alone may stand.
_ALSO_NAMES = ("engine",)
_ALIKE = 0.85
"""Similarity from which a new key is taken for a misspelt one; a key of the user's own is welcome."""


def check_names(config: DictConfig, files: Mapping[Any, Any] | None = None) -> None:
    """Refuse a pipeline or step that does not exist, and a key that resembles one of those that are read.

    Args:
        config: As composed.
        files: The configuration without profile and command line, if known.

    Raises:
        ConfigurationError: The message lists the names there are, and the nearest.
    """
    if files is not None:
        known, text = [*map(str, files), *_ITWINAI, "hydra"], str(config)
        for key in map(str, config):
            if key not in known and f"${{{key}" not in text and (near := nearest(key, known, least=_ALIKE)):
                raise ConfigurationError(f"nothing reads the key {key!r}.{near}")
        _check_sections(unresolved(config), unresolved(files))
    pipelines = list(_pipelines(config))
    key = OmegaConf.select(config, "pipe_key", default="training_pipeline")
    pipeline = OmegaConf.select(config, str(key)) if key else None
    if not isinstance(pipeline, DictConfig) or "steps" not in pipeline:
        raise ConfigurationError(
            f"pipe_key: there is no pipeline {str(key)!r}.{nearest(key, pipelines)} There are {', '.join(pipelines)}."
        )
    asked, steps = OmegaConf.select(config, "pipe_steps"), pipeline.steps
    if not asked or not isinstance(steps, DictConfig):
        return
    names = ", ".join(map(str, steps))
    if isinstance(asked, str | int):
        raise ConfigurationError(f"pipe_steps: expected a list out of {names}, as in '+pipe_steps=[{asked}]'.")
    for step in asked:
        if step not in steps:
            raise ConfigurationError(
                f"pipe_steps: {key} has no step {str(step)!r}.{nearest(step, steps)} Its steps are {names}."
            )


def explained(error: object, config: DictConfig, overrides: list[str]) -> str | None:
    """What to tell the user of an error; None of one that nobody foresaw.

    Args:
        error: What a pipeline raised, also where hydra or Ray have wrapped it.
        config: As composed, which knows what step makes what.
        overrides: Those of the command line.
    """
    for cause in causes(error):
        if isinstance(cause, GlitchflowError):
            makes = _maker(config, cause, overrides)
            return f"{cause}\nTo make it: {makes}" if makes else str(cause)
        if isinstance(cause, OmegaConfBaseException):
            where = getattr(cause, "full_key", None)
            reason = str(cause).split("\n", maxsplit=1)[0].rstrip(".")
            return (
                f"the configuration cannot be read{f' at {where}' if where else ''}: {reason}. Correct it in conf/, in "
                "the profile or on the command line."
            )
    return None


def _check_sections(config: Mapping[str, Any], files: Mapping[str, Any], above: str = "") -> None:
    """Refuse a single value in place of a section; null leaves all of it as it is by default."""
    for key, usual in files.items():
        name, value = f"{above}{key}", config.get(key)
        if isinstance(usual, dict) and isinstance(value, dict):
            _check_sections(value, usual, f"{name}.")
        elif isinstance(usual, dict) and value is not None and name not in _ALSO_NAMES and "${" not in str(value):
            chosen = f" A network is chosen by conf/model={value}." if name == "model" else ""
            raise ConfigurationError(
                f"{name}: expected keys with values, got {value!r}. Set single ones, as in {name}.KEY=VALUE; the keys "
                f"are {', '.join(map(str, usual))}.{chosen}"
            )
        elif (name == "run_name" and type(value) not in (str, int)) or (
            above == "saveconf." and type(value) is not str
        ):
            raise ConfigurationError(f"{name}: expected a name or path, got {value!r}.")


def _pipelines(config: DictConfig) -> Iterator[str]:
    for name, section in unresolved(config).items():
        if isinstance(section, dict) and isinstance(section.get("steps"), dict | list):
            yield name


def _maker(config: DictConfig, error: GlitchflowError, overrides: list[str]) -> str | None:
    """The command whose last step writes to the folder in which something is missing."""
    if error.missing is None:
        return None
    missing = Path(os.path.realpath(error.missing))
    found: list[tuple[int, bool, str, list[str]]] = []
    for key in _pipelines(config):
        steps = list(map(str, config[key].steps))
        for position, step in enumerate(steps):
            try:
                folder = OmegaConf.select(config, f"{key}.steps.{step}.folder")
            except OmegaConfBaseException:
                continue
            if folder and missing.is_relative_to(place := Path(os.path.realpath(str(folder)))):
                found.append((len(place.parts), step in str(error), key, steps[: position + 1]))
    if not found:
        return None
    # the deepest folder; of those who share it, the one that the message names; the pipeline that comes first
    _, _, key, wanted = max(found, key=lambda one: one[:2])
    kept = [word for word in overrides if not word.lstrip("+").startswith(("pipe_key=", "pipe_steps="))]
    part = [] if len(wanted) == len(config[key].steps) else [f"+pipe_steps=[{','.join(wanted)}]"]
    return shlex.join(["itwinai", "exec-pipeline", f"+pipe_key={key}", *part, *kept])
