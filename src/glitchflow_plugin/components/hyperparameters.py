"""The step Hyperparameter-search: many trainings with drawn settings, judged on validation windows."""

import csv
import io
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._figures import save_figure
from glitchflow_plugin.components._ray_room import check_room
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.data.files import atomic_path, content_hash, parsed, read_json, write_json
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError, GlitchflowError
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.settings import built

logger = logging.getLogger(__name__)

_PARTS = ("config", "model")
_FIGURES = ("veto_efficiency", "net_power_removed", "harmed_share")
_OBJECT_STORE = 200_000_000
"""Bytes of shared memory of a Ray of its own: nothing large is passed."""


@dataclass(frozen=True)
class SearchSettings:
    """The keys of hpo.yaml.

    Attributes:
        trials: How many settings are tried; may be raised later.
        epochs: Of each trial.
        seed: Of the drawing.
        search_space: By `config` (of training.yaml) or `model`, key, then as itwinai and Ray Tune describe it:
            {type: loguniform, lower: 1e-4, upper: 1e-2}, {type: choice, categories: [8, 16]}, ...
        objective: The keys of `ObjectiveSettings`.
        cpus: Processors for all trials together; 0: those of this machine.
        cpus_per_trial: Processors and threads of one trial.
        gpus_per_trial: May be a part of one.
        address: Of a Ray cluster that is running; None: a Ray of its own, which nobody else gets into.
        time_limit: Seconds after which no trial goes on; None: none.
        allow_failures: Whether a trial may fail without failing the search.
    """

    trials: int = 20
    epochs: int = 10
    seed: int = 0
    search_space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    cpus: int = 0
    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0
    address: str | None = None
    time_limit: float | None = None
    allow_failures: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        for name in ("trials", "epochs", "cpus_per_trial"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"hpo.{name}: at least 1 expected, got {getattr(self, name)}.")
        unknown = sorted(set(self.search_space) - set(_PARTS))
        if unknown or not any(self.search_space.values()):
            raise ConfigurationError(
                f"hpo.search_space: something to draw beneath {' or '.join(_PARTS)} expected, got "
                f"{unknown or 'nothing'}. See conf/model/coupling.yaml."
            )

    @property
    def processors(self) -> int:
        """For all trials together."""
        return self.cpus or len(os.sched_getaffinity(0))


