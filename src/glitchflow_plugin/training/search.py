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

from glitchflow_plugin.data.files import atomic_path, content_hash, parsed, read_json, write_json
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.plots.parallel import Axis, plot_parallel
from glitchflow_plugin.products.pictures import Figure, save_figure
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
from glitchflow_plugin.settings import Count, CountOrAll, section
from glitchflow_plugin.tracking.tracker import Tracker
from glitchflow_plugin.training.objectives import Objectives, ObjectiveSettings, objectives
from glitchflow_plugin.training.trained_twin import TrainedTwin

logger = logging.getLogger(__name__)

Drawn: TypeAlias = dict[str, dict[str, object]]
"""Settings of a trial: by `config` (of training.yaml) or `model`, key and value."""

_PARTS = {"config": "training.config", "model": "model"}
"""Sections that settings are drawn for, and where they stand on the training's command line."""

_ENDS = {"finished": "FINISHED", "failed": "FAILED", "not run": "KILLED"}
"""How the part of a run that a trial is has ended."""

_RESULT = "result.json"
_FIGURES = tuple(one.name for one in fields(Objectives))


class PartTracker(Tracker, Protocol):
    """A tracker of a run that has parts, which have ended."""

    def part(self, name: str, params: Mapping[str, object], metrics: Mapping[str, float], status: str, /) -> None:
        """Record one part."""


@section
class SearchSettings:
    """The keys of hpo.yaml, which explains them; `search_space` stands in conf/model/, by `config` or `model`."""

    trials: Count = 20
    epochs: Count = 10
    seed: int = 0
    search_space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    cpus: CountOrAll = None
    cpus_per_trial: Count = 1
    gpus_per_trial: float = 0.0
    address: str | None = None
    time_limit: float | None = None
    allow_failures: bool = False

    def __post_init__(self) -> None:
        """Refuse a search of nothing."""
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


def nested(flat: Mapping[str, object]) -> Drawn:
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
        score: The figures as one number.
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
    def flat(self) -> dict[str, object]:
        """Settings by `config.key` or `model.key`."""
        return {f"{part}.{key}": value for part, keys in self.settings.items() for key, value in keys.items()}

    @property
    def params(self) -> dict[str, object]:
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


@dataclass(frozen=True)
class Search:
    """What is the same for all trials, and what was drawn for each.

    Attributes:
        settings: The keys of hpo.yaml.
        objective: The keys of `hpo.objective`.
        folder: Keeps what each trial leaves.
        trainer: Keywords of the training, for what is not drawn: `model`, `config`, `random_seed` among them.
        drawn: Settings by number of the trial.
    """

    settings: SearchSettings
    objective: ObjectiveSettings
    folder: Path
    trainer: Mapping[str, Any]
    drawn: Sequence[Drawn]

    def claim(self, training_set: TrainingSet) -> None:
        """Note what is searched; a folder holds one search.

        Raises:
            ConfigurationError: The folder holds another search.
        """
        parts = {
            "search_space": self.settings.search_space,
            "seed": self.settings.seed,
            "epochs": self.settings.epochs,
            "objective": self.settings.objective,
            "fixed settings": {key: self.trainer[key] for key in ("model", "config", "random_seed")},
            "training set": [training_set.fingerprint, training_set.scaling, training_set.split.train.event_ids],
        }
        kept, here = self.folder / "search.json", {name: content_hash(part) for name, part in parts.items()}
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

    def trials(self) -> list[Trial]:
        """What is known of each trial."""
        return [self._trial(number) for number in range(len(self.drawn))]

    def run(self, number: int, train: Callable[[Mapping[str, Any]], TrainedTwin]) -> Trial:
        """Train with the settings of a trial, judge on validation, and write what came of it, good or bad.

        Args:
            number: Which trial.
            train: Trains with keywords. A trial that was cut off finds its checkpoints again; none are left of one that
                is finished.

        Raises:
            Exception: What the training raised, after it was recorded.
        """
        folder, started, trial = self._folder(number), time.monotonic(), Trial(number, self.drawn[number])
        drawn = {part: {**self.trainer[part], **some} for part, some in trial.settings.items()}
        try:
            trained = train({**self.trainer, **drawn, "checkpoints": str(folder / "checkpoints")})
            judged: Any = trained.judge("validation")
            figures = objectives(judged.statistics, self.objective)
        except Exception as error:
            write_json(folder / _RESULT, replace(trial, error=f"{type(error).__name__}: {error}").to_dict())
            raise
        seconds = time.monotonic() - started
        trial = replace(trial, figures=figures, parameters=trained.num_parameters, seconds=seconds)
        write_json(folder / _RESULT, trial.to_dict())
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return trial

    def _folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def _trial(self, number: int) -> Trial:
        path = self._folder(number) / _RESULT
        if not path.exists():
            return Trial(number, self.drawn[number])
        return parsed(read_json(path, "the search"), Trial, path, "the search")


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


def write_results(trials: Sequence[Trial], folder: Path) -> dict[str, str]:
    """Write table and picture of the trials, and return their paths by what they hold."""
    table, picture = folder / "trials.csv", folder / "parallel.png"
    with atomic_path(table) as path:
        path.write_text(trials_table(trials), encoding="utf-8")
    if trials[0].figures:
        save_figure(trials_figure(trials), picture)
    return {"table": str(table), "picture": str(picture)}


def summarize(
    trials: Sequence[Trial], training_set: TrainingSet, outputs: Mapping[str, str], started: str
) -> RunSummary:
    """What a search did, the best trial first.

    Args:
        trials: From `ranked`.
        training_set: Windows that all trials were trained on.
        outputs: Paths by what they hold.
        started: Beginning, ISO 8601, UTC.
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
        tracker: The run of the search.
        trials: From `ranked`.
        settings: The keys of hpo.yaml.
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


def _axis(name: str, values: Sequence[object]) -> Axis:
    key = name.partition(".")[2]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, dtype=float)
        return Axis(key, numbers, logarithmic=bool((numbers > 0).all() and numbers.max() > 20 * numbers.min()))
    labels = sorted({str(value) for value in values})
    return Axis(key, np.array([float(labels.index(str(value))) for value in values]), labels=labels)
