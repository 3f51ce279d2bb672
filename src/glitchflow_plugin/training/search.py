"""A search for hyper-parameters: what is drawn, what a trial leaves, which was best. Who runs trials is elsewhere."""

import csv
import io
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from glitchflow_plugin.data.files import content_hash, parsed, read_json, write_json
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.plots.parallel import Axis, plot_parallel
from glitchflow_plugin.products.pictures import Figure
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
from glitchflow_plugin.tracking.tracker import Tracker
from glitchflow_plugin.training.learned import Learned
from glitchflow_plugin.training.objectives import Objectives, ObjectiveSettings, objectives

logger = logging.getLogger(__name__)

Drawn: TypeAlias = dict[str, dict[str, Any]]
"""Settings of a trial: by `config` (of training.yaml) or `model`, key and value."""

_PARTS = {"config": "training.config", "model": "model"}
"""Sections that settings are drawn for, and where they stand on the training's command line."""

_ENDS = {"finished": "FINISHED", "failed": "FAILED", "not run": "KILLED"}
"""How the part of a run that a trial is has ended."""

_FIGURES = tuple(one.name for one in fields(Objectives))


class PartTracker(Tracker, Protocol):
    """A tracker of a run that has parts, which have ended."""

    def part(self, name: str, params: Mapping[str, Any], metrics: Mapping[str, float], status: str, /) -> None:
        """Record one part."""


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


def nested(flat: Mapping[str, Any]) -> Drawn:
    """Settings by part and key from those by `part.key`, as plain numbers.

    >>> nested({"config.optim_lr": np.float64(0.5), "model.base": 8})
    {'config': {'optim_lr': 0.5}, 'model': {'base': 8}}
    """
    drawn: Drawn = {}
    for name, value in flat.items():
        part, key = name.split(".", 1)
        drawn.setdefault(part, {})[key] = value.item() if isinstance(value, np.generic) else value
    return drawn


@dataclass(frozen=True)
class Trial:
    """What is known of a trial; its file holds all of it but the score, and nothing that is not known.

    Attributes:
        number: From 0, in the order of the drawing.
        settings: That were drawn.
        figures: On validation windows; None unless it was finished.
        parameters: Weights of the network.
        seconds: That it took.
        error: Why it failed.
        score: Of the figures.
    """

    number: int
    settings: Drawn
    figures: Objectives | None = None
    parameters: int | None = None
    seconds: float | None = None
    error: str | None = None
    score: float | None = None

    @property
    def status(self) -> str:
        """`finished`, `failed` or `not run`."""
        return "finished" if self.figures else "failed" if self.error is not None else "not run"

    @property
    def flat(self) -> dict[str, Any]:
        """Settings by `config.key` or `model.key`."""
        return {f"{part}.{key}": value for part, keys in self.settings.items() for key, value in keys.items()}

    @property
    def params(self) -> dict[str, Any]:
        """Settings under names that a tracker takes."""
        return {key.replace(".", "_", 1): value for key, value in self.flat.items()}

    @property
    def values(self) -> dict[str, float]:
        """Figures by name; none unless it was finished."""
        return dict(vars(self.figures)) if self.figures else {}

    @property
    def overrides(self) -> list[str]:
        """What to add to the training's command line."""
        return [f"{_PARTS[part]}.{key}={value}" for part, keys in self.settings.items() for key, value in keys.items()]

    def to_dict(self) -> dict[str, Any]:
        """JSON-like, without what is not known."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def claim(folder: Path, settings: SearchSettings, fixed: Mapping[str, Any], training_set: TrainingSet) -> None:
    """Note what is searched; a folder holds one search.

    Args:
        folder: Of the search.
        settings: What is drawn and how it is judged.
        fixed: `model`, `config` and `random_seed` of all trials.
        training_set: Of all trials.

    Raises:
        ConfigurationError: The folder holds another search.
    """
    parts = {
        "search_space": settings.search_space,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "objective": settings.objective,
        "fixed settings": {key: fixed[key] for key in ("model", "config", "random_seed")},
        "training set": [training_set.fingerprint, training_set.scaling, training_set.split.train.event_ids],
    }
    kept, here = folder / "search.json", {name: content_hash(part) for name, part in parts.items()}
    if not kept.exists():
        write_json(kept, here)
        return
    there = read_json(kept, "the search")
    other = [name for name in here if here[name] != there.get(name)]
    if other:
        raise ConfigurationError(
            f"{folder} holds a search with another {' and '.join(other)}. Give this one a run_name of its "
            "own, or remove the folder. (Only hpo.trials and how they are run may change.)"
        )


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial of a search keeps its files."""
    return folder / "trials" / f"{number:04d}"


def read_trial(folder: Path, number: int, settings: Drawn) -> Trial:
    """What a trial has left in the folder of its search; nothing is known where it has not ended."""
    path = trial_folder(folder, number) / "result.json"
    if not path.exists():
        return Trial(number, settings)
    return parsed(read_json(path, "the search"), Trial, path, "the search")