class HyperparameterSearch(BaseComponent):
    """Draw settings, train with each, and tell which were best on validation. Test events are not looked at.

    What was drawn depends on the seed alone, each finished trial leaves a file, and a search that is started again goes
    on with the trials that are missing. Ray Tune runs them.

    Args:
        search: The keys of hpo.yaml; see `SearchSettings`.
        training: Folder of the training set, where none comes from the step before.
        folder: Where the search keeps its files.
        events: Folder of the event set that the maps were made of; models of waveforms need it.
        model: Name and settings of the network, for what is not drawn.
        config: `training.config`, for what is not drawn.
        random_seed: Of the first weights and the order of windows, the same in all trials.
        device: Of the trials.
        registry: The keys of registry.yaml; None: nothing is tracked.
        run_name: Of the MLflow run.
        name: Name of the step.
    """

    def __init__(
        self,
        *,
        search: dict[str, Any],
        training: str,
        folder: str,
        model: dict[str, Any],
        events: str | None = None,
        config: dict[str, Any] | None = None,
        random_seed: int = 0,
        device: str = "auto",
        registry: dict[str, Any] | None = None,
        run_name: str = "search",
        name: str | None = None,
    ) -> None:
        arguments = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        super().__init__(name)
        self.save_parameters(**arguments)
        self.settings = built(SearchSettings, search, "hpo")
        self.folder, self.training, self.registry, self.run_name = Path(folder), Path(training), registry, run_name
        check_name(str(run_name), "run_name")
        self.trainer = {
            "model": model,
            "config": config or {},
            "random_seed": random_seed,
            "device": device,
            "events": events,
        }

    @monitor_exec
    @holding("folder", reads=("training",))
    def execute(self, training_set: TrainingSet | None = None) -> list[dict[str, Any]]:
        """Run the trials that are missing and write table, picture and summary.

        Args:
            training_set: Windows and scaling; opened from `training` if None.

        Returns:
            The records of all trials, the best first.

        Raises:
            GlitchflowError: A trial failed, and `allow_failures` is not set; or time ran out before any was finished.
            ConfigurationError: The folder holds another search, or a setting cannot work.
        """
        started = now()
        found = training_set or TrainingSet.open(self.training)
        if self.settings.address is None and "RAY_AUTH_MODE" not in os.environ:
            # before anything imports Ray: its ports are open to the network, so it must ask who comes
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray would end the search as if it were finished, with a table of what is there
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        from glitchflow_plugin.training.objectives import Objectives, ObjectiveSettings  # torch: after the token

        objective = built(ObjectiveSettings, self.settings.objective, "hpo.objective")
        if self.registry is not None:
            from glitchflow_plugin.tracking.connection import check_connection

            # a server that is not there shall be noticed before hours of training
            check_connection(self.registry["tracking_uri"])
        trials = self._drawn()
        self._claim(found)
        pending = [number for number in range(len(trials)) if not _finished(self.folder, number)]
        if len(pending) < len(trials):
            logger.info("%d of %d trials are there already", len(trials) - len(pending), len(trials))
        if pending:
            self._run(found, trials, pending)
        records = [_record(self.folder, number, trials[number]) for number in range(len(trials))]
        for record in records:
            figures = record.get("figures")
            record["score"] = Objectives(**figures).score(objective) if figures else None
        records.sort(key=_rank)
        self._write(found, records, started)
        trouble = self._trouble(records)
        self._track(records, "FAILED" if trouble else "FINISHED")
        if trouble:
            raise GlitchflowError(trouble)
        return records

    def _drawn(self) -> list[dict[str, dict[str, Any]]]:
        """Settings of all trials: the same for a seed, however many are asked for."""
        from itwinai.torch.tuning import search_space
        from ray.tune.search.variant_generator import generate_variants

        from glitchflow_plugin.components._configuration import StrictConfiguration
        from glitchflow_plugin.models.build import check_network

        flat = {f"{part}.{key}": how for part, keys in self.settings.search_space.items() for key, how in keys.items()}
        try:
            space = search_space(deepcopy(flat))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"hpo.search_space: {error}. Expected for each key a mapping such as {{type: loguniform, lower: 1e-4, "
                "upper: 1e-2}, of a type that Ray Tune knows."
            ) from error
        generator, trials = np.random.RandomState(self.settings.seed), []
        while len(trials) < self.settings.trials:
            # a grid gives several at a time
            for _, spec in generate_variants({"drawn": space}, random_state=generator):
                drawn: dict[str, dict[str, Any]] = {}
                for name, value in spec["drawn"].items():
                    part, key = name.split(".", 1)
                    drawn.setdefault(part, {})[key] = value.item() if isinstance(value, np.generic) else value
                trials.append(drawn)
        trials = trials[: self.settings.trials]
        for drawn in trials:
            StrictConfiguration.checked({**self.trainer["config"], **drawn.get("config", {})})
            check_network({**self.trainer["model"], **drawn.get("model", {})})
        return trials

    def _claim(self, training_set: TrainingSet) -> None:
        """Note what is searched; a folder holds one search."""
        kept = self.folder / "search.json"
        settings = self.settings
        parts = {
            "search_space": settings.search_space,
            "seed": settings.seed,
            "epochs": settings.epochs,
            "objective": settings.objective,
            "fixed settings": {key: self.trainer[key] for key in ("model", "config", "random_seed")},
            "training set": [training_set.fingerprint, training_set.scaling, training_set.split.train.event_ids],
        }
        here = {name: content_hash(part) for name, part in parts.items()}
        if not kept.exists():
            write_json(kept, here)
            return
        there = read_json(kept, "the search")
        other = [name for name in here if here[name] != there.get(name)]
        if other:
            raise ConfigurationError(
                f"{self.folder} holds a search with another {' and '.join(other)}. Give this one a run_name of its "
                "own, or remove the folder. (Only hpo.trials and how they are run may change.)"
            )

    def _run(self, training_set: TrainingSet, trials: Sequence[dict[str, Any]], pending: list[int]) -> None:
        from ray import tune

        settings = self.settings
        job = {
            "cwd": str(Path.cwd()),
            "folder": str(self.folder.resolve()),
            "threads": settings.cpus_per_trial,
            "trainer": {**self.trainer, "folder": str(training_set.folder), "epochs": settings.epochs},
            "objective": dict(settings.objective),
            "trials": list(trials),
        }
        resources = {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial}
        own = self.folder.resolve() / "ray"
        with _connected(settings):
            check_room([{kind: amount for kind, amount in resources.items() if amount}], "Lower hpo.cpus_per_trial")
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(_trial, job=job), resources),
                param_space={"number": tune.grid_search(pending)},
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

    def _write(self, training_set: TrainingSet, records: list[dict[str, Any]], started: str) -> None:
        with atomic_path(self.folder / "trials.csv") as path:
            path.write_text(_table(records), encoding="utf-8")
        if any("figures" in record for record in records):
            save_figure(_picture(records), self.folder / "parallel.png")
        best = records[0]
        ended = [record for record in records if "figures" in record]
        outputs = {"table": str(self.folder / "trials.csv"), "picture": str(self.folder / "parallel.png")}
        if "figures" in best:
            outputs["best settings"] = " ".join(_overrides(best["settings"]))
        report(
            RunSummary(
                pipeline="hpo_pipeline/Hyperparameter-search",
                started=started,
                inputs={"training set": str(training_set.folder), "trials": len(records)},
                events=EventCounts.from_reasons(len(set(training_set.windows["event_id"])), ()),
                metrics={
                    "trials_finished": Metric(float(len(ended))),
                    **{key: Metric(value) for key, value in best.get("figures", {}).items()},
                },
                outputs=outputs,
                warnings=tuple(
                    f"trial {record['number']} failed: {record['error']}" for record in records if "error" in record
                ),
            ),
            self.folder,
        )

    def _track(self, records: list[dict[str, Any]], status: str) -> None:
        """Table, picture and figures of all trials in one MLflow run, and each trial in one below it."""
        if self.registry is None:
            return
        from glitchflow_plugin.tracking.connection import ensure_experiment, guarded
        from glitchflow_plugin.tracking.itwinai_tracker import ItwinaiTracker, make_loggers

        uri, experiment = self.registry["tracking_uri"], self.registry["experiment"]
        with guarded(uri):
            ensure_experiment(uri, experiment, self.registry["artifacts"])
            # what the machine does now tells nothing of the trials
            loggers = make_loggers(uri, experiment, None, self.folder / "logs", system_metrics=False)
            assert loggers is not None  # noqa: S101
            loggers.create_logger_context(rank=0, run_name=f"{self.run_name}-hpo")
            tracker = ItwinaiTracker(loggers)
            best = records[0]
            drawn = {f"best_{part}_{key}": value for part, key, value in _flat(best["settings"])}
            tracker.params(
                {"trials": len(records), "epochs": self.settings.epochs, "seed": self.settings.seed, **drawn}
            )
            for record in records:
                for key, value in record.get("figures", {}).items():
                    tracker.metric(key, value, record["number"])
            for key, value in best.get("figures", {}).items():
                tracker.metric(f"best_{key}", value, 0)
            tracker.text("trials.csv", _table(records))
            if "figures" in best:
                tracker.figure("parallel", _picture(records), 0)
            for record in records:
                drawn = {f"{part}_{key}": value for part, key, value in _flat(record["settings"])}
                ended = "FAILED" if "error" in record else "FINISHED" if "figures" in record else "KILLED"
                tracker.part(f"trial {record['number']}", drawn, record.get("figures", {}), ended)
            tracker.end_as(status)
            loggers.destroy_logger_context()
        shutil.rmtree(self.folder / "logs", ignore_errors=True)

    def _trouble(self, records: list[dict[str, Any]]) -> str:
        """Why the search cannot count as one; empty if it does."""
        failed = [record for record in records if "error" in record]
        missing = [record for record in records if "error" not in record and "figures" not in record]
        if failed and not self.settings.allow_failures:
            first = failed[0]
            return (
                f"{len(failed)} trial(s) failed; number {first['number']} with {first['settings']}: {first['error']}. "
                "Correct hpo.search_space, or set hpo.allow_failures=true; the finished trials are kept."
            )
        if len(failed) + len(missing) == len(records):
            return "no trial was finished. Raise hpo.time_limit, or look at the table."
        if missing:
            logger.warning("%d trial(s) were not finished in time; start again to go on", len(missing))
        return ""


