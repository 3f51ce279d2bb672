"""The leaderboard: entrants trained on the same events, with the same seed and time, judged on the same others."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import torch

from glitchflow_plugin.data.files import content_hash, read_json, write_json
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.inference.leaderboard import (
    UNTRAINED,
    EntrantJudgement,
    HeldOut,
    LeaderboardSettings,
    Standings,
    judge_entrant,
    judge_trivial,
    standings,
)
from glitchflow_plugin.inference.predict import MapPredictor, Predictor, SeriesPredictor
from glitchflow_plugin.inference.trivial import TRIVIAL
from glitchflow_plugin.models.build import MODELS, check_network
from glitchflow_plugin.models.transfer import FRAME_SIZE, solve_transfer, transfer_sums
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.ingest import ingest_with_recipe
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.preprocessing.truth import measured_truth, read_glitch_truth
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, versions
from glitchflow_plugin.settings import built, section
from glitchflow_plugin.signal.columns import Columns, judged_pixels
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.training.baseline import BaselineSettings
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.evaluation import ZeroTwin
from glitchflow_plugin.training.learners import choose_learner
from glitchflow_plugin.training.trained_twin import TrainedTwin
from glitchflow_plugin.training.trust import trust
from glitchflow_plugin.training.waveform import WaveformLearner

logger = logging.getLogger(__name__)

ZERO = "zero"
"""Name of the model that predicts nothing."""

CLOSED_FORM = ("linear", "transfer", "wiener")
"""Models that are fitted in closed form, their ridge chosen on validation; no epoch is trained."""

_FORMAT = 2


@section
class Entrant:
    """One line of the leaderboard; conf/benchmark.yaml explains the keys."""

    model: Mapping[str, object]
    config: Mapping[str, object] = field(default_factory=dict)
    missing: bool = True

    def __post_init__(self) -> None:
        """Refuse a model that does not exist before others have been trained for minutes."""
        known = sorted({*MODELS, ZERO})
        if self.model.get("name") not in known:
            raise ConfigurationError(f"benchmark.yaml: expected a model name out of {known}, got {dict(self.model)}.")
        if self.kind != ZERO:
            check_network(self.model)

    @property
    def kind(self) -> str:
        """Name of its model."""
        return str(self.model["name"])

    @property
    def closed_form(self) -> bool:
        """Whether it is fitted in closed form in place of training."""
        return self.kind in CLOSED_FORM


Train: TypeAlias = Callable[[str, Entrant, TrainingSet], TrainedTwin]
"""Trains an entrant, whose name is given too, on a training set."""


@dataclass(frozen=True)
class Budget:
    """What ends a training, and the seed of its weights and order."""

    epochs: int
    random_seed: int
    max_minutes: float | None = None

    def keywords(self) -> dict[str, float]:
        """As the Trainer takes them; without a limit of time where there is none."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, eq=False)
class Contest:
    """What is the same for all entrants.

    Attributes:
        training_set: Windows that they are trained on.
        events: The event set that its maps were made of.
        held_out: Events that they are judged on, and their truth.
        settings: What they are asked, the keys of `benchmark.settings`.
        config: The keys of `training.config`.
        baseline: The keys of `training.baseline`.
        budget: How long each is trained.
        device: The one that trains and predicts.
    """

    training_set: TrainingSet
    events: EventSet
    held_out: HeldOut
    settings: LeaderboardSettings
    config: Mapping[str, object]
    baseline: Mapping[str, object]
    budget: Budget
    device: str

    def identity(self, entrants: Mapping[str, Entrant]) -> dict[str, Any]:
        """What decides about the standings, JSON-like."""
        return {
            "entrants": {name: asdict(entrant) for name, entrant in entrants.items()},
            "training": [self.config, self.baseline, self.budget.keywords()],
            "training set": self.training_set.fingerprint,
            "held out": self._judged_on(),
            "settings": asdict(self.settings),
        }

    def _judged_on(self) -> str:
        """What tells held-out events and truth from others."""
        return self.held_out.maps.manifest.fingerprint + (" as measured" if self.held_out.truth.measured else "")

    def conditions(self) -> str:
        """How the entrants are trained, a sentence."""
        budget, minutes = self.budget, self.budget.max_minutes
        limit = f"{budget.epochs} epochs" if minutes is None else f"{minutes:g} minutes"
        gpu = self.device.startswith("cuda")
        device = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} threads"
        return f"Each entrant trained for at most {limit} on the same events with seed {budget.random_seed} ({device})."

    def key(self, entrant: Entrant) -> str:
        """Checksum of what decides about a judgement; what concerns the comparison alone is left out."""
        training_set = self.training_set
        split = {part: training_set.split.part(part).event_ids for part in PARTS}
        used = replace(self.settings, accuracy_range=(1, 50), replicates=0, witness_snr=(1.0,), batch_events=1)
        untrained = entrant.kind == ZERO or entrant.closed_form
        return content_hash(
            {
                "format": _FORMAT,
                "versions": {package: versions().get(package) for package in ("glitchflow_plugin", "torch")},
                "entrant": {**asdict(entrant), "config": {**self.config, **entrant.config}},
                "training": [self.baseline, None if untrained else self.budget.keywords()],
                "device": torch.device(self.device).type,
                "events": self.events.manifest.fingerprint,
                "training set": [training_set.fingerprint, split, training_set.scaling, vars(training_set.settings)],
                "held out": self._judged_on(),
                "settings": asdict(used),
            }
        )


