"""Shards made in parallel by processes, with one progress bar and errors that name the shard."""

import logging
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from glitchflow_plugin.data.sharded import ShardPlan
from glitchflow_plugin.errors import ConfigurationError, ConnectionFailedError, GlitchflowError, MissingDependencyError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_PASSED_ON = (ConfigurationError, ConnectionFailedError, MissingDependencyError)
"""Errors that are not about one shard: they go to the user as they are."""


class ShardError(GlitchflowError):
    """A shard could not be made; those that were finished stay."""


def default_workers() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_shards(
    function: Callable[[ShardPlan], Result],
    plans: Sequence[ShardPlan],
    workers: int | None = None,
    description: str = "",
) -> list[Result]:
    """Call a function for every shard.

    Args:
        function: Makes and writes one shard. With more than one worker it must be picklable: a function of a module,
            or a `functools.partial` of one.
        plans: The shards.
        workers: Processes; 1 runs in this one; None or 0 takes as many as there are processors. Memory grows with
            workers times shard size.
        description: For the progress bar and the errors.

    Returns:
        What the function returned, in the order of the plans.

    Raises:
        ShardError: A shard failed, or a worker was killed; the message names the shard and what stays.
        GlitchflowError: An error that is not about one shard (settings, network, a missing package), as it came.
    """
    workers = min(workers or default_workers(), max(len(plans), 1))
    total = sum(len(plan.event_ids) for plan in plans)
    with tqdm(total=total, desc=description or None, unit="event", disable=not plans) as bar:
        if workers == 1:
            return [_inline(function, plan, description, bar) for plan in plans]
        return _parallel(function, plans, workers, description, bar)


def _inline(function: Callable[[ShardPlan], Result], plan: ShardPlan, description: str, bar: "tqdm") -> Result:
    try:
        result = function(plan)
    except _PASSED_ON:
        raise
    except Exception as error:
        raise _named(error, plan, description) from error
    bar.update(len(plan.event_ids))
    return result


def _parallel(
    function: Callable[[ShardPlan], Result], plans: Sequence[ShardPlan], workers: int, description: str, bar: "tqdm"
) -> list[Result]:
    # fork would copy the threads' locks of whatever the parent has loaded; forkserver starts clean and light
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    results: dict[int, Result] = {}
    context = multiprocessing.get_context(method)
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_remember, initargs=(function,))
    try:
        running: dict[Future, int] = {executor.submit(_call, plan): i for i, plan in enumerate(plans)}
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda future: running[future]):
                position = running.pop(future)
                try:
                    results[position] = future.result()
                except BrokenProcessPool as error:
                    raise _killed(plans, results, description) from error
                except _PASSED_ON:
                    raise
                except Exception as error:
                    raise _named(error, plans[position], description) from error
                bar.update(len(plans[position].event_ids))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    return [results[position] for position in range(len(plans))]


_function: Callable[[ShardPlan], object] | None = None


def _remember(function: Callable[[ShardPlan], object]) -> None:
    """Keep the function in a new worker: it may carry much, and is sent once a worker instead of once a shard."""
    global _function  # noqa: PLW0603  # a worker process has no other place that outlives a call
    _function = function


def _call(plan: ShardPlan) -> object:
    assert _function is not None  # noqa: S101  # _remember ran before
    return _function(plan)


def _killed(plans: Sequence[ShardPlan], results: Mapping[int, object], description: str) -> ShardError:
    unfinished = [plan.index for position, plan in enumerate(plans) if position not in results]
    return ShardError(
        f"{description or 'the run'}: a worker process was killed (out of memory, or from outside) while making one of "
        f"the shards {unfinished[:8]}{'...' if len(unfinished) > 8 else ''}. Finished shards are kept: run the step "
        "again to make the others, with fewer workers or a smaller batch if memory was short."
    )


def _named(error: Exception, plan: ShardPlan, description: str) -> ShardError:
    first, last = plan.event_ids[0], plan.event_ids[-1]
    return ShardError(
        f"{description or 'the run'}: shard {plan.index} (events {first} to {last}) failed: "
        f"{type(error).__name__}: {error}. Finished shards are kept: run the step again when this is mended."
    )
