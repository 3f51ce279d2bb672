"""Shards made in parallel: processes here, tasks of a Ray cluster, or a share of them in each task of a SLURM array.

What is made does not depend on the engine or on the number of workers: a shard is made by one call of one function,
which sees nothing but its plan.
"""

import logging
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator
from tqdm import tqdm

from glitchflow_plugin.data.parent import clean_start, end_at_once, end_with_parent, starting_workers
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.errors import (
    ConfigurationError,
    ConnectionFailedError,
    GlitchflowError,
    MissingDependencyError,
)
from glitchflow_plugin.settings import CountOrAll, Positive, built, section

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

LOCAL, RAY, SLURM_ARRAY = "local", "ray", "slurm-array"
_PASSED_ON = (ConfigurationError, ConnectionFailedError, MissingDependencyError)
"""Errors that are not about one shard: they go to the user as they are."""


class ShardError(GlitchflowError):
    """A shard could not be made; those that were finished stay."""


class ShareDone(SystemExit):
    """This task of an array has made its share, and others have not: the pipeline ends here, with status 0.

    The steps that follow need the whole set and belong to a job that waits for the array.
    """

    def __init__(self, message: str) -> None:
        super().__init__(0)
        self.message = message

    def __str__(self) -> str:
        return self.message


def _running(address: object) -> object:
    if address in (None, "", LOCAL):
        raise ConfigurationError(
            f"engine.address: expected auto or host:port of a running Ray cluster, got {address!r}: none is "
            "started here, since it would listen without a password. On one machine, engine.name=local."
        )
    return address


@section
class EngineSettings:
    """Where shards are made; conf/engine.yaml explains the keys."""

    name: Literal["local", "ray", "slurm-array"] = LOCAL
    workers: CountOrAll = None
    address: Annotated[str, BeforeValidator(_running)] = "auto"
    task_cpus: Positive = 1
    task_memory: Positive | None = None
    share_index: int | None = None
    share_count: int | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.share_index is None) != (self.share_count is None):
            raise ConfigurationError("engine.share_index and engine.share_count belong together: give both or neither.")
        if self.share_index is not None and self.share_count is not None:
            _check_share(self.share_index, self.share_count)

    @classmethod
    def of(cls, content: Mapping[str, Any] | str | None) -> Self:
        """Settings from a mapping, or from the name of an engine alone.

        >>> EngineSettings.of("ray").name
        'ray'
        """
        return built(cls, {"name": content} if isinstance(content, str) else content, "engine")

    def on_device(self, device: object) -> Self:
        """The settings with which work for a device is spread: one process for a GPU, which it fills alone.

        Raises:
            ConfigurationError: Ray tasks were asked to compute on a GPU.
        """
        if str(device).startswith("cpu"):
            return self
        if self.name == RAY:
            raise ConfigurationError(
                f"Ray tasks compute on processors, got device {device}. Set the step's device to auto or cpu, or, with "
                f"one GPU a process, engine.name={LOCAL} or engine.name={SLURM_ARRAY}."
            )
        return replace(self, workers=1)

    def share(self) -> tuple[int, int]:
        """Index and count of the share that this process makes.

        Raises:
            ConfigurationError: Neither the settings nor SLURM's variables tell.
        """
        if self.share_index is not None and self.share_count is not None:
            return self.share_index, self.share_count
        try:
            task, first, last, count = (
                int(os.environ[f"SLURM_ARRAY_TASK_{key}"]) for key in ("ID", "MIN", "MAX", "COUNT")
            )
        except (KeyError, ValueError):
            raise ConfigurationError(
                f"engine.name={SLURM_ARRAY} expects a task of a job array, but the variables SLURM_ARRAY_TASK_* are "
                "not set. Submit with sbatch --array=0-7, or give engine.share_index and engine.share_count."
            ) from None
        step = (last - first) // (count - 1) if count > 1 else 1
        if first + step * (count - 1) != last or (task - first) % step:
            raise ConfigurationError(
                f"the job array has {count} tasks between {first} and {last}, which are not evenly spaced, so nobody "
                "would make some of the shards. Submit with sbatch --array=0-7 or alike; what is there already is kept."
            )
        return (task - first) // step, count


IN_PROCESS = EngineSettings(workers=1)
"""One shard after the other in this process."""