def entrants_of(content: Mapping[str, Mapping[str, object] | None]) -> dict[str, Entrant]:
    """Entrants from their section of benchmark.yaml, those without content left out.

    Raises:
        ConfigurationError: There is none, or a name cannot be one.
    """
    taken = sorted(set(content) & set(TRIVIAL))
    if taken:
        raise ConfigurationError(
            f"benchmark.yaml: {taken} are entrants of every leaderboard already. Give yours another name."
        )
    if not content:
        raise ConfigurationError("benchmark.yaml: expected at least one entrant, got none.")
    for name in content:
        check_name(name, "benchmark.yaml: name of an entrant")
    return {name: built(Entrant, one, f"benchmark.entrants.{name}") for name, one in content.items() if one}


def hold_out(
    datasets: Sequence[Mapping[str, Any]],
    truth: Path | str | None,
    training_set: TrainingSet,
    folder: Path,
    *,
    threshold: float,
    device: str,
    engine: EngineSettings,
) -> HeldOut:
    """Put raw events through the recipe of a training set, with what is known of their glitches.

    Args:
        datasets: The raw events, a list as in datasets.yaml.
        truth: Folder of the truth file; None: nothing is known but what the maps show.
        training_set: Has the channels and the recipe.
        folder: The sets `events` and `spectrograms` are made there; what is there already is kept.
        threshold: SNR² above which a pixel of the maps shows a glitch.
        device: The one that computes the maps.
        engine: Processes that make both.

    Raises:
        ConfigurationError: Events are in the training set too.
        FormatError: There is no truth file, or it lacks an event.
    """
    maps = training_set.open_spectrograms()
    recipe = Recipe.from_dict(maps.recipe)
    conditioning, transform = recipe.part("events"), QTransformSettings.from_recipe(recipe.part("qtransform"))
    series = ingest_with_recipe(datasets, conditioning, maps.channels, folder / "events", engine=engine)
    seen = sorted(set(series.event_ids) & set(maps.event_ids))
    if seen:
        raise ConfigurationError(
            f"{len(seen)} held-out events are in the training set too (the first is {seen[0]}). Correct held_out."
        )
    made = make_spectrograms(
        series,
        maps.channels[1:],
        transform,
        folder / "spectrograms",
        device=device,
        engine=engine,
        selection={"channels": "training set"},
    )
    inside = judged_pixels(made.frequencies, Columns(made.times), transform.qs)
    if truth is None:
        known = measured_truth(made, series.num_samples, threshold, inside)
    else:
        known = read_glitch_truth(truth, conditioning, made.event_ids, made.gps_start)
    return HeldOut(made, known, inside, series)


def compete(
    contest: Contest, entrants: Mapping[str, Entrant], train: Train, folder: Path
) -> tuple[Standings, dict[str, EntrantJudgement]]:
    """Train and judge every entrant, and compare them with each other and with what knows nothing of the witnesses.

    Args:
        contest: What is the same for all.
        entrants: Entrants by name.
        train: Trains one of them.
        folder: Has a file for each entrant: one that was judged before under the same conditions is not trained again.

    Returns:
        The standings, and what each entrant did.
    """
    judgements = {
        name: judged(contest, name, entrant, train, folder / f"{name}.json") for name, entrant in entrants.items()
    }
    judgements |= judge_trivial(contest.held_out, contest.settings)
    linear = [name for name, entrant in entrants.items() if entrant.closed_form]
    return standings(judgements, contest.held_out, contest.settings, linear), judgements


