"""The trials of a search under Ray Tune: what it draws, and a training each in processes of its own."""

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.training.ray_room import check_room
from glitchflow_plugin.training.search import Drawn, Search, SearchSettings, nested
from glitchflow_plugin.training.trained_twin import TrainedTwin

Train = Callable[[Mapping[str, Any]], TrainedTwin]

_OBJECT_STORE = 200_000_000
"""Bytes of shared memory of a Ray of its own: nothing large is passed."""


def prepare_environment(settings: SearchSettings) -> None:
    """Tell Ray who may come in and what to leave to us; before anything imports it."""
    if settings.address is None and "RAY_AUTH_MODE" not in os.environ:
        # its ports are open to the network, so it must ask who comes
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would end the search as if it were finished, with a table of what is there
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"


def draw(settings: SearchSettings, parse: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Drawn]:
    """Settings of all trials: the same for a seed, however many are asked for.

    Args:
        settings: What is drawn, and how often.
        parse: Makes Ray Tune's domains of how each key is to be drawn.

    Raises:
        ConfigurationError: Ray Tune cannot draw so.
    """
    from ray.tune.search.variant_generator import generate_variants

    flat = {f"{part}.{key}": how for part, keys in settings.search_space.items() for key, how in keys.items()}
    try:
        space = parse(deepcopy(flat))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"hpo.search_space: {error}. Expected for each key a mapping such as {{type: loguniform, lower: 1e-4, "
            "upper: 1e-2}, of a type that Ray Tune knows."
        ) from error
    generator = np.random.RandomState(settings.seed)
    rounds = (generate_variants({"drawn": space}, random_state=generator) for _ in count())  # a grid gives several
    return [nested(spec["drawn"]) for _, spec in islice(chain.from_iterable(rounds), settings.trials)]


def run_trials(search: Search, pending: Sequence[int], train: Train) -> None:
    """Run some of the trials; each leaves its own file.

    Args:
        search: The search.
        pending: Numbers of the trials.
        train: Trains with keywords of `Search.trainer`, and goes on from its last checkpoint where it was cut off; a
            function of a module, which Ray's processes import.

    Raises:
        ConfigurationError: The cluster has no room for a trial.
    """
    from ray import tune

    settings, search = search.settings, replace(search, folder=search.folder.resolve())
    own = search.folder / "ray"
    resources = {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial}
    with _connected(settings):
        check_room([{kind: amount for kind, amount in resources.items() if amount}], "Lower hpo.cpus_per_trial")
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_run_trial, search=search, train=train, run_folder=Path.cwd()), resources
            ),
            param_space={"number": tune.grid_search(list(pending))},
            tune_config=tune.TuneConfig(
                metric="veto_efficiency", mode="max", reuse_actors=True, time_budget_s=settings.time_limit
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(own),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0, fail_fast=not settings.allow_failures),
            ),
        )
        try:
            tuner.fit()
        finally:
            # what is kept of a trial is in its own file; the rest are pickles
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def _connected(settings: SearchSettings) -> Iterator[None]:
    """Join the cluster, or start a Ray that ends with the search and takes no more processors than it may."""
    import ray

    # a trial's paths count from the run folder; on other nodes, too, the program must be found
    passed_on = {key: os.environ[key] for key in ("PYTHONPATH", "OMP_WAIT_POLICY") if key in os.environ}
    environment = {"env_vars": passed_on | {"OMP_NUM_THREADS": str(settings.cpus_per_trial)}}
    own = {"num_cpus": settings.processors, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    ray.init(
        address=settings.address or "local",
        runtime_env=environment,
        logging_level=logging.WARNING,
        log_to_driver=False,
        **(own if settings.address is None else {}),
    )
    try:
        yield
    finally:
        ray.shutdown()


def _run_trial(config: Mapping[str, int], search: Search, train: Train, run_folder: Path) -> None:
    """One trial, in a process of Ray's."""
    from ray import tune

    os.chdir(run_folder)
    torch.set_num_threads(search.settings.cpus_per_trial)
    tune.report(search.run(config["number"], train).values)
