"""How several processes train one network: by torchrun or SLURM, by Ray, with DeepSpeed or Horovod where installed.

A strategy that was asked for and cannot start is an error, never one process in silence. No process waits for ever: the
others of a rank that has ended stop with a message, and Ray is given only what its cluster has room for.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Literal

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

from glitchflow_plugin.errors import (
    ConfigurationError,
    ConnectionFailedError,
    GlitchflowError,
    MissingDependencyError,
)

logger = logging.getLogger(__name__)

STRATEGIES = ("ddp", "deepspeed", "horovod")
Backend = Literal["nccl", "gloo", "mpi"]

_HOW = "torchrun --standalone --nproc_per_node=2 --no-python itwinai exec-pipeline ... training.strategy={}"
_PATIENCE = 300.0
"""Seconds that a busy Ray cluster is given to make room."""


class PatientDDPStrategy(TorchDDPStrategy):
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
                f"{self.timeout:.0f} s ({_short(error)}). Start all of them, with the same MASTER_ADDR and MASTER_PORT."
            )
            raise ConnectionFailedError(message) from error
        self.is_initialized = True
        self.set_device()


def choose_backend(chosen: str) -> Backend:
    """What processes talk through: by the device, unless the user says otherwise.

    Args:
        chosen: `auto`, `nccl`, `gloo` or `mpi`.

    Raises:
        ConfigurationError: nccl without GPUs, or a backend that this torch was built without.
    """
    gpus = torch.cuda.is_available()
    backend: Any = ("nccl" if gpus else "gloo") if chosen == "auto" else chosen
    if backend == "nccl" and not gpus:
        message = "dist_backend: nccl needs GPUs and there are none. Use auto or gloo."
        raise ConfigurationError(message)
    if not dist.is_backend_available(backend):
        message = f"dist_backend: this torch was built without {backend}. Use auto."
        raise ConfigurationError(message)
    return backend


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
        message = f"expected strategy null or one of {STRATEGIES}, got {name!r}."
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
        return RayDDPStrategy() if name == "ddp" else RayDeepSpeedStrategy(backend=choose_backend(backend))
    ray = "" if name == "horovod" else " nor is a Ray cluster running"
    start = "horovodrun -np 2 itwinai exec-pipeline ... training.strategy=horovod"
    message = (
        f"strategy {name} was asked for, but this is neither one of several processes{ray}. Start with: "
        f"{start if name == 'horovod' else _HOW.format(name)}; or set training.strategy=null for one process."
    )
    raise ConfigurationError(message)


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
        return DeepSpeedStrategy(backend=choose_backend(backend))
    return PatientDDPStrategy(choose_backend(backend), timeout)


@contextmanager
def peers_told(timeout: float) -> Iterator[None]:
    """Say what has happened when a process loses the others.

    Args:
        timeout: Seconds that a process waits for the others.

    Raises:
        GlitchflowError: Another process has ended, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, dist.DistError) or "gloo" in text or "Timed out waiting" in text:
            message = (
                f"another process of this training has ended, or has not answered for {timeout:.0f} s "
                f"({_short(error)}). Its own message says why. The checkpoints are kept: when that is mended, start "
                "again and go on from the last one."
            )
            raise GlitchflowError(message) from error
        raise


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


# Ray


def default_scaling(cluster: Mapping[str, float]) -> Any:
    """Workers of a training for which nothing is said: one a GPU, or two on processors.

    Args:
        cluster: What the cluster has, by name (`CPU`, `GPU`).

    Returns:
        ray.train.ScalingConfig, which keeps no processor for a coordinator that computes nothing.
    """
    from ray.train import ScalingConfig

    gpus = int(cluster.get("GPU", 0))
    workers = gpus or max(1, min(2, int(cluster.get("CPU", 1))))
    return ScalingConfig(num_workers=workers, use_gpu=gpus > 0, trainer_resources={"CPU": 0})


def missing_room(bundles: Sequence[Mapping[str, float]], nodes: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """First of some reservations that the nodes have no room for; a reservation does not stretch over nodes.

    Args:
        bundles: Resources of each reservation.
        nodes: Resources of each node.

    Returns:
        The reservation, empty if all fit (the largest first, each on the first node that has room).
    """
    left = [dict(node) for node in nodes]
    for bundle in sorted(bundles, key=lambda each: -sum(each.values())):
        for node in left:
            if all(node.get(kind, 0.0) >= amount for kind, amount in bundle.items()):
                for kind, amount in bundle.items():
                    node[kind] -= amount
                break
        else:
            return bundle
    return {}


def check_room(scaling: Any, *, patience: float = _PATIENCE) -> None:
    """Refuse a training that the Ray cluster, which must be joined, has no room for: it would wait for ever.

    Args:
        scaling: ray.train.ScalingConfig.
        patience: Seconds that others are given to leave the cluster.

    Raises:
        ConfigurationError: The cluster is too small.
        ConnectionFailedError: It is large enough, and others keep it.
    """
    import ray

    bundles = [bundle for bundle in scaling.as_placement_group_factory().bundles if bundle]
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = _listed(_total(bundles))
    there = "; ".join(_listed(node) for node in nodes) or "nothing"
    if lacking := missing_room(bundles, nodes):
        message = (
            f"a training of {scaling.num_workers} worker(s) reserves {wanted} in parts of at most {_listed(lacking)}, "
            f"and the nodes of the Ray cluster have: {there}. Lower num_workers or resources_per_worker in "
            "ray_scaling_config (trainer_resources: {CPU: 0} keeps none for the coordinator), or add nodes."
        )
        raise ConfigurationError(message)
    end = time.monotonic() + patience
    while not _free(_total(bundles), ray.available_resources()):
        if time.monotonic() > end:
            message = (
                f"a training reserves {wanted}; the Ray cluster has {there}, but others have kept it for "
                f"{patience:.0f} s. Wait for them, or add nodes."
            )
            raise ConnectionFailedError(message)
        logger.warning("waiting for room in the Ray cluster: %s wanted", wanted)
        time.sleep(min(10.0, max(0.1, end - time.monotonic())))


def _total(bundles: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {kind: sum(bundle.get(kind, 0.0) for bundle in bundles) for kind in {key for b in bundles for key in b}}


def _free(wanted: Mapping[str, float], available: Mapping[str, float]) -> bool:
    return all(available.get(kind, 0.0) >= amount for kind, amount in wanted.items())


def _listed(resources: Mapping[str, float]) -> str:
    # what else Ray counts (memory in bytes, the node's address) is not asked for
    return ", ".join(f"{resources[kind]:g} {kind}" for kind in ("CPU", "GPU") if resources.get(kind)) or "nothing"