def _trial(config: dict[str, Any], job: dict[str, Any]) -> None:
    from ray import tune

    from glitchflow_plugin.components._trial import run_trial

    tune.report(run_trial(job, config["number"])["figures"])


@contextmanager
def _connected(settings: SearchSettings) -> Iterator[None]:
    """Join the cluster, or start a Ray that ends with the search and takes no more processors than it may."""
    import ray

    # a trial's paths count from the run folder; on other nodes, too, the program must be found
    passed_on = {key: os.environ[key] for key in ("PYTHONPATH", "OMP_WAIT_POLICY") if key in os.environ}
    environment = {"env_vars": passed_on | {"OMP_NUM_THREADS": str(settings.cpus_per_trial)}}
    common: dict[str, Any] = {"runtime_env": environment, "logging_level": logging.WARNING, "log_to_driver": False}
    if settings.address is not None:
        ray.init(address=settings.address, **common)
    else:
        ray.init(
            address="local",
            num_cpus=settings.processors,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE,
            **common,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _finished(folder: Path, number: int) -> bool:
    return "figures" in _record(folder, number, {})


def _record(folder: Path, number: int, settings: dict[str, Any]) -> dict[str, Any]:
    path = folder / "trials" / f"{number:04d}" / "result.json"
    if not path.exists():
        return {"number": number, "settings": settings}
    content = read_json(path, "the search")
    parsed(content, _Record, path, "the search")
    return content


@dataclass(frozen=True)
class _Record:
    """What a trial's file holds, as `run_trial` writes it."""

    number: int
    settings: dict[str, dict[str, Any]]
    figures: dict[str, float | None] | None = None
    parameters: int = 0
    seconds: float = 0.0
    error: str = ""


def _rank(record: dict[str, Any]) -> tuple[bool, float, int]:
    """The best first, then those that harm, then those without figures."""
    score = record["score"]
    return score is None, -score if score is not None else 0.0, record["number"]


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, Any]]:
    return [(part, key, value) for part, keys in settings.items() for key, value in keys.items()]


