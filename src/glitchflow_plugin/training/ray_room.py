"""What a Ray cluster has room for, as Ray lets a training that does not fit wait for ever; and what came of one."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glitchflow_plugin.errors import ConfigurationError, ConnectionFailedError, DataError, GlitchflowError, causes

logger = logging.getLogger(__name__)

_PATIENCE = 300.0
"""Seconds that a busy cluster is given to make room."""


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


def training_room(scaling: Any, torch_config: Any, timeout: float) -> tuple[Any, Any]:
    """What a training takes of the cluster, with defaults for what is not said.

    Args:
        scaling: ray.train.ScalingConfig, or None.
        torch_config: ray.train.torch.TorchConfig, or None.
        timeout: Time that processes wait for each other, s.

    Raises:
        ConfigurationError: The cluster is too small.
        ConnectionFailedError: It is large enough, and others keep it.
    """
    import ray
    from ray.train.torch import TorchConfig

    scaling = scaling or default_scaling(ray.cluster_resources())
    advice = (
        "Lower num_workers or resources_per_worker in ray_scaling_config (trainer_resources: {CPU: 0} keeps none for "
        "the coordinator)"
    )
    check_room(scaling.as_placement_group_factory().bundles, advice)
    return scaling, torch_config or TorchConfig(timeout_s=int(timeout))


def raise_failure(grid: Any) -> None:
    """Raise what the first failed trial of a ray.tune.ResultGrid says, if there is one."""
    if not grid.num_errors:
        return
    failed = list(causes(grid.errors[0]))
    first = next((cause for cause in failed if isinstance(cause, GlitchflowError)), failed[-1])
    message = f"{grid.num_errors} Ray trial(s) failed; the first: {first}"
    raise GlitchflowError(message) from first


def copy_best(grid: Any, tune_config: Any, folder: Path) -> None:
    """Copy the best checkpoint of a ray.tune.ResultGrid, by what its TuneConfig aims at, to a folder.

    Raises:
        DataError: There is none.
    """
    mode, metric = getattr(tune_config, "mode", None) or "min", getattr(tune_config, "metric", None) or "loss"
    result = grid.get_best_result(metric=metric, mode=mode)
    checkpoint = result.get_best_checkpoint(metric, mode) or result.checkpoint
    if checkpoint is None:
        message = "the best Ray trial left no checkpoint. Set checkpoint_every: 1."
        raise DataError(message)
    with checkpoint.as_directory() as source:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)


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


def check_room(bundles: Sequence[Mapping[str, float]], advice: str, *, patience: float = _PATIENCE) -> None:
    """Refuse a training that the Ray cluster, which must be joined, has no room for: it would wait for ever.

    Args:
        bundles: Resources of each reservation, those of `scaling.as_placement_group_factory().bundles`.
        advice: What to do where there is too little.
        patience: Seconds that others are given to leave the cluster.

    Raises:
        ConfigurationError: The cluster is too small.
        ConnectionFailedError: It is large enough, and others keep it.
    """
    import ray

    bundles = [bundle for bundle in bundles if bundle]
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = _listed(_total(bundles))
    there = "; ".join(_listed(node) for node in nodes) or "nothing"
    if lacking := missing_room(bundles, nodes):
        message = (
            f"a training reserves {wanted}, {_listed(lacking)} of it on one node, and the nodes of the Ray cluster "
            f"have: {there}. {advice}, or add nodes."
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
