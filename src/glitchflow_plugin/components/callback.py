"""What hydra tells this package about a run (`hydra.callbacks` in config.yaml).

Names are checked before anything starts, the settings are remembered for the steps' tables, and an error that this
package explains ends the run with its message alone. What nobody foresaw keeps its traceback.
"""

import os
import sys
import time
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from itwinai.distributed import detect_distributed_environment
from omegaconf import DictConfig, OmegaConf

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.composed import check_names, explained
from glitchflow_plugin.products.console import never_fail_on_output
from glitchflow_plugin.products.overrides import differences
from glitchflow_plugin.report.step import remember

FULL_ERROR = "HYDRA_FULL_ERROR"
PROFILE, NETWORK = "conf/profile", "conf/model"
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


def _as_the_files_have_it(network: str | None = None) -> DictConfig | None:
    """The configuration without profile and command line, but for a network; None where it cannot be composed."""
    hydra = HydraConfig.get()
    without = [f"~{PROFILE}"] if hydra.runtime.choices.get(PROFILE) else []
    without += [f"{NETWORK}={network}"] if network else []
    try:
        return GlobalHydra.instance().config_loader().load_configuration(hydra.job.config_name, without, RunMode.RUN)
    except Exception:  # the table then tells less; the run does not depend on it
        return None