def _overrides(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What to add to the training's command line."""
    prefix = {"config": "training.config", "model": "model"}
    return [f"{prefix[part]}.{key}={value}" for part, key, value in _flat(settings)]


def _table(records: Sequence[dict[str, Any]]) -> str:
    names = [f"{part}.{key}" for part, key, _ in _flat(records[0]["settings"])]
    columns = ["number", "status", "score", *_FIGURES, "parameters", "seconds", *names, "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for record in records:
        status = "finished" if "figures" in record else "failed" if "error" in record else "not run"
        known = {key: record[key] for key in ("number", "score", "parameters", "seconds", "error") if key in record}
        drawn = {f"{part}.{key}": value for part, key, value in _flat(record["settings"])}
        writer.writerow({"status": status, **known, **record.get("figures", {}), **drawn})
    return text.getvalue()


def _picture(records: Sequence[dict[str, Any]]) -> Any:
    from glitchflow_plugin.plots.parallel import Axis, plot_parallel

    ended = [record for record in records if "figures" in record]
    axes = []
    for part, key, _ in _flat(ended[0]["settings"]):
        values = [record["settings"][part][key] for record in ended]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            numbers = np.array(values, dtype=float)
            axes.append(
                Axis(key, numbers, logarithmic=bool((numbers > 0).all() and numbers.max() > 20 * numbers.min()))
            )
        else:
            labels = sorted({str(value) for value in values})
            axes.append(Axis(key, np.array([float(labels.index(str(value))) for value in values]), labels=labels))
    axes += [Axis(name, np.array([record["figures"][name] for record in ended])) for name in _FIGURES]
    score = np.array([record["score"] for record in ended])
    return plot_parallel(axes, score, title=f"{len(ended)} trials; dashed: harm above the limit")