def run_trial(
    folder: Path,
    number: int,
    settings: Drawn,
    train: Callable[[Drawn, Path], Learned],
    objective: ObjectiveSettings,
) -> Trial:
    """Train with the settings of a trial, judge on validation, and write what came of it, good or bad.

    Args:
        folder: Of the search.
        number: Which trial.
        settings: That were drawn.
        train: Trains with them; the checkpoints in the folder that it gets are those of a trial that was cut off. None
            are left of one that is finished.
        objective: Gives the deadtime.

    Raises:
        Exception: What the training raised, after it was recorded.
    """
    trial, place, started = Trial(number, settings), trial_folder(folder, number), time.monotonic()
    try:
        learned = train(settings, place / "checkpoints")
        judged: Any = learned.judge("validation")
        figures = objectives(judged.statistics, objective)
    except Exception as error:
        write_json(place / "result.json", replace(trial, error=f"{type(error).__name__}: {error}").to_dict())
        raise
    seconds = time.monotonic() - started
    trial = replace(trial, figures=figures, parameters=learned.num_parameters, seconds=seconds)
    write_json(place / "result.json", trial.to_dict())
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    return trial


def ranked(trials: Sequence[Trial], objective: ObjectiveSettings) -> list[Trial]:
    """Trials with their scores: the best first, then those that harm, then those without figures."""
    scored = [replace(one, score=one.figures.score(objective) if one.figures else None) for one in trials]
    return sorted(scored, key=lambda one: (one.score is None, -(one.score or 0.0), one.number))


def trouble(trials: Sequence[Trial], *, allow_failures: bool) -> str:
    """Why a search cannot count as one; empty if it does."""
    failed = [one for one in trials if one.status == "failed"]
    if failed and not allow_failures:
        first = failed[0]
        return (
            f"{len(failed)} trial(s) failed; number {first.number} with {first.settings}: {first.error}. "
            "Correct hpo.search_space, or set hpo.allow_failures=true; the finished trials are kept."
        )
    unfinished = [one for one in trials if one.status != "finished"]
    if len(unfinished) == len(trials):
        return "no trial was finished. Raise hpo.time_limit, or look at the table."
    if missing := len(unfinished) - len(failed):
        logger.warning("%d trial(s) were not finished in time; start again to go on", missing)
    return ""


def trials_table(trials: Sequence[Trial]) -> str:
    """All trials as CSV, in the order given."""
    columns = ["number", "status", "score", *_FIGURES, "parameters", "seconds", *trials[0].flat, "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for trial in trials:
        writer.writerow({**vars(trial), "status": trial.status, **trial.values, **trial.flat})
    return text.getvalue()


def trials_figure(trials: Sequence[Trial]) -> Figure:
    """Settings, figures and score of the finished trials, one line each."""
    finished = [one for one in trials if one.figures]
    axes = [_axis(name, [one.flat[name] for one in finished]) for name in finished[0].flat]
    axes += [Axis(name, np.array([getattr(one.figures, name) for one in finished])) for name in _FIGURES]
    score = np.array([one.score for one in finished])
    return plot_parallel(axes, score, title=f"{len(finished)} trials; dashed: harm above the limit")


def summarize(
    trials: Sequence[Trial], training_set: TrainingSet, outputs: Mapping[str, str], started: str
) -> RunSummary:
    """What a search did, the best trial first.

    Args:
        trials: From `ranked`.
        training_set: Of all trials.
        outputs: Paths by what they hold.
        started: When it began, ISO 8601, UTC.
    """
    best, finished = trials[0], sum(trial.status == "finished" for trial in trials)
    chosen = {"best settings": " ".join(best.overrides)} if best.figures else {}
    return RunSummary(
        pipeline="hpo_pipeline/Hyperparameter-search",
        started=started,
        inputs={"training set": str(training_set.folder), "trials": len(trials)},
        events=EventCounts.from_reasons(len(set(training_set.windows["event_id"])), ()),
        metrics={
            "trials_finished": Metric(float(finished)),
            **{key: Metric(value) for key, value in best.values.items()},
        },
        outputs={**outputs, **chosen},
        warnings=tuple(f"trial {one.number} failed: {one.error}" for one in trials if one.status == "failed"),
    )


def track(tracker: PartTracker, trials: Sequence[Trial], settings: SearchSettings) -> None:
    """Table, picture and figures of all trials, and each trial as a part.

    Args:
        tracker: Of the run of the search.
        trials: From `ranked`.
        settings: Of the search.
    """
    best = trials[0]
    drawn = {f"best_{key}": value for key, value in best.params.items()}
    tracker.params({"trials": len(trials), "epochs": settings.epochs, "seed": settings.seed, **drawn})
    for trial in trials:
        for key, value in trial.values.items():
            tracker.metric(key, value, trial.number)
    for key, value in best.values.items():
        tracker.metric(f"best_{key}", value, 0)
    tracker.text("trials.csv", trials_table(trials))
    if best.figures:
        tracker.figure("parallel", trials_figure(trials), 0)
    for trial in trials:
        tracker.part(f"trial {trial.number}", trial.params, trial.values, _ENDS[trial.status])


def _axis(name: str, values: Sequence[Any]) -> Axis:
    key = name.partition(".")[2]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, dtype=float)
        return Axis(key, numbers, logarithmic=bool((numbers > 0).all() and numbers.max() > 20 * numbers.min()))
    labels = sorted({str(value) for value in values})
    return Axis(key, np.array([float(labels.index(str(value))) for value in values]), labels=labels)
