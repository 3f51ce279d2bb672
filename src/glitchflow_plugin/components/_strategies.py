"""How several processes train one network: by torchrun or SLURM, by Ray, with DeepSpeed or Horovod where installed.

A strategy that was asked for and cannot start is an error, never one process in silence. No process waits for ever: the
others of a rank that has ended stop with a message, and Ray is given only what its cluster has room for.
"""

import logging
import os
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from itwinai.torch.distributed import (
    DeepSpeedStrategy,
    HorovodStrategy,
    NonDistributedStrategy,
    RayDDPStrategy,
    RayDeepSpeedStrategy,
    TorchDDPStrategy,
    TorchDistributedStrategy,
    distributed_resources_available,
    ray_cluster_is_running,
)
from torch import nn

from glitchflow_plugin.errors import (
    ConfigurationError,
    ConnectionFailedError,
    MissingDependencyError,
    nearest,
)
from glitchflow_plugin.training.processes import Backend, brief, choose_backend

logger = logging.getLogger(__name__)

# With Ray, itwinai warns that MLFLOW_TRACKING_USERNAME and _PASSWORD are not set. Only a server with passwords needs
# them, and it says so itself.
logging.getLogger("itwinai.torch.distributed").addFilter(
    lambda record: not record.getMessage().startswith("MLFLOW_TRACKING_")
)

STRATEGIES = ("ddp", "deepspeed", "horovod")

_HOW = "torchrun --standalone --nproc_per_node=2 --no-python itwinai exec-pipeline ... training.strategy={}"


class TimeLimitedDDPStrategy(TorchDDPStrategy):
    """DDP whose processes wait for each other for a limited time (torch: 30 minutes).

    Args:
        backend: What they talk through.
        timeout: s; longer than whatever one rank does alone, such as drawing pictures and writing checkpoints.
    """

    def __init__(self, backend: Backend, timeout: float) -> None:
        super().__init__(backend=backend)
        self.timeout = timeout

    def init(self) -> None:
        """Meet the other processes.

        Raises:
            ConnectionFailedError: They are not all there in time.
        """
        try:
            dist.init_process_group(backend=self.backend, timeout=timedelta(seconds=self.timeout))
        except (dist.DistError, RuntimeError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            message = (
                f"the {os.environ.get('WORLD_SIZE')} processes of this training did not all meet at {where} within "
                f"{self.timeout:.0f} s ({brief(error)}). Start all of them, with the same MASTER_ADDR and MASTER_PORT."
            )
            raise ConnectionFailedError(message) from error
        self.is_initialized = True
        self.set_device()


class GradientsOnlyDeepSpeedStrategy(DeepSpeedStrategy):
    """DeepSpeed without its optimisers: the engine exchanges gradients, our optimiser and schedule step.

    The loop must call `backward`: DeepSpeed exchanges nothing after a loss's own.
    """

    def distributed(
        self, model: nn.Module, optimizer: Any = None, lr_scheduler: Any = None, *_: Any, **keywords: Any
    ) -> tuple[nn.Module, Any, Any]:
        """Wrap the network in an engine."""
        # weights are sent byte by byte, which the layout channels-last has no order for
        model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        engine, _, _ = super().distributed(model, optimizer, None, **keywords)
        return engine, optimizer, lr_scheduler


def choose_strategy(name: str | None, *, device: str, backend: str, timeout: float) -> TorchDistributedStrategy:
    """The strategy that a name stands for here and now.

    Args:
        name: None, `ddp`, `deepspeed` or `horovod`.
        device: Where one process would compute.
        backend: As for `choose_backend`.
        timeout: Seconds that a process waits for the others.

    Returns:
        The strategy, not yet initialised. One process of torchrun's has nothing to distribute.

    Raises:
        ConfigurationError: It cannot start.
        MissingDependencyError: It needs a package that is not here.
    """
    if name is None:
        return NonDistributedStrategy()
    if name not in STRATEGIES:
        message = f"expected strategy null or one of {STRATEGIES}, got {name!r}.{nearest(name, STRATEGIES)}"
        raise ConfigurationError(message)
    if name != "ddp" and find_spec(name) is None:
        message = (
            f"strategy {name} needs the package {name} (pip install {name}), which is not here. "
            "training.strategy=ddp needs none."
        )
        raise MissingDependencyError(message)
    if distributed_resources_available():
        return _several(name, device=device, backend=backend, timeout=timeout)
    if os.environ.get("TORCHELASTIC_RUN_ID") is not None:
        logger.info("torchrun started one process: nothing to distribute")
        return NonDistributedStrategy()
    if name != "horovod" and ray_cluster_is_running():
        return RayDDPStrategy() if name == "ddp" else RayDeepSpeedStrategy(backend=_backend(backend))
    ray = "" if name == "horovod" else " nor is a Ray cluster running"
    start = "horovodrun -np 2 itwinai exec-pipeline ... training.strategy=horovod"
    message = (
        f"strategy {name} was asked for, but this is neither one of several processes{ray}. Start with: "
        f"{start if name == 'horovod' else _HOW.format(name)}; or set training.strategy=null for one process."
    )
    raise ConfigurationError(message)


def _backend(chosen: str) -> Backend:
    return choose_backend(chosen, gpus=torch.cuda.is_available())


def _several(name: str, *, device: str, backend: str, timeout: float) -> TorchDistributedStrategy:
    if device == "cpu" and torch.cuda.is_available():
        message = (
            f"device: cpu with {name} would still use the GPUs. Set CUDA_VISIBLE_DEVICES= (empty) in the environment."
        )
        raise ConfigurationError(message)
    if name == "horovod":
        return HorovodStrategy()
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [variable for variable in needed if variable not in os.environ]
    if missing:
        message = f"strategy {name} cannot start: {', '.join(missing)} not set. Start with: {_HOW.format(name)}"
        raise ConfigurationError(message)
    if name == "deepspeed":
        return GradientsOnlyDeepSpeedStrategy(backend=_backend(backend))
    return TimeLimitedDDPStrategy(_backend(backend), timeout)