def summarize(
    contest: Contest, result: Standings, outputs: Mapping[str, str], former: Path | None, started: str
) -> RunSummary:
    """What a leaderboard did.

    Args:
        contest: What was the same for all entrants.
        result: The standings.
        outputs: Paths by what they hold.
        former: Folder to which results of other settings or data went; None: there were none.
        started: Beginning, ISO 8601, UTC.
    """
    maps = contest.held_out.maps
    medians = {name: row["median_net_removed"] for name, row in result.figures.items()}
    return RunSummary(
        pipeline="benchmark_pipeline/Leaderboard",
        started=started,
        inputs={"training set": str(contest.training_set.folder), "held out": str(maps.folder)},
        events=EventCounts.from_reasons(len(maps), maps.manifest.rejected.values()),
        metrics={f"median_net_removed_{name}": Metric(one.value, one.low, one.high) for name, one in medians.items()},
        outputs={**outputs, **({"former results": str(former)} if former else {})},
        details=result.to_dict(),
    )


def fit(contest: Contest, entrant: Entrant) -> TrainedTwin:
    """Fit an entrant in closed form: the linear rival of what its model looks at."""
    begun, lags = perf_counter(), entrant.model.get("lags")
    baseline = contest.baseline if lags is None else {**contest.baseline, "lags": lags}
    config = TrainingConfiguration.model_validate({**contest.config, **entrant.config})
    learner = choose_learner(
        contest.training_set,
        entrant.model,
        config,
        baseline=built(BaselineSettings, baseline, "training.baseline"),
        events=contest.events.folder,
    )
    untrained = TrainedTwin(learner, learner.twin(learner.network().to(contest.device)), config)
    if entrant.kind == "transfer" and isinstance(learner, WaveformLearner):
        sums = transfer_sums(len(learner.witnesses), int(str(entrant.model.get("frame_size") or FRAME_SIZE)))
        linear = learner.fit_linear(sums, partial(solve_transfer, sums), untrained.batches, untrained.device)
    else:
        linear = learner.baseline(untrained.twin, untrained.batches)
    return replace(untrained, twin=linear.twin, minutes=(perf_counter() - begun) / 60)


def judged(contest: Contest, name: str, entrant: Entrant, train: Train, path: Path) -> EntrantJudgement:
    """Train and judge an entrant, unless its file says what it did under the same conditions."""
    key = contest.key(entrant)
    if (kept := _kept(path, key)) is not None:
        logger.info("%s: judged before with the same settings and data", name)
        return kept
    logger.info("%s: training", name)
    predict, facts = _predictor(contest, name, entrant, train)
    logger.info("%s: judging", name)
    settings = contest.settings if entrant.missing else replace(contest.settings, missing=())
    judgement = judge_entrant(predict, contest.held_out, settings, facts)
    write_json(path, {"key": key, "entrant": asdict(entrant), "judgement": judgement.to_dict()})
    return EntrantJudgement.from_dict(read_json(path)["judgement"])


def _kept(path: Path, key: str) -> EntrantJudgement | None:
    try:
        content = read_json(path)
        return EntrantJudgement.from_dict(content["judgement"]) if content["key"] == key else None
    except (FormatError, KeyError, TypeError, AttributeError, ValueError):
        return None  # none, or not ours: made anew


def _predictor(contest: Contest, name: str, entrant: Entrant, train: Train) -> tuple[Predictor, Mapping[str, Any]]:
    """What predicts the held-out events, and what it took to get there."""
    held_out, settings = contest.held_out, contest.settings
    if entrant.kind == ZERO:
        nothing = MapPredictor(ZeroTwin(), len(held_out.maps.channels) - 1, contest.training_set.settings.size)
        return nothing, UNTRAINED
    trained = fit(contest, entrant) if entrant.closed_form else train(name, entrant, contest.training_set)
    if not entrant.closed_form:
        trained.calibrate()
    twin = trained.twin.eval()
    predict = trained.learner.predictor(twin)
    if isinstance(predict, MapPredictor):
        predict = replace(predict, stride=settings.stride)
    elif isinstance(predict, SeriesPredictor):  # of the training events until now
        # networks are compared by all that they predict, as in the gate: what the strain refuses would hide their harm
        predict = replace(predict, events=held_out.series, agree=False)
    facts: dict[str, Any] = {
        "parameters": trained.num_parameters,
        "minutes": trained.minutes,
        "epochs": trained.epochs,
    }
    if isinstance(twin, WaveformTwin) and twin.explains and held_out.series is not None:
        facts["trust"] = trust(
            twin,
            held_out.series,
            held_out.maps.channels,
            batch_events=settings.batch_events,
            seed=contest.budget.random_seed,
        )
    return predict, facts
