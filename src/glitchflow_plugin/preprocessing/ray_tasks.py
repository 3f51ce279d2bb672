"""Shards made by the tasks of a Ray cluster that is already running."""

import logging
import os
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.errors import ConfigurationError, ConnectionFailedError, MissingDependencyError

try:
    import ray
    from ray import exceptions
except ImportError as error:
    raise MissingDependencyError(
        "engine.name=ray needs the package ray (pip install ray), which is not here."
    ) from error

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_GIB = 1024**3
_LOOK_AGAIN = 60.0
"""Seconds without a finished task after which the cluster is looked at again."""
_PATIENCE = 10.0
"""Seconds in which a cluster must answer."""
_FAREWELL = 30.0
"""Seconds that cancelled tasks are given to remove their temporary files."""
_CRASHES = (
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.ObjectLostError,
)


def finished_on_ray(
    function: Callable[[ShardPlan], Result],
    plans: Sequence[ShardPlan],
    *,
    address: str,
    workers: int | None,
    cpus: float,
    memory: float | None,
) -> Generator[tuple[int, Callable[[], Result]], None, None]:
    """Run a function for every plan in a task of its own.

    A task is never repeated by Ray: what failed is reported, and made when the step is run again.

    Args:
        function: Importable where the tasks run. The driver's PYTHONPATH is passed on.
        plans: The shards.
        address: The cluster: `auto` or `host:port`.
        workers: Largest number of tasks at a time; None: as many as the cluster has room for.
        cpus: Processors that a task reserves.
        memory: Memory that a task reserves, GiB; None: none.

    Yields:
        Position of a plan and how to collect its result, in the order in which the tasks end. Collecting raises what
        the function raised, or BrokenExecutor if the worker was killed.

    Raises:
        ConnectionFailedError: There is no such cluster, or it does not let us in.
        ConfigurationError: No node has what a task reserves: it would wait for ever.
        BrokenExecutor: The nodes that could run the tasks have left the cluster.
    """
    resources: dict[str, Any] = {"num_cpus": cpus, "memory": None if memory is None else int(memory * _GIB)}
    with _connected(address):
        room = _room(cpus, memory)
        if not room:
            raise ConfigurationError(
                f"a Ray task reserves {_wanted(cpus, memory)}, and no node of the cluster at {address} has so much: "
                f"{_described()}. Lower engine.task_cpus and task_memory, or add nodes (ray start --address=...)."
            )
        task = ray.remote(max_retries=0, **resources)(_call)
        shared = ray.put(function)  # sent once a node instead of once a task
        waiting = iter(enumerate(plans))
        running: dict[Any, int] = {}
        try:
            while True:
                while len(running) < min(workers or room, room) and (following := next(waiting, None)):
                    position, plan = following
                    running[task.remote(shared, plan)] = position
                if not running:
                    return
                ended, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_AGAIN)
                if not ended:
                    _look_again(cpus, memory, len(running))
                for reference in ended:
                    yield running.pop(reference), partial(_collect, reference)
        finally:
            _cancel(list(running))


def _call(function: Callable[[ShardPlan], Result], plan: ShardPlan) -> Result:
    return function(plan)


def _collect(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except _CRASHES as error:
        raise BrokenExecutor(str(error)) from error


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Join a running cluster, and leave it again; a connection that the caller has already is used and kept."""
    if ray.is_initialized():
        yield
        return
    _probe(address)
    # Settings of the driver that decide how a worker imports and computes; those of the node know nothing of this run.
    passed_on = {key: os.environ[key] for key in ("PYTHONPATH", "OMP_WAIT_POLICY") if key in os.environ}
    try:
        ray.init(address=address, runtime_env={"env_vars": passed_on}, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
        raise _unreachable(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Ray itself tries for minutes to reach a port where nobody listens."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        except OSError as error:
            raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> ConnectionFailedError:
    return ConnectionFailedError(
        f"Cannot join a Ray cluster at {address}: {str(error).rstrip('.')}. Start one "
        "(docs/containers-and-clusters.md), correct engine.address, or set engine.name=local. A cluster with "
        "RAY_AUTH_MODE=token wants its token here too."
    )


def _room(cpus: float, memory: float | None) -> int:
    """How many tasks fit the nodes at a time; a task does not stretch over nodes."""
    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            held = node["Resources"]
            fits = held.get("CPU", 0) / cpus
            room += int(fits if memory is None else min(fits, held.get("memory", 0) / (memory * _GIB)))
    return room


def _look_again(cpus: float, memory: float | None, running: int) -> None:
    if not _room(cpus, memory):
        raise BrokenExecutor(f"no node with {_wanted(cpus, memory)} is left in the Ray cluster")
    logger.warning(
        "%d Ray task(s) have run or waited for more than %.0f s. Free now: %.4g of %.4g processors.",
        running,
        _LOOK_AGAIN,
        ray.available_resources().get("CPU", 0),
        ray.cluster_resources().get("CPU", 0),
    )


def _cancel(references: list[Any]) -> None:
    """Interrupt what still runs, so that it removes its temporary files before the workers are ended."""
    for reference in references:
        ray.cancel(reference, force=False)
    if references:
        ray.wait(references, num_returns=len(references), timeout=_FAREWELL)


def _wanted(cpus: float, memory: float | None) -> str:
    return f"{cpus:g} processor(s)" + ("" if memory is None else f" and {memory:g} GiB")


def _described() -> str:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    told = [f"{held.get('CPU', 0):g} processor(s) and {held.get('memory', 0) / _GIB:.3g} GiB" for held in nodes[:5]]
    return f"{len(nodes)} node(s) with {', '.join(told) or 'nothing'}{', ...' if len(nodes) > 5 else ''}"