def default_workers() -> int:
    """Processors that this process may use; in a batch job, those of the task."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(here, int(granted)) if granted.isdigit() and int(granted) else here


def map_shards(
    function: Callable[[ShardPlan], Result],
    plans: Sequence[ShardPlan],
    engine: EngineSettings = IN_PROCESS,
    description: str = "",
    *,
    left: Callable[[], Sequence[ShardPlan]] | None = None,
    progress: bool = True,
    unit: str = "event",
) -> list[Result]:
    """Call a function for every shard.

    Args:
        function: Makes one shard and, as a rule, writes it. Other processes import it: a function of a module, or a
            `functools.partial` of one. What it writes must not depend on the number of threads.
        plans: The shards.
        engine: Memory grows with workers times shard size.
        description: Name of the work, in the progress bar and in errors.
        left: Tells which shards are not on disk. A task of an array cannot see the results of other tasks, so it needs
            this to know whether the set is complete.
        progress: Show a progress bar.
        unit: What the bar counts: a plan has as many as it has ids.

    Returns:
        What the function returned, in the order of the plans; in a task of an array, for the plans of its share.

    Raises:
        ShareDone: This task's share is made, and the set is not complete, or was so before and another task goes on.
        ShardError: A shard failed, or a worker was killed; the message names the shard and what stays.
        GlitchflowError: An error that is not about one shard (settings, network, a missing package), as it came.
    """
    if engine.name == SLURM_ARRAY:
        return _map_share(function, plans, engine, description, left=left, unit=unit)
    results: dict[int, Result] = {}
    total = sum(len(plan.event_ids) for plan in plans)
    bar = tqdm(total=total, desc=description or None, unit=unit, disable=not (progress and plans))
    try:
        with bar, closing(_finished(function, plans, engine)) as finished:
            for position, collect in finished:
                try:
                    results[position] = collect()
                except (BrokenExecutor, *_PASSED_ON):
                    raise
                except Exception as error:
                    raise _named(error, plans[position], description) from error
                bar.update(len(plans[position].event_ids))
    except BrokenExecutor as error:
        raise _killed(plans, results, description) from error
    return [results[position] for position in range(len(plans))]


def _map_share(
    function: Callable[[ShardPlan], Result],
    plans: Sequence[ShardPlan],
    engine: EngineSettings,
    description: str,
    *,
    left: Callable[[], Sequence[ShardPlan]] | None,
    unit: str,
) -> list[Result]:
    """The shards whose index belongs to this task, whatever is there already, so that no two tasks make the same."""
    name = description or "this step"
    if left is None:
        raise ConfigurationError(
            f"{name} gathers its results in one process and cannot be divided among the tasks of an array. Run it in a "
            f"job of its own with engine.name={LOCAL} or {RAY}."
        )
    index, count = engine.share()
    if not plans and index:  # all would do the rest of the step at once
        raise _share_done(f"{name}: all is there. The task of share 1 of {count} does the rest of the step.")
    mine = [plan for plan in plans if plan.index % count == index]
    results = map_shards(function, mine, replace(engine, name=LOCAL), description, unit=unit)
    missing = [plan.index for plan in left()]
    if missing:
        raise _share_done(
            f"{name}: share {index + 1} of {count} is done ({len(mine)} shard(s) made). Other tasks have still "
            f"{len(missing)} to make; the last of them completes the set. Later steps belong to a job that waits for "
            "the array."
        )
    return results


def _share_done(message: str) -> ShareDone:
    logger.info("%s", message)
    return ShareDone(message)


def _finished(
    function: Callable[[ShardPlan], Result], plans: Sequence[ShardPlan], engine: EngineSettings
) -> Generator[tuple[int, Callable[[], Result]], None, None]:
    """Position of a plan and how to collect its result, in the order in which the shards are finished."""
    if engine.name == RAY and plans:
        from glitchflow_plugin.preprocessing.ray_tasks import finished_on_ray  # noqa: PLC0415  # ray is slow to import

        yield from finished_on_ray(
            function,
            plans,
            address=engine.address,
            workers=engine.workers,
            cpus=engine.task_cpus,
            memory=engine.task_memory,
        )
        return
    workers = min(engine.workers or default_workers(), len(plans))
    if workers <= 1:
        yield from ((position, partial(function, plan)) for position, plan in enumerate(plans))
        return
    executor = ProcessPoolExecutor(workers, mp_context=clean_start(), initializer=_remember, initargs=(function,))
    try:
        with starting_workers() as started:
            positions = {executor.submit(_call, plan): position for position, plan in enumerate(plans)}
        with end_at_once(started):
            for future in as_completed(positions):
                yield positions.pop(future), future.result
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_function: Callable[[ShardPlan], Any] | None = None


def _remember(function: Callable[[ShardPlan], object]) -> None:
    """Keep the function in a new worker: it may carry much, and is sent once a worker instead of once a shard."""
    global _function  # noqa: PLW0603  # a worker process has no other place that outlives a call
    end_with_parent()
    _function = function


def _call(plan: ShardPlan) -> Any:
    assert _function is not None  # noqa: S101  # _remember ran before
    return _function(plan)


def _check_share(index: int, count: int) -> None:
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in (index, count)):
        raise ConfigurationError(
            f"engine.share_index and engine.share_count must be whole numbers, got {index!r} and {count!r}."
        )
    if not 0 <= index < count:
        raise ConfigurationError(
            f"engine.share_index counts from 0 and must be below engine.share_count, got {index} of {count}."
        )


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
        f"{type(error).__name__}: {str(error).rstrip('.')}. Finished shards are kept: run the step again when this "
        "is mended."
    )
