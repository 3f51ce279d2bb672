"""What hydra tells this package about a run (`hydra.callbacks` in config.yaml).

Names are checked before anything starts, the settings are remembered for the steps' tables, and an error that this
package explains ends the run with its message alone. What nobody foresaw keeps its traceback.
"""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from itwinai.distributed import detect_distributed_environment
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from glitchflow_plugin.components._report import remember
from glitchflow_plugin.errors import ConfigurationError, GlitchflowError, causes, nearest
from glitchflow_plugin.products.console import never_fail_on_output
from glitchflow_plugin.products.overrides import differences, unresolved

FULL_ERROR = "HYDRA_FULL_ERROR"
PROFILE, NETWORK = "conf/profile", "conf/model"
#: Keys that itwinai reads beside those of config.yaml.
_ITWINAI = ("pipe_key", "pipe_steps", "strategy", "run_name")
#: Sections in whose place a name alone may stand.
_ALSO_NAMES = ("engine",)
_ALIKE = 0.85
"""Similarity from which a new key is taken for a misspelt one; a key of the user's own is welcome."""
_PATIENCE = 15.0
"""Seconds in which the first process has said the same, and whoever started all of them has ended the others."""


class RunCallback(Callback):
    """Hydra turns exceptions of a callback into warnings: a run is ended by SystemExit."""

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse names that do not exist; remember where the settings differ from the files of conf/."""
        never_fail_on_output()
        hydra = HydraConfig.get()
        choices = hydra.runtime.choices
        usual = _as_the_files_have_it()
        network = choices.get(NETWORK)
        same = usual is None or OmegaConf.select(usual, "hydra.runtime.choices", default={}).get(NETWORK) == network
        files = usual if same else _as_the_files_have_it(network)
        try:
            check_names(config, files)
        except ConfigurationError as error:
            end(str(error), everywhere=True)
        said: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # scan.q=${a.b} is no reference here
        remember(differences(config, files, choices.get(PROFILE), said, usual))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """End a run that failed with one message, where there is one."""
        if job_return.status != JobStatus.FAILED or full_errors():
            return
        told = explained(job_return._return_value, config, list(job_return.overrides or ()))
        if told is not None:
            end(told)


def full_errors() -> bool:
    """Whether the user has asked for tracebacks."""
    return os.environ.get(FULL_ERROR) == "1"


def end(message: str, *, everywhere: bool = False) -> None:
    """Say what is wrong and leave with status 1.

    Args:
        message: For the user.
        everywhere: All processes of this run meet the same: the first one speaks alone.
    """
    rank = detect_distributed_environment().global_rank
    if rank and not everywhere:
        time.sleep(_PATIENCE)
    if not (rank and everywhere):
        who = f"glitchflow (process {rank})" if rank else "glitchflow"
        print(f"{who}: {message}\n({FULL_ERROR}=1 shows the traceback.)", file=sys.stderr, flush=True)  # noqa: T201
    raise SystemExit(1)


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


def _as_the_files_have_it(network: str | None = None) -> DictConfig | None:
    """The configuration without profile and command line, but for a network; None where it cannot be composed."""
    hydra = HydraConfig.get()
    without = [f"~{PROFILE}"] if hydra.runtime.choices.get(PROFILE) else []
    without += [f"{NETWORK}={network}"] if network else []
    try:
        return GlobalHydra.instance().config_loader().load_configuration(hydra.job.config_name, without, RunMode.RUN)
    except Exception:  # the table then tells less; the run does not depend on it
        return None
